// QuantizeLinear, DequantizeLinear (ai.onnx 10 to 28 and com.microsoft) and DynamicQuantizeLinear.
//
// Per tensor, per axis and blocked parameters are one layout (quant_util.h). From opset 23 on, quotients are rounded to
// the precision that the op asks for (type of the scale, or the attribute `precision`) before they are rounded to
// integers; earlier versions leave it open, and divide in float32 here. float32
// to 8 bits, the common case, has vector kernels.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "graph/ops/op.h"
#include "graph/ops/op_util.h"
#include "graph/ops/quant_util.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/quantize_rows.h"

namespace sprun::graph {
namespace {

constexpr int64_t kGrain = 16384;  // elements

// The vector kernel for f32 -> u8; s8 codes are u8 codes of a zero point 128 higher with the top bit flipped.
struct QuantizeState : OpState {
  explicit QuantizeState(const kernels::QuantizeRowsKernel* k) : kernel(k) {}
  const kernels::QuantizeRowsKernel* kernel;

  void run(const float* x, int64_t n, float scale, int32_t zero_point, DType dtype, uint8_t* y) const {
    const bool is_signed = dtype == DType::kS8;
    kernel->quantize(x, n, 1, n, scale, zero_point + (is_signed ? 128 : 0), y, n, nullptr);
    if (!is_signed) return;
    for (int64_t i = 0; i < n; ++i) y[i] ^= 0x80;
  }
};

Status prepare_quantize(PrepareContext& ctx) {
  const DType to = ctx.output(0).dtype;
  if (ctx.input(0).dtype != DType::kF32 || (to != DType::kU8 && to != DType::kS8)) return {};
  const auto& info = kernels::select(kernels::quantize_rows_kernels(), kernels::available_isas());
  ctx.kernel = std::string(info.name);
  ctx.state = std::make_unique<QuantizeState>(info.kernel);
  return {};
}

// --- QuantizeLinear

template <class Ctx>
Result<QuantLayout> layout_of(const Ctx& ctx, const Shape& x, const Shape& scale) {
  return quant_layout(x, scale, ctx.attrs().get_int("axis", 1), ctx.attrs().get_int("block_size", 0));
}

Status check_zero_point(const InferContext& ctx) {
  if (!ctx.has_input(2)) return {};
  return ctx.check(ctx.shape(2).num_elements() == ctx.shape(1).num_elements(),
                   "zero point of shape " + ctx.shape(2).to_string() + ", scale of shape " + ctx.shape(1).to_string());
}

bool is_scale_type(DType dtype) { return is_float(dtype) && dtype != DType::kF64; }

Status infer_quantize(InferContext& ctx) {
  const auto wanted = static_cast<DType>(ctx.attrs().get_int("output_dtype", 0));
  DType dtype = wanted == DType::kUndefined ? DType::kU8 : wanted;
  if (ctx.has_input(2)) {
    dtype = ctx.dtype(2);
    SPRUN_TRY(ctx.check(wanted == DType::kUndefined || wanted == dtype, "output_dtype differs from the zero point's"));
  }
  SPRUN_TRY(ctx.check(quant_range(dtype).max > 0,
                      "cannot quantise to type number " + std::to_string(static_cast<int>(dtype))));
  SPRUN_TRY(ctx.check(is_scale_type(ctx.dtype(0)) || ctx.dtype(0) == DType::kS32, "x has an unsupported type"));
  SPRUN_TRY(ctx.check(is_scale_type(ctx.dtype(1)) || ctx.dtype(1) == DType::kS32, "scale has an unsupported type"));
  SPRUN_TRY(check_zero_point(ctx));
  if (auto layout = layout_of(ctx, ctx.shape(0), ctx.shape(1)); !layout.ok())
    return ctx.error(layout.status().message());
  ctx.set_output(0, dtype, ctx.shape(0));
  return {};
}

struct QuantizeArgs {
  QuantLayout layout;
  ScaleReader scale;
  ZeroPointReader zero_point;
  QuantRange range;
  DType precision;
};

// Value as `precision` would hold it; double stands for exact.
double round_to(double value, DType precision) {
  switch (precision) {
    case DType::kF16:
      return to_float(to_float16(value));
    case DType::kBf16:
      return to_float(to_bfloat16(value));
    case DType::kF32:
      return static_cast<float>(value);
    default:
      return value;
  }
}

template <class X, class Y>
void quantize_run(const QuantizeArgs& args, const X* x, Y* y, int64_t n, int64_t base, int64_t step) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t p = base + i * step;
    float quotient;
    if constexpr (std::is_same_v<X, float>) {
      if (args.precision == DType::kF32) {
        y[i] = static_cast<Y>(quantize_value(x[i] / args.scale[p], args.zero_point[p], args.range));
        continue;
      }
    }
    // Division in double and one rounding equals division in the narrower type.
    const double numerator = round_to(static_cast<double>(load(x[i])), args.precision);
    quotient = static_cast<float>(round_to(numerator / round_to(args.scale[p], args.precision), args.precision));
    y[i] = static_cast<Y>(quantize_value(quotient, args.zero_point[p], args.range));
  }
}

