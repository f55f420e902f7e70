// Conv, and Conv with a fused activation: com.microsoft FusedConv and sprun Conv (made by the
// fusion passes).
//
// The fused forms have the attributes activation and activation_params of FusedConv, a fourth input
// that is added before the activation, and (sprun only) out_scale and out_shift: y = out_scale *
// act(conv + z) + out_shift.
#include "kernels/conv/conv.h"

#include "graph/ops/conv_problem.h"

namespace sprun::graph {

namespace {

using kernels::ConvActivation;
using kernels::ConvEpilogue;

struct ActivationName {
  std::string_view name;
  ConvActivation activation;
  float alpha, beta;  // defaults
};

constexpr ActivationName kActivations[] = {
    {"", ConvActivation::kNone, 0, 0},
    {"Relu", ConvActivation::kRelu, 0, 0},
    {"Clip", ConvActivation::kClip, -3.402823466e38F, 3.402823466e38F},
    {"LeakyRelu", ConvActivation::kLeakyRelu, 0.01F, 0},
    {"HardSigmoid", ConvActivation::kHardSigmoid, 0.2F, 0.5F},
    {"HardSwish", ConvActivation::kHardSwish, 1.0F / 6.0F, 0.5F},
    {"Sigmoid", ConvActivation::kSigmoid, 0, 0},
    {"Silu", ConvActivation::kSilu, 0, 0},
    {"Tanh", ConvActivation::kTanh, 0, 0},
    {"Gelu", ConvActivation::kGelu, 0, 0},
};

Result<ConvEpilogue> read_epilogue(const AttrMap& attrs) {
  const std::string_view name = attrs.get_string("activation", "");
  const std::vector<float>& params = attrs.get_floats("activation_params");
  for (const ActivationName& known : kActivations) {
    if (known.name != name) continue;
    ConvEpilogue epilogue{known.activation, known.alpha, known.beta};
    if (!params.empty()) epilogue.alpha = params[0];
    if (params.size() > 1) epilogue.beta = params[1];
    epilogue.scale = attrs.get_float("out_scale", 1.0F);
    epilogue.shift = attrs.get_float("out_shift", 0.0F);
    return epilogue;
  }
  return Status(Code::kBadModel, "activation '" + std::string(name) + "' is unknown");
}

Status check_types(const InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)),
                      "input must be a float type, got " + std::string(dtype_name(ctx.dtype(0)))));
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.has_input(i) && ctx.dtype(i) != ctx.dtype(0))
      return ctx.error("inputs have different types");
  }
  return {};
}

Status infer_conv(InferContext& ctx) {
  SPRUN_TRY(check_types(ctx));
  const Result<ConvProblem> p = make_conv_problem(ctx.attrs(), ctx.shape(0), ctx.shape(1));
  if (!p.ok()) return ctx.error(p.status().message());
  if (ctx.has_input(2)) {
    SPRUN_TRY(ctx.check(ctx.shape(2).num_elements() == p->out_channels && ctx.shape(2).rank() == 1,
                        "bias has shape " + ctx.shape(2).to_string() + ", expected [" +
                            std::to_string(p->out_channels) + "]"));
  }
  if (ctx.has_input(3)) {
    SPRUN_TRY(ctx.check(ctx.shape(3) == p->out_shape(),
                        "the added input has shape " + ctx.shape(3).to_string() + ", expected " +
                            p->out_shape().to_string()));
  }
  const Result<ConvEpilogue> epilogue = read_epilogue(ctx.attrs());
  if (!epilogue.ok()) return ctx.error(epilogue.status().message());
  ctx.set_output(0, ctx.dtype(0), p->out_shape());
  return {};
}

Status run_plain(RunContext& ctx, const ConvProblem& p, const ConvEpilogue& epilogue) {
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    const T* w = ctx.input(1).as<T>();
    const T* bias = ctx.has_input(2) ? ctx.input(2).as<T>() : nullptr;
    const T* added = ctx.has_input(3) ? ctx.input(3).as<T>() : nullptr;
    T* y = ctx.output(0).as<T>();
    plain_conv<double>(
        p, ctx.pool(),
        [=](int64_t xi, int64_t wi, int64_t) {
          return static_cast<double>(load(x[xi])) * static_cast<double>(load(w[wi]));
        },
        [&, x, y, bias, added](int64_t i, int64_t m, double v) {
          if (bias != nullptr) v += static_cast<double>(load(bias[m]));
          if (added != nullptr) v += static_cast<double>(load(added[i]));
          v = static_cast<double>(epilogue.scale) * kernels::conv_activate(epilogue, v) +
              static_cast<double>(epilogue.shift);
          y[i] = store<T>(static_cast<ComputeType<T>>(v));
        });
    return Status();
  });
}

