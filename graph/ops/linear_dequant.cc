// sprun.LinearDequant: one fused linear layer whose 8-bit weights are dequantised while X stays float (weight-only
// quantisation), made by graph passes.
//
//   W_i = (code_i - zero_i) * scale_i
//   Y_i = act(X W_i^T + bias_i) + residual
//
// Inputs, with n = num_weights:      0           X [.., K] f32
//                                    1 .. n      code_i: u8 or s8, [K, N_i], or [N_i, K] when trans_w
//                                    n+1 .. 2n   scale_i: f32, one or N_i elements; with block_size
//                                                [ceil(K / block_size), N_i], or [N_i, ..] when trans_w
//                                    2n+1 .. 3n  zero_i, optional: type of code_i, one or as many elements as scale_i
//                                    3n+1 .. 4n  bias_i, optional: f32 [N_i]
//                                    4n+1        residual, optional: f32, broadcasts to the output
// Outputs: one [.., N_0 + N_1 + ..], or with split one [.., N_i] per weight (no residual then).
// Attributes: num_weights (1), trans_w (0), split (0), activation as sprun.Linear, block_size (0: none),
//   input_zeros and input_density as sprun.Linear.
// Weights stay 8-bit in memory; results equal those of float32 weights up to rounding.
#include "graph/ops/linear_state.h"
#include "graph/ops/op.h"
#include "graph/ops/quant_util.h"

namespace sprun::graph {
namespace {

struct Layout : LinearInputs<4> {
  using LinearInputs<4>::LinearInputs;
  int scale(int i) const { return 1 + n + i; }
  int zero(int i) const { return 1 + 2 * n + i; }
};

int64_t block_size_of(const AttrMap& attrs) { return attrs.get_int("block_size", 0); }

// Elements of scales, when they are not one for the whole weight.
int64_t num_scales(int64_t n, int64_t k, int64_t block_size) {
  return block_size > 0 ? n * ((k + block_size - 1) / block_size) : n;
}

Status check_weight(const InferContext& ctx, const Layout& at, int i, int64_t n, int64_t k) {
  const DType codes = ctx.dtype(at.weight(i));
  const int64_t block_size = block_size_of(ctx.attrs()), all = num_scales(n, k, block_size);
  SPRUN_TRY(ctx.check(codes == DType::kU8 || codes == DType::kS8, "weights must be int8 or uint8"));
  SPRUN_TRY(ctx.check(ctx.has_input(at.scale(i)) && ctx.dtype(at.scale(i)) == DType::kF32, "scales must be float32"));
  const int64_t scales = ctx.input(at.scale(i)).num_elements();
  SPRUN_TRY(ctx.check(scales == all || (scales == 1 && block_size == 0),
                      "scales of shape " + ctx.shape(at.scale(i)).to_string() + " do not fit"));
  if (ctx.has_input(at.zero(i))) {
    const int64_t zeros = ctx.input(at.zero(i)).num_elements();
    SPRUN_TRY(ctx.check(ctx.dtype(at.zero(i)) == codes && (zeros == scales || zeros == 1),
                        "zero points must have the type of the weight and fit its scales"));
  }
  return ctx.check(!ctx.has_input(at.bias(i)) || ctx.dtype(at.bias(i)) == DType::kF32, "bias must be float32");
}

Status infer_linear(InferContext& ctx) {
  auto attrs = linear_attrs(ctx.attrs());
  if (!attrs.ok()) return ctx.error(attrs.status().message());
  const Layout at(*attrs);
  auto shapes = linear_shapes(ctx, *attrs, at.bias(0));
  if (!shapes.ok()) return ctx.error(shapes.status().message());
  SPRUN_TRY(ctx.check(ctx.dtype(0) == DType::kF32, "X must be float32"));
  SPRUN_TRY(ctx.check(block_size_of(ctx.attrs()) >= 0, "block_size must not be negative"));
  for (int i = 0; i < attrs->num_weights; ++i) {
    SPRUN_TRY(check_weight(ctx, at, i, shapes->n[static_cast<size_t>(i)], shapes->k));
  }
  SPRUN_TRY(check_residual(ctx, *attrs, *shapes, at.residual(), DType::kF32));
  set_linear_outputs(ctx, *attrs, *shapes, DType::kF32);
  return {};
}

// Why the kernels do not fit; empty when they do.
std::string reason_against(const PrepareContext& ctx, const LinearAttrs& attrs, const LinearShapes& s) {
  const Layout at(attrs);
  if (s.m == 0 || s.k == 0) return "empty product";
  if (!NarrowProduct::available(DType::kS8)) return "no vector kernel on this CPU";
  for (int i = 0; i < attrs.num_weights; ++i) {
    for (int input : {at.weight(i), at.scale(i), at.zero(i)}) {
      if (ctx.has_input(input) && ctx.constant(input).empty()) return "a weight, scale or zero point is not constant";
    }
    constexpr int64_t kWidestPanel = 32;
    const auto weight = WeightConstant::matrix(ctx.constant(at.weight(i)), attrs.trans_w);
    if (!weight.worth_packing(kWidestPanel)) return "a weight is too narrow";
  }
  return {};
}

Status prepare_linear(PrepareContext& ctx) {
  LinearCommon linear;
  SPRUN_ASSIGN(linear.attrs, linear_attrs(ctx.attrs()));
  const Layout at(linear.attrs);
  SPRUN_ASSIGN(linear.shapes, linear_shapes(ctx, linear.attrs, at.bias(0)));
  const LinearShapes& s = linear.shapes;
  ctx.flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n_total) * static_cast<double>(s.k);
  ctx.regime = gemm_regime(s.m);
  if (std::string reason = reason_against(ctx, linear.attrs, s); !reason.empty()) {
    ctx.rejected.push_back({"gemm_f32s8", std::move(reason)});
    return {};
  }
  std::vector<FloatWeight> weights;
  for (int i = 0; i < linear.attrs.num_weights; ++i) {
    weights.push_back({.weight = WeightConstant::matrix(ctx.constant(at.weight(i)), linear.attrs.trans_w),
                       .scale = &ctx.constant(at.scale(i)),
                       .zero = ctx.has_input(at.zero(i)) ? &ctx.constant(at.zero(i)) : nullptr,
                       .block_size = block_size_of(ctx.attrs())});
  }
  SPRUN_ASSIGN(ctx.state, (sparse_state<SparseF32, Layout>(ctx, linear, weights)));
  if (!ctx.state) {
    SPRUN_ASSIGN(ctx.state, narrow_state<Layout>(ctx, linear, weights));
  }
  return gather_inputs<Layout>(ctx, linear, weights);
}

// --- the reference

// Column n of weight i as floats.
class WeightColumns {
 public:
  WeightColumns(const RunContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes, int i)
      : codes_(ctx.input(Layout(attrs).weight(i))),
        scales_(ctx.input(Layout(attrs).scale(i))),
        trans_(attrs.trans_w),
        n_(shapes.n[static_cast<size_t>(i)]),
        k_(shapes.k),
        block_(block_size_of(ctx.attrs())) {
    if (ctx.has_input(Layout(attrs).zero(i))) zeros_ = ctx.input(Layout(attrs).zero(i));
    blocks_ = block_ > 0 ? (k_ + block_ - 1) / block_ : 1;
  }

