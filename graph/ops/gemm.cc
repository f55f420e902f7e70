// Gemm (ai.onnx, every version) and FusedGemm (com.microsoft): Y = act(alpha * op(A) op(B) + beta * C).
//
// C broadcasts to [M, N] in one direction; the `broadcast` attribute of version 6 asks for what later versions always
// do, so it is not read. Floats up to 32 bits run on float_product.h, with C as bias or residual of the product where
// it can be.
#include <cmath>
#include <string>

#include "graph/ops/float_product.h"
#include "graph/ops/matmul_util.h"
#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

MatMulFlags flags_of(const AttrMap& attrs) {
  return {.trans_a = attrs.get_int("transA", 0) != 0, .trans_b = attrs.get_int("transB", 0) != 0};
}

// The activation of FusedGemm, by its ONNX name. Unknown names are refused by infer().
float activate(std::string_view name, float x, float alpha, float beta) {
  if (name == "Relu") return x > 0 ? x : 0;
  if (name == "LeakyRelu") return x >= 0 ? x : alpha * x;
  if (name == "Tanh") return std::tanh(x);
  if (name == "Sigmoid") return 1.0f / (1.0f + std::exp(-x));
  if (name == "HardSigmoid") return std::fmin(1.0f, std::fmax(0.0f, alpha * x + beta));
  if (name == "Softplus") return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  if (name == "Softsign") return x / (1.0f + std::fabs(x));
  if (name == "ThresholdedRelu") return x > alpha ? x : 0;
  if (name == "Elu") return x >= 0 ? x : alpha * std::expm1(x);
  return x;
}

bool known_activation(std::string_view name) {
  for (std::string_view known :
       {"", "Relu", "LeakyRelu", "Tanh", "Sigmoid", "HardSigmoid", "Softplus", "Softsign", "ThresholdedRelu", "Elu"}) {
    if (name == known) return true;
  }
  return false;
}

Status infer_gemm(InferContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == ctx.dtype(1), "A and B differ in type"));
  SPRUN_TRY(
      ctx.check(ctx.shape(0).rank() == 2 && ctx.shape(1).rank() == 2,
                "A and B must be matrices, got " + ctx.shape(0).to_string() + " and " + ctx.shape(1).to_string()));
  auto plan = plan_matmul(ctx.shape(0), ctx.shape(1), flags_of(ctx.attrs()));
  if (!plan.ok()) return ctx.error(plan.status().message());
  if (ctx.has_input(2)) {
    SPRUN_TRY(ctx.check(ctx.dtype(2) == ctx.dtype(0), "A and C differ in type"));
    const auto joined = broadcast_shapes(ctx.shape(2), plan->out);
    SPRUN_TRY(ctx.check(joined.ok() && *joined == plan->out,
                        "C of shape " + ctx.shape(2).to_string() + " does not broadcast to " + plan->out.to_string()));
  }
  SPRUN_TRY(ctx.check(known_activation(ctx.attrs().get_string("activation", "")), "unknown activation"));
  ctx.set_output(0, ctx.dtype(0), plan->out);
  return {};
}

// y = act(y + beta * c), where c is seen through strides.
template <class T>
void add_and_activate(RunContext& ctx, const T* c, const BatchStrides& strides, T* y) {
  const int64_t rows = ctx.output(0).shape[0], cols = ctx.output(0).shape[1];
  const float beta = ctx.attrs().get_float("beta", 1.0f);
  const std::string_view activation = ctx.attrs().get_string("activation", "");
  const float act_alpha = ctx.attrs().get_float("activation_alpha", activation == "HardSigmoid" ? 0.2f : 0.01f);
  const float act_beta = ctx.attrs().get_float("activation_beta", 0.5f);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      T& out = y[i * cols + j];
      if (c != nullptr) {
        const T add = c[i * strides[0] + j * strides[1]];
        using Sum = SumType<T>;
        if constexpr (std::is_integral_v<T>) {
          out = static_cast<T>(static_cast<Sum>(out) + static_cast<Sum>(scale_sum<T>(static_cast<Sum>(add), beta)));
        } else {
          out = store<T>(load(out) + static_cast<Sum>(beta) * load(add));
        }
      }
      if (!activation.empty()) {
        out = store<T>(
            static_cast<ComputeType<T>>(activate(activation, static_cast<float>(load(out)), act_alpha, act_beta)));
      }
    }
  }
}

// How the float32 product takes C.
enum class CRole : uint8_t { kNone, kBias, kResidual, kAfter };

