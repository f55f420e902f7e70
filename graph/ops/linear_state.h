// Prepared forms of linear layers that several ops share: what run() keeps, sparse weights, weights that stay 8- or
// 16-bit, and inputs with zeros.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "graph/ops/input_gather.h"
#include "graph/ops/linear_util.h"
#include "graph/ops/narrow_product.h"
#include "graph/ops/sparse_float.h"

namespace sprun::graph {

// Positions of the inputs with kKinds inputs for each weight, the weight first and its bias last; then the residual.
template <int kKinds>
struct LinearInputs {
  int n;
  explicit LinearInputs(const LinearAttrs& attrs) : n(attrs.num_weights) {}
  int weight(int i) const { return 1 + i; }
  int bias(int i) const { return 1 + (kKinds - 1) * n + i; }
  int residual() const { return 1 + kKinds * n; }
};

// What every prepared form keeps, so that run() reads no attributes.
struct LinearCommon {
  LinearAttrs attrs;
  LinearShapes shapes;
  float alpha = 1.0f;
};

template <class Inputs>
class LinearState : public SparseActivationState {
 public:
  explicit LinearState(const LinearCommon& linear) : common(linear) {}
  virtual void run(RunContext& ctx) const = 0;
  const LinearCommon common;

 protected:
  const float* bias(const RunContext& ctx, int i) const {
    const int input = Inputs(common.attrs).bias(i);
    return ctx.has_input(input) ? ctx.input(input).template as<float>() : nullptr;
  }
  // Where weight i writes.
  float* output(const RunContext& ctx, int i) const {
    if (common.attrs.split) return ctx.output(i).template as<float>();
    return ctx.output(0).template as<float>() + common.shapes.column[static_cast<size_t>(i)];
  }
  int64_t ldy(int i) const {
    return common.attrs.split ? common.shapes.n[static_cast<size_t>(i)] : common.shapes.n_total;
  }
  // The residual for weight i when it has the shape of the output, else nullptr.
  const float* residual(const RunContext& ctx, int i) const {
    const int input = Inputs(common.attrs).residual();
    if (!ctx.has_input(input) || ctx.input(input).num_elements() != ctx.output(0).num_elements()) return nullptr;
    return ctx.input(input).template as<float>() + common.shapes.column[static_cast<size_t>(i)];
  }
  kernels::Epilogue epilogue(const RunContext& ctx, int i) const {
    return {.bias = bias(ctx, i),
            .residual = residual(ctx, i),
            .ld_residual = common.shapes.n_total,
            .alpha = common.alpha,
            .activation = common.attrs.activation};
  }
};

// A product that says where each weight writes: SparseFloat (only the stored blocks are kept) or NarrowProduct.
template <class Inputs, class Product>
class ProductState : public LinearState<Inputs> {
 public:
  ProductState(const LinearCommon& linear, Product product, int workers)
      : LinearState<Inputs>(linear), product_(std::move(product)), workers_(workers) {}

  void run(RunContext& ctx) const override {
    const auto output = [&](int i) {
      return typename Product::Output{this->output(ctx, i), this->ldy(i), this->epilogue(ctx, i)};
    };
    const float* x = ctx.input(0).template as<float>();
    if (ctx.pool().num_threads() > workers_) {  // scratch is for fewer
      ThreadPool serial(1);
      return product_.run(serial, x, ctx.scratch(), output);
    }
    product_.run(ctx.pool(), x, ctx.scratch(), output);
  }

