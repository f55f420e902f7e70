// Concat and Split: the same copy in two directions.
#include <algorithm>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// Copies `part`, which is [begin, begin + part[axis]) of `whole` along `axis`, into or out of it.
struct PartCopy {
  const Shape& whole;
  const Shape& part;
  int axis;
  int64_t begin;

  void run(const void* src, void* dst, bool into_whole, int64_t element_bytes, ThreadPool& pool) const {
    const int64_t inner = whole.num_elements(axis + 1, whole.rank());
    const int64_t part_row = part[axis] * inner, whole_row = whole[axis] * inner;
    const int64_t offset = begin * inner * element_bytes;
    kernels::StridedCopy copy;
    copy.add_axis(whole.num_elements(0, axis), into_whole ? part_row : whole_row, into_whole ? whole_row : part_row);
    copy.add_axis(part_row, 1, 1);
    if (into_whole) {
      kernels::strided_copy(copy, element_bytes, src, static_cast<char*>(dst) + offset, pool);
    } else {
      kernels::strided_copy(copy, element_bytes, static_cast<const char*>(src) + offset, dst, pool);
    }
  }
};

// --- Concat-4..13

Status infer_concat(InferContext& ctx) {
  if (!ctx.has_input(0)) return ctx.error("the first input is missing");
  const Shape& first = ctx.shape(0);
  if (!ctx.attrs().has("axis")) return ctx.error("attribute axis is missing");
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", 0), first.rank())));
  Shape out = first;
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (!ctx.has_input(i)) return ctx.error("input " + std::to_string(i) + " is missing");
    SPRUN_TRY(check_same_dtype(ctx, 0, i));
    Shape expected = ctx.shape(i);
    if (expected.rank() == first.rank()) expected[axis] = first[axis];
    if (expected != first) {
      return ctx.error("inputs of shapes " + first.to_string() + " and " + ctx.shape(i).to_string() +
                       " cannot be joined along axis " + std::to_string(axis));
    }
    out[axis] += ctx.shape(i)[axis];
    SPRUN_TRY(at_node(ctx, Shape::checked(out.dims())).status());
  }
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status run_concat(RunContext& ctx) {
  const TensorView& out = ctx.output(0);
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), out.shape.rank()));
  const int64_t element_bytes = dtype_size(out.dtype);
  int64_t begin = 0;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    const ConstTensorView& in = ctx.input(i);
    PartCopy{out.shape, in.shape, axis, begin}.run(in.data, out.data, true, element_bytes, ctx.pool());
    begin += in.shape[axis];
  }
  return {};
}

// --- Split-2..18: sizes from an attribute (2, 11), an input (13, 18), num_outputs (18) or equal parts

Result<std::vector<int64_t>> equal_parts(int64_t size, int64_t count, bool last_may_be_smaller) {
  if (!last_may_be_smaller && size % count != 0) {
    return Status(Code::kBadModel,
                  "size " + std::to_string(size) + " cannot be split into " + std::to_string(count) + " equal parts");
  }
  const int64_t part = (size + count - 1) / count;
  std::vector<int64_t> parts;
  for (int64_t i = 0, left = size; i < count; ++i) {
    parts.push_back(std::min(part, left));
    left -= parts.back();
  }
  return parts;
}

Status infer_split(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", 0), in.rank())));
  bool missing = false;
  SPRUN_ASSIGN(auto parts, at_node(ctx, ints_from_input_or_attr(ctx, 1, "split", &missing)));
  if (missing) return ctx.needs_data();
  const int count = ctx.num_outputs();
  if (ctx.attrs().get_int("num_outputs", count) != count) {
    return ctx.error("num_outputs is " + std::to_string(ctx.attrs().get_int("num_outputs", 0)) + ", the node has " +
                     std::to_string(count) + " outputs");
  }
  if (!parts) {
    SPRUN_ASSIGN(parts, at_node(ctx, equal_parts(in[axis], count, ctx.opset() >= 18)));
  }
  if (parts->size() != static_cast<size_t>(count)) {
    return ctx.error("split has " + std::to_string(parts->size()) + " sizes for " + std::to_string(count) + " outputs");
  }
  const std::string mismatch = "split sizes do not add up to axis " + std::to_string(axis) + " of " + in.to_string();
  int64_t left = in[axis];
  for (int i = 0; i < count; ++i) {
    const int64_t part = (*parts)[static_cast<size_t>(i)];
    if (part < 0 || part > left) return ctx.error(mismatch);
    left -= part;
    Shape out = in;
    out[axis] = part;
    ctx.set_output(i, ctx.dtype(0), out);
  }
  return ctx.check(left == 0, mismatch);
}

Status run_split(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), in.shape.rank()));
  const int64_t element_bytes = dtype_size(in.dtype);
  // The sizes are those of the outputs; only for outputs that nobody wants they must be read again.
  std::vector<int64_t> parts;
  for (int i = 0; i < ctx.num_outputs() && parts.empty(); ++i) {
    if (ctx.has_output(i)) continue;
    SPRUN_ASSIGN(auto given, ints_from_input_or_attr(ctx, 1, "split"));
    if (!given) {
      SPRUN_ASSIGN(given, equal_parts(in.shape[axis], ctx.num_outputs(), true));
    }
    parts = std::move(*given);
  }
  int64_t begin = 0;
  for (int i = 0; i < ctx.num_outputs(); ++i) {
    if (!ctx.has_output(i)) {
      begin += parts[static_cast<size_t>(i)];
      continue;
    }
    const TensorView& out = ctx.output(i);
    PartCopy{in.shape, out.shape, axis, begin}.run(in.data, out.data, false, element_bytes, ctx.pool());
    begin += out.shape[axis];
  }
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Concat", .since = 4, .inputs = {1, kVariadic}, .infer = infer_concat, .run = run_concat},
    {.name = "Split", .since = 2, .inputs = {1, 2}, .outputs = {1, kVariadic}, .infer = infer_split, .run = run_split},
};

}  // namespace

extern const std::span<const OpDef> k_concat_split_ops;
const std::span<const OpDef> k_concat_split_ops = kOps;

}  // namespace sprun::graph
