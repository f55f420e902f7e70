// sprun.LinearInt8: one fused linear layer with 8-bit weights, made by graph passes from quantised graphs.
//
//   A_i = sum_k (Xq - x_zero) * (W_i - w_zero_i)            in int32
//   Y_i = act(x_scale * w_scale_i * A_i + bias_i) + residual
//   and, with y_scale, saturate(round_half_even(Y / y_scale) + y_zero) in the type of y_zero (u8 without one)
//
// Inputs, with n = num_weights:      0           X [.., K]: f32, u8 or s8
//                                    1 .. n      W_i: u8 or s8, [K, N_i], or [N_i, K] when trans_w
//                                    n+1 .. 2n   w_scale_i: f32, one or N_i elements
//                                    2n+1 .. 3n  w_zero_i, optional: type of W_i, one or N_i elements
//                                    3n+1 .. 4n  bias_i, optional: f32 [N_i]
//                                    4n+1        residual, optional: f32, broadcasts to the output
//                                    4n+2, 4n+3  x_scale (f32), x_zero (u8 or s8), one element each
//                                    4n+4, 4n+5  y_scale (f32), y_zero (u8 or s8), one element each
//                                    4n+6        x_range, optional: f32 [2], what y_range of the layer before was
// Outputs: one [.., N_0 + N_1 + ..], or with split one [.., N_i] per weight (no residual then);
//          with y_columns and float32 Y also y_range: f32 [2], min(0, smallest of Y), max(0, largest of Y)
// Attributes: num_weights (1), trans_w (0), split (0), activation as sprun.Linear,
//   y_columns (0)  Y as columns.h has it, codes as u8 (those of s8 with 128 added)
//   x_shape        X is such columns of a value of this shape
//   x_quant:
//   "dynamic_tensor" (default)  X f32, quantised to u8 exactly as DynamicQuantizeLinear does
//   "dynamic_row"               X f32, the same for each row
//   "static"                    X u8 or s8 codes, or f32 quantised here, with x_scale and x_zero (u8 without one)
#include <algorithm>
#include <cmath>

#include "graph/ops/columns.h"
#include "graph/ops/integer_gemm.h"
#include "graph/ops/linear_int8.h"
#include "graph/ops/op.h"
#include "graph/ops/quant_util.h"

