// Integer matrix products: MatMulInteger, QLinearMatMul (ai.onnx 10, 21), and from com.microsoft
// MatMulIntegerToFloat, DynamicQuantizeMatMul and QGemm.
//
// All of them are integer_gemm.h with another finish for the int32 sums. With a constant matrix B and one zero point
// for A they run on the packed kernels of int8_product.h instead.
#include <cmath>
#include <string>

#include "graph/ops/int8_product.h"
#include "graph/ops/integer_gemm.h"
#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

// The product of inputs a and b of an op, with what scales and zero points there are.
struct Problem {
  MatMulShapes shapes;
  ZeroPoints a_zero, b_zero;
};

struct ProblemInputs {
  int a, b, a_zero, b_zero;
  MatMulFlags flags = {};
};

template <class Ctx>
Result<VectorParam> param_of(const Ctx& ctx, int input, const BatchedGemm& g, bool rows) {
  if (!ctx.has_input(input)) return VectorParam();
  return vector_param(ctx.input(input).shape, g, rows);
}

template <class Ctx>
Result<Problem> make_problem(const Ctx& ctx, const ProblemInputs& in) {
  Problem problem;
  SPRUN_ASSIGN(problem.shapes, plan_matmul(ctx.input(in.a).shape, ctx.input(in.b).shape, in.flags));
  const BatchedGemm& g = problem.shapes.gemm;
  SPRUN_ASSIGN(problem.a_zero.param, param_of(ctx, in.a_zero, g, true));
  SPRUN_ASSIGN(problem.b_zero.param, param_of(ctx, in.b_zero, g, false));
  if (ctx.has_input(in.a_zero)) problem.a_zero.values = ZeroPointReader(ctx.input(in.a_zero));
  if (ctx.has_input(in.b_zero)) problem.b_zero.values = ZeroPointReader(ctx.input(in.b_zero));
  return problem;
}

template <class Finish>
void run_problem(RunContext& ctx, const ProblemInputs& in, const Problem& problem, const Finish& finish) {
  integer_gemm(ctx.pool(), problem.shapes.gemm, ByteReader(ctx.input(in.a)), problem.a_zero,
               ByteReader(ctx.input(in.b)), problem.b_zero, finish);
}

Status check_bytes(const InferContext& ctx, const ProblemInputs& in) {
  SPRUN_TRY(ctx.check(is_byte(ctx.dtype(in.a)) && is_byte(ctx.dtype(in.b)), "operands must be int8 or uint8"));
  SPRUN_TRY(ctx.check(!ctx.has_input(in.a_zero) || ctx.dtype(in.a_zero) == ctx.dtype(in.a),
                      "zero point and first operand differ in type"));
  return ctx.check(!ctx.has_input(in.b_zero) || ctx.dtype(in.b_zero) == ctx.dtype(in.b),
                   "zero point and second operand differ in type");
}

Status check_scale(const InferContext& ctx, int input) {
  return ctx.check(!ctx.has_input(input) || ctx.dtype(input) == DType::kF32 || ctx.dtype(input) == DType::kF16 ||
                       ctx.dtype(input) == DType::kBf16,
                   "scale must be a 16- or 32-bit float");
}

// --- on packed kernels

struct ByteProduct : OpState {
  explicit ByteProduct(Int8Product p) : product(std::move(p)) {}
  Int8Product product;
  PackedBlob factors;  // QLinearMatMul: a_scale * b_scale / y_scale, one or N
  int64_t factor_stride = 0;
};

// Why the kernels do not fit; empty when they do.
std::string reason_against(const PrepareContext& ctx, const ProblemInputs& in, const BatchedGemm& g) {
  const Tensor& b = ctx.constant(in.b);
  const bool one_zero = !ctx.has_input(in.a_zero) || ctx.input(in.a_zero).num_elements() == 1;
  if (b.empty()) return "B is not constant";
  if (b.shape().rank() != 2 || in.flags.trans_a || in.flags.trans_b) return "B is not a plain matrix";
  if (ctx.has_input(in.b_zero) && ctx.constant(in.b_zero).empty()) return "the zero point of B is not constant";
  if (!one_zero) return "A has zero points per row";
  if (g.m == 0 || g.k == 0 || g.num_batches() == 0) return "empty product";
  if (g.k > Int8Product::kMaxK) return "K is over " + std::to_string(Int8Product::kMaxK);
  constexpr int64_t kWidestPanel = 32;
  if (!WeightConstant::matrix(b, false).worth_packing(kWidestPanel)) return "B is too narrow";
  return {};
}

