// Scatter-9, ScatterElements-11..18, ScatterND-11..18, TensorScatter-24: a copy of the data with some elements
// replaced.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

enum class Reduction : uint8_t { kNone, kAdd, kMul, kMax, kMin };

Result<Reduction> parse_reduction(const AttrMap& attrs) {
  const std::string_view name = attrs.get_string("reduction", "none");
  if (name == "none") return Reduction::kNone;
  if (name == "add") return Reduction::kAdd;
  if (name == "mul") return Reduction::kMul;
  if (name == "max") return Reduction::kMax;
  if (name == "min") return Reduction::kMin;
  return Status(Code::kBadModel, "unknown reduction '" + std::string(name) + "'");
}

// reduce(old, update) for one element; integers wrap, NaN wins in max and min, bool adds as or and multiplies as and.
template <Reduction kReduction, class T>
T reduce(T old_element, T update) {
  const auto a = load(old_element), b = load(update);
  using C = std::remove_const_t<decltype(a)>;
  if constexpr (kReduction == Reduction::kAdd || kReduction == Reduction::kMul) {
    if constexpr (std::is_integral_v<C>) {
      const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
      return static_cast<T>(kReduction == Reduction::kAdd ? x + y : x * y);
    } else {
      return store<T>(kReduction == Reduction::kAdd ? a + b : a * b);
    }
  } else {
    if constexpr (std::is_floating_point_v<C>) {
      if (std::isnan(a)) return old_element;
      if (std::isnan(b)) return update;
    }
    const bool take_old = kReduction == Reduction::kMax ? a >= b : a <= b;
    return take_old ? old_element : update;
  }
}

template <Reduction kReduction, class T>
struct Apply {
  void operator()(T* dst, const T* src, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) dst[i] = reduce<kReduction>(dst[i], src[i]);
  }
};

template <class T>
struct Replace {
  void operator()(T* dst, const T* src, int64_t count) const {
    std::memcpy(dst, src, static_cast<size_t>(count) * sizeof(T));
  }
};

// Calls fn(TypeTag<T>{}, apply), apply(dst, src, count) merging updates into the output.
template <class Fn>
Status dispatch_reduction(const RunContext& ctx, DType dtype, const Fn& fn) {
  SPRUN_ASSIGN(Reduction reduction, at_node(ctx, parse_reduction(ctx.attrs())));
  if (reduction == Reduction::kNone) {
    return dispatch_size(ctx, dtype, [&](auto tag) { return fn(tag, Replace<typename decltype(tag)::type>{}); });
  }
  if (dtype == DType::kBool) {  // on 0 and 1, or is max and and is min
    if (reduction == Reduction::kAdd) reduction = Reduction::kMax;
    if (reduction == Reduction::kMul) reduction = Reduction::kMin;
    dtype = DType::kU8;
  }
  if (dtype == DType::kU4 || dtype == DType::kS4) return ctx.error("reductions of 4-bit integers are not supported");
  return dispatch_numeric(ctx, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (reduction) {
      case Reduction::kNone:
        break;
      case Reduction::kAdd:
        return fn(tag, Apply<Reduction::kAdd, T>{});
      case Reduction::kMul:
        return fn(tag, Apply<Reduction::kMul, T>{});
      case Reduction::kMax:
        return fn(tag, Apply<Reduction::kMax, T>{});
      case Reduction::kMin:
        return fn(tag, Apply<Reduction::kMin, T>{});
    }
    return Status();
  });
}

// --- Scatter, ScatterElements: out[indices[i][j]][j] = updates[i][j] for axis 0, and so on

Status infer_scatter_elements(InferContext& ctx) {
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1), &updates = ctx.shape(2);
  SPRUN_TRY(check_index_type(ctx, ctx.dtype(1)));
  SPRUN_TRY(check_same_dtype(ctx, 0, 2));
  SPRUN_TRY(at_node(ctx, parse_reduction(ctx.attrs())).status());
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", 0), data.rank())));
  bool fits = indices.rank() == data.rank() && updates == indices;
  for (int i = 0; fits && i < data.rank(); ++i) fits = i == axis || indices[i] <= data[i];
  if (!fits) {
    return ctx.error("data " + data.to_string() + ", indices " + indices.to_string() + " and updates " +
                     updates.to_string() + " do not fit together");
  }
  ctx.set_output(0, ctx.dtype(0), data);
  return {};
}