namespace sprun::graph {
namespace {

struct Layout {
  int n;
  explicit Layout(const LinearAttrs& attrs) : n(attrs.num_weights) {}
  int weight(int i) const { return 1 + i; }
  int w_scale(int i) const { return 1 + n + i; }
  int w_zero(int i) const { return 1 + 2 * n + i; }
  int bias(int i) const { return 1 + 3 * n + i; }
  int residual() const { return 1 + 4 * n; }
  int x_scale() const { return 2 + 4 * n; }
  int x_zero() const { return 3 + 4 * n; }
  int y_scale() const { return 4 + 4 * n; }
  int y_zero() const { return 5 + 4 * n; }
  int x_range() const { return 6 + 4 * n; }
};

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

enum class Mode : uint8_t { kDynamicTensor, kDynamicRow, kStatic };

Result<Mode> mode_of(const AttrMap& attrs) {
  const std::string_view name = attrs.get_string("x_quant", "dynamic_tensor");
  if (name == "dynamic_tensor") return Mode::kDynamicTensor;
  if (name == "dynamic_row") return Mode::kDynamicRow;
  if (name == "static") return Mode::kStatic;
  return Status(Code::kBadModel, "unknown x_quant '" + std::string(name) + "'");
}

// --- infer

Status check_weight(const InferContext& ctx, const Layout& at, int i, int64_t n) {
  const auto one_or_n = [&](int input) {
    const int64_t count = ctx.input(input).num_elements();
    return count == n || count == 1;
  };
  SPRUN_TRY(ctx.check(is_byte(ctx.dtype(at.weight(i))), "weights must be int8 or uint8"));
  SPRUN_TRY(
      ctx.check(ctx.has_input(at.w_scale(i)) && ctx.dtype(at.w_scale(i)) == DType::kF32 && one_or_n(at.w_scale(i)),
                "w_scale must be float32 with one or N elements"));
  if (ctx.has_input(at.w_zero(i))) {
    SPRUN_TRY(ctx.check(ctx.dtype(at.w_zero(i)) == ctx.dtype(at.weight(i)) && one_or_n(at.w_zero(i)),
                        "w_zero must have the type of W and one or N elements"));
  }
  return ctx.check(!ctx.has_input(at.bias(i)) || ctx.dtype(at.bias(i)) == DType::kF32, "bias must be float32");
}

// scale and zero point of X or Y.
Status check_pair(const InferContext& ctx, int scale, int zero, const char* name) {
  if (ctx.has_input(scale)) {
    SPRUN_TRY(ctx.check(ctx.dtype(scale) == DType::kF32 && ctx.input(scale).num_elements() == 1,
                        std::string(name) + "_scale must be one float32"));
  }
  if (!ctx.has_input(zero)) return {};
  return ctx.check(ctx.has_input(scale) && is_byte(ctx.dtype(zero)) && ctx.input(zero).num_elements() == 1,
                   std::string(name) + "_zero must be one int8 or uint8 beside a scale");
}

Status check_x(const InferContext& ctx, const Layout& at, Mode mode, bool columns) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == DType::kF32 || is_byte(ctx.dtype(0)), "X must be float32, uint8 or int8"));
  if (mode != Mode::kStatic) return ctx.check(ctx.dtype(0) == DType::kF32, "dynamic quantisation needs float32 X");
  SPRUN_TRY(ctx.check(ctx.has_input(at.x_scale()), "static quantisation needs x_scale"));
  const bool agrees = ctx.dtype(0) == DType::kF32 || !ctx.has_input(at.x_zero()) ||
                      ctx.dtype(at.x_zero()) == ctx.dtype(0) || columns;
  return ctx.check(agrees, "x_zero and X differ in type");
}

Status check_columns(const InferContext& ctx, const LinearAttrs& attrs, const Layout& at, Mode mode) {
  if (ctx.has_input(at.x_range())) {
    SPRUN_TRY(ctx.check(ctx.dtype(at.x_range()) == DType::kF32 && ctx.input(at.x_range()).num_elements() == 2,
                        "x_range must be two float32"));
  }
  SPRUN_TRY(ctx.check(!attrs.y_columns || (!attrs.split && mode != Mode::kDynamicRow), "columns of split or per-row Y"));
  if (!attrs.x_shape) return {};
  const Shape& x = *attrs.x_shape;
  SPRUN_TRY(ctx.check(x.rank() > 0 && ctx.shape(0) == Columns::shape(x.num_elements(0, x.rank() - 1), x.back()),
                      "X is not columns of shape " + x.to_string()));
  const bool codes = mode == Mode::kStatic && ctx.dtype(0) == DType::kU8;
  const bool floats = mode == Mode::kDynamicTensor && ctx.has_input(at.x_range());
  return ctx.check(codes || floats, "columns must be u8 codes, or floats with their range");
}

Status infer_linear(InferContext& ctx) {
  auto attrs = linear_attrs(ctx.attrs());
  if (!attrs.ok()) return ctx.error(attrs.status().message());
  auto mode = mode_of(ctx.attrs());
  if (!mode.ok()) return ctx.error(mode.status().message());
  const Layout at(*attrs);
  auto shapes = linear_shapes(ctx, *attrs, at.bias(0));
  if (!shapes.ok()) return ctx.error(shapes.status().message());
  for (int i = 0; i < attrs->num_weights; ++i) SPRUN_TRY(check_weight(ctx, at, i, shapes->n[static_cast<size_t>(i)]));
  SPRUN_TRY(check_x(ctx, at, *mode, attrs->x_shape.has_value()));
  SPRUN_TRY(check_columns(ctx, *attrs, at, *mode));
  SPRUN_TRY(check_pair(ctx, at.x_scale(), at.x_zero(), "x"));
  SPRUN_TRY(check_pair(ctx, at.y_scale(), at.y_zero(), "y"));
  const bool codes = ctx.has_input(at.y_scale());
  const bool gives_range = attrs->y_columns && !codes;
  SPRUN_TRY(check_residual(ctx, *attrs, *shapes, at.residual(), DType::kF32, gives_range ? 1 : 0));
  DType dtype = DType::kF32;
  if (codes) dtype = ctx.has_input(at.y_zero()) && !attrs->y_columns ? ctx.dtype(at.y_zero()) : DType::kU8;
  set_linear_outputs(ctx, *attrs, *shapes, dtype);
  if (gives_range) ctx.set_output(1, DType::kF32, Shape{2});
  return {};
}

