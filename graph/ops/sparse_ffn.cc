// sprun.SparseFfn: a feed-forward layer whose hidden values are mostly exact zeros, made by fuse_sparse_ffn.
//
//   g = before(X_g Wg + bg)        s = select(g)                          select: select_rows.h
//   h = after(s)^p * up_act(X_u Wu + bu)     p = 2 with `square`; without an up layer h = after(s)^p
//   Y = h Wd + bd + residual
//
// Where s is 0, h is 0 and neither the up weights nor the down weights of that neuron matter: leaving them out is exact.
// Only what a dense run makes of 0 * infinity and 0 * NaN is not made.
// Inputs: 0 X of the gate [.., d], 1 X of up (the same value), then weight, scale, zero point and bias of gate (2..5),
//   up (6..9; absent when not gated, or when `fused_up` says its columns are in the gate's weight) and down (10..13),
//   14 thresholds, 15 residual of the shape of Y (float32 forms and int8 only), 16 and 17 rows that are added to what
//   codes of gate and up stand for, 18 a mask [.., d_ff] instead of a gate: h = mask * up_activation(X_u Wu + bu).
// Attributes (the prefix of a layer is gate_, up_ or down_): d_ff; pattern, a name for people; select with its own
//   attributes; gate_activation, activation ("none" or one that maps 0 to 0), square, up_relu, gated, fused_up,
//   was_one_weight (the file's gate and up were, for explain); with
//   a mask up_activation and density, the part of it that is expected not to be zero (-1: not known);
//   _form "float" (weights f32, f16, bf16), "int8" (as sprun.LinearInt8: dynamic quantisation), "dequant" (as
//   sprun.LinearDequant: 8-bit weights, float X), "nbits" (MatMulNBits);
//   _trans, _x_quant, _precision, _bits, _block_size as those ops have them; _n, _k sizes of the whole weight;
//   _offset first column of X that is read, _column first column of the result that counts.
//   All three layers with _x_quant "static": X are codes, each of gate and up its own, with _x_scale and _x_zero; those of
//   down are of the u8 codes that h is rounded to. _stages: what happens to the values of gate or up, in order: "q"
//   rounding to u8 codes and back, with the next of _stage_scales and _stage_zeros; "+" adding input 16 or 17.
// Element types: X f32, f16 or bf16 (16-bit compute in float32 and round once); u8 or s8 codes, then Y is f32.
#include "graph/ops/sparse_ffn.h"

#include <fmt/format.h>

#include "graph/ops/sparse_ffn_dense.h"
#include "graph/ops/sparse_ffn_gather.h"

