#include "graph/ops/attention_util.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/ops/op_util.h"

namespace sprun::graph {

using kernels::AttentionArgs;
using kernels::AttentionStrides;
using kernels::MaskKind;

Status op_error(const Node& node, const std::string& text) {
  return {Code::kBadModel, node.op_type + " '" + node.name + "': " + text};
}

Result<int64_t> required_count(const Node& node, std::string_view name) {
  const int64_t count = node.attrs.get_int(name, 0);
  if (count < 1 || count > (int64_t{1} << 20)) {
    return op_error(node,
                    "attribute " + std::string(name) + " must be a positive number, got " + std::to_string(count));
  }
  return count;
}

Result<int64_t> head_size(const Node& node, int64_t hidden, int64_t heads, std::string_view what) {
  if (hidden % heads != 0) {
    return op_error(node, std::string(what) + " hidden size " + std::to_string(hidden) + " is not a multiple of " +
                              std::to_string(heads) + " heads");
  }
  return hidden / heads;
}

float attention_scale(const Node& node, int64_t head_dim) {
  const float scale = node.attrs.get_float("scale", 0.0F);
  if (scale != 0.0F) return scale;
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(head_dim, 1))));
}

AttentionStrides strides_by_rank(const Shape& shape, int64_t heads, int64_t rows, int64_t dim) {
  return shape.rank() == 4 ? kernels::bhsd_strides(heads, rows, dim) : kernels::bshd_strides(heads, rows, dim);
}

Status set_mask(const Node& node, const ConstTensorView& mask, int64_t keys, AttentionArgs& args) {
  const Shape full{args.batch, args.heads, args.q_len, keys};
  const auto broadcast = broadcast_shapes(mask.shape, full);
  if (mask.shape.rank() > 4 || !broadcast.ok() || !(*broadcast == full)) {
    return op_error(node, "mask of shape " + mask.shape.to_string() + " does not broadcast to " + full.to_string());
  }
  if (mask.dtype != DType::kBool && !is_float(mask.dtype)) {
    return op_error(node, "mask is " + std::string(dtype_name(mask.dtype)) + ", expected bool or a float type");
  }
  const auto strides = broadcast_strides(mask.shape, full);
  args.mask_kind = mask.dtype == DType::kBool ? MaskKind::kAllow : MaskKind::kAdd;
  args.mask_dtype = mask.dtype;
  args.mask = mask.data;
  args.mask_batch = strides[0], args.mask_head = strides[1], args.mask_row = strides[2], args.mask_key = strides[3];
  return {};
}

void copy_rows(ThreadPool& pool, const RowCopy& c) {
  const int64_t size = dtype_size(c.dtype);
  const int64_t row_bytes = c.dim * size;
  if (row_bytes == 0) return;
  const auto* src = static_cast<const char*>(c.src);
  auto* dst = static_cast<char*>(c.dst);
  const int64_t grain = std::max<int64_t>(1, 65536 / row_bytes);
  pool.parallel_for(c.batch * c.heads * c.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t i = t % c.rows, h = t / c.rows % c.heads, b = t / c.rows / c.heads;
      const auto at = [&](const AttentionStrides& s) { return (b * s.batch + h * s.head + i * s.row) * size; };
      std::memcpy(dst + at(c.dst_strides), src + at(c.src_strides), static_cast<size_t>(row_bytes));
    }
  });
}

void append_to_cache(ThreadPool& pool, const CacheAppend& a) {
  const int64_t total = a.past_rows + a.rows;
  const AttentionStrides to = kernels::bhsd_strides(a.heads, total, a.dim);
  copy_rows(pool, {a.batch, a.heads, a.past_rows, a.dim, a.dtype, a.past,
                   kernels::bhsd_strides(a.heads, a.past_rows, a.dim), a.dst, to});
  auto* fresh = static_cast<char*>(a.dst) + a.past_rows * a.dim * dtype_size(a.dtype);
  copy_rows(pool, {a.batch, a.heads, a.rows, a.dim, a.dtype, a.fresh, a.fresh_strides, fresh, to});
}

Result<void*> ScratchHolder::get(const RunContext& ctx, int64_t bytes) {
  const auto* state = static_cast<const ScratchState*>(ctx.state());
  if (bytes == 0 || (state && ctx.scratch() && state->scratch_bytes >= bytes)) return ctx.scratch();
  SPRUN_ASSIGN(own_, allocate_blob(bytes));
  return own_.data.get();
}

void describe_attention(PrepareContext& ctx, const AttentionArgs& args) {
  std::vector<kernels::Rejection> why_not;
  ctx.kernel += (ctx.kernel.empty() ? "" : " + ") + std::string(kernels::attention_kernel_name(args, &why_not));
  for (const kernels::Rejection& rejection : why_not) ctx.rejected.push_back({rejection.kernel, rejection.reason});
  ctx.regime = kernels::attention_is_decode(args) ? "bandwidth-bound" : "compute-bound";
  ctx.flops += kernels::attention_flops(args);
}

}  // namespace sprun::graph
