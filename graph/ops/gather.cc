// Gather-1..13, GatherElements-11..13, GatherND-11..13: reading by index. Negative indices count from the end.
#include <algorithm>
#include <cstring>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

constexpr int64_t kGrainElements = 16384;

// --- Gather: out[before..., indices..., after...] = data[before..., indices[...], after...]

Status infer_gather(InferContext& ctx) {
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1);
  SPRUN_TRY(check_index_type(ctx, ctx.dtype(1)));
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", 0), data.rank())));
  std::vector<int64_t> dims(data.dims().begin(), data.dims().begin() + axis);
  dims.insert(dims.end(), indices.dims().begin(), indices.dims().end());
  dims.insert(dims.end(), data.dims().begin() + axis + 1, data.dims().end());
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Copies `row_bytes` for each of outer * count rows. Indices have been checked.
template <class Index>
void gather_rows(const ConstTensorView& data, const Index* indices, int64_t count, int axis, char* out,
                 ThreadPool& pool) {
  const int64_t size = data.shape[axis];
  const int64_t row_bytes = data.shape.num_elements(axis + 1, data.shape.rank()) * dtype_size(data.dtype);
  const int64_t outer = data.shape.num_elements(0, axis);
  const auto* src = static_cast<const char*>(data.data);
  const int64_t grain = std::max<int64_t>(1, 4 * kGrainElements / row_bytes);
  pool.parallel_for(outer * count, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = indices[i % count];
      const int64_t row = i / count * size + (index < 0 ? index + size : index);
      std::memcpy(out + i * row_bytes, src + row * row_bytes, static_cast<size_t>(row_bytes));
    }
  });
}

// The same for rows of one element, where memcpy would be all overhead.
template <class T, class Index>
void gather_elements_of_axis(const ConstTensorView& data, const Index* indices, int64_t count, int axis, T* out,
                             ThreadPool& pool) {
  const int64_t size = data.shape[axis];
  const T* src = data.as<T>();
  pool.parallel_for(data.shape.num_elements(0, axis) * count, kGrainElements, [&](int64_t begin, int64_t end, int) {
    int64_t outer = begin / count, k = begin % count;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = indices[k];
      out[i] = src[outer * size + (index < 0 ? index + size : index)];
      if (++k == count) {
        k = 0;
        ++outer;
      }
    }
  });
}

Status run_gather(RunContext& ctx) {
  const ConstTensorView &data = ctx.input(0), &indices = ctx.input(1);
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), data.shape.rank()));
  const int64_t count = indices.num_elements(), size = data.shape[axis];
  return dispatch_index(ctx, indices.dtype, [&](auto tag) {
    using Index = typename decltype(tag)::type;
    SPRUN_TRY(check_indices(ctx, indices.as<Index>(), count, axis, size));
    if (ctx.output(0).num_elements() == 0) return Status();
    if (data.shape.num_elements(axis + 1, data.shape.rank()) > 1) {
      gather_rows(data, indices.as<Index>(), count, axis, ctx.output(0).as<char>(), ctx.pool());
      return Status();
    }
    return dispatch_size(ctx, data.dtype, [&](auto size_tag) {
      using T = typename decltype(size_tag)::type;
      gather_elements_of_axis(data, indices.as<Index>(), count, axis, ctx.output(0).as<T>(), ctx.pool());
      return Status();
    });
  });
}

// --- GatherElements: out[i][j] = data[indices[i][j]][j] for axis 0, and so on

Status infer_gather_elements(InferContext& ctx) {
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1);
  SPRUN_TRY(check_index_type(ctx, ctx.dtype(1)));
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", 0), data.rank())));
  bool fits = indices.rank() == data.rank();
  for (int i = 0; fits && i < data.rank(); ++i) fits = i == axis || indices[i] <= data[i];
  if (!fits)
    return ctx.error("indices of shape " + indices.to_string() + " do not fit data of shape " + data.to_string());
  ctx.set_output(0, ctx.dtype(0), indices);
  return {};
}

template <class T, class Index>
void gather_elements(const ConstTensorView& data, const ConstTensorView& indices, int axis, T* out, ThreadPool& pool) {
  const auto strides = row_major_strides(data.shape);
  const Shape& shape = indices.shape;
  const int last = shape.rank() - 1;
  const int64_t row = shape.back(), size = data.shape[axis], axis_stride = strides[static_cast<size_t>(axis)];
  const T* src = data.as<T>();
  const auto* index = indices.as<Index>();
  const int64_t grain = std::max<int64_t>(1, kGrainElements / row);
  pool.parallel_for(shape.num_elements() / row, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t rest = r, offset = 0;
      for (int i = last; i-- > 0;) {
        if (i != axis) offset += rest % shape[i] * strides[static_cast<size_t>(i)];
        rest /= shape[i];
      }
      const int64_t step = axis == last ? 0 : 1;
      for (int64_t i = 0; i < row; ++i) {
        const int64_t at = index[r * row + i];
        out[r * row + i] = src[offset + i * step + (at < 0 ? at + size : at) * axis_stride];
      }
    }
  });
}

