// Helpers of the ops that move elements: index dispatch, pass-through copies, sizes as text.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "graph/ops/op.h"
#include "graph/ops/op_util.h"
#include "kernels/move/strided_copy.h"

namespace sprun::graph {

// Calls fn(TypeTag<int32_t or int64_t>{}) for the element type of an index tensor and returns its Status.
template <class Ctx, class Fn>
Status dispatch_index(const Ctx& ctx, DType dtype, const Fn& fn) {
  if (dtype == DType::kS64) return fn(TypeTag<int64_t>{});
  if (dtype == DType::kS32) return fn(TypeTag<int32_t>{});
  return ctx.error("indices must be int32 or int64, got " + std::string(dtype_name(dtype)));
}

// Checks the element type of an index input without reading it.
template <class Ctx>
Status check_index_type(const Ctx& ctx, DType dtype) {
  return dispatch_index(ctx, dtype, [](auto) { return Status(); });
}

// The error of an index outside [-size, size).
inline Status index_error(const RunContext& ctx, int64_t index, int axis, int64_t size) {
  return ctx.error("index " + std::to_string(index) + " is outside [-" + std::to_string(size) + ", " +
                   std::to_string(size) + ") of axis " + std::to_string(axis));
}

// Every one of the `count` indices must lie in [-size, size).
template <class Index>
Status check_indices(const RunContext& ctx, const Index* indices, int64_t count, int axis, int64_t size) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = indices[i];
    if (index < -size || index >= size) return index_error(ctx, index, axis, size);
  }
  return {};
}

// Output 0 becomes the bytes of input 0; nothing to do when they share memory.
inline void copy_through(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  if (in.data != out.data) kernels::parallel_copy(in.data, out.data, out.size_bytes(), ctx.pool());
}

// run() of ops that only change the shape, for executors that do not alias the output.
inline Status run_copy_through(RunContext& ctx) {
  copy_through(ctx);
  return {};
}

// The error for inputs i and j of different element types, or ok.
inline Status check_same_dtype(const InferContext& ctx, int i, int j) {
  if (ctx.dtype(i) == ctx.dtype(j)) return {};
  return ctx.error("inputs " + std::to_string(i) + " and " + std::to_string(j) + " have different element types, " +
                   std::string(dtype_name(ctx.dtype(i))) + " and " + std::string(dtype_name(ctx.dtype(j))));
}

// Attribute `dtype` and its like: the number of a TensorProto element type. kBadModel if it is not one that has memory.
inline Result<DType> dtype_from_number(int64_t number) {
  const auto dtype = static_cast<DType>(number >= 0 && number < 256 ? number : 0);
  if (dtype_size(dtype) == 0) {
    return Status(Code::kBadModel, "element type number " + std::to_string(number) + " is not supported");
  }
  return dtype;
}

// A float or double as any element type: rounds to nearest even and saturates for integers, NaN becomes 0 there.
template <class T, class C>
T store_saturating(C v) {
  if constexpr (std::is_integral_v<T>) {
    if (std::isnan(v)) return 0;
    const double rounded = std::nearbyint(static_cast<double>(v));
    constexpr T kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
    if (rounded <= static_cast<double>(kLow)) return kLow;
    return rounded >= static_cast<double>(kHigh) ? kHigh : static_cast<T>(rounded);
  } else {
    return store<T>(v);
  }
}

// At most kMaxRank numbers, one per axis, held inline: run() reads its small inputs without allocating.
struct SmallInts {
  std::array<int64_t, kMaxRank> values{};
  int count = 0;
  int64_t operator[](int i) const { return values[static_cast<size_t>(i)]; }
};

// An int32 or int64 tensor of at most kMaxRank elements. kBadModel otherwise. Precondition: the data is known.
inline Result<SmallInts> read_small_ints(const ConstTensorView& view) {
  if (view.num_elements() > kMaxRank || (view.dtype != DType::kS64 && view.dtype != DType::kS32)) {
    return Status(Code::kBadModel, "expected at most " + std::to_string(kMaxRank) + " int32 or int64 numbers, got " +
                                       std::string(dtype_name(view.dtype)) + view.shape.to_string());
  }
  SmallInts ints;
  ints.count = static_cast<int>(view.num_elements());
  for (int i = 0; i < ints.count; ++i) {
    ints.values[static_cast<size_t>(i)] = view.dtype == DType::kS64 ? view.as<int64_t>()[i] : view.as<int32_t>()[i];
  }
  return ints;
}

inline Result<SmallInts> small_ints(std::span<const int64_t> list) {
  if (list.size() > kMaxRank)
    return Status(Code::kBadModel, "a list has more than " + std::to_string(kMaxRank) + " numbers");
  SmallInts ints;
  ints.count = static_cast<int>(list.size());
  std::copy(list.begin(), list.end(), ints.values.begin());
  return ints;
}

}  // namespace sprun::graph
