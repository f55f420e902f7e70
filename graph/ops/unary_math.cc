// Elementwise mathematics: sign and rounding, roots, exponentials, trigonometry, Not, IsNaN and
// IsInf.
#include <cmath>

#include "graph/ops/elementwise.h"
#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
namespace {

using kernels::MapOp;

// Float functors are called with float or double. Integer ones see the unsigned type where wrapping
// matters.
#define SPRUN_UNARY(Name, expression)    \
  struct Name {                          \
    explicit Name(MapParams) {}          \
    template <class T>                   \
    T operator()(T x) const {            \
      return static_cast<T>(expression); \
    }                                    \
  };
SPRUN_UNARY(AbsFn, std::abs(x))
SPRUN_UNARY(NegFn, -x)
SPRUN_UNARY(SignFn, x > 0 ? T{1} : x < 0 ? T{-1} : x)  // keeps NaN
SPRUN_UNARY(CeilFn, std::ceil(x))
SPRUN_UNARY(FloorFn, std::floor(x))
SPRUN_UNARY(RoundFn, std::nearbyint(x))
SPRUN_UNARY(SqrtFn, std::sqrt(x))
SPRUN_UNARY(ReciprocalFn, T{1} / x)
SPRUN_UNARY(ExpFn, std::exp(x))
SPRUN_UNARY(LogFn, std::log(x))
SPRUN_UNARY(ErfFn, std::erf(x))
SPRUN_UNARY(SinFn, std::sin(x))
SPRUN_UNARY(CosFn, std::cos(x))
SPRUN_UNARY(TanFn, std::tan(x))
SPRUN_UNARY(AsinFn, std::asin(x))
SPRUN_UNARY(AcosFn, std::acos(x))
SPRUN_UNARY(AtanFn, std::atan(x))
SPRUN_UNARY(SinhFn, std::sinh(x))
SPRUN_UNARY(CoshFn, std::cosh(x))
SPRUN_UNARY(TanhFn, std::tanh(x))
SPRUN_UNARY(AsinhFn, std::asinh(x))
SPRUN_UNARY(AcoshFn, std::acosh(x))
SPRUN_UNARY(AtanhFn, std::atanh(x))
// 1 / (1 + e^-x) without overflow in either direction.
SPRUN_UNARY(SigmoidFn, x >= 0 ? T{1} / (T{1} + std::exp(-x)) : std::exp(x) / (T{1} + std::exp(x)))
#undef SPRUN_UNARY

template <class F, int64_t kGrain = kMathGrain>
Status run_real(RunContext& ctx) {
  return run_float_map(ctx, map_elements<float, F>, map_elements<double, F>, {}, kGrain);
}

// The same with a vector kernel for float.
template <class F, kernels::MapOp kOp>
Status run_fast(RunContext& ctx) {
  return run_float_map(ctx, kernels::map_f32(kOp), map_elements<double, F>, {}, kCheapGrain);
}

// Integers through `fn`, floats through `run_floats`.
template <class IntFn>
Status run_real_or_int(RunContext& ctx, Status (*run_floats)(RunContext&), const IntFn& fn) {
  const DType dtype = ctx.input(0).dtype;
  if (!is_integer(dtype)) return run_floats(ctx);
  SPRUN_TRY(ctx.check(!is_4bit(dtype), "4-bit integers are not supported"));
  return dispatch_int(ctx, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_typed_map<T, T>(ctx, kCheapGrain, [&](const T* x, T* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) y[i] = fn(x[i]);
    });
  });
}

// The smallest signed integer stays what it is, as in NumPy.
template <class T>
T wrapped_negative(T x) {
  return static_cast<T>(0 - static_cast<uint64_t>(x));
}

Status run_abs(RunContext& ctx) {
  return run_real_or_int(ctx, run_fast<AbsFn, MapOp::kAbs>,
                         [](auto x) { return x < 0 ? wrapped_negative(x) : x; });
}

Status run_neg(RunContext& ctx) {
  return run_real_or_int(ctx, run_fast<NegFn, MapOp::kNeg>,
                         [](auto x) { return wrapped_negative(x); });
}