 private:
  Product product_;
  int workers_;
};

template <class Inputs>
void release_weights(PrepareContext& ctx, const LinearCommon& linear) {
  for (int i = 0; i < linear.attrs.num_weights; ++i) ctx.unread_inputs.push_back(Inputs(linear.attrs).weight(i));
}

// The sparse form, or null when the dense one is expected to be as fast.
template <class Type, class Inputs>
Result<std::unique_ptr<const OpState>> sparse_state(PrepareContext& ctx, const LinearCommon& linear,
                                                    std::span<const FloatWeight> weights) {
  SPRUN_ASSIGN(auto product, SparseFloat<Type>::choose(ctx, linear.shapes.m, weights));
  if (!product) return std::unique_ptr<const OpState>();
  release_weights<Inputs>(ctx, linear);
  using State = ProductState<Inputs, SparseFloat<Type>>;
  return std::unique_ptr<const OpState>(std::make_unique<State>(linear, std::move(*product), ctx.max_threads()));
}

// Weights of inputs that are not zero only, or, where these are too many, the dense form.
template <class Inputs>
class GatherState : public LinearState<Inputs> {
 public:
  GatherState(const LinearCommon& linear, InputGather product, std::unique_ptr<const OpState> dense, int workers)
      : LinearState<Inputs>(linear), product_(std::move(product)), dense_(std::move(dense)), workers_(workers) {}

  void run(RunContext& ctx) const override {
    const float* x = ctx.input(0).template as<float>();
    const int64_t listed = product_.list(x, ctx.scratch(), this->density->counter);
    if (!product_.worth(listed)) return static_cast<const LinearState<Inputs>&>(*dense_).run(ctx);
    const auto output = [&](int i) {
      return InputGather::Output{this->output(ctx, i), this->ldy(i), this->epilogue(ctx, i)};
    };
    if (ctx.pool().num_threads() > workers_) {  // scratch is for fewer
      ThreadPool serial(1);
      return product_.run(serial, listed, ctx.scratch(), output);
    }
    product_.run(ctx.pool(), listed, ctx.scratch(), output);
  }

 private:
  InputGather product_;
  std::unique_ptr<const OpState> dense_;
  int workers_;
};

// Where X is marked and has few rows, puts a form that leaves out the weights of zeros before the dense form that ctx has.
template <class Inputs>
Status gather_inputs(PrepareContext& ctx, const LinearCommon& linear, std::span<const FloatWeight> weights) {
  const std::string pattern = InputGather::detail(ctx.attrs());
  if (pattern.empty() || !ctx.state) return {};
  if (const std::string against = InputGather::reason_against(ctx, linear.shapes.m, weights); !against.empty()) {
    ctx.rejected.push_back({"sparse_input", against});
    ctx.detail = pattern + ctx.detail;
    return {};
  }
  const std::string dense = ctx.kernel;
  const int64_t scratch = ctx.scratch_bytes;
  SPRUN_ASSIGN(InputGather product, InputGather::prepare(ctx, linear.shapes.m, weights));
  ctx.scratch_bytes = std::max(ctx.scratch_bytes, scratch);
  ctx.detail = pattern + fmt::format("{} when over {:.0f} % of the inputs are not zero", dense, 100 * product.limit());
  auto state =
      std::make_unique<GatherState<Inputs>>(linear, std::move(product), std::move(ctx.state), ctx.max_threads());
  state->density = InputGather::density(ctx, weights[0]);
  ctx.state = std::move(state);
  return {};
}

// True if all weights are of one type that kernels take as it is stored.
inline bool is_narrow(std::span<const FloatWeight> weights) {
  const DType dtype = weights[0].weight.tensor->dtype();
  for (const FloatWeight& weight : weights) {
    const bool bytes = weight.dequantised() && weights[0].dequantised();
    if (!bytes && weight.weight.tensor->dtype() != dtype) return false;
  }
  return dtype != DType::kF32 && NarrowProduct::available(dtype);
}

template <class Inputs>
Result<std::unique_ptr<const OpState>> narrow_state(PrepareContext& ctx, const LinearCommon& linear,
                                                    std::span<const FloatWeight> weights) {
  SPRUN_ASSIGN(NarrowProduct product, NarrowProduct::prepare(ctx, linear.shapes.m, weights));
  release_weights<Inputs>(ctx, linear);
  using State = ProductState<Inputs, NarrowProduct>;
  return std::unique_ptr<const OpState>(std::make_unique<State>(linear, std::move(product), ctx.max_threads()));
}

}  // namespace sprun::graph
