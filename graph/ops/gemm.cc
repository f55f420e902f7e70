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

// beta * C and the activation, read once per run.
struct Tail {
  ConstTensorView c;       // undefined type: none
  BatchStrides strides{};  // of C seen as [M, N]
  int64_t columns = 0;
  float beta = 1.0f, alpha = 0.01f, act_beta = 0.5f;
  std::string_view activation;

  Tail(const RunContext& ctx, bool with_c) : columns(ctx.output(0).shape.back()) {
    activation = ctx.attrs().get_string("activation", "");
    beta = ctx.attrs().get_float("beta", 1.0f);
    alpha = ctx.attrs().get_float("activation_alpha", activation == "HardSigmoid" ? 0.2f : 0.01f);
    act_beta = ctx.attrs().get_float("activation_beta", 0.5f);
    if (!with_c) return;
    c = ctx.input(2);
    strides = broadcast_strides(c.shape, ctx.output(0).shape);
  }

  // act(value + beta * c[i, j]) in the type that T computes in; integers wrap.
  template <class T>
  ComputeType<T> apply(ComputeType<T> value, int64_t i, int64_t j) const {
    if (c.dtype != DType::kUndefined) {
      const T add = c.as<T>()[i * strides[0] + j * strides[1]];
      using Sum = SumType<T>;
      if constexpr (std::is_integral_v<T>) {
        value = static_cast<T>(static_cast<Sum>(value) + static_cast<Sum>(scale_sum<T>(static_cast<Sum>(add), beta)));
      } else {
        value += static_cast<Sum>(beta) * load(add);
      }
    }
    if (activation.empty()) return value;
    return static_cast<ComputeType<T>>(activate(activation, static_cast<float>(value), alpha, act_beta));
  }
};

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

// The tail over a float32 result, with C of type T.
template <class T>
struct FinishAll {
  const Tail& tail;
  int64_t rows;

  static void run(const void* self, float* y) {
    const FinishAll& all = *static_cast<const FinishAll*>(self);
    for (int64_t i = 0; i < all.rows; ++i) {
      float* row = y + i * all.tail.columns;
      for (int64_t j = 0; j < all.tail.columns; ++j)
        row[j] = static_cast<float>(all.tail.template apply<T>(row[j], i, j));
    }
  }
};

Status run_prepared(RunContext& ctx, const GemmState& state) {
  kernels::Epilogue epilogue = state.epilogue;
  if (state.c_role == CRole::kBias) epilogue.bias = ctx.input(2).as<float>();
  if (state.c_role == CRole::kResidual) {
    epilogue.residual = ctx.input(2).as<float>();
    epilogue.ld_residual = ctx.output(0).shape.back();
  }
  const auto run = [&](const ProductFinish& finish) {
    state.product->run(ctx.pool(), ctx.input(0).data, ctx.input(1).data, ctx.output(0).data, epilogue, ctx.scratch(),
                       finish);
    return Status();
  };
  if (state.c_role != CRole::kAfter && !state.activate_after) return run({});
  const Tail tail(ctx, state.c_role == CRole::kAfter);
  return dispatch_real(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      const FinishAll<T> all = {tail, ctx.output(0).shape[0]};
      return run({&all, FinishAll<T>::run});
    }
    return Status();
  });
}

Status run_gemm(RunContext& ctx) {
  if (const auto* state = static_cast<const GemmState*>(ctx.state())) return run_prepared(ctx, *state);
  auto plan = plan_matmul(ctx.input(0).shape, ctx.input(1).shape, flags_of(ctx.attrs()));
  if (!plan.ok()) return ctx.error(plan.status().message());
  const float alpha = ctx.attrs().get_float("alpha", 1.0f);
  const Tail tail(ctx, ctx.has_input(2));
  return dispatch_numeric(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* y = ctx.output(0).as<T>();
    gemm_ref(ctx.pool(), plan->gemm, ctx.input(0).as<T>(), ctx.input(1).as<T>(),
             [&](int64_t offset, int64_t count, const SumType<T>* sums) {
               const int64_t i = offset / plan->gemm.n, first = offset % plan->gemm.n;
               for (int64_t j = 0; j < count; ++j) {
                 ComputeType<T> value;
                 if constexpr (std::is_integral_v<T>) value = scale_sum<T>(sums[j], alpha);
                 else value = static_cast<SumType<T>>(alpha) * sums[j];
                 y[offset + j] = store<T>(tail.template apply<T>(value, i, first + j));
               }
             });
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
