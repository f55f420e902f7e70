// Activation functions with one input (Clip also takes its bounds as inputs), of ai.onnx and
// com.microsoft.
#include <cmath>
#include <limits>

#include "graph/ops/elementwise.h"
#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
namespace {

using kernels::MapOp;

constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kSqrtTwoOverPi = 0.79788456080286535588;

template <class T>
T sigmoid(T x) {
  return x >= 0 ? T{1} / (T{1} + std::exp(-x)) : std::exp(x) / (T{1} + std::exp(x));
}

template <class T>
T softplus(T x) {
  return std::max(x, T{0}) + std::log1p(std::exp(-std::abs(x)));
}

// A functor of one element with parameters p.a and p.b. Comparisons are written so that NaN stays
// NaN, but for ThresholdedRelu and Shrink, whose definition makes it 0.
#define SPRUN_ACTIVATION(Name, ...)                        \
  struct Name {                                            \
    MapParams p;                                           \
    template <class T>                                     \
    T operator()(T x) const {                              \
      [[maybe_unused]] const auto a = static_cast<T>(p.a); \
      [[maybe_unused]] const auto b = static_cast<T>(p.b); \
      return static_cast<T>(__VA_ARGS__);                  \
    }                                                      \
  };
// clang-format off
SPRUN_ACTIVATION(ReluFn, x < 0 ? T{0} : x)
SPRUN_ACTIVATION(LeakyReluFn, x < 0 ? a * x : x)
SPRUN_ACTIVATION(EluFn, x < 0 ? a * std::expm1(x) : x)
SPRUN_ACTIVATION(SeluFn, b * (x < 0 ? a * std::expm1(x) : x))
SPRUN_ACTIVATION(CeluFn, x < 0 ? a * std::expm1(x / a) : x)
SPRUN_ACTIVATION(HardSigmoidFn, std::max(std::min(a * x + b, T{1}), T{0}))
SPRUN_ACTIVATION(HardSwishFn, x * std::max(std::min(x / 6 + T{0.5}, T{1}), T{0}))
SPRUN_ACTIVATION(MishFn, x * std::tanh(softplus(x)))
SPRUN_ACTIVATION(SoftplusFn, softplus(x))
SPRUN_ACTIVATION(SoftsignFn, x / (1 + std::abs(x)))
SPRUN_ACTIVATION(ThresholdedReluFn, x > a ? x : T{0})
SPRUN_ACTIVATION(ShrinkFn, x < -a ? x + b : x > a ? x - b : T{0})
SPRUN_ACTIVATION(SwishFn, x * sigmoid(a * x))
SPRUN_ACTIVATION(GeluErfFn, x / 2 * std::erfc(-x * static_cast<T>(kSqrtHalf)))
SPRUN_ACTIVATION(GeluTanhFn, x * sigmoid(static_cast<T>(2 * kSqrtTwoOverPi) * (x + static_cast<T>(0.044715) * x * x * x)))
// clang-format on
#undef SPRUN_ACTIVATION

template <class F>
Status run_map(RunContext& ctx, MapParams params, int64_t grain = kMathGrain) {
  return run_float_map(ctx, map_elements<float, F>, map_elements<double, F>, params, grain);
}

// The same with a vector kernel for float.
template <class F, MapOp kOp>
Status run_fast(RunContext& ctx, MapParams params) {
  return run_float_map(ctx, kernels::map_f32(kOp), map_elements<double, F>, params, kCheapGrain);
}

// The two attributes of F, with their defaults.
struct AttrSpec {
  std::string_view a = "", b = "";
  float a_default = 0, b_default = 0;
};

constexpr AttrSpec kNoAttrs{};
constexpr AttrSpec kLeakyReluAttrs{.a = "alpha", .a_default = 0.01f};
constexpr AttrSpec kAlphaOne{.a = "alpha", .a_default = 1.0f};
constexpr AttrSpec kSeluAttrs{.a = "alpha",
                              .b = "gamma",
                              .a_default = 1.67326319217681884765625f,
                              .b_default = 1.05070102214813232421875f};
constexpr AttrSpec kHardSigmoidAttrs{
    .a = "alpha", .b = "beta", .a_default = 0.2f, .b_default = 0.5f};
constexpr AttrSpec kQuickGeluAttrs{.a = "alpha", .a_default = 1.702f};

MapParams read_params(const AttrMap& attrs, const AttrSpec& spec) {
  return {spec.a.empty() ? 0 : attrs.get_float(spec.a, spec.a_default),
          spec.b.empty() ? 0 : attrs.get_float(spec.b, spec.b_default)};
}

template <class F, const AttrSpec& kAttrs = kNoAttrs>
Status run_activation(RunContext& ctx) {
  return run_map<F>(ctx, read_params(ctx.attrs(), kAttrs));
}

template <class F, MapOp kOp, const AttrSpec& kAttrs = kNoAttrs>
Status run_fast_activation(RunContext& ctx) {
  return run_fast<F, kOp>(ctx, read_params(ctx.attrs(), kAttrs));
}

// The kernel takes the slope and the offset as parameters, which are constants here.
Status run_hard_swish(RunContext& ctx) {
  return run_fast<HardSwishFn, MapOp::kHardSwish>(ctx, {1.0f / 6.0f, 0.5f});
}

Status run_relu(RunContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  if (!is_integer(dtype)) return run_fast<ReluFn, MapOp::kRelu>(ctx, {});
  SPRUN_TRY(ctx.check(!is_4bit(dtype), "4-bit integers are not supported"));
  return dispatch_int(ctx, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_typed_map<T, T>(ctx, kCheapGrain, [](const T* x, T* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? T{0} : x[i];
    });
  });
}

