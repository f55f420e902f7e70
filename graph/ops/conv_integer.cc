// ConvInteger (int32 result) and QLinearConv (requantised result): x and w are 8-bit with zero
// points.
#include <cmath>
#include <limits>

#include "graph/ops/conv_int8.h"
#include "graph/ops/conv_problem.h"

namespace sprun::graph {

namespace {

bool is_8bit(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

// Element i of an 8-bit tensor.
int32_t value_8bit(const ConstTensorView& view, int64_t i) {
  return view.dtype == DType::kS8 ? int32_t{view.as<int8_t>()[i]} : int32_t{view.as<uint8_t>()[i]};
}

// One value for the whole tensor, or one per output channel.
struct PerChannel {
  ConstTensorView view;
  int64_t index(int64_t m) const { return view.num_elements() > 1 ? m : 0; }
  int32_t zero_point(int64_t m) const {
    return view.data == nullptr ? 0 : value_8bit(view, index(m));
  }
  float scale(int64_t m) const { return view.as<float>()[index(m)]; }
};

Status check_scalar(const InferContext& ctx, int i, DType dtype) {
  return ctx.check(!ctx.has_input(i) || (ctx.shape(i).num_elements() == 1 && ctx.dtype(i) == dtype),
                   "input " + std::to_string(i) + " must be one " + std::string(dtype_name(dtype)));
}

Status check_per_channel(const InferContext& ctx, int i, DType dtype, int64_t channels) {
  if (!ctx.has_input(i)) return {};
  const int64_t count = ctx.shape(i).num_elements();
  return ctx.check(
      (count == 1 || (ctx.shape(i).rank() == 1 && count == channels)) && ctx.dtype(i) == dtype,
      "input " + std::to_string(i) + " must hold 1 or " + std::to_string(channels) +
          " values of type " + std::string(dtype_name(dtype)) + ", got shape " +
          ctx.shape(i).to_string());
}

Result<ConvProblem> check_problem(const InferContext& ctx, int x, int w) {
  SPRUN_TRY(ctx.check(is_8bit(ctx.dtype(x)) && is_8bit(ctx.dtype(w)),
                      "input and weight must be int8 or uint8"));
  Result<ConvProblem> p = make_conv_problem(ctx.attrs(), ctx.shape(x), ctx.shape(w));
  if (!p.ok()) return ctx.error(p.status().message());
  return p;
}

// What both ops need to make the sums.
struct IntegerConv {
  ConvProblem problem;
  Int8ConvInputs inputs;
  int32_t x_zero;
  PerChannel w_zero;
};

// Calls finish(y_index, m, sum) with the exact integer sums.
template <class Finish>
Status integer_conv(RunContext& ctx, const IntegerConv& conv, const Finish& finish) {
  const ConstTensorView& x_view = ctx.input(conv.inputs.x);
  if (const auto* state = static_cast<const Int8Conv*>(ctx.state()); state != nullptr) {
    state->run(ctx, x_view, conv.x_zero, finish);
    return {};
  }
  return dispatch_int(ctx, x_view.dtype, [&](auto x_tag) {
    return dispatch_int(ctx, ctx.input(conv.inputs.w).dtype, [&](auto w_tag) {
      const auto* x = x_view.as<typename decltype(x_tag)::type>();
      const auto* w = ctx.input(conv.inputs.w).as<typename decltype(w_tag)::type>();
      if constexpr (sizeof(*x) == 1 && sizeof(*w) == 1) {
        plain_conv<int64_t>(
            conv.problem, ctx.pool(),
            [=, &conv](int64_t xi, int64_t wi, int64_t m) {
              return int64_t{(int32_t{x[xi]} - conv.x_zero) *
                             (int32_t{w[wi]} - conv.w_zero.zero_point(m))};
            },
            finish);
      }
      return Status();
    });
  });
}

// ------------------------------------------------------------------ ConvInteger

Status infer_conv_integer(InferContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p, check_problem(ctx, 0, 1));
  SPRUN_TRY(check_scalar(ctx, 2, ctx.dtype(0)));
  SPRUN_TRY(check_per_channel(ctx, 3, ctx.dtype(1), p.out_channels));
  ctx.set_output(0, DType::kS32, p.out_shape());
  return {};
}

constexpr Int8ConvInputs kConvInteger = {.x = 0, .w = 1, .w_zero = 3};

Status prepare_conv_integer(PrepareContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  return Int8Conv::prepare(ctx, p, kConvInteger);
}

Status run_conv_integer(RunContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  const IntegerConv conv{p,
                         kConvInteger,
                         ctx.has_input(2) ? value_8bit(ctx.input(2), 0) : 0,
                         {ctx.has_input(3) ? ctx.input(3) : ConstTensorView{}}};
  int32_t* y = ctx.output(0).as<int32_t>();
  return integer_conv(ctx, conv,
                      [y](int64_t i, int64_t, int64_t sum) { y[i] = static_cast<int32_t>(sum); });
}

// ------------------------------------------------------------------ QLinearConv

enum Input { kX, kXScale, kXZero, kW, kWScale, kWZero, kYScale, kYZero, kBias };

Status infer_qlinear_conv(InferContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p, check_problem(ctx, kX, kW));
  SPRUN_TRY(check_scalar(ctx, kXScale, DType::kF32));
  SPRUN_TRY(check_scalar(ctx, kYScale, DType::kF32));
  SPRUN_TRY(check_scalar(ctx, kXZero, ctx.dtype(kX)));
  SPRUN_TRY(check_per_channel(ctx, kWScale, DType::kF32, p.out_channels));
  SPRUN_TRY(check_per_channel(ctx, kWZero, ctx.dtype(kW), p.out_channels));
  SPRUN_TRY(ctx.check(is_8bit(ctx.dtype(kYZero)), "y_zero_point must be int8 or uint8"));
  SPRUN_TRY(check_scalar(ctx, kYZero, ctx.dtype(kYZero)));
  if (ctx.has_input(kBias)) {
    SPRUN_TRY(ctx.check(
        ctx.dtype(kBias) == DType::kS32 && ctx.shape(kBias).num_elements() == p.out_channels,
        "bias must hold " + std::to_string(p.out_channels) + " int32 values"));
  }
  ctx.set_output(0, ctx.dtype(kYZero), p.out_shape());
  return {};
}

// round_even(v) + zero, held inside the range of T.
template <class T>
T quantize(float v, int32_t zero) {
  constexpr float kMin = std::numeric_limits<T>::min();
  constexpr float kMax = std::numeric_limits<T>::max();
  const float q = std::nearbyint(v) + static_cast<float>(zero);
  if (!(q > kMin)) return std::numeric_limits<T>::min();  // NaN too
  return q < kMax ? static_cast<T>(q) : std::numeric_limits<T>::max();
}

constexpr Int8ConvInputs kQLinearConv = {.x = kX, .w = kW, .w_zero = kWZero};

Status prepare_qlinear_conv(PrepareContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(kX).shape, ctx.input(kW).shape));
  return Int8Conv::prepare(ctx, p, kQLinearConv);
}