// --- prepared form

struct State : OpState {
  State(const LinearAttrs& a, const LinearShapes& s, Int8Product p) : attrs(a), shapes(s), product(std::move(p)) {}
  LinearAttrs attrs;
  LinearShapes shapes;
  Int8Product product;
};

XQuant x_quant_of(const PrepareContext& ctx, Mode mode) {
  if (ctx.input(0).dtype == DType::kU8) return XQuant::kU8;
  if (ctx.input(0).dtype == DType::kS8) return XQuant::kS8;
  if (mode == Mode::kStatic) return XQuant::kStatic;
  return mode == Mode::kDynamicRow ? XQuant::kPerRow : XQuant::kPerTensor;
}

// Why the kernels do not fit the result; empty when they do.
std::string reason_against(const PrepareContext& ctx, const LinearAttrs& attrs) {
  const Layout at(attrs);
  const bool has_residual = ctx.has_input(at.residual());
  const bool codes = ctx.output(0).dtype != DType::kF32;
  if (has_residual && codes && ctx.input(at.residual()).num_elements() != ctx.output(0).num_elements()) {
    return "a broadcast residual before quantisation";
  }
  return {};
}

Status prepare_linear(PrepareContext& ctx) {
  SPRUN_ASSIGN(const LinearAttrs attrs, linear_attrs(ctx.attrs()));
  SPRUN_ASSIGN(const Mode mode, mode_of(ctx.attrs()));
  const Layout at(attrs);
  SPRUN_ASSIGN(const LinearShapes shapes, linear_shapes(ctx, attrs, at.bias(0)));
  LinearInt8Weights constants = linear_int8_weights(attrs, shapes.m, shapes.k, [&ctx](int i) -> ConstantInput {
    if (!ctx.has_input(i)) return {};
    return {true, ctx.constant(i).empty() ? nullptr : &ctx.constant(i)};
  });
  if (constants.refusal.empty()) constants.refusal = reason_against(ctx, attrs);
  if (!constants.refusal.empty()) {
    ctx.rejected.push_back({"gemm_u8s8", std::move(constants.refusal)});
    return {};
  }
  for (int i = 0; i < attrs.num_weights; ++i) ctx.unread_inputs.push_back(at.weight(i));
  const Int8Problem problem = {.m = shapes.m,
                               .k = shapes.k,
                               .x_quant = x_quant_of(ctx, mode),
                               .y_dtype = ctx.output(0).dtype,
                               .x_columns = attrs.x_shape.has_value(),
                               .y_columns = attrs.y_columns};
  SPRUN_ASSIGN(Int8Product product, Int8Product::prepare(ctx, problem, constants.weights));
  ctx.state = std::make_unique<State>(attrs, shapes, std::move(product));
  return {};
}

// x_scale, x_zero, y_scale and y_zero of this run.
struct Params {
  float x_scale = 1.0f, y_scale = 1.0f;
  int32_t x_zero = 0, y_zero = 0;
  bool x_signed = false, y_signed = false;
};