// ------------------------------------------------------------------ f32 kernels

struct ConvState : OpState {
  kernels::ConvPlan plan;
  kernels::ConvArgs args;  // shape and epilogue
};

kernels::ConvShape kernel_shape(const ConvProblem& p) {
  kernels::ConvShape shape;
  shape.batch = p.batch;
  shape.in_channels = p.in_channels;
  shape.out_channels = p.out_channels;
  shape.groups = p.groups;
  for (size_t i = 0; i < kMaxSpatial; ++i) {
    const WindowAxis& a = p.window.axis[i];
    shape.axis[i] = {a.in, a.out, a.kernel, a.stride, a.dilation, a.pad_begin};
  }
  return shape;
}

Status prepare_conv(PrepareContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  SPRUN_ASSIGN(const ConvEpilogue epilogue, read_epilogue(ctx.attrs()));
  const int64_t outputs = p.out_shape().num_elements();
  ctx.regime = "compute-bound";
  ctx.flops = 2.0 * static_cast<double>(outputs) *
              static_cast<double>(p.group_in() * p.window.kernel_size());
  const auto reject = [&](std::string reason) {
    ctx.rejected.push_back({"conv_f32", std::move(reason)});
    return Status();
  };
  if (ctx.input(0).dtype != DType::kF32) return reject("element type is not float32");
  if (outputs == 0 || p.in_channels == 0) return reject("no elements");
  auto state = std::make_unique<ConvState>();
  std::vector<kernels::Rejection> why_not;
  const auto& info =
      kernels::select(kernels::conv_f32_kernels(), kernels::available_isas(), &why_not);
  state->args.shape = kernel_shape(p);
  state->args.epilogue = epilogue;
  state->plan = kernels::plan_conv(*info.kernel, state->args.shape, ctx.max_threads());
  if (state->plan.scratch_bytes > kernels::kMaxConvScratchBytes)
    return reject("too much scratch memory");
  for (kernels::Rejection& r : why_not)
    ctx.rejected.push_back({std::move(r.kernel), std::move(r.reason)});
  ctx.scratch_bytes = state->plan.scratch_bytes;
  ctx.kernel = std::string(info.name) + "/" + kernels::method_name(state->plan.method);
  ctx.state = std::move(state);
  return {};
}

Status run_conv(RunContext& ctx) {
  if (const auto* state = static_cast<const ConvState*>(ctx.state()); state != nullptr) {
    kernels::ConvArgs args = state->args;
    args.x = ctx.input(0).as<float>();
    args.w = ctx.input(1).as<float>();
    args.bias = ctx.has_input(2) ? ctx.input(2).as<float>() : nullptr;
    args.residual = ctx.has_input(3) ? ctx.input(3).as<float>() : nullptr;
    args.y = ctx.output(0).as<float>();
    kernels::conv_f32(
        state->plan, args, ctx.scratch(),
        [&](int64_t n, int64_t grain, const auto& fn) { ctx.pool().parallel_for(n, grain, fn); });
    return {};
  }
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  SPRUN_ASSIGN(const ConvEpilogue epilogue, read_epilogue(ctx.attrs()));
  return run_plain(ctx, p, epilogue);
}

constexpr OpDef kOps[] = {
    {.name = "Conv",
     .inputs = {2, 3},
     .infer = infer_conv,
     .run = run_conv,
     .prepare = prepare_conv},
    {.domain = "com.microsoft",
     .name = "FusedConv",
     .inputs = {2, 4},
     .infer = infer_conv,
     .run = run_conv,
     .prepare = prepare_conv},
    {.domain = "sprun",
     .name = "Conv",
     .inputs = {2, 4},
     .infer = infer_conv,
     .run = run_conv,
     .prepare = prepare_conv},
};

}  // namespace

extern const std::span<const OpDef> k_conv_ops;
const std::span<const OpDef> k_conv_ops = kOps;

}  // namespace sprun::graph
