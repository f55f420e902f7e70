// sprun.Linear: one fused linear layer, made by graph passes.
//
//   Y_i = act(alpha * X W_i^T + bias_i) + residual
//
// Inputs, with n = num_weights:      0          X [.., K]
//                                    1 .. n     W_i: [K, N_i], or [N_i, K] when trans_w
//                                    n+1 .. 2n  bias_i [N_i], each optional
//                                    2n+1       residual, optional; broadcasts to the output, added after act
// Outputs: one [.., N_0 + N_1 + ..], or with split one [.., N_i] per weight (no residual then).
// Attributes: num_weights (1), trans_w (0), split (0), alpha (1.0), activation ("none", "relu", "gelu_erf",
//   "gelu_tanh", "silu", "tanh", "sigmoid", "quick_gelu"), precision ("f32", "bf16", "int8"); input_zeros, a name for what
//   makes zeros in X, and input_density, the part of X that is expected not to be zero (-1: unknown): weights of zeros
//   are then left out for few rows.
// precision converts constant f32 weights at load and is not used otherwise: bf16 rounds X and W; int8 quantises W per
// output channel (symmetric) and X per row (u8). Element types: all floats; X, weights, biases and residual agree, but
// weights of f32 X may be f16 or bf16: they stay so in memory and count as the f32 that they widen to.
#include <cmath>

#include "graph/ops/float_product.h"
#include "graph/ops/int8_product.h"
#include "graph/ops/linear_state.h"
#include "graph/ops/matmul_util.h"
#include "graph/ops/op.h"
#include "graph/ops/quant_util.h"

namespace sprun::graph {
namespace {

using Layout = LinearInputs<2>;

Status infer_linear(InferContext& ctx) {
  auto attrs = linear_attrs(ctx.attrs());
  if (!attrs.ok()) return ctx.error(attrs.status().message());
  const Layout at(*attrs);
  auto shapes = linear_shapes(ctx, *attrs, at.bias(0));
  if (!shapes.ok()) return ctx.error(shapes.status().message());
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)), "X must be of a float type"));
  for (int i = 0; i < attrs->num_weights; ++i) {
    const DType weight = ctx.dtype(at.weight(i));
    const bool half = ctx.dtype(0) == DType::kF32 && (weight == DType::kF16 || weight == DType::kBf16);
    SPRUN_TRY(ctx.check(weight == ctx.dtype(0) || half, "weight and X differ in type"));
    SPRUN_TRY(
        ctx.check(!ctx.has_input(at.bias(i)) || ctx.dtype(at.bias(i)) == ctx.dtype(0), "bias and X differ in type"));
  }
  const std::string_view precision = ctx.attrs().get_string("precision", "f32");
  SPRUN_TRY(ctx.check(precision == "f32" || precision == "bf16" || precision == "int8", "unknown precision"));
  SPRUN_TRY(check_residual(ctx, *attrs, *shapes, at.residual(), ctx.dtype(0)));
  set_linear_outputs(ctx, *attrs, *shapes, ctx.dtype(0));
  return {};
}

// --- prepared forms

using State = LinearState<Layout>;

// f32 or bf16 weights.
template <class Kernel, class Packed>
class PackedState : public State {
 public:
  PackedState(const LinearCommon& linear, const kernels::KernelInfo<Kernel>& info, int workers)
      : State(linear), info_(info), workers_(workers) {}

  template <class Pack>
  Status add_weights(PrepareContext& ctx, const Pack& pack) {
    for (int i = 0; i < common.attrs.num_weights; ++i) {
      const int input = Layout(common.attrs).weight(i);
      SPRUN_ASSIGN(PackedBlob blob,
                   pack(ctx.packed(), info_, WeightConstant::matrix(ctx.constant(input), common.attrs.trans_w)));
      blobs_.push_back(std::move(blob));
      panels_.add(kernels::num_panels(common.shapes.n[static_cast<size_t>(i)], info_.kernel->nr));
      ctx.unread_inputs.push_back(input);
    }
    grid_ = kernels::make_grid(common.shapes.m, panels_.total() * info_.kernel->nr, common.shapes.k, info_.kernel->nr,
                               sizeof(Packed), workers_);
    ctx.kernel = std::string(info_.name);
    ctx.scratch_bytes = scratch_bytes();
    return {};
  }

  void run(RunContext& ctx) const override {
    if (ctx.pool().num_threads() > workers_) {  // scratch is for fewer
      ThreadPool serial(1);
      return run_on(serial, ctx);
    }
    run_on(ctx.pool(), ctx);
  }

