// Ops that give the same elements another shape or type: Reshape, Squeeze, Unsqueeze, Flatten, BitCast.
#include <algorithm>
#include <optional>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// --- Reshape-5..25

// Sizes of the output: 0 copies the size of the input axis (unless allowzero), one -1 is what is left.
Result<Shape> reshaped(const Shape& in, std::span<const int64_t> wanted, bool allow_zero) {
  std::vector<int64_t> dims(wanted.begin(), wanted.end());
  std::optional<size_t> unknown;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] == -1) {
      if (unknown) return Status(Code::kBadModel, "the shape has two sizes of -1");
      unknown = i;
      dims[i] = 1;
    } else if (dims[i] == 0 && !allow_zero) {
      if (i >= static_cast<size_t>(in.rank())) {
        return Status(Code::kBadModel, "size 0 at position " + std::to_string(i) + " copies an axis that input " +
                                           in.to_string() + " does not have");
      }
      dims[i] = in[static_cast<int>(i)];
    }
  }
  SPRUN_ASSIGN(Shape out, Shape::checked(dims));
  const int64_t total = in.num_elements(), known = out.num_elements();
  if (unknown) {
    if (known == 0 || total % known != 0) {
      return Status(Code::kBadModel, "cannot infer the size of -1: input " + in.to_string() + " has " +
                                         std::to_string(total) + " elements, the other sizes make " +
                                         std::to_string(known));
    }
    out[static_cast<int>(*unknown)] = total / known;
  } else if (total != known) {
    return Status(Code::kBadModel, "input " + in.to_string() + " cannot become " + out.to_string());
  }
  return Shape::checked(out.dims());
}

Status infer_reshape(InferContext& ctx) {
  if (!ctx.has_input(1)) return ctx.error("the shape input is missing");
  if (!ctx.has_data(1)) return ctx.needs_data();
  SPRUN_ASSIGN(const std::vector<int64_t> wanted, at_node(ctx, read_ints(ctx.input(1))));
  const bool allow_zero = ctx.attrs().get_int("allowzero", 0) != 0;
  SPRUN_ASSIGN(const Shape out, at_node(ctx, reshaped(ctx.shape(0), wanted, allow_zero)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// --- Squeeze-1..25, Unsqueeze-1..25: axes are an attribute up to version 11, an input from 13 on

Status infer_squeeze(InferContext& ctx) {
  bool missing = false;
  SPRUN_ASSIGN(const auto axes, at_node(ctx, ints_from_input_or_attr(ctx, 1, "axes", &missing)));
  if (missing) return ctx.needs_data();
  const Shape& in = ctx.shape(0);
  std::vector<int> dropped;
  if (axes) {
    SPRUN_ASSIGN(dropped, at_node(ctx, normalize_axes(*axes, in.rank())));
  } else {
    for (int i = 0; i < in.rank(); ++i) {
      if (in[i] == 1) dropped.push_back(i);
    }
  }
  Shape out;
  for (int i = 0; i < in.rank(); ++i) {
    if (std::find(dropped.begin(), dropped.end(), i) == dropped.end()) {
      out.push_back(in[i]);
    } else if (in[i] != 1) {
      return ctx.error("axis " + std::to_string(i) + " of " + in.to_string() + " is not 1");
    }
  }
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status infer_unsqueeze(InferContext& ctx) {
  bool missing = false;
  SPRUN_ASSIGN(const auto axes, at_node(ctx, ints_from_input_or_attr(ctx, 1, "axes", &missing)));
  if (missing) return ctx.needs_data();
  if (!axes) return ctx.error("axes are missing");
  const Shape& in = ctx.shape(0);
  if (axes->size() > static_cast<size_t>(kMaxRank - in.rank())) {
    return ctx.error("adding " + std::to_string(axes->size()) + " axes to " + in.to_string() + " makes the rank over " +
                     std::to_string(kMaxRank));
  }
  const int rank = in.rank() + static_cast<int>(axes->size());
  SPRUN_ASSIGN(const std::vector<int> added, at_node(ctx, normalize_axes(*axes, rank)));
  Shape out;
  for (int i = 0, next = 0; i < rank; ++i) {
    const bool is_new = std::find(added.begin(), added.end(), i) != added.end();
    out.push_back(is_new ? 1 : in[next++]);
  }
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// --- Flatten-1..25: [product of axes before `axis`, product of the rest]

Status infer_flatten(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  int64_t axis = ctx.attrs().get_int("axis", 1);
  if (axis < -in.rank() || axis > in.rank()) {
    return ctx.error("axis " + std::to_string(axis) + " does not fit " + in.to_string());
  }
  if (axis < 0) axis += in.rank();
  const int split = static_cast<int>(axis);
  ctx.set_output(0, ctx.dtype(0), {in.num_elements(0, split), in.num_elements(split, in.rank())});
  return {};
}

// --- BitCast-26

// Bits of one element as ONNX counts them; 4-bit types take a byte here.
int64_t dtype_bits(DType dtype) { return dtype == DType::kU4 || dtype == DType::kS4 ? 4 : 8 * dtype_size(dtype); }

Status infer_bit_cast(InferContext& ctx) {
  SPRUN_ASSIGN(const DType to, at_node(ctx, dtype_from_number(ctx.attrs().get_int("to", 0))));
  if (dtype_bits(to) != dtype_bits(ctx.dtype(0))) {
    return ctx.error("cannot reinterpret " + std::string(dtype_name(ctx.dtype(0))) + " as " +
                     std::string(dtype_name(to)) + ": the sizes differ");
  }
  ctx.set_output(0, to, ctx.shape(0));
  return {};
}

Status run_bit_cast(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  copy_through(ctx);
  // The invariants of the in-memory forms: bool is 0 or 1, int4 is sign-extended, uint4 has no high bits.
  auto* bytes = out.as<uint8_t>();
  const int64_t n = out.num_elements();
  if (out.dtype == DType::kBool) {
    for (int64_t i = 0; i < n; ++i) bytes[i] = bytes[i] != 0;
  } else if (out.dtype == DType::kU4) {
    for (int64_t i = 0; i < n; ++i) bytes[i] &= 0xf;
  } else if (out.dtype == DType::kS4 && in.dtype == DType::kU4) {
    for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(bytes[i] >= 8 ? bytes[i] | 0xf0 : bytes[i]);
  }
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "BitCast", .since = 26, .infer = infer_bit_cast, .run = run_bit_cast, .flags = kInPlace},
    {.name = "Flatten", .infer = infer_flatten, .run = run_copy_through, .flags = kView},
    {.name = "Reshape", .since = 5, .inputs = {2, 2}, .infer = infer_reshape, .run = run_copy_through, .flags = kView},
    {.name = "Squeeze", .inputs = {1, 2}, .infer = infer_squeeze, .run = run_copy_through, .flags = kView},
    {.name = "Unsqueeze", .inputs = {1, 2}, .infer = infer_unsqueeze, .run = run_copy_through, .flags = kView},
};

}  // namespace

extern const std::span<const OpDef> k_view_ops;
const std::span<const OpDef> k_view_ops = kOps;

}  // namespace sprun::graph