Status run_sign(RunContext& ctx) {
  return run_real_or_int(ctx, run_real<SignFn, kCheapGrain>,
                         [](auto x) { return static_cast<decltype(x)>((x > 0) - (x < 0)); });
}

// Erf-9 also lists integers; the result is truncated to them.
Status run_erf(RunContext& ctx) {
  return run_real_or_int(ctx, run_fast<ErfFn, MapOp::kErf>, [](auto x) {
    return static_cast<decltype(x)>(std::erf(static_cast<float>(x)));
  });
}

Status infer_bool(InferContext& ctx) {
  ctx.set_output(0, DType::kBool, ctx.shape(0));
  return {};
}

Status run_not(RunContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.input(0).dtype == DType::kBool,
                      "expected bool, got " + std::string(dtype_name(ctx.input(0).dtype))));
  return run_typed_map<uint8_t, uint8_t>(ctx, kCheapGrain,
                                         [](const uint8_t* x, uint8_t* y, int64_t n) {
                                           for (int64_t i = 0; i < n; ++i) y[i] = x[i] == 0;
                                         });
}

// Float input, bool output: fn(value).
template <class Fn>
Status run_test(RunContext& ctx, const Fn& fn) {
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_typed_map<T, uint8_t>(ctx, kCheapGrain, [&](const T* x, uint8_t* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) y[i] = fn(load(x[i]));
    });
  });
}

Status run_is_nan(RunContext& ctx) {
  return run_test(ctx, [](auto x) { return x != x; });
}

Status run_is_inf(RunContext& ctx) {
  const bool negative = ctx.attrs().get_int("detect_negative", 1) != 0;
  const bool positive = ctx.attrs().get_int("detect_positive", 1) != 0;
  return run_test(ctx, [=](auto x) { return std::isinf(x) && (x > 0 ? positive : negative); });
}

constexpr OpDef same_op(std::string_view name, Status (*run)(RunContext&)) {
  return {.name = name, .infer = infer_same_as_input, .run = run, .flags = kInPlace};
}

// Floats run on a vector kernel.
constexpr OpDef fast_op(std::string_view name, Status (*run)(RunContext&)) {
  OpDef def = same_op(name, run);
  def.prepare = prepare_elementwise;
  return def;
}

constexpr OpDef kOps[] = {
    fast_op("Abs", run_abs),
    fast_op("Neg", run_neg),
    same_op("Sign", run_sign),
    same_op("Ceil", run_real<CeilFn, kCheapGrain>),
    same_op("Floor", run_real<FloorFn, kCheapGrain>),
    same_op("Round", run_real<RoundFn, kCheapGrain>),
    fast_op("Sqrt", run_fast<SqrtFn, MapOp::kSqrt>),
    fast_op("Reciprocal", run_fast<ReciprocalFn, MapOp::kReciprocal>),
    fast_op("Exp", run_fast<ExpFn, MapOp::kExp>),
    fast_op("Log", run_fast<LogFn, MapOp::kLog>),
    fast_op("Erf", run_erf),
    same_op("Sin", run_real<SinFn>),
    same_op("Cos", run_real<CosFn>),
    same_op("Tan", run_real<TanFn>),
    same_op("Asin", run_real<AsinFn>),
    same_op("Acos", run_real<AcosFn>),
    same_op("Atan", run_real<AtanFn>),
    same_op("Sinh", run_real<SinhFn>),
    same_op("Cosh", run_real<CoshFn>),
    fast_op("Tanh", run_fast<TanhFn, MapOp::kTanh>),
    same_op("Asinh", run_real<AsinhFn>),
    same_op("Acosh", run_real<AcoshFn>),
    same_op("Atanh", run_real<AtanhFn>),
    fast_op("Sigmoid", run_fast<SigmoidFn, MapOp::kSigmoid>),
    same_op("Not", run_not),
    {.name = "IsNaN", .infer = infer_bool, .run = run_is_nan},
    {.name = "IsInf", .infer = infer_bool, .run = run_is_inf},
};

}  // namespace

extern const std::span<const OpDef> k_unary_math_ops;
const std::span<const OpDef> k_unary_math_ops = kOps;

}  // namespace sprun::graph
