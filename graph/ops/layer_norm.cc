// LayerNormalization, RMSNormalization and the com.microsoft forms with a residual input.
#include "graph/ops/op_util.h"
#include "graph/ops/row_norm.h"

namespace sprun::graph {

namespace {

// The type of the optional statistics outputs; kUndefined for a number that is no float type.
DType stash_dtype(const AttrMap& attrs) {
  const int64_t number = attrs.get_int("stash_type", static_cast<int64_t>(DType::kF32));
  for (DType dtype : {DType::kF32, DType::kF64, DType::kF16, DType::kBf16}) {
    if (number == static_cast<int64_t>(dtype)) return dtype;
  }
  return DType::kUndefined;
}

Result<int> norm_axis(const AttrMap& attrs, const Shape& x) {
  return normalize_axis(attrs.get_int("axis", -1), x.rank());
}

Status check_affine(const InferContext& ctx, int i, const char* name) {
  const Shape& x = ctx.shape(0);
  const Result<Shape> joint = broadcast_shapes(ctx.shape(i), x);
  if (joint.ok() && *joint == x) return {};
  return ctx.error(std::string(name) + " has shape " + ctx.shape(i).to_string() +
                   ", which does not broadcast to the input shape " + x.to_string());
}

Status check_float(const InferContext& ctx, int i) {
  return ctx.check(!ctx.has_input(i) || is_float(ctx.dtype(i)),
                   "input " + std::to_string(i) + " must be a float type, got " +
                       (ctx.has_input(i) ? std::string(dtype_name(ctx.dtype(i))) : ""));
}

Status check_row_norm(const InferContext& ctx) {
  for (int i = 0; i < ctx.num_inputs(); ++i) SPRUN_TRY(check_float(ctx, i));
  SPRUN_TRY(check_affine(ctx, 1, "scale"));
  if (!ctx.has_input(2)) return {};
  SPRUN_TRY(check_affine(ctx, 2, "bias"));
  return ctx.check(ctx.dtype(1) == ctx.dtype(2), "scale and bias have different types");
}

// [x.shape up to axis, 1, 1, ...]
Shape stats_shape(const Shape& x, int axis) {
  Shape shape = x;
  for (int i = axis; i < x.rank(); ++i) shape[i] = 1;
  return shape;
}

Status infer_row_norm(InferContext& ctx) {
  SPRUN_TRY(check_row_norm(ctx));
  const Result<int> axis = norm_axis(ctx.attrs(), ctx.shape(0));
  if (!axis.ok()) return ctx.error(axis.status().message());
  const DType stats = stash_dtype(ctx.attrs());
  SPRUN_TRY(ctx.check(stats != DType::kUndefined, "stash_type is not a float type"));
  ctx.set_output(0, ctx.dtype(1), ctx.shape(0));
  for (int i = 1; i < ctx.num_outputs(); ++i)
    ctx.set_output(i, stats, stats_shape(ctx.shape(0), *axis));
  return {};
}

// x, gamma and y, and what both families share.
Result<RowNorm> base_norm(const RunContext& ctx, int gamma, int axis, float default_epsilon) {
  RowNorm norm;
  norm.x = ctx.input(0);
  norm.gamma = ctx.input(gamma);
  norm.y = ctx.output(0);
  const Shape& shape = norm.x.shape;
  norm.rows = shape.num_elements(0, axis);
  norm.n = shape.num_elements(axis, shape.rank());
  norm.epsilon = static_cast<double>(ctx.attrs().get_float("epsilon", default_epsilon));
  return norm;
}

Status run_layer_norm(RunContext& ctx) {
  SPRUN_ASSIGN(const int axis, norm_axis(ctx.attrs(), ctx.input(0).shape));
  SPRUN_ASSIGN(RowNorm norm, base_norm(ctx, 1, axis, 1e-5F));
  if (ctx.has_input(2)) norm.beta = ctx.input(2);
  if (ctx.has_output(1)) norm.mean = ctx.output(1);
  if (ctx.has_output(2)) norm.inv_std = ctx.output(2);
  return run_row_norm(ctx, norm);
}

Status run_rms_norm(RunContext& ctx) {
  SPRUN_ASSIGN(const int axis, norm_axis(ctx.attrs(), ctx.input(0).shape));
  SPRUN_ASSIGN(RowNorm norm, base_norm(ctx, 1, axis, 1e-5F));
  norm.rms = true;
  if (ctx.has_output(1)) norm.inv_std = ctx.output(1);
  return run_row_norm(ctx, norm);
}

// ------------------------------------------------------------------ residual forms (com.microsoft)

// skip is the input's shape, or lacks the batch: [seq, n] or [1, seq, n].
bool skip_fits(const Shape& x, const Shape& skip) {
  if (skip == x) return true;
  if (x.rank() != 3) return false;
  if (skip.rank() == 3 && skip[0] != 1) return false;
  if (skip.rank() != 2 && skip.rank() != 3) return false;
  return skip[skip.rank() - 2] == x[1] && skip.back() == x[2];
}

Status check_column_input(const InferContext& ctx, int i, const char* name) {
  if (!ctx.has_input(i)) return {};
  const Shape& s = ctx.shape(i);
  return ctx.check(s.rank() == 1 && s[0] == ctx.shape(0).back() && ctx.dtype(i) == ctx.dtype(0),
                   std::string(name) + " must be a vector of " +
                       std::to_string(ctx.shape(0).back()) +
                       " elements of the input's type, got shape " + s.to_string());
}

Status infer_skip(InferContext& ctx, bool rms) {
  const Shape& x = ctx.shape(0);
  SPRUN_TRY(check_float(ctx, 0));
  SPRUN_TRY(ctx.check(x.rank() == 2 || x.rank() == 3,
                      "input must have 2 or 3 axes, got shape " + x.to_string()));
  SPRUN_TRY(ctx.check(skip_fits(x, ctx.shape(1)) && ctx.dtype(1) == ctx.dtype(0),
                      "skip has shape " + ctx.shape(1).to_string() +
                          ", which does not fit the input shape " + x.to_string()));
  SPRUN_TRY(check_column_input(ctx, 2, "gamma"));
  if (!rms) SPRUN_TRY(check_column_input(ctx, 3, "beta"));
  SPRUN_TRY(check_column_input(ctx, rms ? 3 : 4, "bias"));
  ctx.set_output(0, ctx.dtype(0), x);
  const Shape stats = stats_shape(x, x.rank() - 1);
  ctx.set_output(1, DType::kF32, stats);
  ctx.set_output(2, DType::kF32, stats);
  ctx.set_output(3, ctx.dtype(0), x);
  return {};
}

Status infer_skip_layer(InferContext& ctx) { return infer_skip(ctx, false); }
Status infer_skip_rms(InferContext& ctx) { return infer_skip(ctx, true); }

Status run_skip(RunContext& ctx, bool rms) {
  SPRUN_ASSIGN(RowNorm norm, base_norm(ctx, 2, ctx.input(0).shape.rank() - 1, 1e-12F));
  norm.rms = rms;
  norm.skip = ctx.input(1);
  norm.skip_rows = norm.skip.shape.num_elements(0, norm.skip.shape.rank() - 1);
  if (!rms && ctx.has_input(3)) norm.beta = ctx.input(3);
  const int bias = rms ? 3 : 4;
  if (ctx.has_input(bias)) norm.bias = ctx.input(bias);
  if (ctx.has_output(1)) norm.mean = ctx.output(1);
  if (ctx.has_output(2)) norm.inv_std = ctx.output(2);
  if (ctx.has_output(3)) norm.sum = ctx.output(3);
  return run_row_norm(ctx, norm);
}

Status run_skip_layer(RunContext& ctx) { return run_skip(ctx, false); }
Status run_skip_rms(RunContext& ctx) { return run_skip(ctx, true); }

constexpr OpDef kOps[] = {
    {.name = "LayerNormalization",
     .inputs = {2, 3},
     .outputs = {1, 3},
     .infer = infer_row_norm,
     .run = run_layer_norm,
     .prepare = prepare_row_norm,
     .flags = kInPlace},
    {.name = "RMSNormalization",
     .since = 23,
     .inputs = {2, 2},
     .infer = infer_row_norm,
     .run = run_rms_norm,
     .prepare = prepare_row_norm,
     .flags = kInPlace},
    {.name = "SimplifiedLayerNormalization",
     .inputs = {2, 2},
     .outputs = {1, 2},
     .infer = infer_row_norm,
     .run = run_rms_norm,
     .prepare = prepare_row_norm,
     .flags = kInPlace},
    {.domain = "com.microsoft",
     .name = "SimplifiedLayerNormalization",
     .inputs = {2, 2},
     .outputs = {1, 2},
     .infer = infer_row_norm,
     .run = run_rms_norm,
     .prepare = prepare_row_norm,
     .flags = kInPlace},
    {.domain = "com.microsoft",
     .name = "SkipLayerNormalization",
     .inputs = {3, 5},
     .outputs = {1, 4},
     .infer = infer_skip_layer,
     .run = run_skip_layer,
     .prepare = prepare_row_norm,
     .flags = kInPlace},
    {.domain = "com.microsoft",
     .name = "SkipSimplifiedLayerNormalization",
     .inputs = {3, 4},
     .outputs = {1, 4},
     .infer = infer_skip_rms,
     .run = run_skip_rms,
     .prepare = prepare_row_norm,
     .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_layer_norm_ops;
const std::span<const OpDef> k_layer_norm_ops = kOps;

}  // namespace sprun::graph
