// Ops that are one strided copy of the whole input: Transpose, DepthToSpace, SpaceToDepth, Expand, Tile.
#include <algorithm>
#include <utility>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

using kernels::StridedCopy;

void copy_output(RunContext& ctx, const StridedCopy& copy) {
  const ConstTensorView& in = ctx.input(0);
  kernels::strided_copy(copy, dtype_size(in.dtype), in.data, ctx.output(0).data, ctx.pool());
}

// --- Transpose-1..25

// perm as a permutation of the axes; reversed order if the attribute is absent.
Result<SmallInts> permutation(const AttrMap& attrs, int rank) {
  if (!attrs.has("perm")) {
    SmallInts reversed{.count = rank};
    for (int i = 0; i < rank; ++i) reversed.values[static_cast<size_t>(i)] = rank - 1 - i;
    return reversed;
  }
  SPRUN_ASSIGN(SmallInts perm, small_ints(attrs.get_ints("perm")));
  std::array<bool, kMaxRank> seen{};
  for (int i = 0; i < perm.count; ++i) {
    SPRUN_ASSIGN(const int axis, normalize_axis(perm[i], rank));
    if (std::exchange(seen[static_cast<size_t>(axis)], true)) {
      return Status(Code::kBadModel, "perm names axis " + std::to_string(axis) + " twice");
    }
    perm.values[static_cast<size_t>(i)] = axis;
  }
  if (perm.count != rank) {
    return Status(Code::kBadModel,
                  "perm has " + std::to_string(perm.count) + " axes, the input has " + std::to_string(rank));
  }
  return perm;
}

Status infer_transpose(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const SmallInts perm, at_node(ctx, permutation(ctx.attrs(), in.rank())));
  Shape out;
  for (int i = 0; i < in.rank(); ++i) out.push_back(in[static_cast<int>(perm[i])]);
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status run_transpose(RunContext& ctx) {
  const Shape& in = ctx.input(0).shape;
  SPRUN_ASSIGN(const SmallInts perm, at_node(ctx, permutation(ctx.attrs(), in.rank())));
  const auto src_strides = row_major_strides(in), dst_strides = row_major_strides(ctx.output(0).shape);
  StridedCopy copy;
  for (int i = 0; i < in.rank(); ++i) {
    copy.add_axis(in[static_cast<int>(perm[i])], src_strides[static_cast<size_t>(perm[i])],
                  dst_strides[static_cast<size_t>(i)]);
  }
  copy_output(ctx, copy);
  return {};
}

// --- DepthToSpace-1..28, SpaceToDepth-1..28

struct BlockAttrs {
  int64_t block = 0;
  bool column_row_depth = false;
};

template <class Ctx>
Result<BlockAttrs> block_attrs(const Ctx& ctx) {
  const int64_t block = ctx.attrs().get_int("blocksize", 0);
  const std::string_view mode = ctx.attrs().get_string("mode", "DCR");
  if (block <= 0 || block > (int64_t{1} << 20)) {
    return Status(Code::kBadModel, "blocksize " + std::to_string(block) + " is not in [1, 2^20]");
  }
  if (mode != "DCR" && mode != "CRD") return Status(Code::kBadModel, "unknown mode '" + std::string(mode) + "'");
  return BlockAttrs{block, mode == "CRD"};
}

