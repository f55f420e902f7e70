// Helpers that many ops share: axes, broadcasting, reading small integer inputs, dispatch on the element type.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "graph/ops/op.h"
#include "runtime/base/half.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

// axis in [-rank, rank) -> [0, rank). kBadModel otherwise.
Result<int> normalize_axis(int64_t axis, int rank);
// Several axes; also refuses duplicates. Result is in the order given.
Result<std::vector<int>> normalize_axes(std::span<const int64_t> axes, int rank);

// NumPy broadcasting of two shapes. kBadModel naming both when they do not fit, kResourceLimit when too large.
Result<Shape> broadcast_shapes(const Shape& a, const Shape& b);

// Element strides of row-major `shape`, seen through the output shape `out`: 0 where the axis is broadcast.
// Precondition: shape broadcasts to out.
std::array<int64_t, kMaxRank> broadcast_strides(const Shape& shape, const Shape& out);
// Element strides of a row-major shape.
std::array<int64_t, kMaxRank> row_major_strides(const Shape& shape);

// The elements of a small integer tensor (int32 or int64, any rank) as int64. Precondition: view.data is set.
// kBadModel for other dtypes.
Result<std::vector<int64_t>> read_ints(const ConstTensorView& view);
// One element of a scalar or one-element tensor as double / int64; kBadModel for other sizes or for strings.
Result<double> read_scalar(const ConstTensorView& view);
Result<int64_t> read_scalar_int(const ConstTensorView& view);

// Attribute `name` (older opsets) or input `index` (newer ones) as ints; nullopt when neither is there.
// In infer(): if the input exists without data, *missing is set to true and the op should return needs_data().
Result<std::optional<std::vector<int64_t>>> ints_from_input_or_attr(const InferContext& ctx, int index,
                                                                    std::string_view name, bool* missing);
Result<std::optional<std::vector<int64_t>>> ints_from_input_or_attr(const RunContext& ctx, int index,
                                                                    std::string_view name);

// A failed result gets the op and node name in front: SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(a, r))).
// Keeps the code of the status.
template <class Ctx>
Status at_node(const Ctx& ctx, Status status) {
  return status.ok() ? status : Status(status.code(), ctx.error(status.message()).message());
}
template <class Ctx, class T>
Result<T> at_node(const Ctx& ctx, Result<T> result) {
  if (result.ok()) return result;
  return at_node(ctx, result.status());
}

// infer() of ops whose output 0 has the type and shape of input 0.
Status infer_same_as_input(InferContext& ctx);

template <class T>
struct TypeTag {
  using type = T;
};

// Calls fn(TypeTag<T>{}) for the C++ type of dtype and returns its Status; kNotSupported-style error from `unsupported`
// when dtype is not in the set. 4-bit types dispatch as their 8-bit storage.
//   return dispatch_numeric(ctx, dtype, [&](auto tag) { using T = typename decltype(tag)::type; ... return Status(); });
template <class Ctx, class Fn>
Status dispatch_real(const Ctx& ctx, DType dtype, const Fn& fn) {  // f32 f64 f16 bf16
  switch (dtype) {
    case DType::kF32: return fn(TypeTag<float>{});
    case DType::kF64: return fn(TypeTag<double>{});
    case DType::kF16: return fn(TypeTag<Float16>{});
    case DType::kBf16: return fn(TypeTag<BFloat16>{});
    default: return ctx.error("element type " + std::string(dtype_name(dtype)) + " is not supported, expected a float type");
  }
}

template <class Ctx, class Fn>
Status dispatch_int(const Ctx& ctx, DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kU4:
    case DType::kU8: return fn(TypeTag<uint8_t>{});
    case DType::kS4:
    case DType::kS8: return fn(TypeTag<int8_t>{});
    case DType::kU16: return fn(TypeTag<uint16_t>{});
    case DType::kS16: return fn(TypeTag<int16_t>{});
    case DType::kU32: return fn(TypeTag<uint32_t>{});
    case DType::kS32: return fn(TypeTag<int32_t>{});
    case DType::kU64: return fn(TypeTag<uint64_t>{});
    case DType::kS64: return fn(TypeTag<int64_t>{});
    default: return ctx.error("element type " + std::string(dtype_name(dtype)) + " is not supported");
  }
}

template <class Ctx, class Fn>
Status dispatch_numeric(const Ctx& ctx, DType dtype, const Fn& fn) {  // every float and integer type
  return is_float(dtype) ? dispatch_real(ctx, dtype, fn) : dispatch_int(ctx, dtype, fn);
}

// Data movement cares about the element size only: uint8_t, uint16_t, uint32_t or uint64_t.
template <class Ctx, class Fn>
Status dispatch_size(const Ctx& ctx, DType dtype, const Fn& fn) {
  switch (dtype_size(dtype)) {
    case 1: return fn(TypeTag<uint8_t>{});
    case 2: return fn(TypeTag<uint16_t>{});
    case 4: return fn(TypeTag<uint32_t>{});
    case 8: return fn(TypeTag<uint64_t>{});
    default: return ctx.error("element type " + std::string(dtype_name(dtype)) + " is not supported");
  }
}

// Load as the type arithmetic is done in (16-bit floats compute in float) and store back with rounding.
template <class T>
using ComputeType = std::conditional_t<std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>, float, T>;

template <class T>
inline ComputeType<T> load(T v) {
  if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) return to_float(v);
  else return v;
}

template <class T, class C>
inline T store(C v) {
  if constexpr (std::is_same_v<T, Float16>) return to_float16(v);
  else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(v);
  else return static_cast<T>(v);
}

}  // namespace sprun::graph
