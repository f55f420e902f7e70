// Unique-11, 28: the distinct elements of the flattened input, or the distinct slices along `axis`.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// The input as [outer, size, inner]: slice s is every element [o, s, i].
struct Slices {
  int64_t outer = 1, size = 0, inner = 1;
};

template <class Ctx>
Result<Slices> read_slices(const Ctx& ctx, const Shape& in) {
  if (!ctx.attrs().has("axis")) return Slices{1, in.num_elements(), 1};
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), in.rank()));
  return Slices{in.num_elements(0, axis), in[axis], in.num_elements(axis + 1, in.rank())};
}

Status infer_unique(InferContext& ctx) {
  SPRUN_TRY(at_node(ctx, read_slices(ctx, ctx.shape(0))).status());
  return ctx.needs_data();
}

// -1, 0, 1; NaN equals NaN and is larger than every number.
template <class T>
int compare(T a, T b) {
  const auto x = load(a), y = load(b);
  if constexpr (std::is_floating_point_v<ComputeType<T>>) {
    if (std::isnan(x) || std::isnan(y)) return static_cast<int>(std::isnan(x)) - static_cast<int>(std::isnan(y));
  }
  return x < y ? -1 : static_cast<int>(y < x);
}

template <class T>
int compare_slices(const T* data, const Slices& s, int64_t a, int64_t b) {
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      const int order = compare(data[(o * s.size + a) * s.inner + i], data[(o * s.size + b) * s.inner + i]);
      if (order != 0) return order;
    }
  }
  return 0;
}

struct UniqueResult {
  std::vector<int64_t> first;    // of each distinct slice, its first position in the input
  std::vector<int64_t> inverse;  // of each slice of the input, its position in `first`
  std::vector<int64_t> counts;   // of each distinct slice, how often it occurs
};

template <class T>
UniqueResult find_unique(const T* data, const Slices& slices, bool sorted) {
  std::vector<int64_t> order(static_cast<size_t>(slices.size));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const int result = compare_slices(data, slices, a, b);
    return result != 0 ? result < 0 : a < b;
  });
  UniqueResult result;
  result.inverse.resize(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || compare_slices(data, slices, order[i - 1], order[i]) != 0) {
      result.first.push_back(order[i]);
      result.counts.push_back(0);
    }
    ++result.counts.back();
    result.inverse[static_cast<size_t>(order[i])] = static_cast<int64_t>(result.first.size()) - 1;
  }
  if (sorted) return result;
  // Order of first occurrence: renumber the distinct slices.
  std::vector<size_t> by_first(result.first.size());
  std::iota(by_first.begin(), by_first.end(), size_t{0});
  std::sort(by_first.begin(), by_first.end(), [&](size_t a, size_t b) { return result.first[a] < result.first[b]; });
  UniqueResult renumbered;
  std::vector<int64_t> new_position(by_first.size());
  for (size_t i = 0; i < by_first.size(); ++i) {
    new_position[by_first[i]] = static_cast<int64_t>(i);
    renumbered.first.push_back(result.first[by_first[i]]);
    renumbered.counts.push_back(result.counts[by_first[i]]);
  }
  for (int64_t old : result.inverse) renumbered.inverse.push_back(new_position[static_cast<size_t>(old)]);
  return renumbered;
}

Status write_list(RunContext& ctx, int output, const std::vector<int64_t>& list) {
  if (ctx.node().output(static_cast<size_t>(output)) == kNoValue) return {};
  SPRUN_ASSIGN(const TensorView view, ctx.alloc_output(output, DType::kS64, {static_cast<int64_t>(list.size())}));
  std::copy(list.begin(), list.end(), view.as<int64_t>());
  return {};
}

Status write_values(RunContext& ctx, const Slices& slices, const UniqueResult& result) {
  const ConstTensorView& in = ctx.input(0);
  if (ctx.node().output(0) == kNoValue) return {};
  const auto count = static_cast<int64_t>(result.first.size());
  Shape shape{count};
  if (ctx.attrs().has("axis")) {
    SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), in.shape.rank()));
    shape = in.shape;
    shape[axis] = count;
  }
  SPRUN_ASSIGN(const TensorView out, ctx.alloc_output(0, in.dtype, shape));
  if (out.num_elements() == 0) return {};
  const int64_t row_bytes = slices.inner * dtype_size(in.dtype);
  char* to = out.as<char>();
  for (int64_t o = 0; o < slices.outer; ++o) {
    for (const int64_t slice : result.first) {
      std::memcpy(to, in.as<char>() + (o * slices.size + slice) * row_bytes, static_cast<size_t>(row_bytes));
      to += row_bytes;
    }
  }
  return {};
}

Status run_unique(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  SPRUN_ASSIGN(const Slices slices, at_node(ctx, read_slices(ctx, in.shape)));
  if (slices.size > 0 && in.num_elements() == 0) {
    return ctx.error("the slices of " + in.shape.to_string() + " have no elements to compare");
  }
  const bool sorted = ctx.attrs().get_int("sorted", 1) != 0;
  UniqueResult result;
  SPRUN_TRY(dispatch_numeric(ctx, in.dtype == DType::kBool ? DType::kU8 : in.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    result = find_unique(in.as<T>(), slices, sorted);
    return Status();
  }));
  SPRUN_TRY(write_values(ctx, slices, result));
  SPRUN_TRY(write_list(ctx, 1, result.first));
  SPRUN_TRY(write_list(ctx, 2, result.inverse));
  return write_list(ctx, 3, result.counts);
}

constexpr OpDef kOps[] = {
    {.name = "Unique",
     .since = 11,
     .outputs = {1, 4},
     .infer = infer_unique,
     .run = run_unique,
     .flags = kDynamicOutput},
};

}  // namespace

extern const std::span<const OpDef> k_unique_ops;
const std::span<const OpDef> k_unique_ops = kOps;

}  // namespace sprun::graph
