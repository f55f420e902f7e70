// Conv, and Conv with a fused activation: com.microsoft FusedConv and sprun Conv (made by the
// fusion passes).
//
// The fused forms have the attributes activation and activation_params of FusedConv, a fourth input
// that is added before the activation, and (sprun only) out_scale and out_shift: y = out_scale *
// act(conv + z) + out_shift.
#include "kernels/conv/conv.h"

#include "graph/ops/conv_problem.h"
#include "graph/ops/elementwise.h"
#include "runtime/base/packed_cache.h"

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
  // 16-bit floats: float copies behind the scratch of the plan, at these offsets in floats.
  DType dtype = DType::kF32;
  int64_t x_at = 0, w_at = 0, bias_at = 0, y_at = 0;
  PackedBlob weights;  // float copy of constant weights
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

// Elements of input i; 0 if absent.
int64_t count_of(const PrepareContext& ctx, int i) {
  return ctx.has_input(i) ? ctx.input(i).num_elements() : 0;
}

// Places for the float copies of 16-bit tensors; constant weights are converted now.
Status prepare_half(PrepareContext& ctx, ConvState* state) {
  constexpr int64_t kAlign = 16;
  int64_t at = (state->plan.scratch_bytes + 63) / 64 * kAlign;
  const auto place = [&](int64_t count) {
    const int64_t here = at;
    at += (count + kAlign - 1) / kAlign * kAlign;
    return here;
  };
  state->dtype = ctx.input(0).dtype;
  state->x_at = place(count_of(ctx, 0));
  state->y_at = place(ctx.output(0).num_elements());
  state->bias_at = place(count_of(ctx, 2));
  const Tensor& constant = ctx.constant(1);
  if (constant.empty()) {
    state->w_at = place(count_of(ctx, 1));
  } else {
    SPRUN_ASSIGN(
        state->weights,
        ctx.packed().get("conv_f32:" + std::to_string(constant.id()), [&]() -> Result<PackedBlob> {
          SPRUN_ASSIGN(PackedBlob blob, allocate_blob(constant.num_elements() * 4));
          SPRUN_ASSIGN(const Tensor aligned, Tensor::copy_of(constant.view()));
          widen(constant.dtype(), aligned.data(), static_cast<float*>(blob.data.get()),
                constant.num_elements());
          return blob;
        }));
    ctx.unread_inputs.push_back(1);
  }
  ctx.scratch_bytes = at * 4;
  return {};
}

// Why the kernels cannot take this node; empty if they can.
std::string rejection_of(const PrepareContext& ctx, const ConvProblem& p) {
  const DType dtype = ctx.input(0).dtype;
  if (dtype == DType::kF64) return "element type is float64";
  if (p.out_shape().num_elements() == 0 || p.in_channels == 0) return "no elements";
  return "";
}

Status prepare_conv(PrepareContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  SPRUN_ASSIGN(const ConvEpilogue epilogue, read_epilogue(ctx.attrs()));
  ctx.regime = "compute-bound";
  ctx.flops = 2.0 * static_cast<double>(p.out_shape().num_elements()) *
              static_cast<double>(p.group_in() * p.window.kernel_size());
  std::string reason = rejection_of(ctx, p);
  auto state = std::make_unique<ConvState>();
  std::vector<kernels::Rejection> why_not;
  const auto& info =
      kernels::select(kernels::conv_f32_kernels(), kernels::available_isas(), &why_not);
  if (reason.empty()) {
    state->args.shape = kernel_shape(p);
    state->args.epilogue = epilogue;
    state->plan = kernels::plan_conv(*info.kernel, state->args.shape, ctx.max_threads());
    if (state->plan.scratch_bytes > kernels::kMaxConvScratchBytes)
      reason = "too much scratch memory";
  }
  if (!reason.empty()) {
    ctx.rejected.push_back({std::string(info.name), std::move(reason)});
    return {};
  }
  for (kernels::Rejection& r : why_not) {
    ctx.rejected.push_back({std::move(r.kernel), std::move(r.reason)});
  }
  ctx.scratch_bytes = state->plan.scratch_bytes;
  ctx.kernel = std::string(info.name) + "/" + kernels::method_name(state->plan.method);
  if (ctx.input(0).dtype != DType::kF32) SPRUN_TRY(prepare_half(ctx, state.get()));
  ctx.state = std::move(state);
  return {};
}

constexpr int64_t kConvertGrain = 32 * 1024;

// The float copy of 16-bit input i at `to`.
const float* widened(RunContext& ctx, int i, float* to) {
  if (!ctx.has_input(i)) return nullptr;
  const ConstTensorView& view = ctx.input(i);
  ctx.pool().parallel_for(view.num_elements(), kConvertGrain, [&](int64_t begin, int64_t end, int) {
    widen(view.dtype, view.as<uint16_t>() + begin, to + begin, end - begin);
  });
  return to;
}

// Points args at the tensors themselves, or at float copies.
void bind(RunContext& ctx, const ConvState& state, kernels::ConvArgs* args) {
  if (state.dtype == DType::kF32) {
    args->x = ctx.input(0).as<float>();
    args->w = ctx.input(1).as<float>();
    args->bias = ctx.has_input(2) ? ctx.input(2).as<float>() : nullptr;
    args->residual = ctx.has_input(3) ? ctx.input(3).as<float>() : nullptr;
    args->y = ctx.output(0).as<float>();
    return;
  }
  float* scratch = static_cast<float*>(ctx.scratch());
  args->x = widened(ctx, 0, scratch + state.x_at);
  args->w = state.weights.data != nullptr ? static_cast<const float*>(state.weights.data.get())
                                          : widened(ctx, 1, scratch + state.w_at);
  args->bias = widened(ctx, 2, scratch + state.bias_at);
  args->y = scratch + state.y_at;
  args->residual = widened(ctx, 3, args->y);
}

Status run_kernel(RunContext& ctx, const ConvState& state) {
  kernels::ConvArgs args = state.args;
  bind(ctx, state, &args);
  kernels::conv_f32(state.plan, args, ctx.scratch(), [&](int64_t n, int64_t grain, const auto& fn) {
    ctx.pool().parallel_for(n, grain, fn);
  });
  if (state.dtype == DType::kF32) return {};
  const TensorView& y = ctx.output(0);
  ctx.pool().parallel_for(y.num_elements(), kConvertGrain, [&](int64_t begin, int64_t end, int) {
    narrow(y.dtype, args.y + begin, y.as<uint16_t>() + begin, end - begin);
  });
  return {};
}

Status run_conv(RunContext& ctx) {
  if (const auto* state = static_cast<const ConvState*>(ctx.state()); state != nullptr) {
    return run_kernel(ctx, *state);
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