Status run_gather_elements(RunContext& ctx) {
  const ConstTensorView &data = ctx.input(0), &indices = ctx.input(1);
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), data.shape.rank()));
  return dispatch_index(ctx, indices.dtype, [&](auto tag) {
    using Index = typename decltype(tag)::type;
    SPRUN_TRY(check_indices(ctx, indices.as<Index>(), indices.num_elements(), axis, data.shape[axis]));
    if (indices.num_elements() == 0) return Status();
    return dispatch_size(ctx, data.dtype, [&](auto size_tag) {
      using T = typename decltype(size_tag)::type;
      gather_elements<T, Index>(data, indices, axis, ctx.output(0).as<T>(), ctx.pool());
      return Status();
    });
  });
}

// --- GatherND: the last axis of indices holds tuples that address slices of data behind `batch_dims` shared axes

Status infer_gather_nd(InferContext& ctx) {
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1);
  SPRUN_TRY(check_index_type(ctx, ctx.dtype(1)));
  const int64_t batch = ctx.attrs().get_int("batch_dims", 0);
  const std::string shapes = "data " + data.to_string() + ", indices " + indices.to_string();
  if (batch < 0 || batch >= std::min(data.rank(), indices.rank())) {
    return ctx.error("batch_dims " + std::to_string(batch) + " does not fit " + shapes);
  }
  const int batch_dims = static_cast<int>(batch);
  if (indices.back() > data.rank() - batch_dims) return ctx.error("index tuples are too long: " + shapes);
  for (int i = 0; i < batch_dims; ++i) {
    if (data[i] != indices[i]) return ctx.error("batch axes differ: " + shapes);
  }
  const int tuple = static_cast<int>(indices.back());
  std::vector<int64_t> dims(indices.dims().begin(), indices.dims().end() - 1);
  dims.insert(dims.end(), data.dims().begin() + batch_dims + tuple, data.dims().end());
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

template <class Index>
Status gather_slices(const RunContext& ctx, int batch_dims) {
  const ConstTensorView &data = ctx.input(0), &indices = ctx.input(1);
  const int tuple = static_cast<int>(indices.shape.back());
  const int64_t count = indices.shape.num_elements(0, indices.shape.rank() - 1);
  const int64_t batches = data.shape.num_elements(0, batch_dims);
  const auto strides = row_major_strides(data.shape);
  const int64_t slice_bytes = data.shape.num_elements(batch_dims + tuple, data.shape.rank()) * dtype_size(data.dtype);
  const int64_t batch_elements = data.shape.num_elements(batch_dims, data.shape.rank());
  const int64_t per_batch = batches == 0 ? 0 : count / batches;
  const auto* index = indices.as<Index>();
  for (int64_t i = 0; i < indices.num_elements(); ++i) {
    const int axis = batch_dims + static_cast<int>(i % tuple);
    SPRUN_TRY(check_indices(ctx, index + i, 1, axis, data.shape[axis]));
  }
  if (ctx.output(0).num_elements() == 0) return {};
  const auto* src = static_cast<const char*>(data.data);
  auto* out = ctx.output(0).as<char>();
  const int64_t grain = std::max<int64_t>(1, 4 * kGrainElements / (slice_bytes + 8));
  ctx.pool().parallel_for(count, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t offset = i / per_batch * batch_elements;
      for (int k = 0; k < tuple; ++k) {
        const int64_t at = index[i * tuple + k];
        offset += (at < 0 ? at + data.shape[batch_dims + k] : at) * strides[static_cast<size_t>(batch_dims + k)];
      }
      std::memcpy(out + i * slice_bytes, src + offset * dtype_size(data.dtype), static_cast<size_t>(slice_bytes));
    }
  });
  return {};
}

Status run_gather_nd(RunContext& ctx) {
  const int batch_dims = static_cast<int>(ctx.attrs().get_int("batch_dims", 0));
  return dispatch_index(ctx, ctx.input(1).dtype,
                        [&](auto tag) { return gather_slices<typename decltype(tag)::type>(ctx, batch_dims); });
}

constexpr OpDef kOps[] = {
    {.name = "Gather", .inputs = {2, 2}, .infer = infer_gather, .run = run_gather},
    {.name = "GatherElements",
     .since = 11,
     .inputs = {2, 2},
     .infer = infer_gather_elements,
     .run = run_gather_elements},
    {.name = "GatherND", .since = 11, .inputs = {2, 2}, .infer = infer_gather_nd, .run = run_gather_nd},
    {.domain = "com.microsoft", .name = "GatherND", .inputs = {2, 2}, .infer = infer_gather_nd, .run = run_gather_nd},
};

}  // namespace

extern const std::span<const OpDef> k_gather_ops;
const std::span<const OpDef> k_gather_ops = kOps;

}  // namespace sprun::graph