// f32 to u8 or s8 with f32 arithmetic.
void quantize_bytes(const RunContext& ctx, const QuantizeState& state, const QuantizeArgs& args) {
  const float* x = ctx.input(0).as<float>();
  const DType dtype = ctx.output(0).dtype;
  ctx.pool().parallel_for(ctx.input(0).num_elements(), kGrain, [&](int64_t begin, int64_t end, int) {
    for_each_quant_run(args.layout, begin, end, [&](int64_t at, int64_t n, int64_t base, int64_t step) {
      uint8_t* y = ctx.output(0).as<uint8_t>() + at;
      if (step == 0) return state.run(x + at, n, args.scale[base], args.zero_point[base], dtype, y);
      quantize_run(args, x + at, y, n, base, step);
    });
  });
}

template <class X>
Status quantize_from(RunContext& ctx, const QuantizeArgs& args) {
  return dispatch_int(ctx, ctx.output(0).dtype, [&](auto tag) {
    using Y = typename decltype(tag)::type;
    const X* x = ctx.input(0).as<X>();
    Y* y = ctx.output(0).as<Y>();
    ctx.pool().parallel_for(ctx.input(0).num_elements(), kGrain, [&](int64_t begin, int64_t end, int) {
      for_each_quant_run(args.layout, begin, end, [&](int64_t at, int64_t n, int64_t base, int64_t step) {
        quantize_run(args, x + at, y + at, n, base, step);
      });
    });
    return Status();
  });
}

DType precision_of(const RunContext& ctx) {
  const auto precision = static_cast<DType>(ctx.attrs().get_int("precision", 0));
  if (precision != DType::kUndefined) return precision;
  return ctx.node().domain.empty() && ctx.opset() >= 23 ? ctx.input(1).dtype : DType::kF32;
}

Status run_quantize(RunContext& ctx) {
  auto layout = layout_of(ctx, ctx.input(0).shape, ctx.input(1).shape);
  if (!layout.ok()) return ctx.error(layout.status().message());
  const QuantizeArgs args = {.layout = *layout,
                             .scale = ScaleReader(ctx.input(1)),
                             .zero_point = ctx.has_input(2) ? ZeroPointReader(ctx.input(2)) : ZeroPointReader(),
                             .range = quant_range(ctx.output(0).dtype),
                             .precision = precision_of(ctx)};
  if (const auto* state = static_cast<const QuantizeState*>(ctx.state()); state && args.precision == DType::kF32) {
    quantize_bytes(ctx, *state, args);
    return {};
  }
  if (ctx.input(0).dtype == DType::kS32) return quantize_from<int32_t>(ctx, args);
  return dispatch_real(ctx, ctx.input(0).dtype,
                       [&](auto tag) { return quantize_from<typename decltype(tag)::type>(ctx, args); });
}

// --- DequantizeLinear

Status infer_dequantize(InferContext& ctx) {
  const auto wanted = static_cast<DType>(ctx.attrs().get_int("output_dtype", 0));
  const DType dtype = wanted == DType::kUndefined ? ctx.dtype(1) : wanted;
  SPRUN_TRY(ctx.check(is_scale_type(ctx.dtype(1)), "scale has an unsupported type"));
  SPRUN_TRY(ctx.check(is_scale_type(dtype), "output_dtype is not a supported float type"));
  SPRUN_TRY(ctx.check(quant_range(ctx.dtype(0)).max > 0 || ctx.dtype(0) == DType::kS32,
                      "cannot dequantise " + std::string(dtype_name(ctx.dtype(0)))));
  SPRUN_TRY(ctx.check(!ctx.has_input(2) || ctx.dtype(2) == ctx.dtype(0), "zero point and data differ in type"));
  SPRUN_TRY(check_zero_point(ctx));
  if (auto layout = layout_of(ctx, ctx.shape(0), ctx.shape(1)); !layout.ok())
    return ctx.error(layout.status().message());
  ctx.set_output(0, dtype, ctx.shape(0));
  return {};
}

// y = (x - zero) * scale; a plain loop that compilers vectorise.
template <class X, class Y>
void dequantize_run(const X* x, int64_t n, float scale, int32_t zero, Y* y) {
  using Difference = std::conditional_t<sizeof(X) == 4, int64_t, int32_t>;  // 32-bit codes can differ by more
  for (int64_t i = 0; i < n; ++i) {
    y[i] = store<Y>(static_cast<float>(static_cast<Difference>(x[i]) - zero) * scale);
  }
}