Params read_params(const RunContext& ctx, const Layout& at) {
  Params p;
  if (ctx.has_input(at.x_scale())) p.x_scale = *ctx.input(at.x_scale()).as<float>();
  if (ctx.has_input(at.x_zero())) p.x_zero = ZeroPointReader(ctx.input(at.x_zero()))[0];
  if (ctx.has_input(at.y_scale())) p.y_scale = *ctx.input(at.y_scale()).as<float>();
  if (ctx.has_input(at.y_zero())) p.y_zero = ZeroPointReader(ctx.input(at.y_zero()))[0];
  p.y_signed = ctx.has_input(at.y_zero()) && ctx.input(at.y_zero()).dtype == DType::kS8;
  p.x_signed =
      ctx.input(0).dtype == DType::kS8 || (ctx.has_input(at.x_zero()) && ctx.input(at.x_zero()).dtype == DType::kS8);
  return p;
}

Status run_prepared(RunContext& ctx, const State& state) {
  const LinearAttrs& attrs = state.attrs;
  const Layout at(attrs);
  const Params params = read_params(ctx, at);
  const bool has_residual = ctx.has_input(at.residual());
  const bool joined = has_residual && ctx.input(at.residual()).num_elements() == ctx.output(0).num_elements();
  std::array<Int8Segment, kMaxSegments> segments;
  for (int i = 0; i < attrs.num_weights; ++i) {
    const auto s = static_cast<size_t>(i);
    const int64_t column = attrs.split ? 0 : state.shapes.column[s];
    const TensorView& out = ctx.output(attrs.split ? i : 0);
    segments[s] = {.w_scale = ctx.input(at.w_scale(i)).as<float>(),
                   .w_scale_stride = ctx.input(at.w_scale(i)).num_elements() == 1 ? 0 : 1,
                   .bias = ctx.has_input(at.bias(i)) ? ctx.input(at.bias(i)).as<float>() : nullptr,
                   .y = out.as<char>() + column * dtype_size(out.dtype),
                   .ldy = attrs.split ? state.shapes.n[s] : state.shapes.n_total,
                   .residual = joined ? ctx.input(at.residual()).as<float>() + column : nullptr,
                   .ld_residual = state.shapes.n_total};
  }
  // f32 X always becomes u8 codes, and columns are: s8 codes are the same with the zero point moved by 128.
  const bool shift_x = params.x_signed && ctx.input(0).dtype != DType::kS8;
  const bool shift_y = params.y_signed && ctx.output(0).dtype == DType::kU8;
  state.product.run(ctx.pool(),
                    {.x = ctx.input(0).data,
                     .x_scale = params.x_scale,
                     .x_zero_point = params.x_zero + (shift_x ? 128 : 0),
                     .x_range = ctx.has_input(at.x_range()) ? ctx.input(at.x_range()).as<float>() : nullptr,
                     .segments = {segments.data(), static_cast<size_t>(attrs.num_weights)},
                     .activation = attrs.activation,
                     .y_scale = params.y_scale,
                     .y_zero_point = params.y_zero + (shift_y ? 128 : 0),
                     .y_range = attrs.y_columns && ctx.has_output(1) ? ctx.output(1).as<float>() : nullptr},
                    ctx.scratch());
  if (has_residual && !joined) add_broadcast(ctx.pool(), ctx.output(0), ctx.input(at.residual()));
  return {};
}

// --- the reference

// X as codes: those that are there, or floats quantised when read.
struct XReader {
  const ConstTensorView& x;
  float scale = 1.0f;
  int32_t zero = 0;
  QuantRange range = {0, 255};
  int64_t column_width = 0;  // K when X lies as columns

  int32_t operator[](int64_t i) const {
    if (column_width > 0) {
      const int64_t row = i / column_width, k = i % column_width;
      if (x.dtype == DType::kU8) return x.as<uint8_t>()[Columns::code_at(row, k, column_width)];
      return quantize_value(x.as<float>()[Columns::float_at(row, k, column_width)] / scale, zero, range);
    }
    switch (x.dtype) {
      case DType::kU8:
        return x.as<uint8_t>()[i];
      case DType::kS8:
        return x.as<int8_t>()[i];
      default:
        return quantize_value(x.as<float>()[i] / scale, zero, range);
    }
  }
};