namespace sprun::graph {
namespace {

FfnLayer layer_of(const AttrMap& attrs, const std::string& prefix, int input) {
  using Form = FfnLayer::Form;
  const std::string_view form = attrs.get_string(prefix + "_form", "float");
  FfnLayer layer;
  for (auto [name, value] : {std::pair("int8", Form::kInt8), {"dequant", Form::kDequant}, {"nbits", Form::kNBits}}) {
    if (form == name) layer.form = value;
  }
  layer.input = input;
  layer.trans = attrs.get_int(prefix + "_trans", 0) != 0;
  layer.x_quant = attrs.get_string(prefix + "_x_quant", "");
  layer.precision = attrs.get_string(prefix + "_precision", "");
  layer.bits = attrs.get_int(prefix + "_bits", 0);
  layer.block_size = attrs.get_int(prefix + "_block_size", 0);
  layer.n = attrs.get_int(prefix + "_n", 0);
  layer.k = attrs.get_int(prefix + "_k", 0);
  layer.offset = attrs.get_int(prefix + "_offset", 0);
  layer.column = attrs.get_int(prefix + "_column", 0);
  layer.x_scale = attrs.get_float(prefix + "_x_scale", 0);
  layer.x_zero = static_cast<int32_t>(attrs.get_int(prefix + "_x_zero", 0));
  return layer;
}

// False if the stages are none that the kernel has.
bool read_stages(const AttrMap& attrs, const std::string& prefix, int offset_row, FfnLayer& layer) {
  const std::string_view stages = attrs.get_string(prefix + "_stages", "");
  const std::vector<float>& scales = attrs.get_floats(prefix + "_stage_scales");
  const std::vector<int64_t>& zeros = attrs.get_ints(prefix + "_stage_zeros");
  layer.offset_row = offset_row;
  if (stages.size() > kernels::FfnRequant::kMostStages || scales.size() != zeros.size()) return false;
  size_t codes = 0;
  for (char stage : stages) {
    kernels::FfnRequant::Stage& to = layer.stages.stages[layer.stages.count++];
    if (stage == '+') continue;
    if (codes == scales.size() || !(scales[codes] > 0)) return false;
    to = {scales[codes], static_cast<int32_t>(zeros[codes]), nullptr};
    ++codes;
  }
  return codes == scales.size();
}

// Why the layer's weight and its place in X do not fit; empty when they do.
template <class Ctx>
std::string misfit(const Ctx& ctx, const FfnLayer& layer, int64_t d_in, int64_t width) {
  if (!ctx.has_input(layer.weight())) return "a weight is missing";
  const Shape& w = ctx.input(layer.weight()).shape;
  const bool matrix = layer.form == FfnLayer::Form::kNBits ||
                      (w.rank() == 2 && w[layer.trans ? 0 : 1] == layer.n && w[layer.trans ? 1 : 0] == layer.k);
  const bool fits = matrix && layer.k > 0 && layer.offset >= 0 && layer.offset + layer.k <= d_in && layer.column >= 0 &&
                    layer.column + width <= layer.n;
  return fits ? "" : "a weight of shape " + w.to_string() + " does not fit";
}

// The same for what only statically quantised layers have, and they must have all of it.
template <class Ctx>
std::string static_misfit(const Ctx& ctx, FfnProblem& p) {
  const bool codes = ctx.input(FfnInput::kXGate).dtype == DType::kU8 || ctx.input(FfnInput::kXGate).dtype == DType::kS8;
  const auto agrees = [&](const FfnLayer& layer) {
    const bool whole = &layer == &p.down || (layer.offset == 0 && layer.k == (&layer == &p.up ? p.d_up_in : p.d_in));
    return layer.is_static() == codes && (!codes || (layer.form == FfnLayer::Form::kInt8 && layer.x_scale > 0 && whole));
  };
  if ((!p.masked && !agrees(p.gate)) || !agrees(p.down) || (p.gated && !agrees(p.up))) return "static quantisation of some layers only";
  const bool read = read_stages(ctx.attrs(), "gate", FfnInput::kGateOffset, p.gate) &&
                    read_stages(ctx.attrs(), "up", FfnInput::kUpOffset, p.up);
  if (!read) return "unknown stages";
  for (const FfnLayer* layer : {&p.gate, &p.up}) {
    for (int i = 0; i < layer->stages.count; ++i) {
      const int row = layer->offset_row;
      if (layer->stages.stages[i].scale > 0) continue;
      if (!ctx.has_input(row) || ctx.input(row).dtype != DType::kF32 || ctx.input(row).num_elements() != p.d_ff) {
        return "the row of a stage does not fit";
      }
    }
  }
  return "";
}

}  // namespace

kernels::FfnRequant FfnLayer::stages_of(const RunContext& ctx) const {
  kernels::FfnRequant made = stages;
  for (int i = 0; i < made.count; ++i) {
    if (made.stages[i].scale == 0) made.stages[i].offset = ctx.input(offset_row).as<float>();
  }
  return made;
}

template <class Ctx>
Result<FfnProblem> ffn_problem(const Ctx& ctx) {
  const AttrMap& attrs = ctx.attrs();
  const auto fail = [](const std::string& why) { return Status(Code::kBadModel, why); };
  FfnProblem p;
  p.gated = attrs.get_int("gated", 0) != 0;
  p.fused_up = attrs.get_int("fused_up", 0) != 0;
  p.was_one_weight = attrs.get_int("was_one_weight", 0) != 0;
  p.gate = layer_of(attrs, "gate", FfnInput::kGate);
  p.up = layer_of(attrs, "up", p.fused_up ? FfnInput::kGate : FfnInput::kUp);
  p.down = layer_of(attrs, "down", FfnInput::kDown);
  SPRUN_ASSIGN(p.select, selection_of(attrs.get_string("select", "relu"), attrs));
  const auto before = parse_activation(attrs.get_string("gate_activation", "none"));
  const auto after = parse_activation(attrs.get_string("activation", "none"));
  if (!before || !after || *after == kernels::Activation::kSigmoid) return fail("an activation does not map 0 to 0");
  p.before = *before;
  p.after = *after;
  p.square = attrs.get_int("square", 0) != 0;
  p.up_relu = attrs.get_int("up_relu", 0) != 0;
  p.pattern = attrs.get_string("pattern", "sparse FFN");
  const Shape& x = ctx.input(FfnInput::kXGate).shape;
  if (x.rank() < 1) return fail("X needs at least one axis");
  p.m = x.num_elements(0, x.rank() - 1);
  p.d_in = x.back();
  p.d_ff = attrs.get_int("d_ff", 0);
  p.d_out = p.down.n;
  p.d_up_in = p.gated ? ctx.input(FfnInput::kXUp).shape.back() : 0;
  std::string why;
  p.masked = ctx.has_input(FfnInput::kMask);
  if (p.masked) {
    p.select.kind = SelectKind::kAll;
    p.mask_density = static_cast<double>(attrs.get_float("density", -1.0F));
    p.up_activation = parse_activation(attrs.get_string("up_activation", "none")).value_or(kernels::Activation::kNone);
    const ConstTensorView& mask = ctx.input(FfnInput::kMask);
    const bool fits = p.gated && !p.fused_up && mask.dtype == DType::kF32 && mask.num_elements() == p.m * p.d_ff;
    if (!fits) why = "the mask does not fit";
  } else {
    why = misfit(ctx, p.gate, p.d_in, p.d_ff);
  }
  if (p.gated && why.empty()) why = misfit(ctx, p.up, p.d_up_in, p.d_ff);
  if (why.empty()) why = misfit(ctx, p.down, p.d_ff, p.d_out);
  if (why.empty() && (p.d_ff < 1 || p.down.k != p.d_ff)) why = "the layers differ in width";
  if (why.empty()) why = static_misfit(ctx, p);
  if (!why.empty()) return fail(why);
  return p;
}

template Result<FfnProblem> ffn_problem(const InferContext&);
template Result<FfnProblem> ffn_problem(const PrepareContext&);

namespace {

// Codes of gate and up may be of other values: only the rows must agree.
bool fits_beside(const Shape& up, const Shape& gate, bool codes) {
  if (!codes) return up == gate;
  return up.rank() == gate.rank() && up.num_elements(0, up.rank() - 1) == gate.num_elements(0, gate.rank() - 1);
}

Status infer_ffn(InferContext& ctx) {
  const auto p = ffn_problem(ctx);
  if (!p.ok()) return ctx.error(p.status().message());
  const bool codes = p->is_static();
  const DType dtype = codes ? DType::kF32 : ctx.dtype(0);
  SPRUN_TRY(ctx.check(is_float(dtype) && dtype != DType::kF64, "X must be float32, float16 or bfloat16"));
  SPRUN_TRY(ctx.check(!p->gated || (ctx.has_input(1) && ctx.dtype(1) == ctx.dtype(0) && fits_beside(ctx.shape(1), ctx.shape(0), codes)),
                      "gate and up must read the same values"));
  Shape out = ctx.shape(0);
  out[out.rank() - 1] = p->d_out;
  if (ctx.has_input(FfnInput::kThreshold)) {
    const int64_t count = ctx.input(FfnInput::kThreshold).num_elements();
    SPRUN_TRY(ctx.check(ctx.dtype(FfnInput::kThreshold) == DType::kF32 && (count == 1 || count == p->d_ff),
                        "thresholds must be float32: one, or one for each neuron"));
  }
  SPRUN_TRY(ctx.check(p->select.kind != SelectKind::kThreshold || ctx.has_input(FfnInput::kThreshold),
                      "the thresholds are missing"));
  SPRUN_TRY(ctx.check(!ctx.has_input(FfnInput::kResidual) || (ctx.shape(FfnInput::kResidual) == out &&
                                                              ctx.dtype(FfnInput::kResidual) == dtype),
                      "the residual must have the type and shape of the result"));
  ctx.set_output(0, dtype, out);
  return {};
}

class FfnState : public SparseActivationState {
 public:
  FfnState(FfnProblem problem, int workers) : problem_(std::move(problem)), workers_(workers) {}