XQuant codes_of(const PrepareContext& ctx, int a) {
  return ctx.input(a).dtype == DType::kS8 ? XQuant::kS8 : XQuant::kU8;
}

// nullptr, with the reason recorded, when only the plain loop fits.
Result<std::unique_ptr<ByteProduct>> prepare_bytes(PrepareContext& ctx, const ProblemInputs& in, XQuant x_quant) {
  SPRUN_ASSIGN(const MatMulShapes shapes, plan_matmul(ctx.input(in.a).shape, ctx.input(in.b).shape, in.flags));
  const BatchedGemm& g = shapes.gemm;
  std::unique_ptr<ByteProduct> made;
  if (std::string reason = reason_against(ctx, in, g); !reason.empty()) {
    ctx.rejected.push_back({"gemm_u8s8", std::move(reason)});
    return made;
  }
  const std::vector<int32_t> zeros =
      ctx.has_input(in.b_zero) ? zero_point_values(ctx.constant(in.b_zero).view()) : std::vector<int32_t>();
  const Int8Constant constant = {.source = {WeightConstant::matrix(ctx.constant(in.b), false), zeros}};
  const Int8Problem problem = {
      .m = g.m * g.num_batches(), .k = g.k, .x_quant = x_quant, .y_dtype = ctx.output(0).dtype};
  SPRUN_ASSIGN(Int8Product product, Int8Product::prepare(ctx, problem, {&constant, 1}));
  ctx.unread_inputs.push_back(in.b);
  made = std::make_unique<ByteProduct>(std::move(product));
  return made;
}

int32_t zero_point_of(const RunContext& ctx, int input) {
  return ctx.has_input(input) ? ZeroPointReader(ctx.input(input))[0] : 0;
}

// Scales that the kernels take: one for A, one or N for B.
bool plain_scales(const PrepareContext& ctx, int a, int b) {
  const ConstTensorView& scale = ctx.input(b);
  return scale.dtype == DType::kF32 && (scale.num_elements() == 1 || scale.shape.rank() == 1) &&
         (a < 0 || (ctx.input(a).num_elements() == 1 && ctx.input(a).dtype == DType::kF32));
}

int64_t stride_of(const ConstTensorView& one_or_n) { return one_or_n.num_elements() == 1 ? 0 : 1; }

// --- MatMulInteger

constexpr ProblemInputs kMatMulInteger = {.a = 0, .b = 1, .a_zero = 2, .b_zero = 3};

Status infer_matmul_integer(InferContext& ctx) {
  SPRUN_TRY(check_bytes(ctx, kMatMulInteger));
  auto problem = make_problem(ctx, kMatMulInteger);
  if (!problem.ok()) return ctx.error(problem.status().message());
  ctx.set_output(0, DType::kS32, problem->shapes.out);
  return {};
}

Status prepare_matmul_integer(PrepareContext& ctx) {
  SPRUN_ASSIGN(ctx.state, prepare_bytes(ctx, kMatMulInteger, codes_of(ctx, 0)));
  return {};
}

Status run_matmul_integer(RunContext& ctx) {
  if (const auto* state = static_cast<const ByteProduct*>(ctx.state())) {
    const Int8Segment segment = {.y = ctx.output(0).data, .ldy = ctx.output(0).shape.back()};
    state->product.run(ctx.pool(),
                       {.x = ctx.input(0).data, .x_zero_point = zero_point_of(ctx, 2), .segments = {&segment, 1}},
                       ctx.scratch());
    return {};
  }
  auto problem = make_problem(ctx, kMatMulInteger);
  if (!problem.ok()) return ctx.error(problem.status().message());
  const BatchedGemm& g = problem->shapes.gemm;
  int32_t* y = ctx.output(0).as<int32_t>();
  run_problem(ctx, kMatMulInteger, *problem,
              [&](int64_t entry, int64_t i, int64_t j0, int64_t count, const int32_t* sums) {
                std::copy_n(sums, count, y + (entry * g.m + i) * g.n + j0);
              });
  return {};
}

// --- scaled results: float or requantised

// Scales of both operands, for value = sum * (a * b).
struct ProductScale {
  ScaleReader a, b;
  VectorParam a_param, b_param;
};