struct GemmState : OpState {
  std::unique_ptr<const FloatProduct> product;
  kernels::Epilogue epilogue;
  CRole c_role = CRole::kNone;
  bool activate_after = false;  // the activation is none of the kernel's
};

std::optional<kernels::Activation> kernel_activation(std::string_view name) {
  if (name.empty()) return kernels::Activation::kNone;
  if (name == "Relu") return kernels::Activation::kRelu;
  if (name == "Tanh") return kernels::Activation::kTanh;
  if (name == "Sigmoid") return kernels::Activation::kSigmoid;
  return std::nullopt;
}

Status prepare_gemm(PrepareContext& ctx) {
  if (!is_float(ctx.input(0).dtype) || ctx.input(0).dtype == DType::kF64) {
    ctx.rejected.push_back({"gemm_f32", "element type is " + std::string(dtype_name(ctx.input(0).dtype))});
    return {};
  }
  SPRUN_ASSIGN(const MatMulShapes plan, plan_matmul(ctx.input(0).shape, ctx.input(1).shape, flags_of(ctx.attrs())));
  auto state = std::make_unique<GemmState>();
  SPRUN_ASSIGN(state->product, FloatProduct::prepare(ctx, plan.gemm, 0, 1));
  if (!state->product) return {};
  const auto activation = kernel_activation(ctx.attrs().get_string("activation", ""));
  state->epilogue.alpha = ctx.attrs().get_float("alpha", 1.0f);
  if (ctx.has_input(2)) {
    const Shape& c = ctx.input(2).shape;
    // 16-bit C would have to be widened first: added afterwards, as are those that broadcast otherwise.
    const bool plain = ctx.attrs().get_float("beta", 1.0f) == 1.0f && ctx.input(2).dtype == DType::kF32;
    const bool row = c.rank() >= 1 && c.back() == plan.gemm.n && c.num_elements() == plan.gemm.n;
    state->c_role = plain && row                                                         ? CRole::kBias
                    : plain && c == plan.out && activation == kernels::Activation::kNone ? CRole::kResidual
                                                                                         : CRole::kAfter;
  }
  state->activate_after = !activation || state->c_role == CRole::kAfter;
  if (!state->activate_after) state->epilogue.activation = *activation;
  ctx.state = std::move(state);
  return {};
}

template <class T>
void finish(RunContext& ctx, bool add_c) {
  const auto strides = add_c ? broadcast_strides(ctx.input(2).shape, ctx.output(0).shape) : BatchStrides{};
  add_and_activate(ctx, add_c ? ctx.input(2).as<T>() : nullptr, strides, ctx.output(0).as<T>());
}

Status run_prepared(RunContext& ctx, const GemmState& state) {
  kernels::Epilogue epilogue = state.epilogue;
  if (state.c_role == CRole::kBias) epilogue.bias = ctx.input(2).as<float>();
  if (state.c_role == CRole::kResidual) {
    epilogue.residual = ctx.input(2).as<float>();
    epilogue.ld_residual = ctx.output(0).shape.back();
  }
  state.product->run(ctx.pool(), ctx.input(0).data, ctx.input(1).data, ctx.output(0).data, epilogue, ctx.scratch());
  if (state.c_role != CRole::kAfter && !state.activate_after) return {};
  return dispatch_real(ctx, ctx.output(0).dtype, [&](auto tag) {
    finish<typename decltype(tag)::type>(ctx, state.c_role == CRole::kAfter);
    return Status();
  });
}

Status run_gemm(RunContext& ctx) {
  if (const auto* state = static_cast<const GemmState*>(ctx.state())) return run_prepared(ctx, *state);
  auto plan = plan_matmul(ctx.input(0).shape, ctx.input(1).shape, flags_of(ctx.attrs()));
  if (!plan.ok()) return ctx.error(plan.status().message());
  const float alpha = ctx.attrs().get_float("alpha", 1.0f);
  return dispatch_numeric(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    gemm_ref(ctx.pool(), plan->gemm, ctx.input(0).as<T>(), ctx.input(1).as<T>(), ctx.output(0).as<T>(), alpha);
    finish<T>(ctx, ctx.has_input(2));
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "Gemm", .inputs = {2, 3}, .infer = infer_gemm, .run = run_gemm, .prepare = prepare_gemm},
    {.domain = "com.microsoft",
     .name = "FusedGemm",
     .inputs = {2, 3},
     .infer = infer_gemm,
     .run = run_gemm,
     .prepare = prepare_gemm},
};

}  // namespace

extern const std::span<const OpDef> k_gemm_ops;
const std::span<const OpDef> k_gemm_ops = kOps;

}  // namespace sprun::graph