Status run_shrink(RunContext& ctx) {
  const MapParams params{ctx.attrs().get_float("lambd", 0.5f), ctx.attrs().get_float("bias", 0.0f)};
  const DType dtype = ctx.input(0).dtype;
  if (!is_integer(dtype)) return run_map<ShrinkFn>(ctx, params, kCheapGrain);
  SPRUN_TRY(ctx.check(!is_4bit(dtype), "4-bit integers are not supported"));
  return dispatch_int(ctx, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_typed_map<T, T>(ctx, kCheapGrain, [&](const T* x, T* y, int64_t n) {
      const ShrinkFn shrink{params};
      for (int64_t i = 0; i < n; ++i) y[i] = float_to_int<T>(shrink(static_cast<double>(x[i])));
    });
  });
}

Status infer_gelu(InferContext& ctx) {
  const std::string_view form = ctx.attrs().get_string("approximate", "none");
  SPRUN_TRY(ctx.check(form == "none" || form == "tanh",
                      "approximate is '" + std::string(form) + "', expected none or tanh"));
  return infer_same_as_input(ctx);
}

Status run_gelu(RunContext& ctx) {
  return ctx.attrs().get_string("approximate", "none") == "tanh"
             ? run_fast<GeluTanhFn, MapOp::kGeluTanh>(ctx, {})
             : run_fast<GeluErfFn, MapOp::kGeluErf>(ctx, {});
}

// --- Clip: bounds are attributes up to opset 10 and optional scalar inputs since

Status infer_clip(InferContext& ctx) {
  for (int i = 1; i <= 2; ++i) {
    if (!ctx.has_input(i)) continue;
    SPRUN_TRY(ctx.check(ctx.dtype(i) == ctx.dtype(0) && ctx.shape(i).num_elements() == 1,
                        "bound " + std::to_string(i) + " is " +
                            std::string(dtype_name(ctx.dtype(i))) + ctx.shape(i).to_string() +
                            ", expected one element of type " +
                            std::string(dtype_name(ctx.dtype(0)))));
  }
  return infer_same_as_input(ctx);
}

// Bounds in the type T computes in.
template <class T>
struct Bounds {
  ComputeType<T> min = std::numeric_limits<ComputeType<T>>::lowest();
  ComputeType<T> max = std::numeric_limits<ComputeType<T>>::max();
};

template <class T>
Bounds<T> read_bounds(const RunContext& ctx) {
  using C = ComputeType<T>;
  Bounds<T> bounds;
  if constexpr (std::is_floating_point_v<C>) {  // without a bound, infinity is kept
    bounds = {-std::numeric_limits<C>::infinity(), std::numeric_limits<C>::infinity()};
    if (ctx.opset() < 11) {
      if (ctx.attrs().has("min")) bounds.min = static_cast<C>(ctx.attrs().get_float("min", 0));
      if (ctx.attrs().has("max")) bounds.max = static_cast<C>(ctx.attrs().get_float("max", 0));
    }
  }
  if (ctx.has_input(1)) bounds.min = load(*ctx.input(1).as<T>());
  if (ctx.has_input(2)) bounds.max = load(*ctx.input(2).as<T>());
  return bounds;
}

Status run_clip(RunContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  SPRUN_TRY(ctx.check(!is_4bit(dtype), "4-bit integers are not supported"));
  MapFn<float>* clip = kernels::map_f32(MapOp::kClip);
  return dispatch_numeric(ctx, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Bounds<T> bounds = read_bounds<T>(ctx);
    if constexpr (std::is_same_v<T, float>)
      return run_float_map(ctx, clip, nullptr, {bounds.min, bounds.max}, kCheapGrain);
    return run_typed_map<T, T>(ctx, kCheapGrain, [&](const T* x, T* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {  // NaN passes through; max wins when the bounds cross
        auto v = load(x[i]);
        v = v < bounds.min ? bounds.min : v;
        v = v > bounds.max ? bounds.max : v;
        y[i] = store<T>(v);
      }
    });
  });
}