Result<ProductScale> product_scale(const RunContext& ctx, int a, int b, const BatchedGemm& g) {
  ProductScale scale = {.a = ScaleReader(ctx.input(a)), .b = ScaleReader(ctx.input(b)), .a_param = {}, .b_param = {}};
  SPRUN_ASSIGN(scale.a_param, vector_param(ctx.input(a).shape, g, true));
  SPRUN_ASSIGN(scale.b_param, vector_param(ctx.input(b).shape, g, false));
  return scale;
}

Status check_params(const InferContext& ctx, const BatchedGemm& g, std::initializer_list<int> rows,
                    std::initializer_list<int> columns) {
  for (int input : rows) {
    SPRUN_TRY(check_scale(ctx, input));
    if (auto param = param_of(ctx, input, g, true); !param.ok()) return ctx.error(param.status().message());
  }
  for (int input : columns) {
    SPRUN_TRY(check_scale(ctx, input));
    if (auto param = param_of(ctx, input, g, false); !param.ok()) return ctx.error(param.status().message());
  }
  return {};
}

// --- QLinearMatMul

constexpr ProblemInputs kQLinearMatMul = {.a = 0, .b = 3, .a_zero = 2, .b_zero = 5};

Status infer_qlinear_matmul(InferContext& ctx) {
  SPRUN_TRY(check_bytes(ctx, kQLinearMatMul));
  auto problem = make_problem(ctx, kQLinearMatMul);
  if (!problem.ok()) return ctx.error(problem.status().message());
  SPRUN_TRY(check_params(ctx, problem->shapes.gemm, {1, 6}, {4}));
  SPRUN_TRY(ctx.check(is_byte(ctx.dtype(7)), "the result must be int8 or uint8"));
  if (auto p = param_of(ctx, 7, problem->shapes.gemm, true); !p.ok()) return ctx.error(p.status().message());
  ctx.set_output(0, ctx.dtype(7), problem->shapes.out);
  return {};
}

// The scales must be constant: their quotient becomes the scale of the weight, so that rounding is that of the loop.
Status prepare_qlinear_matmul(PrepareContext& ctx) {
  const Tensor &a = ctx.constant(1), &b = ctx.constant(4), &y = ctx.constant(6);
  const bool plain = !a.empty() && !b.empty() && !y.empty() && plain_scales(ctx, 1, 4) && y.num_elements() == 1 &&
                     ctx.input(7).num_elements() == 1 && a.is_aligned() && b.is_aligned() && y.is_aligned();
  if (!plain || y.dtype() != DType::kF32) {
    ctx.rejected.push_back({"gemm_u8s8", "scales are not float32 constants"});
    return {};
  }
  SPRUN_ASSIGN(auto state, prepare_bytes(ctx, kQLinearMatMul, codes_of(ctx, 0)));
  if (!state) return {};
  SPRUN_ASSIGN(state->factors, allocate_blob(b.size_bytes()));
  state->factor_stride = stride_of(b.view());
  for (int64_t i = 0; i < b.num_elements(); ++i) {
    static_cast<float*>(state->factors.data.get())[i] = *a.as<float>() * b.as<float>()[i] / *y.as<float>();
  }
  ctx.state = std::move(state);
  return {};
}

Status run_qlinear_matmul(RunContext& ctx) {
  if (const auto* state = static_cast<const ByteProduct*>(ctx.state())) {
    const Int8Segment segment = {.w_scale = static_cast<const float*>(state->factors.data.get()),
                                 .w_scale_stride = state->factor_stride,
                                 .y = ctx.output(0).data,
                                 .ldy = ctx.output(0).shape.back()};
    state->product.run(ctx.pool(),
                       {.x = ctx.input(0).data,
                        .x_zero_point = zero_point_of(ctx, 2),
                        .segments = {&segment, 1},
                        .y_zero_point = zero_point_of(ctx, 7)},
                       ctx.scratch());
    return {};
  }
  auto problem = make_problem(ctx, kQLinearMatMul);
  if (!problem.ok()) return ctx.error(problem.status().message());
  const BatchedGemm& g = problem->shapes.gemm;
  SPRUN_ASSIGN(const ProductScale scale, product_scale(ctx, 1, 4, g));
  SPRUN_ASSIGN(const VectorParam y_param, vector_param(ctx.input(6).shape, g, true));
  SPRUN_ASSIGN(const VectorParam y_zero_param, vector_param(ctx.input(7).shape, g, true));
  const ScaleReader y_scale(ctx.input(6));
  const ZeroPointReader y_zero(ctx.input(7));
  const QuantRange range = quant_range(ctx.output(0).dtype);
  uint8_t* y = ctx.output(0).as<uint8_t>();
  run_problem(ctx, kQLinearMatMul, *problem,
              [&](int64_t entry, int64_t i, int64_t j0, int64_t count, const int32_t* sums) {
                const float a_scale = scale.a[scale.a_param.at(g, entry, i)];
                const float out_scale = y_scale[y_param.at(g, entry, i)];
                const int32_t zero = y_zero[y_zero_param.at(g, entry, i)];
                uint8_t* row = y + (entry * g.m + i) * g.n + j0;
                for (int64_t j = 0; j < count; ++j) {
                  const float factor = a_scale * scale.b[scale.b_param.at(g, entry, j0 + j)] / out_scale;
                  row[j] = static_cast<uint8_t>(quantize_value(static_cast<float>(sums[j]) * factor, zero, range));
                }
              });
  return {};
}