  Status prepare(PrepareContext& ctx) {
    const double expected = problem_.expected();
    SPRUN_ASSIGN(const auto book, DensityBook::of(ctx.packed()));
    density = book->record(ctx.constant(problem_.down.weight()).id(), ctx.node().name, problem_.pattern, expected,
                           problem_.d_ff);
    ctx.detail = fmt::format("{}: leaving out zeros is exact; density expected {}; ", problem_.pattern,
                             expected < 0 ? "unknown" : fmt::format("{:.1f} %", 100 * expected));
    if (problem_.was_one_weight) ctx.detail += "gate and up, one weight in the file, are two layers; ";
    if (problem_.is_static()) ctx.detail += "static codes, bits of the dense layers; ";
    const bool codes = FfnCodeRows::fits(problem_);
    const std::string against = codes ? FfnCodeRows::reason_against(ctx, problem_) : FfnGather::reason_against(ctx, problem_);
    if (against.empty() && !codes) {
      SPRUN_ASSIGN(gather_, FfnGather::prepare(ctx, problem_));
      ctx.kernel = std::string(gather_->kernel());
      ctx.detail += gather_->detail(expected);
    } else if (against.empty()) {
      SPRUN_ASSIGN(dense_, FfnDense::prepare(ctx, problem_, true));
      ctx.kernel = dense_.rows()->kernel();
      ctx.detail += dense_.rows()->detail(expected);
    } else {
      SPRUN_ASSIGN(dense_, FfnDense::prepare(ctx, problem_));
      ctx.kernel = "dense: " + dense_.kernel();
      ctx.detail += "dense path" + dense_.detail();
      ctx.rejected.push_back({"sparse_ffn", against});
    }
    ctx.regime = gemm_regime(problem_.m);
    return {};
  }