 private:
  static constexpr bool kHalf = sizeof(Packed) == 2;

  int64_t scratch_bytes() const {
    const LinearShapes& s = common.shapes;
    if constexpr (kHalf) return kernels::gemm_bf16_scratch_bytes(*info_.kernel, s.m, s.k, workers_);
    else return kernels::gemm_scratch_bytes(*info_.kernel, workers_);
  }

  // X in the type of the kernel and its row stride.
  const Packed* convert_x(ThreadPool& pool, const RunContext& ctx, int64_t* ldx) const {
    const int64_t k = common.shapes.k;
    const float* x = ctx.input(0).as<float>();
    *ldx = k;
    if constexpr (!kHalf) {
      return x;
    } else {
      const int64_t ld = *ldx = kernels::bf16_ldx(k);
      Packed* half = reinterpret_cast<Packed*>(static_cast<char*>(ctx.scratch()) +
                                               kernels::gemm_scratch_bytes(*info_.kernel, workers_));
      pool.parallel_for(common.shapes.m, 64 * 1024 / k + 1, [&](int64_t begin, int64_t end, int) {
        info_.kernel->convert(x + begin * k, k, end - begin, k, half + begin * ld, ld);
      });
      return half;
    }
  }

  void run_on(ThreadPool& pool, const RunContext& ctx) const {
    int64_t ldx = 0;
    const Packed* x = convert_x(pool, ctx, &ldx);
    using Args = std::conditional_t<kHalf, kernels::GemmBf16Args, kernels::GemmF32Args>;
    run_segments(
        pool, *info_.kernel, grid_, panels_, ctx.scratch(),
        [&](int i) {
          const auto s = static_cast<size_t>(i);
          return Args{.m = common.shapes.m,
                      .n = common.shapes.n[s],
                      .k = common.shapes.k,
                      .x = x,
                      .ldx = ldx,
                      .w = static_cast<const Packed*>(blobs_[s].data.get()),
                      .y = output(ctx, i),
                      .ldy = ldy(i),
                      .epilogue = epilogue(ctx, i)};
        },
        [](int, const kernels::TileRange&) {});
  }

  const kernels::KernelInfo<Kernel>& info_;
  int workers_;
  std::vector<PackedBlob> blobs_;
  PanelMap panels_;
  kernels::TileGrid grid_{};
};

class Int8State : public State {
 public:
  Int8State(const LinearCommon& linear, Int8Product product) : State(linear), product_(std::move(product)) {}

  void run(RunContext& ctx) const override {
    std::array<Int8Segment, kMaxSegments> segments;
    for (int i = 0; i < common.attrs.num_weights; ++i) {
      segments[static_cast<size_t>(i)] = {.w_scale = product_.weight_scale(static_cast<size_t>(i)),
                                          .w_scale_stride = 1,
                                          .bias = bias(ctx, i),
                                          .y = output(ctx, i),
                                          .ldy = ldy(i),
                                          .residual = residual(ctx, i),
                                          .ld_residual = common.shapes.n_total};
    }
    product_.run(ctx.pool(),
                 {.x = ctx.input(0).data,
                  .segments = {segments.data(), static_cast<size_t>(common.attrs.num_weights)},
                  .activation = common.attrs.activation},
                 ctx.scratch());
  }

 private:
  Int8Product product_;
};

// A weight that is computed: packed when running.
class ComputedState : public State {
 public:
  ComputedState(const LinearCommon& linear, std::unique_ptr<const FloatProduct> product)
      : State(linear), product_(std::move(product)) {}

  void run(RunContext& ctx) const override {
    product_->run(ctx.pool(), ctx.input(0).as<float>(), ctx.input(1).as<float>(), ctx.output(0).as<float>(),
                  epilogue(ctx, 0), ctx.scratch());
  }

 private:
  std::unique_ptr<const FloatProduct> product_;
};

BatchedGemm gemm_of(const LinearShapes& s, const LinearAttrs& attrs, size_t i) {
  BatchedGemm g;
  g.m = s.m;
  g.n = s.n[i];
  g.k = s.k;
  g.a_row = s.k;
  g.a_col = 1;
  g.b_row = attrs.trans_w ? 1 : s.n[i];
  g.b_col = attrs.trans_w ? s.k : 1;
  g.c_row = attrs.split ? s.n[i] : s.n_total;
  return g;
}