template <class X, class Y>
void dequantize_all(RunContext& ctx, const QuantLayout& layout) {
  const ScaleReader scale(ctx.input(1));
  const ZeroPointReader zero_point = ctx.has_input(2) ? ZeroPointReader(ctx.input(2)) : ZeroPointReader();
  const X* x = ctx.input(0).as<X>();
  Y* y = ctx.output(0).as<Y>();
  ctx.pool().parallel_for(ctx.input(0).num_elements(), kGrain, [&](int64_t begin, int64_t end, int) {
    for_each_quant_run(layout, begin, end, [&](int64_t at, int64_t n, int64_t base, int64_t step) {
      if (step == 0) return dequantize_run(x + at, n, scale[base], zero_point[base], y + at);
      for (int64_t i = 0; i < n; ++i) dequantize_run(x + at + i, 1, scale[base + i], zero_point[base + i], y + at + i);
    });
  });
}

Status run_dequantize(RunContext& ctx) {
  auto layout = layout_of(ctx, ctx.input(0).shape, ctx.input(1).shape);
  if (!layout.ok()) return ctx.error(layout.status().message());
  return dispatch_int(ctx, ctx.input(0).dtype, [&](auto x_tag) {
    return dispatch_real(ctx, ctx.output(0).dtype, [&](auto y_tag) {
      if constexpr (sizeof(typename decltype(x_tag)::type) <= 4) {
        dequantize_all<typename decltype(x_tag)::type, typename decltype(y_tag)::type>(ctx, *layout);
      }
      return Status();
    });
  });
}

// --- DynamicQuantizeLinear

Status infer_dynamic_quantize(InferContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == DType::kF32, "x must be float32"));
  ctx.set_output(0, DType::kU8, ctx.shape(0));
  ctx.set_output(1, DType::kF32, Shape{});
  ctx.set_output(2, DType::kU8, Shape{});
  return {};
}

Status prepare_dynamic_quantize(PrepareContext& ctx) {
  ctx.scratch_bytes = kernels::quantize_per_tensor_scratch_bytes(ctx.max_threads());
  return prepare_quantize(ctx);
}

kernels::QuantParams measure(const float* x, int64_t n) {
  float min = 0, max = 0;  // zero is always representable; comparisons pass over NaN
  for (int64_t i = 0; i < n; ++i) {
    min = x[i] < min ? x[i] : min;
    max = x[i] > max ? x[i] : max;
  }
  return kernels::dynamic_quant_params(min, max);
}

Status run_dynamic_quantize(RunContext& ctx) {
  const float* x = ctx.input(0).as<float>();
  uint8_t* y = ctx.output(0).as<uint8_t>();
  const int64_t n = ctx.input(0).num_elements();
  kernels::QuantParams quant = {1.0f, 0};
  const auto* state = static_cast<const QuantizeState*>(ctx.state());
  if (state != nullptr && n > 0) {
    const int64_t k = ctx.input(0).shape.rank() == 0 ? 1 : ctx.input(0).shape.back();
    const kernels::QuantizeRowsArgs args = {.x = x,
                                            .ldx = k,
                                            .rows = n / k,
                                            .k = k,
                                            .y = y,
                                            .ldy = k,
                                            .scale = &quant.scale,
                                            .zero_point = &quant.zero_point};
    kernels::quantize_per_tensor(
        *state->kernel, args, ctx.pool().num_threads(), ctx.scratch(),
        [&](int64_t count, int64_t grain, const auto& fn) { ctx.pool().parallel_for(count, grain, fn); });
  } else {
    quant = measure(x, n);
    for (int64_t i = 0; i < n; ++i) {
      y[i] = static_cast<uint8_t>(quantize_value(x[i] / quant.scale, quant.zero_point, {0, 255}));
    }
  }
  if (ctx.has_output(1)) *ctx.output(1).as<float>() = quant.scale;
  if (ctx.has_output(2)) *ctx.output(2).as<uint8_t>() = static_cast<uint8_t>(quant.zero_point);
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "QuantizeLinear",
     .since = 10,
     .inputs = {2, 3},
     .infer = infer_quantize,
     .run = run_quantize,
     .prepare = prepare_quantize},
    {.name = "DequantizeLinear", .since = 10, .inputs = {2, 3}, .infer = infer_dequantize, .run = run_dequantize},
    {.name = "DynamicQuantizeLinear",
     .since = 11,
     .outputs = {3, 3},
     .infer = infer_dynamic_quantize,
     .run = run_dynamic_quantize,
     .prepare = prepare_dynamic_quantize},
    {.domain = "com.microsoft",
     .name = "QuantizeLinear",
     .inputs = {2, 3},
     .infer = infer_quantize,
     .run = run_quantize,
     .prepare = prepare_quantize},
    {.domain = "com.microsoft",
     .name = "DequantizeLinear",
     .inputs = {2, 3},
     .infer = infer_dequantize,
     .run = run_dequantize},
};

}  // namespace

extern const std::span<const OpDef> k_quantize_ops;
const std::span<const OpDef> k_quantize_ops = kOps;

}  // namespace sprun::graph