  Status run(const RunContext& ctx) const {
    if (ctx.pool().num_threads() <= workers_) return run_with(ctx);
    ThreadPool serial(1);  // scratch is for fewer
    RunContext one = ctx;
    one.pool_ = &serial;
    return run_with(one);
  }

 private:
  Status run_with(const RunContext& ctx) const {
    FfnRow row = {.problem = &problem_, .thresholds = {}};
    if (problem_.select.kind == SelectKind::kThreshold) {
      const ConstTensorView& t = ctx.input(FfnInput::kThreshold);
      row.thresholds = {t.as<float>(), t.num_elements() == 1 ? 0 : 1};
    }
    if (!gather_) return dense_.run(ctx, row, density->counter);
    gather_->run(ctx, row, density->counter);
    return {};
  }

  FfnProblem problem_;
  int workers_;
  std::optional<FfnGather> gather_;
  FfnDense dense_;
};

Status prepare_ffn(PrepareContext& ctx) {
  auto problem = ffn_problem(ctx);
  if (!problem.ok()) return problem.status();
  if (problem->m == 0) return {};
  auto state = std::make_unique<FfnState>(std::move(*problem), ctx.max_threads());
  SPRUN_TRY(state->prepare(ctx));
  ctx.state = std::move(state);
  return {};
}

Status run_ffn(RunContext& ctx) {
  const auto* state = static_cast<const FfnState*>(ctx.state());
  return state == nullptr ? Status() : state->run(ctx);
}

constexpr OpDef kOps[] = {
    {.domain = "sprun",
     .name = "SparseFfn",
     .inputs = {1, FfnInput::kCount},
     .outputs = {1, 1},
     .infer = infer_ffn,
     .run = run_ffn,
     .prepare = prepare_ffn},
};

}  // namespace

extern const std::span<const OpDef> k_sparse_ffn_ops;
const std::span<const OpDef> k_sparse_ffn_ops = kOps;

}  // namespace sprun::graph