// --- com.microsoft: FastGelu and BiasGelu add a bias vector of the last axis first

template <class F, class T>
void bias_row(const RowArgs& row) {
  const T* x = row.input<T>(0);
  const T* bias = row.input<T>(1);
  const F f{};
  for (int64_t i = 0; i < row.n; ++i)
    row.output<T>()[i] = f(x[i * row.step[0]] + bias[i * row.step[1]]);
}

template <class F>
void fast_bias_row(const RowArgs& row) {
  const kernels::ElementwiseKernel& kernel = *kernels::best_elementwise().kernel;
  if (row.step[0] == 0 || row.step[1] == 0) return bias_row<F, float>(row);
  const auto fn = std::is_same_v<F, GeluErfFn> ? kernel.bias_gelu_erf : kernel.bias_gelu_tanh;
  fn(row.input<float>(0), row.input<float>(1), row.output<float>(), row.n);
}

Status infer_bias(InferContext& ctx) {
  if (ctx.has_input(1)) {
    const Shape& x = ctx.shape(0);
    const Shape& bias = ctx.shape(1);
    SPRUN_TRY(ctx.check(ctx.dtype(1) == ctx.dtype(0), "input and bias have different types"));
    SPRUN_TRY(ctx.check(x.rank() > 0 && bias.rank() == 1 && bias[0] == x.back(),
                        "bias is " + bias.to_string() +
                            ", expected one element for the last axis of " + x.to_string()));
  }
  return infer_same_as_input(ctx);
}

template <class F, MapOp kOp>
Status run_bias(RunContext& ctx) {
  if (!ctx.has_input(1)) return run_fast<F, kOp>(ctx, {});
  RowFn* row = nullptr;
  if (ctx.input(0).dtype == DType::kF32) row = fast_bias_row<F>;
  if (ctx.input(0).dtype == DType::kF64) row = bias_row<F, double>;
  return run_binary(ctx, {.row = row, .f32_row = fast_bias_row<F>});
}

constexpr OpDef map_op(std::string_view name, Status (*run)(RunContext&),
                       std::string_view domain = "") {
  return {
      .domain = domain, .name = name, .infer = infer_same_as_input, .run = run, .flags = kInPlace};
}

// Floats run on a vector kernel.
constexpr OpDef fast_op(std::string_view name, Status (*run)(RunContext&),
                        std::string_view domain = "") {
  OpDef def = map_op(name, run, domain);
  def.prepare = prepare_elementwise;
  return def;
}

constexpr OpDef bias_op(std::string_view name, Status (*run)(RunContext&), int16_t min_inputs) {
  OpDef def = fast_op(name, run, "com.microsoft");
  def.inputs = {min_inputs, 2};
  def.infer = infer_bias;
  return def;
}

constexpr OpDef gelu_op() {
  OpDef def = fast_op("Gelu", run_gelu);
  def.infer = infer_gelu;
  return def;
}

constexpr OpDef clip_op() {
  OpDef def = fast_op("Clip", run_clip);
  def.inputs = {1, 3};
  def.infer = infer_clip;
  return def;
}

constexpr OpDef kOps[] = {
    fast_op("Relu", run_relu),
    fast_op("LeakyRelu", run_fast_activation<LeakyReluFn, MapOp::kLeakyRelu, kLeakyReluAttrs>),
    map_op("Elu", run_activation<EluFn, kAlphaOne>),
    map_op("Selu", run_activation<SeluFn, kSeluAttrs>),
    map_op("Celu", run_activation<CeluFn, kAlphaOne>),
    fast_op("HardSigmoid",
            run_fast_activation<HardSigmoidFn, MapOp::kHardSigmoid, kHardSigmoidAttrs>),
    fast_op("HardSwish", run_hard_swish),
    map_op("Mish", run_activation<MishFn>),
    map_op("Softplus", run_activation<SoftplusFn>),
    map_op("Softsign", run_activation<SoftsignFn>),
    map_op("ThresholdedRelu", run_activation<ThresholdedReluFn, kAlphaOne>),
    map_op("Shrink", run_shrink),
    fast_op("Swish", run_fast_activation<SwishFn, MapOp::kSwish, kAlphaOne>),
    gelu_op(),
    clip_op(),
    fast_op("Gelu", run_fast_activation<GeluErfFn, MapOp::kGeluErf>, "com.microsoft"),
    fast_op("QuickGelu", run_fast_activation<SwishFn, MapOp::kSwish, kQuickGeluAttrs>,
            "com.microsoft"),
    bias_op("FastGelu", run_bias<GeluTanhFn, MapOp::kGeluTanh>, 1),
    bias_op("BiasGelu", run_bias<GeluErfFn, MapOp::kGeluErf>, 2),
};

}  // namespace

extern const std::span<const OpDef> k_activation_ops;
const std::span<const OpDef> k_activation_ops = kOps;

}  // namespace sprun::graph