// One thread: the same element may be hit more than once, and the order of the hits matters.
template <class T, class Index, class Merge>
void scatter_elements(const RunContext& ctx, int axis, const Merge& merge) {
  const ConstTensorView &indices = ctx.input(1), &updates = ctx.input(2);
  const Shape& shape = indices.shape;
  const Shape& data_shape = ctx.output(0).shape;
  const auto strides = row_major_strides(data_shape);
  const int64_t size = data_shape[axis], count = shape.num_elements();
  T* out = ctx.output(0).as<T>();
  std::array<int64_t, kMaxRank> x{};
  int64_t offset = 0;  // of position x without its axis coordinate
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = indices.as<Index>()[i];
    merge(out + offset + (at < 0 ? at + size : at) * strides[static_cast<size_t>(axis)], updates.as<T>() + i, 1);
    for (int k = shape.rank(); k-- > 0;) {
      const auto d = static_cast<size_t>(k);
      const int64_t stride = k == axis ? 0 : strides[d];
      offset += stride;
      if (++x[d] < shape[k]) break;
      offset -= stride * shape[k];
      x[d] = 0;
    }
  }
}

Status run_scatter_elements(RunContext& ctx) {
  const ConstTensorView& indices = ctx.input(1);
  const Shape& data = ctx.input(0).shape;
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), data.rank()));
  return dispatch_index(ctx, indices.dtype, [&](auto index_tag) {
    using Index = typename decltype(index_tag)::type;
    SPRUN_TRY(check_indices(ctx, indices.as<Index>(), indices.num_elements(), axis, data[axis]));
    copy_through(ctx);
    return dispatch_reduction(ctx, ctx.input(0).dtype, [&](auto tag, const auto& merge) {
      scatter_elements<typename decltype(tag)::type, Index>(ctx, axis, merge);
      return Status();
    });
  });
}

// --- ScatterND: the last axis of indices holds tuples that address slices of data

Status infer_scatter_nd(InferContext& ctx) {
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1), &updates = ctx.shape(2);
  SPRUN_TRY(check_index_type(ctx, ctx.dtype(1)));
  SPRUN_TRY(check_same_dtype(ctx, 0, 2));
  SPRUN_TRY(at_node(ctx, parse_reduction(ctx.attrs())).status());
  const std::string shapes = "data " + data.to_string() + ", indices " + indices.to_string() + " and updates " +
                             updates.to_string() + " do not fit together";
  if (indices.rank() < 1 || data.rank() < 1 || indices.back() > data.rank()) return ctx.error(shapes);
  std::vector<int64_t> expected(indices.dims().begin(), indices.dims().end() - 1);
  expected.insert(expected.end(), data.dims().begin() + indices.back(), data.dims().end());
  if (!std::equal(expected.begin(), expected.end(), updates.dims().begin(), updates.dims().end())) {
    return ctx.error(shapes);
  }
  ctx.set_output(0, ctx.dtype(0), data);
  return {};
}

template <class T, class Index, class Merge>
void scatter_slices(const RunContext& ctx, int64_t count, int tuple, const Merge& merge) {
  const Shape& data = ctx.input(0).shape;
  const auto strides = row_major_strides(data);
  const int64_t slice = data.num_elements(tuple, data.rank());
  const auto* index = ctx.input(1).as<Index>();
  const T* updates = ctx.input(2).as<T>();
  T* out = ctx.output(0).as<T>();
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset = 0;
    for (int k = 0; k < tuple; ++k) {
      const int64_t at = index[i * tuple + k];
      offset += (at < 0 ? at + data[k] : at) * strides[static_cast<size_t>(k)];
    }
    merge(out + offset, updates + i * slice, slice);
  }
}

Status run_scatter_nd(RunContext& ctx) {
  const ConstTensorView& indices = ctx.input(1);
  const Shape& data = ctx.input(0).shape;
  const int tuple = static_cast<int>(indices.shape.back());
  const int64_t count = indices.shape.num_elements(0, indices.shape.rank() - 1);
  return dispatch_index(ctx, indices.dtype, [&](auto index_tag) {
    using Index = typename decltype(index_tag)::type;
    for (int64_t i = 0; i < count * tuple; ++i) {
      const int axis = static_cast<int>(i % tuple);
      SPRUN_TRY(check_indices(ctx, indices.as<Index>() + i, 1, axis, data[axis]));
    }
    copy_through(ctx);
    if (ctx.input(2).num_elements() == 0) return Status();
    return dispatch_reduction(ctx, ctx.input(0).dtype, [&](auto tag, const auto& merge) {
      scatter_slices<typename decltype(tag)::type, Index>(ctx, count, tuple, merge);
      return Status();
    });
  });
}