Status run_qlinear_conv(RunContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(kX).shape, ctx.input(kW).shape));
  const IntegerConv conv{p, kQLinearConv, value_8bit(ctx.input(kXZero), 0), {ctx.input(kWZero)}};
  const PerChannel w_scale{ctx.input(kWScale)};
  const float x_scale = *ctx.input(kXScale).as<float>();
  const float y_scale = *ctx.input(kYScale).as<float>();
  const int32_t y_zero = value_8bit(ctx.input(kYZero), 0);
  const int32_t* bias = ctx.has_input(kBias) ? ctx.input(kBias).as<int32_t>() : nullptr;
  const TensorView& y = ctx.output(0);
  return integer_conv(ctx, conv, [&, bias](int64_t i, int64_t m, int64_t sum) {
    if (bias != nullptr) sum += bias[m];
    const float v = static_cast<float>(sum) * (x_scale * w_scale.scale(m) / y_scale);
    if (y.dtype == DType::kS8) {
      y.as<int8_t>()[i] = quantize<int8_t>(v, y_zero);
    } else {
      y.as<uint8_t>()[i] = quantize<uint8_t>(v, y_zero);
    }
  });
}

constexpr OpDef kOps[] = {
    {.name = "ConvInteger",
     .since = 10,
     .inputs = {2, 4},
     .infer = infer_conv_integer,
     .run = run_conv_integer,
     .prepare = prepare_conv_integer},
    {.name = "QLinearConv",
     .since = 10,
     .inputs = {8, 9},
     .infer = infer_qlinear_conv,
     .run = run_qlinear_conv,
     .prepare = prepare_qlinear_conv},
};

}  // namespace

extern const std::span<const OpDef> k_conv_integer_ops;
const std::span<const OpDef> k_conv_integer_ops = kOps;

}  // namespace sprun::graph