// --- MatMulIntegerToFloat: A, B, a_scale, b_scale, a_zero_point?, b_zero_point?, bias?

constexpr ProblemInputs kToFloat = {.a = 0, .b = 1, .a_zero = 4, .b_zero = 5};

Status check_bias(const InferContext& ctx, int input, int64_t n) {
  if (!ctx.has_input(input)) return {};
  SPRUN_TRY(check_scale(ctx, input));
  return ctx.check(ctx.shape(input).num_elements() == n,
                   "bias of shape " + ctx.shape(input).to_string() + ", expected [" + std::to_string(n) + "]");
}

Status infer_to_float(InferContext& ctx) {
  SPRUN_TRY(check_bytes(ctx, kToFloat));
  auto problem = make_problem(ctx, kToFloat);
  if (!problem.ok()) return ctx.error(problem.status().message());
  SPRUN_TRY(check_params(ctx, problem->shapes.gemm, {2}, {3}));
  SPRUN_TRY(check_bias(ctx, 6, problem->shapes.gemm.n));
  ctx.set_output(0, ctx.dtype(2), problem->shapes.out);
  return {};
}

Status prepare_to_float(PrepareContext& ctx) {
  if (!plain_scales(ctx, 2, 3) || ctx.output(0).dtype != DType::kF32) {
    ctx.rejected.push_back({"gemm_u8s8", "scales are not float32, or per row"});
    return {};
  }
  SPRUN_ASSIGN(ctx.state, prepare_bytes(ctx, kToFloat, codes_of(ctx, 0)));
  return {};
}

// Float result of a prepared product; bias and b_scale are input numbers.
void run_float_product(RunContext& ctx, const ByteProduct& state, int b_scale, int bias, float x_scale,
                       int32_t x_zero) {
  const Int8Segment segment = {.w_scale = ctx.input(b_scale).as<float>(),
                               .w_scale_stride = stride_of(ctx.input(b_scale)),
                               .bias = ctx.has_input(bias) ? ctx.input(bias).as<float>() : nullptr,
                               .y = ctx.output(0).data,
                               .ldy = ctx.output(0).shape.back()};
  state.product.run(ctx.pool(),
                    {.x = ctx.input(0).data, .x_scale = x_scale, .x_zero_point = x_zero, .segments = {&segment, 1}},
                    ctx.scratch());
}

Status run_to_float(RunContext& ctx) {
  if (const auto* state = static_cast<const ByteProduct*>(ctx.state())) {
    run_float_product(ctx, *state, 3, 6, *ctx.input(2).as<float>(), zero_point_of(ctx, 4));
    return {};
  }
  auto problem = make_problem(ctx, kToFloat);
  if (!problem.ok()) return ctx.error(problem.status().message());
  const BatchedGemm& g = problem->shapes.gemm;
  SPRUN_ASSIGN(const ProductScale scale, product_scale(ctx, 2, 3, g));
  return dispatch_real(ctx, ctx.output(0).dtype, [&](auto tag) {
    using Y = typename decltype(tag)::type;
    const bool has_bias = ctx.has_input(6);
    const ScaleReader bias(ctx.input(has_bias ? 6 : 2));
    Y* y = ctx.output(0).as<Y>();
    run_problem(ctx, kToFloat, *problem, [&](int64_t entry, int64_t i, int64_t j0, int64_t count, const int32_t* sums) {
      const float a_scale = scale.a[scale.a_param.at(g, entry, i)];
      Y* row = y + (entry * g.m + i) * g.n + j0;
      for (int64_t j = 0; j < count; ++j) {
        const float factor = a_scale * scale.b[scale.b_param.at(g, entry, j0 + j)];
        row[j] = store<Y>(static_cast<float>(sums[j]) * factor + (has_bias ? bias[j0 + j] : 0.0f));
      }
    });
    return Status();
  });
}

