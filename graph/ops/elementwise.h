// Shared machinery of ops that map each element to one element: dtype handling and parallel loops.
// 16-bit floats go through blocks of float, so that an op needs a body for float and double only.
#pragma once

#include <cstdint>

#include "graph/ops/broadcast.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {

// n elements of float16 or bfloat16 to float, and back with rounding to nearest even.
void widen(DType dtype, const void* src, float* dst, int64_t n);
void narrow(DType dtype, const float* src, void* dst, int64_t n);

// Elements converted at a time; three float blocks fit the first-level cache many times.
inline constexpr int64_t kHalfBlock = 512;

// y[i] = f(x[i]) for n elements; y may be x. a and b parametrise the operation (alpha, bounds,
// ...). The same type as the float kernels have.
template <class T>
using MapFn = void(const T* x, T* y, int64_t n, float a, float b);

struct MapParams {
  float a = 0, b = 0;
};

// F is constructed from MapParams and called with one element.
template <class T, class F>
void map_elements(const T* x, T* y, int64_t n, float a, float b) {
  const F f{MapParams{a, b}};
  for (int64_t i = 0; i < n; ++i) y[i] = f(x[i]);
}

// Input 0 to output 0 for the four float types; error for others.
Status run_float_map(RunContext& ctx, MapFn<float>* f32, MapFn<double>* f64, MapParams params,
                     int64_t grain);

// Names the float kernels in the plan where input 0 is of a float type that they serve.
Status prepare_elementwise(PrepareContext& ctx);

// Input 0 to output 0 of element types T and R, in parallel: fn(const T* x, R* y, n).
template <class T, class R, class Fn>
Status run_typed_map(RunContext& ctx, int64_t grain, const Fn& fn) {
  const T* x = ctx.input(0).as<T>();
  R* y = ctx.output(0).as<R>();
  ctx.pool().parallel_for(
      ctx.output(0).num_elements(), grain,
      [&](int64_t begin, int64_t end, int) { fn(x + begin, y + begin, end - begin); });
  return {};
}

// --- two inputs

// Output 0 gets the broadcast shape of inputs 0 and 1, which must have the same dtype, and that
// dtype or bool.
Status infer_binary(InferContext& ctx);
Status infer_binary_bool(InferContext& ctx);

// Shape of input 1 as the broadcast sees it: up to opset 6, attribute `axis` says where it starts
// in input 0.
Result<Shape> second_shape(const AttrMap& attrs, int opset, const Shape& a, const Shape& b);

// How to run an operation over the broadcast of inputs 0 and 1.
struct BinaryRun {
  RowFn* row =
      nullptr;  // for the dtype of input 0; nullptr: only 16-bit floats, by way of float rows
  RowFn* f32_row = nullptr;      // for 16-bit floats
  bool narrow_output = true;     // f32_row writes floats that become 16-bit floats again, not bools
  const void* params = nullptr;  // RowArgs::params of `row`
  int64_t grain = kCheapGrain;
  const Shape* second = nullptr;  // shape of input 1 in the broadcast; nullptr: second_shape()
};
Status run_binary(RunContext& ctx, const BinaryRun& run);

// The row function for dtype when Op has `static T apply(T, T)` (or bool) for float, double and the
// unsigned integers of the same width: for operations that do not care about the sign (addition,
// bit operations, equality). nullptr for 16-bit floats and other types.
template <class Op, class R = void>
RowFn* sign_free_row(DType dtype) {
  const auto of = []<class T>(TypeTag<T>) -> RowFn* {
    using Out = std::conditional_t<std::is_void_v<R>, T, R>;
    return binary_row<T, Out, Op>;
  };
  switch (dtype) {
    case DType::kF32:
      return of(TypeTag<float>{});
    case DType::kF64:
      return of(TypeTag<double>{});
    case DType::kU8:
    case DType::kS8:
    case DType::kU4:
    case DType::kS4:
      return of(TypeTag<uint8_t>{});
    case DType::kU16:
    case DType::kS16:
      return of(TypeTag<uint16_t>{});
    case DType::kU32:
    case DType::kS32:
      return of(TypeTag<uint32_t>{});
    case DType::kU64:
    case DType::kS64:
      return of(TypeTag<uint64_t>{});
    default:
      return nullptr;
  }
}

// The row function for dtype when the sign matters. nullptr for 16-bit floats and other types.
template <class Op, class R = void>
RowFn* signed_row(DType dtype) {
  const auto of = []<class T>(TypeTag<T>) -> RowFn* {
    using Out = std::conditional_t<std::is_void_v<R>, T, R>;
    return binary_row<T, Out, Op>;
  };
  switch (dtype) {
    case DType::kS4:
    case DType::kS8:
      return of(TypeTag<int8_t>{});
    case DType::kS16:
      return of(TypeTag<int16_t>{});
    case DType::kS32:
      return of(TypeTag<int32_t>{});
    case DType::kS64:
      return of(TypeTag<int64_t>{});
    default:
      return sign_free_row<Op, R>(dtype);
  }
}

// 4-bit results must stay in range; no arithmetic op takes 4-bit types, so they are refused.
inline bool is_4bit(DType dtype) { return dtype == DType::kU4 || dtype == DType::kS4; }

// float and double to integer without undefined behaviour: truncates, then keeps the low bits as
// x86 does; NaN and values outside the range give the smallest integer of the converted width.
template <class T>
inline T float_to_int(double v) {
  const auto to_s64 = [](double d) {
    return d >= -0x1p63 && d < 0x1p63 ? static_cast<int64_t>(d)
                                      : std::numeric_limits<int64_t>::min();
  };
  if constexpr (std::is_same_v<T, uint64_t>) {
    if (v >= 0x1p63) return static_cast<uint64_t>(to_s64(v - 0x1p63)) ^ (uint64_t{1} << 63);
    return static_cast<uint64_t>(to_s64(v));
  } else if constexpr (sizeof(T) >= 4 && !std::is_same_v<T, int32_t>) {
    return static_cast<T>(to_s64(v));
  } else {
    return static_cast<T>(v > -2147483649.0 && v < 2147483648.0
                              ? static_cast<int32_t>(v)
                              : std::numeric_limits<int32_t>::min());
  }
}

}  // namespace sprun::graph