XReader dynamic_reader(const ConstTensorView& x, int64_t begin, int64_t count) {
  float min = 0, max = 0;
  for (int64_t i = begin; i < begin + count; ++i) {
    min = std::min(min, x.as<float>()[i]);
    max = std::max(max, x.as<float>()[i]);
  }
  const kernels::QuantParams quant = kernels::dynamic_quant_params(min, max);
  return {x, quant.scale, quant.zero_point};
}

struct Reference {
  RunContext& ctx;
  const LinearAttrs& attrs;
  const LinearShapes& shapes;
  const Layout at;
  const Params params;
  Mode mode;

  XReader reader(int64_t row) const {
    const ConstTensorView& x = ctx.input(0);
    const int64_t width = attrs.x_shape ? shapes.k : 0;
    const int32_t shift = attrs.x_shape && params.x_signed ? 128 : 0;
    if (mode == Mode::kStatic) {
      return {x, params.x_scale, params.x_zero + shift, quant_range(params.x_signed ? DType::kS8 : DType::kU8), width};
    }
    if (ctx.has_input(at.x_range())) {
      const float* range = ctx.input(at.x_range()).as<float>();
      const kernels::QuantParams quant = kernels::dynamic_quant_params(range[0], range[1]);
      return {x, quant.scale, quant.zero_point, {0, 255}, width};
    }
    if (mode == Mode::kDynamicTensor) return dynamic_reader(x, 0, x.num_elements());
    return dynamic_reader(x, row * shapes.k, shapes.k);
  }

  float residual(int64_t row, int64_t column) const {
    if (!ctx.has_input(at.residual())) return 0;
    const Shape& out = ctx.output(0).shape;
    const auto strides = broadcast_strides(ctx.input(at.residual()).shape, out);
    int64_t offset = column * strides[static_cast<size_t>(out.rank() - 1)];
    for (int axis = out.rank() - 2; axis >= 0; --axis) {
      offset += row % out[axis] * strides[static_cast<size_t>(axis)];
      row /= out[axis];
    }
    return ctx.input(at.residual()).as<float>()[offset];
  }

  void write(int i, int64_t row, int64_t n, float value) const {
    const auto s = static_cast<size_t>(i);
    const TensorView& out = ctx.output(attrs.split ? i : 0);
    if (attrs.y_columns) return write_column(out, row, shapes.column[s] + n, value);
    const int64_t to = attrs.split ? row * shapes.n[s] + n : row * shapes.n_total + shapes.column[s] + n;
    if (out.dtype == DType::kF32) {
      out.as<float>()[to] = value;
    } else {
      out.as<uint8_t>()[to] =
          static_cast<uint8_t>(quantize_value(value / params.y_scale, params.y_zero, quant_range(out.dtype)));
    }
  }

  void write_column(const TensorView& out, int64_t row, int64_t column, float value) const {
    if (out.dtype == DType::kF32) {
      out.as<float>()[Columns::float_at(row, column, shapes.n_total)] = value;
      float* range = ctx.output(1).as<float>();
      range[0] = std::min(range[0], value);
      range[1] = std::max(range[1], value);
      return;
    }
    const int32_t shift = params.y_signed ? 128 : 0;
    out.as<uint8_t>()[Columns::code_at(row, column, shapes.n_total)] =
        static_cast<uint8_t>(quantize_value(value / params.y_scale, params.y_zero + shift, quant_range(DType::kU8)));
  }