// --- DynamicQuantizeMatMul: A float, B, b_scale, b_zero_point?, bias?

constexpr ProblemInputs kDynamic = {.a = 0, .b = 1, .a_zero = -1, .b_zero = 3};

Status infer_dynamic(InferContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == DType::kF32 && is_byte(ctx.dtype(1)), "expected float32 and 8-bit operands"));
  SPRUN_TRY(ctx.check(!ctx.has_input(3) || ctx.dtype(3) == ctx.dtype(1), "zero point and weight differ in type"));
  auto problem = make_problem(ctx, kDynamic);
  if (!problem.ok()) return ctx.error(problem.status().message());
  SPRUN_TRY(check_params(ctx, problem->shapes.gemm, {}, {2}));
  SPRUN_TRY(check_bias(ctx, 4, problem->shapes.gemm.n));
  ctx.set_output(0, DType::kF32, problem->shapes.out);
  return {};
}

// Elements of a float tensor as DynamicQuantizeLinear would write them.
struct QuantisingReader {
  const float* data;
  kernels::QuantParams quant;
  int32_t operator[](int64_t i) const { return quantize_value(data[i] / quant.scale, quant.zero_point, {0, 255}); }
};

Status prepare_dynamic(PrepareContext& ctx) {
  if (!plain_scales(ctx, -1, 2)) {
    ctx.rejected.push_back({"gemm_u8s8", "scales of B are not one or N"});
    return {};
  }
  SPRUN_ASSIGN(ctx.state, prepare_bytes(ctx, kDynamic, XQuant::kPerTensor));
  return {};
}

Status run_dynamic(RunContext& ctx) {
  if (const auto* state = static_cast<const ByteProduct*>(ctx.state())) {
    run_float_product(ctx, *state, 2, 4, 1.0f, 0);
    return {};
  }
  auto problem = make_problem(ctx, kDynamic);
  if (!problem.ok()) return ctx.error(problem.status().message());
  const BatchedGemm& g = problem->shapes.gemm;
  const float* x = ctx.input(0).as<float>();
  float min = 0, max = 0;
  for (int64_t i = 0; i < ctx.input(0).num_elements(); ++i) {
    min = std::min(min, x[i]);
    max = std::max(max, x[i]);
  }
  const QuantisingReader a = {x, kernels::dynamic_quant_params(min, max)};
  SPRUN_ASSIGN(const VectorParam b_param, vector_param(ctx.input(2).shape, g, false));
  const ScaleReader b_scale(ctx.input(2));
  const float* bias = ctx.has_input(4) ? ctx.input(4).as<float>() : nullptr;
  ZeroPoints za;
  za.values.data = &a.quant.zero_point;
  za.values.dtype = DType::kS32;
  float* y = ctx.output(0).as<float>();
  integer_gemm(ctx.pool(), g, a, za, ByteReader(ctx.input(1)), problem->b_zero,
               [&](int64_t entry, int64_t i, int64_t j0, int64_t count, const int32_t* sums) {
                 float* row = y + (entry * g.m + i) * g.n + j0;
                 for (int64_t j = 0; j < count; ++j) {
                   const float factor = a.quant.scale * b_scale[b_param.at(g, entry, j0 + j)];
                   row[j] = static_cast<float>(sums[j]) * factor + (bias != nullptr ? bias[j0 + j] : 0.0f);
                 }
               });
  return {};
}

// --- QGemm: A, a_scale, a_zero_point, B, b_scale, b_zero_point, C?, y_scale?, y_zero_point?

ProblemInputs qgemm_inputs(const AttrMap& attrs) {
  return {.a = 0,
          .b = 3,
          .a_zero = 2,
          .b_zero = 5,
          .flags = {.trans_a = attrs.get_int("transA", 0) != 0, .trans_b = attrs.get_int("transB", 0) != 0}};
}