// --- TensorScatter: writes `update` into the cache along `axis`, from write_indices[batch] on

Status infer_tensor_scatter(InferContext& ctx) {
  const Shape &cache = ctx.shape(0), &update = ctx.shape(1);
  SPRUN_TRY(check_same_dtype(ctx, 0, 1));
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", -2), cache.rank())));
  if (axis == 0) return ctx.error("axis 0 is the batch");
  bool fits = update.rank() == cache.rank();
  for (int i = 0; fits && i < cache.rank(); ++i) fits = i == axis ? update[i] <= cache[i] : update[i] == cache[i];
  if (!fits) return ctx.error("update " + update.to_string() + " does not fit the cache " + cache.to_string());
  if (ctx.has_input(2)) {
    SPRUN_TRY(check_index_type(ctx, ctx.dtype(2)));
    if (ctx.shape(2) != Shape{cache[0]})
      return ctx.error("write_indices must have shape [" + std::to_string(cache[0]) + "]");
  }
  const std::string_view mode = ctx.attrs().get_string("mode", "linear");
  if (mode != "linear" && mode != "circular") return ctx.error("unknown mode '" + std::string(mode) + "'");
  ctx.set_output(0, ctx.dtype(0), cache);
  return {};
}

Status run_tensor_scatter(RunContext& ctx) {
  const ConstTensorView &cache = ctx.input(0), &update = ctx.input(1);
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", -2), cache.shape.rank()));
  const bool circular = ctx.attrs().get_string("mode", "linear") == "circular";
  const int64_t length = update.shape[axis], capacity = cache.shape[axis], batch = cache.shape[0];
  const int64_t row_bytes = cache.shape.num_elements(axis + 1, cache.shape.rank()) * dtype_size(cache.dtype);
  const int64_t prefixes = cache.shape.num_elements(1, axis);
  copy_through(ctx);
  if (update.num_elements() == 0) return {};
  auto* out = ctx.output(0).as<char>();
  const auto* src = static_cast<const char*>(update.data);
  for (int64_t b = 0; b < batch; ++b) {
    int64_t start = 0;
    if (ctx.has_input(2)) {
      const ConstTensorView& starts = ctx.input(2);
      start = starts.dtype == DType::kS64 ? starts.as<int64_t>()[b] : starts.as<int32_t>()[b];
    }
    if (start < 0 || (!circular && start > capacity - length)) {
      return ctx.error("write index " + std::to_string(start) + " plus length " + std::to_string(length) +
                       " leaves the cache of " + std::to_string(capacity) + " along axis " + std::to_string(axis));
    }
    start %= capacity;
    const int64_t first = std::min(length, capacity - start);  // before the circular cache wraps
    for (int64_t p = b * prefixes; p < (b + 1) * prefixes; ++p) {
      char* to = out + p * capacity * row_bytes;
      const char* from = src + p * length * row_bytes;
      std::memcpy(to + start * row_bytes, from, static_cast<size_t>(first * row_bytes));
      std::memcpy(to, from + first * row_bytes, static_cast<size_t>((length - first) * row_bytes));
    }
  }
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Scatter",
     .since = 9,
     .inputs = {3, 3},
     .infer = infer_scatter_elements,
     .run = run_scatter_elements,
     .flags = kInPlace},
    {.name = "ScatterElements",
     .since = 11,
     .inputs = {3, 3},
     .infer = infer_scatter_elements,
     .run = run_scatter_elements,
     .flags = kInPlace},
    {.name = "ScatterND",
     .since = 11,
     .inputs = {3, 3},
     .infer = infer_scatter_nd,
     .run = run_scatter_nd,
     .flags = kInPlace},
    {.name = "TensorScatter",
     .since = 24,
     .inputs = {2, 3},
     .infer = infer_tensor_scatter,
     .run = run_tensor_scatter,
     .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_scatter_ops;
const std::span<const OpDef> k_scatter_ops = kOps;

}  // namespace sprun::graph