std::vector<FloatWeight> weights_of(const PrepareContext& ctx, const LinearAttrs& attrs) {
  std::vector<FloatWeight> weights;
  for (int i = 0; i < attrs.num_weights; ++i) {
    weights.push_back({.weight = WeightConstant::matrix(ctx.constant(Layout(attrs).weight(i)), attrs.trans_w)});
  }
  return weights;
}

Status prepare_packed(PrepareContext& ctx, const LinearCommon& linear, std::string_view precision) {
  const kernels::IsaSet isas = kernels::available_isas();
  std::vector<kernels::Rejection> why_not;
  if (precision == "int8") {
    std::vector<Int8Constant> weights;
    for (int i = 0; i < linear.attrs.num_weights; ++i) {
      const int input = Layout(linear.attrs).weight(i);
      weights.push_back({.source = {WeightConstant::matrix(ctx.constant(input), linear.attrs.trans_w), {}},
                         .alpha = linear.alpha});
      ctx.unread_inputs.push_back(input);
    }
    SPRUN_ASSIGN(
        Int8Product product,
        Int8Product::prepare(ctx, {.m = linear.shapes.m, .k = linear.shapes.k, .x_quant = XQuant::kPerRow}, weights));
    ctx.state = std::make_unique<Int8State>(linear, std::move(product));
  } else if (precision == "bf16") {
    SPRUN_ASSIGN(ctx.state, (sparse_state<SparseBf16, Layout>(ctx, linear, weights_of(ctx, linear.attrs))));
    if (ctx.state) return {};
    const auto& info = kernels::select(kernels::gemm_bf16_kernels(), isas, &why_not);
    auto state = std::make_unique<PackedState<kernels::GemmBf16Kernel, uint16_t>>(linear, info, ctx.max_threads());
    SPRUN_TRY(state->add_weights(ctx, pack_bf16));
    ctx.state = std::move(state);
  } else {
    const std::vector<FloatWeight> weights = weights_of(ctx, linear.attrs);
    SPRUN_ASSIGN(ctx.state, (sparse_state<SparseF32, Layout>(ctx, linear, weights)));
    if (ctx.state) return {};
    if (is_narrow(weights)) {
      SPRUN_ASSIGN(ctx.state, narrow_state<Layout>(ctx, linear, weights));
      return {};
    }
    const auto& info = kernels::select(kernels::gemm_f32_kernels(), isas, &why_not);
    auto state = std::make_unique<PackedState<kernels::GemmF32Kernel, float>>(linear, info, ctx.max_threads());
    SPRUN_TRY(state->add_weights(ctx, pack_f32));
    ctx.state = std::move(state);
  }
  append_rejections(ctx.rejected, why_not);
  return {};
}

// True when every weight is a constant that is worth packing; else the reason is recorded.
bool can_pack(PrepareContext& ctx, const LinearAttrs& attrs) {
  for (int i = 0; i < attrs.num_weights; ++i) {
    const Tensor& constant = ctx.constant(Layout(attrs).weight(i));
    constexpr int64_t kWidestPanel = 32;
    if (constant.empty() || !WeightConstant::matrix(constant, attrs.trans_w).worth_packing(kWidestPanel)) {
      ctx.rejected.push_back({"packed gemm", constant.empty() ? "a weight is not constant" : "a weight is too narrow"});
      return false;
    }
  }
  return true;
}

Status prepare_linear(PrepareContext& ctx) {
  if (ctx.input(0).dtype != DType::kF32) {
    ctx.rejected.push_back({"gemm", "element type is " + std::string(dtype_name(ctx.input(0).dtype))});
    return {};
  }
  LinearCommon linear;
  SPRUN_ASSIGN(linear.attrs, linear_attrs(ctx.attrs()));
  SPRUN_ASSIGN(linear.shapes, linear_shapes(ctx, linear.attrs, Layout(linear.attrs).bias(0)));
  linear.alpha = ctx.attrs().get_float("alpha", 1.0f);
  const LinearShapes& s = linear.shapes;
  ctx.flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n_total) * static_cast<double>(s.k);
  ctx.regime = gemm_regime(s.m);
  if (s.m == 0 || s.k == 0) return {};
  std::string_view precision = ctx.attrs().get_string("precision", "f32");
  if (precision == "int8" && s.k > Int8Product::kMaxK) {
    ctx.rejected.push_back({"gemm_u8s8", "K is over " + std::to_string(Int8Product::kMaxK)});
    precision = "f32";
  }
  if (can_pack(ctx, linear.attrs)) {
    SPRUN_TRY(prepare_packed(ctx, linear, precision));
    return precision == "f32" ? gather_inputs<Layout>(ctx, linear, weights_of(ctx, linear.attrs)) : Status();
  }
  if (linear.attrs.num_weights > 1 || ctx.input(1).dtype != DType::kF32) return {};
  SPRUN_ASSIGN(auto product, FloatProduct::prepare(ctx, gemm_of(s, linear.attrs, 0), 0, 1));
  if (product) ctx.state = std::make_unique<ComputedState>(linear, std::move(product));
  return {};
}

