// Element-wise ops on 8-bit tensors (com.microsoft): QLinearAdd, QLinearMul, QLinearSigmoid, QLinearLeakyRelu,
// QLinearSoftmax. Each dequantises, computes in float, and quantises again with the scale of the result.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "graph/ops/op.h"
#include "graph/ops/op_util.h"
#include "graph/ops/quant_util.h"

namespace sprun::graph {
namespace {

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

// Scale and zero point of one tensor: inputs `scale` and `zero` of the node, both scalars.
struct Params {
  float scale = 1.0f;
  int32_t zero = 0;
};

Status check_params(const InferContext& ctx, int scale, int zero, DType dtype) {
  SPRUN_TRY(ctx.check(ctx.has_input(scale) && ctx.dtype(scale) == DType::kF32 && ctx.shape(scale).num_elements() == 1,
                      "scales must be float32 scalars"));
  if (!ctx.has_input(zero)) return {};
  return ctx.check(ctx.dtype(zero) == dtype && ctx.shape(zero).num_elements() == 1,
                   "zero points must be scalars of the type of the data");
}

Params read_params(const RunContext& ctx, int scale, int zero) {
  Params params;
  params.scale = *ctx.input(scale).as<float>();
  if (ctx.has_input(zero)) params.zero = ZeroPointReader(ctx.input(zero))[0];
  return params;
}

int32_t code(const ConstTensorView& x, int64_t i) {
  return x.dtype == DType::kS8 ? int32_t{x.as<int8_t>()[i]} : int32_t{x.as<uint8_t>()[i]};
}

float dequantise(const ConstTensorView& x, int64_t i, const Params& params) {
  return static_cast<float>(code(x, i) - params.zero) * params.scale;
}

void write(const TensorView& y, int64_t i, float value, const Params& params) {
  y.as<uint8_t>()[i] = static_cast<uint8_t>(quantize_value(value / params.scale, params.zero, quant_range(y.dtype)));
}

// --- A, A_scale, A_zero?, B, B_scale, B_zero?, C_scale, C_zero?

Status infer_binary(InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_byte(ctx.dtype(0)) && ctx.dtype(3) == ctx.dtype(0), "operands must be of one 8-bit type"));
  SPRUN_TRY(check_params(ctx, 1, 2, ctx.dtype(0)));
  SPRUN_TRY(check_params(ctx, 4, 5, ctx.dtype(0)));
  SPRUN_TRY(check_params(ctx, 6, 7, ctx.dtype(0)));
  auto out = broadcast_shapes(ctx.shape(0), ctx.shape(3));
  if (!out.ok()) return ctx.error(out.status().message());
  ctx.set_output(0, ctx.dtype(0), *out);
  return {};
}

// fn(code of A, code of B) is the code of C before rounding: these two ops round once, with the zero point added.
template <class Fn>
Status run_binary(RunContext& ctx, const Fn& fn) {
  const QuantRange range = quant_range(ctx.output(0).dtype);
  const Shape& out = ctx.output(0).shape;
  const auto a_strides = broadcast_strides(ctx.input(0).shape, out),
             b_strides = broadcast_strides(ctx.input(3).shape, out);
  ctx.pool().parallel_for(out.num_elements(), 4096, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t rest = i, a_at = 0, b_at = 0;
      for (int axis = out.rank() - 1; axis >= 0; --axis) {
        const int64_t coordinate = rest % out[axis];
        rest /= out[axis];
        a_at += coordinate * a_strides[static_cast<size_t>(axis)];
        b_at += coordinate * b_strides[static_cast<size_t>(axis)];
      }
      const float value = fn(code(ctx.input(0), a_at), code(ctx.input(3), b_at));
      ctx.output(0).as<uint8_t>()[i] = static_cast<uint8_t>(quantize_value(value, 0, range));
    }
  });
  return {};
}

Status run_add(RunContext& ctx) {
  const Params a = read_params(ctx, 1, 2), b = read_params(ctx, 4, 5), c = read_params(ctx, 6, 7);
  const float a_ratio = a.scale / c.scale, b_ratio = b.scale / c.scale;
  const float fixed =
      static_cast<float>(c.zero) - (a_ratio * static_cast<float>(a.zero) + b_ratio * static_cast<float>(b.zero));
  return run_binary(ctx, [&](int32_t x, int32_t y) {
    return a_ratio * static_cast<float>(x) + (b_ratio * static_cast<float>(y) + fixed);
  });
}

Status run_mul(RunContext& ctx) {
  const Params a = read_params(ctx, 1, 2), b = read_params(ctx, 4, 5), c = read_params(ctx, 6, 7);
  const float ratio = a.scale * b.scale / c.scale;
  return run_binary(ctx, [&](int32_t x, int32_t y) {
    return static_cast<float>((x - a.zero) * (y - b.zero)) * ratio + static_cast<float>(c.zero);
  });
}

// --- X, X_scale, X_zero?, Y_scale, Y_zero?