  void read(int64_t n, float* column) const {
    const ZeroPointReader code(codes_), zero(zeros_);
    const int64_t num_zeros = zeros_.data == nullptr ? 0 : zeros_.num_elements();
    for (int64_t k = 0; k < k_; ++k) {
      const int64_t block = block_ > 0 ? k / block_ : 0;
      const int64_t at = scales_.num_elements() == 1 ? 0 : trans_ ? n * blocks_ + block : block * n_ + n;
      const int32_t q = code[trans_ ? n * k_ + k : k * n_ + n];
      const int32_t z = num_zeros == 0 ? 0 : zero[num_zeros == 1 ? 0 : at];
      column[k] = static_cast<float>(q - z) * scales_.as<float>()[at];
    }
  }

 private:
  ConstTensorView codes_, scales_, zeros_{};
  bool trans_;
  int64_t n_, k_, block_, blocks_ = 1;
};

void run_reference(RunContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes) {
  const Layout at(attrs);
  for (int i = 0; i < attrs.num_weights; ++i) {
    const auto s = static_cast<size_t>(i);
    const WeightColumns columns(ctx, attrs, shapes, i);
    const float* bias = ctx.has_input(at.bias(i)) ? ctx.input(at.bias(i)).as<float>() : nullptr;
    const TensorView& out = ctx.output(attrs.split ? i : 0);
    const int64_t ld = attrs.split ? shapes.n[s] : shapes.n_total, first = attrs.split ? 0 : shapes.column[s];
    std::vector<float> column(static_cast<size_t>(shapes.k));
    for (int64_t n = 0; n < shapes.n[s]; ++n) {
      columns.read(n, column.data());
      for (int64_t row = 0; row < shapes.m; ++row) {
        const float* x = ctx.input(0).as<float>() + row * shapes.k;
        double sum = 0;
        for (int64_t k = 0; k < shapes.k; ++k) {
          sum += static_cast<double>(x[k]) * static_cast<double>(column[static_cast<size_t>(k)]);
        }
        if (bias != nullptr) sum += static_cast<double>(bias[n]);
        out.as<float>()[row * ld + first + n] = static_cast<float>(activate(attrs.activation, sum));
      }
    }
  }
  if (ctx.has_input(at.residual())) add_broadcast(ctx.pool(), ctx.output(0), ctx.input(at.residual()));
}

Status run_linear(RunContext& ctx) {
  if (const auto* state = static_cast<const LinearState<Layout>*>(ctx.state())) {
    state->run(ctx);
    const int residual = Layout(state->common.attrs).residual();
    if (ctx.has_input(residual) && ctx.input(residual).num_elements() != ctx.output(0).num_elements()) {
      add_broadcast(ctx.pool(), ctx.output(0), ctx.input(residual));
    }
    return {};
  }
  SPRUN_ASSIGN(const LinearAttrs attrs, linear_attrs(ctx.attrs()));
  SPRUN_ASSIGN(const LinearShapes shapes, linear_shapes(ctx, attrs, Layout(attrs).bias(0)));
  run_reference(ctx, attrs, shapes);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun",
     .name = "LinearDequant",
     .inputs = {3, 2 + 4 * kMaxSegments},
     .outputs = {1, kMaxSegments},
     .infer = infer_linear,
     .run = run_linear,
     .prepare = prepare_linear},
};

}  // namespace

extern const std::span<const OpDef> k_linear_dequant_ops;
const std::span<const OpDef> k_linear_dequant_ops = kOps;

}  // namespace sprun::graph