// --- the reference

// A 16-bit weight of f32 X as f32; empty where types agree.
std::vector<float> widened(const ConstTensorView& w, DType x) {
  std::vector<float> wide;
  if (w.dtype == x) return wide;
  const ScaleReader read(w);
  for (int64_t i = 0; i < w.num_elements(); ++i) wide.push_back(read[i]);
  return wide;
}

template <class T>
void run_reference(RunContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes) {
  const Layout at(attrs);
  const float alpha = ctx.attrs().get_float("alpha", 1.0f);
  const bool has_residual = ctx.has_input(at.residual());
  const auto strides =
      has_residual ? broadcast_strides(ctx.input(at.residual()).shape, ctx.output(0).shape) : BatchStrides{};
  for (int i = 0; i < attrs.num_weights; ++i) {
    const auto s = static_cast<size_t>(i);
    const BatchedGemm g = gemm_of(shapes, attrs, s);
    const T* bias = ctx.has_input(at.bias(i)) ? ctx.input(at.bias(i)).as<T>() : nullptr;
    const TensorView& out = ctx.output(attrs.split ? i : 0);
    T* y = out.as<T>() + (attrs.split ? 0 : shapes.column[s]);
    const std::vector<float> wide = widened(ctx.input(at.weight(i)), ctx.input(0).dtype);
    const T* w = ctx.input(at.weight(i)).as<T>();
    if constexpr (std::is_same_v<T, float>) w = wide.empty() ? w : wide.data();
    gemm_ref(ctx.pool(), g, ctx.input(0).as<T>(), w,
             [&](int64_t offset, int64_t count, const SumType<T>* sums) {
               const int64_t row = offset / g.c_row, first = offset % g.c_row;
               int64_t residual_at = 0, rest = row;
               for (int axis = out.shape.rank() - 2; has_residual && axis >= 0; --axis) {
                 residual_at += rest % out.shape[axis] * strides[static_cast<size_t>(axis)];
                 rest /= out.shape[axis];
               }
               for (int64_t j = 0; j < count; ++j) {
                 double value = static_cast<double>(static_cast<SumType<T>>(alpha) * sums[j]);
                 if (bias != nullptr) value += static_cast<double>(load(bias[first + j]));
                 value = activate(attrs.activation, value);
                 if (has_residual) {
                   const int64_t column =
                       (shapes.column[s] + first + j) * strides[static_cast<size_t>(out.shape.rank() - 1)];
                   value += static_cast<double>(load(ctx.input(at.residual()).as<T>()[residual_at + column]));
                 }
                 y[offset + j] = store<T>(static_cast<ComputeType<T>>(value));
               }
             });
  }
}

Status run_linear(RunContext& ctx) {
  if (const auto* state = static_cast<const State*>(ctx.state())) {
    state->run(ctx);
    const int residual = Layout(state->common.attrs).residual();
    if (ctx.has_input(residual) && ctx.input(residual).num_elements() != ctx.output(0).num_elements()) {
      add_broadcast(ctx.pool(), ctx.output(0), ctx.input(residual));
    }
    return {};
  }
  SPRUN_ASSIGN(const LinearAttrs attrs, linear_attrs(ctx.attrs()));
  SPRUN_ASSIGN(const LinearShapes shapes, linear_shapes(ctx, attrs, Layout(attrs).bias(0)));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    run_reference<typename decltype(tag)::type>(ctx, attrs, shapes);
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.domain = "sprun",
     .name = "Linear",
     .inputs = {2, 2 + 2 * kMaxSegments},
     .outputs = {1, kMaxSegments},
     .infer = infer_linear,
     .run = run_linear,
     .prepare = prepare_linear},
};

}  // namespace

extern const std::span<const OpDef> k_linear_ops;
const std::span<const OpDef> k_linear_ops = kOps;

}  // namespace sprun::graph