Status infer_qgemm(InferContext& ctx) {
  const ProblemInputs in = qgemm_inputs(ctx.attrs());
  SPRUN_TRY(check_bytes(ctx, in));
  SPRUN_TRY(ctx.check(ctx.shape(0).rank() == 2 && ctx.shape(3).rank() == 2, "operands must be matrices"));
  auto problem = make_problem(ctx, in);
  if (!problem.ok()) return ctx.error(problem.status().message());
  SPRUN_TRY(check_params(ctx, problem->shapes.gemm, {1}, {4}));
  SPRUN_TRY(check_scale(ctx, 7));
  SPRUN_TRY(ctx.check(!ctx.has_input(7) || ctx.shape(7).num_elements() == 1, "y_scale must be a scalar"));
  if (ctx.has_input(6)) {
    SPRUN_TRY(ctx.check(ctx.dtype(6) == DType::kS32, "C must be int32"));
    const auto joined = broadcast_shapes(ctx.shape(6), problem->shapes.out);
    SPRUN_TRY(ctx.check(joined.ok() && *joined == problem->shapes.out, "C does not broadcast to the result"));
  }
  DType dtype = DType::kF32;
  if (ctx.has_input(8)) {
    dtype = ctx.dtype(8);
    SPRUN_TRY(ctx.check(is_byte(dtype) && ctx.has_input(7), "an 8-bit result needs y_scale and y_zero_point"));
    SPRUN_TRY(ctx.check(ctx.shape(8).num_elements() == 1, "y_zero_point must be a scalar"));
  }
  ctx.set_output(0, dtype, problem->shapes.out);
  return {};
}

Status run_qgemm(RunContext& ctx) {
  const ProblemInputs in = qgemm_inputs(ctx.attrs());
  auto problem = make_problem(ctx, in);
  if (!problem.ok()) return ctx.error(problem.status().message());
  const BatchedGemm& g = problem->shapes.gemm;
  SPRUN_ASSIGN(const ProductScale scale, product_scale(ctx, 1, 4, g));
  const int32_t* c = ctx.has_input(6) ? ctx.input(6).as<int32_t>() : nullptr;
  const auto c_strides = c != nullptr ? broadcast_strides(ctx.input(6).shape, problem->shapes.out) : BatchStrides{};
  const float alpha = ctx.attrs().get_float("alpha", 1.0f);
  const bool quantised = ctx.has_input(8);
  const float y_scale = quantised ? ScaleReader(ctx.input(7))[0] : 1.0f;
  const int32_t y_zero = quantised ? ZeroPointReader(ctx.input(8))[0] : 0;
  const QuantRange range = quant_range(ctx.output(0).dtype);
  run_problem(ctx, in, *problem, [&](int64_t entry, int64_t i, int64_t j0, int64_t count, const int32_t* sums) {
    const float a_scale = alpha * scale.a[scale.a_param.at(g, entry, i)];
    for (int64_t j = j0; j < j0 + count; ++j) {
      const int64_t add = c != nullptr ? int64_t{c[i * c_strides[0] + j * c_strides[1]]} : 0;
      const float factor = a_scale * scale.b[scale.b_param.at(g, entry, j)];
      const float value = static_cast<float>(sums[j - j0] + add) * factor;
      if (quantised) {
        ctx.output(0).as<uint8_t>()[i * g.n + j] = static_cast<uint8_t>(quantize_value(value / y_scale, y_zero, range));
      } else {
        ctx.output(0).as<float>()[i * g.n + j] = value;
      }
    }
  });
  return {};
}

constexpr std::string_view kContrib = "com.microsoft";
constexpr OpDef kOps[] = {
    {.name = "MatMulInteger",
     .since = 10,
     .inputs = {2, 4},
     .infer = infer_matmul_integer,
     .run = run_matmul_integer,
     .prepare = prepare_matmul_integer},
    {.name = "QLinearMatMul",
     .since = 10,
     .inputs = {8, 8},
     .infer = infer_qlinear_matmul,
     .run = run_qlinear_matmul,
     .prepare = prepare_qlinear_matmul},
    {.domain = kContrib,
     .name = "MatMulIntegerToFloat",
     .inputs = {4, 7},
     .infer = infer_to_float,
     .run = run_to_float,
     .prepare = prepare_to_float},
    {.domain = kContrib,
     .name = "DynamicQuantizeMatMul",
     .inputs = {3, 5},
     .infer = infer_dynamic,
     .run = run_dynamic,
     .prepare = prepare_dynamic},
    {.domain = kContrib, .name = "QGemm", .inputs = {6, 9}, .infer = infer_qgemm, .run = run_qgemm},
};

}  // namespace

extern const std::span<const OpDef> k_matmul_integer_ops;
const std::span<const OpDef> k_matmul_integer_ops = kOps;

}  // namespace sprun::graph