Status infer_unary(InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_byte(ctx.dtype(0)), "x must be int8 or uint8"));
  SPRUN_TRY(check_params(ctx, 1, 2, ctx.dtype(0)));
  SPRUN_TRY(check_params(ctx, 3, 4, ctx.dtype(0)));
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

// A table of all 256 results makes any function cheap.
template <class Fn>
Status run_unary(RunContext& ctx, const Fn& fn) {
  const Params x = read_params(ctx, 1, 2), y = read_params(ctx, 3, 4);
  std::array<uint8_t, 256> table{};
  std::array<uint8_t, 256> codes{};
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i);
  const ConstTensorView all = {codes.data(), ctx.input(0).dtype, {256}};
  const TensorView results = {table.data(), ctx.input(0).dtype, {256}};
  for (int64_t i = 0; i < 256; ++i) write(results, i, fn(dequantise(all, i, x)), y);
  const uint8_t* in = ctx.input(0).as<uint8_t>();
  uint8_t* out = ctx.output(0).as<uint8_t>();
  ctx.pool().parallel_for(ctx.input(0).num_elements(), 65536, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out[i] = table[in[i]];
  });
  return {};
}

Status run_sigmoid(RunContext& ctx) {
  return run_unary(ctx, [](float v) { return 1.0f / (1.0f + std::exp(-v)); });
}

Status run_leaky_relu(RunContext& ctx) {
  const float alpha = ctx.attrs().get_float("alpha", 0.01f);
  return run_unary(ctx, [alpha](float v) { return v >= 0 ? v : alpha * v; });
}

// --- QLinearSoftmax: attribute `opset` chooses between one axis (13) and all axes from `axis` on (before)

struct SoftmaxShape {
  int64_t outer = 1, size = 1, inner = 1;
};

Result<SoftmaxShape> softmax_shape(const AttrMap& attrs, const Shape& shape) {
  const bool one_axis = attrs.get_int("opset", 13) >= 13;
  if (shape.rank() == 0) return SoftmaxShape();
  SPRUN_ASSIGN(const int axis, normalize_axis(attrs.get_int("axis", one_axis ? -1 : 1), shape.rank()));
  SoftmaxShape s = {.outer = shape.num_elements(0, axis), .size = shape.num_elements(axis, shape.rank())};
  if (one_axis) {
    s.size = shape[axis];
    s.inner = shape.num_elements(axis + 1, shape.rank());
  }
  return s;
}

Status infer_softmax(InferContext& ctx) {
  if (auto s = softmax_shape(ctx.attrs(), ctx.shape(0)); !s.ok()) return ctx.error(s.status().message());
  return infer_unary(ctx);
}

Status run_softmax(RunContext& ctx) {
  const Params x = read_params(ctx, 1, 2), y = read_params(ctx, 3, 4);
  SPRUN_ASSIGN(const SoftmaxShape s, softmax_shape(ctx.attrs(), ctx.input(0).shape));
  const int64_t vectors = s.size == 0 ? 0 : s.outer * s.inner;
  ctx.pool().parallel_for(vectors, std::max<int64_t>(1, 4096 / std::max<int64_t>(s.size, 1)),
                          [&](int64_t begin, int64_t end, int) {
                            for (int64_t v = begin; v < end; ++v) {
                              const int64_t base = v / s.inner * s.size * s.inner + v % s.inner;
                              float max = dequantise(ctx.input(0), base, x), sum = 0;
                              for (int64_t i = 1; i < s.size; ++i)
                                max = std::max(max, dequantise(ctx.input(0), base + i * s.inner, x));
                              for (int64_t i = 0; i < s.size; ++i)
                                sum += std::exp(dequantise(ctx.input(0), base + i * s.inner, x) - max);
                              for (int64_t i = 0; i < s.size; ++i) {
                                const int64_t at = base + i * s.inner;
                                write(ctx.output(0), at, std::exp(dequantise(ctx.input(0), at, x) - max) / sum, y);
                              }
                            }
                          });
  return {};
}

constexpr std::string_view kContrib = "com.microsoft";
constexpr OpDef kOps[] = {
    {.domain = kContrib, .name = "QLinearAdd", .inputs = {7, 8}, .infer = infer_binary, .run = run_add},
    {.domain = kContrib, .name = "QLinearMul", .inputs = {7, 8}, .infer = infer_binary, .run = run_mul},
    {.domain = kContrib, .name = "QLinearSigmoid", .inputs = {4, 5}, .infer = infer_unary, .run = run_sigmoid},
    {.domain = kContrib, .name = "QLinearLeakyRelu", .inputs = {4, 5}, .infer = infer_unary, .run = run_leaky_relu},
    {.domain = kContrib, .name = "QLinearSoftmax", .inputs = {4, 5}, .infer = infer_softmax, .run = run_softmax},
};

}  // namespace

extern const std::span<const OpDef> k_qlinear_ops;
const std::span<const OpDef> k_qlinear_ops = kOps;

}  // namespace sprun::graph