  void run_weight(int i) const {
    const auto s = static_cast<size_t>(i);
    BatchedGemm g;
    g.m = shapes.m;
    g.n = shapes.n[s];
    g.k = shapes.k;
    g.a_row = shapes.k;
    g.a_col = 1;
    g.b_row = attrs.trans_w ? 1 : g.n;
    g.b_col = attrs.trans_w ? g.k : 1;
    g.c_row = g.n;
    if (g.n == 0) return;
    ZeroPoints w_zero;
    if (ctx.has_input(at.w_zero(i))) {
      w_zero.values = ZeroPointReader(ctx.input(at.w_zero(i)));
      w_zero.param.stride = ctx.input(at.w_zero(i)).num_elements() == 1 ? 0 : 1;
    }
    const ConstTensorView& w_scale = ctx.input(at.w_scale(i));
    const int64_t scale_stride = w_scale.num_elements() == 1 ? 0 : 1;
    const float* bias = ctx.has_input(at.bias(i)) ? ctx.input(at.bias(i)).as<float>() : nullptr;
    const XReader whole = mode == Mode::kDynamicRow ? XReader{ctx.input(0)} : reader(0);
    for (int64_t row = 0; row < g.m; ++row) {
      const XReader x = mode == Mode::kDynamicRow ? reader(row) : whole;
      ZeroPoints x_zero;
      x_zero.values.data = &x.zero;
      x_zero.values.dtype = DType::kS32;
      const float x_scale = mode == Mode::kStatic ? params.x_scale : x.scale;
      integer_gemm_rows(g, x, x_zero, ByteReader(ctx.input(at.weight(i))), w_zero, row, row + 1,
                        [&](int64_t, int64_t, int64_t j0, int64_t count, const int32_t* sums) {
                          for (int64_t j = j0; j < j0 + count; ++j) {
                            float value =
                                static_cast<float>(sums[j - j0]) * (x_scale * w_scale.as<float>()[j * scale_stride]);
                            value += bias != nullptr ? bias[j] : 0.0f;
                            value = static_cast<float>(activate(attrs.activation, value));
                            write(i, row, j, value + residual(row, shapes.column[s] + j));
                          }
                        });
    }
  }
};

Status run_linear(RunContext& ctx) {
  if (const auto* state = static_cast<const State*>(ctx.state())) return run_prepared(ctx, *state);
  SPRUN_ASSIGN(const LinearAttrs attrs, linear_attrs(ctx.attrs()));
  SPRUN_ASSIGN(const Mode mode, mode_of(ctx.attrs()));
  const Layout at(attrs);
  SPRUN_ASSIGN(const LinearShapes shapes, linear_shapes(ctx, attrs, at.bias(0)));
  const Reference reference = {ctx, attrs, shapes, at, read_params(ctx, at), mode};
  if (attrs.y_columns && ctx.has_output(1)) std::fill_n(ctx.output(1).as<float>(), 2, 0.0F);
  for (int i = 0; i < attrs.num_weights; ++i) reference.run_weight(i);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun",
     .name = "LinearInt8",
     .inputs = {3, 7 + 4 * kMaxSegments},
     .outputs = {1, kMaxSegments},
     .infer = infer_linear,
     .run = run_linear,
     .prepare = prepare_linear},
};

}  // namespace

LinearInt8Weights linear_int8_weights(const LinearAttrs& attrs, int64_t m, int64_t k,
                                      const std::function<ConstantInput(int)>& input) {
  LinearInt8Weights made;
  const Layout at(attrs);
  const auto refuse = [&made](std::string why) {
    made.refusal = std::move(why);
    return std::move(made);
  };
  if (m == 0 || k == 0) return refuse("empty product");
  if (k > Int8Product::kMaxK) return refuse("K is over " + std::to_string(Int8Product::kMaxK));
  for (int i = 0; i < attrs.num_weights; ++i) {
    const Tensor* weight = input(at.weight(i)).constant;
    if (weight == nullptr) return refuse("a weight is not constant");
    const ConstantInput zero_point = input(at.w_zero(i));
    if (zero_point.present && zero_point.constant == nullptr) return refuse("a weight zero point is not constant");
    constexpr int64_t kWidestPanel = 32;
    const WeightConstant matrix = WeightConstant::matrix(*weight, attrs.trans_w);
    if (!matrix.worth_packing(kWidestPanel)) return refuse("a weight is too narrow");
    auto& zero = made.zeros[static_cast<size_t>(i)];
    if (zero_point.present) zero = zero_point_values(zero_point.constant->view());
    made.weights.push_back({.source = {matrix, zero}});
  }
  return made;
}

extern const std::span<const OpDef> k_linear_int8_ops;
const std::span<const OpDef> k_linear_int8_ops = kOps;

}  // namespace sprun::graph