Status infer_depth_to_space(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const BlockAttrs attrs, at_node(ctx, block_attrs(ctx)));
  const int64_t area = attrs.block * attrs.block;
  if (in.rank() != 4) return ctx.error("expected an input of rank 4, got " + in.to_string());
  if (in[1] % area != 0) {
    return ctx.error("depth " + std::to_string(in[1]) + " is not a multiple of " + std::to_string(area));
  }
  const int64_t dims[] = {in[0], in[1] / area, in[2] * attrs.block, in[3] * attrs.block};
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Output [N, C', H, bh, W, bw] of input [N, bh, bw, C', H, W] (DCR) or [N, C', bh, bw, H, W] (CRD).
Status run_depth_to_space(RunContext& ctx) {
  SPRUN_ASSIGN(const BlockAttrs attrs, at_node(ctx, block_attrs(ctx)));
  const Shape& in = ctx.input(0).shape;
  const int64_t block = attrs.block, depth = ctx.output(0).shape[1], height = in[2], width = in[3];
  const int64_t plane = height * width;
  const int64_t depth_stride = attrs.column_row_depth ? block * block * plane : plane;
  const int64_t block_stride = attrs.column_row_depth ? plane : depth * plane;  // one step inside a block row
  StridedCopy copy;
  copy.add_axis(in[0], in[1] * plane, in[1] * plane);
  copy.add_axis(depth, depth_stride, plane * block * block);
  copy.add_axis(height, width, width * block * block);
  copy.add_axis(block, block * block_stride, width * block);
  copy.add_axis(width, 1, block);
  copy.add_axis(block, block_stride, 1);
  copy_output(ctx, copy);
  return {};
}

Status infer_space_to_depth(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const BlockAttrs attrs, at_node(ctx, block_attrs(ctx)));
  const int64_t block = attrs.block;
  if (in.rank() != 4) return ctx.error("expected an input of rank 4, got " + in.to_string());
  if (in[2] % block != 0 || in[3] % block != 0) {
    return ctx.error("height and width of " + in.to_string() + " are not multiples of " + std::to_string(block));
  }
  if (in[1] > kMaxElements / (block * block)) return ctx.error("the depth of the output is too large");
  const int64_t dims[] = {in[0], in[1] * block * block, in[2] / block, in[3] / block};
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Output [N, bh, bw, C, H, W] (DCR) or [N, C, bh, bw, H, W] (CRD) of input [N, C, H, bh, W, bw].
Status run_space_to_depth(RunContext& ctx) {
  SPRUN_ASSIGN(const BlockAttrs attrs, at_node(ctx, block_attrs(ctx)));
  const Shape& in = ctx.input(0).shape;
  const int64_t block = attrs.block, depth = in[1];
  const int64_t height = in[2] / block, width = in[3] / block, plane = height * width;
  const int64_t in_plane = in[2] * in[3], in_width = in[3];
  const int64_t depth_stride = attrs.column_row_depth ? block * block * plane : plane;
  const int64_t block_stride = attrs.column_row_depth ? plane : depth * plane;
  StridedCopy copy;
  copy.add_axis(in[0], depth * in_plane, depth * in_plane);
  if (attrs.column_row_depth) copy.add_axis(depth, in_plane, depth_stride);
  copy.add_axis(block, in_width, block * block_stride);
  copy.add_axis(block, 1, block_stride);
  if (!attrs.column_row_depth) copy.add_axis(depth, in_plane, depth_stride);
  copy.add_axis(height, block * in_width, width);
  copy.add_axis(width, block, 1);
  copy_output(ctx, copy);
  return {};
}

// --- Expand-8, 13

Status infer_expand(InferContext& ctx) {
  if (!ctx.has_input(1)) return ctx.error("the shape input is missing");
  if (!ctx.has_data(1)) return ctx.needs_data();
  SPRUN_ASSIGN(const std::vector<int64_t> dims, at_node(ctx, read_ints(ctx.input(1))));
  SPRUN_ASSIGN(const Shape wanted, at_node(ctx, Shape::checked(dims)));
  SPRUN_ASSIGN(const Shape out, at_node(ctx, broadcast_shapes(ctx.shape(0), wanted)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status run_expand(RunContext& ctx) {
  const Shape& out = ctx.output(0).shape;
  const auto src_strides = broadcast_strides(ctx.input(0).shape, out), dst_strides = row_major_strides(out);
  StridedCopy copy;
  for (size_t i = 0; i < static_cast<size_t>(out.rank()); ++i) {
    copy.add_axis(out[static_cast<int>(i)], src_strides[i], dst_strides[i]);
  }
  copy_output(ctx, copy);
  return {};
}

// --- Tile-6, 13: output size i = input size i * repeats[i]

Status infer_tile(InferContext& ctx) {
  if (!ctx.has_input(1)) return ctx.error("the repeats input is missing");
  if (!ctx.has_data(1)) return ctx.needs_data();
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const std::vector<int64_t> repeats, at_node(ctx, read_ints(ctx.input(1))));
  if (repeats.size() != static_cast<size_t>(in.rank())) {
    return ctx.error("repeats has " + std::to_string(repeats.size()) + " numbers for an input of shape " +
                     in.to_string());
  }
  Shape out = in;
  for (int i = 0; i < in.rank(); ++i) {
    const int64_t count = repeats[static_cast<size_t>(i)];
    if (count < 0) return ctx.error("repeats has the negative number " + std::to_string(count));
    if (__builtin_mul_overflow(in[i], count, &out[i]))
      return ctx.error("the output of " + in.to_string() + " is too large");
  }
  SPRUN_TRY(at_node(ctx, Shape::checked(out.dims())).status());
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Output [r0, d0, r1, d1, ...]: the repeats are axes along which the source does not move.
Status run_tile(RunContext& ctx) {
  const Shape &in = ctx.input(0).shape, &out = ctx.output(0).shape;
  if (out.num_elements() == 0) return {};
  const auto src_strides = row_major_strides(in), dst_strides = row_major_strides(out);
  StridedCopy copy;
  for (size_t i = 0; i < static_cast<size_t>(in.rank()); ++i) {
    const int64_t size = in[static_cast<int>(i)];
    copy.add_axis(out[static_cast<int>(i)] / size, 0, size * dst_strides[i]);
    copy.add_axis(size, src_strides[i], dst_strides[i]);
  }
  copy_output(ctx, copy);
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "DepthToSpace", .infer = infer_depth_to_space, .run = run_depth_to_space},
    {.name = "Expand", .since = 8, .inputs = {2, 2}, .infer = infer_expand, .run = run_expand},
    {.name = "SpaceToDepth", .infer = infer_space_to_depth, .run = run_space_to_depth},
    {.name = "Tile", .since = 6, .inputs = {2, 2}, .infer = infer_tile, .run = run_tile},
    {.name = "Transpose", .infer = infer_transpose, .run = run_transpose},
};

}  // namespace

extern const std::span<const OpDef> k_permute_ops;
const std::span<const OpDef> k_permute_ops = kOps;

}  // namespace sprun::graph
