// What sprun.Linear and sprun.LinearInt8 share: their common attributes, shapes, activation and residual.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "graph/ops/linear_segments.h"
#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {

// none, relu, gelu_erf, gelu_tanh, quick_gelu, silu, tanh, sigmoid; nullopt for other names.
std::optional<kernels::Activation> parse_activation(std::string_view name);
// The reference of the activations of kernels/gemm.
double activate(kernels::Activation activation, double x);

// The attributes num_weights, trans_w, split, activation, x_shape and y_columns.
struct LinearAttrs {
  int num_weights = 1;
  bool trans_w = false, split = false;
  kernels::Activation activation = kernels::Activation::kNone;
  // LinearInt8 only, see columns.h: X is columns of a value of this shape; Y becomes columns.
  std::optional<Shape> x_shape;
  bool y_columns = false;
};
// The shape that X stands for.
template <class Ctx>
const Shape& linear_x_shape(const Ctx& ctx, const LinearAttrs& attrs) {
  return attrs.x_shape ? *attrs.x_shape : ctx.input(0).shape;
}
// kBadModel for unknown activations and counts outside [1, kMaxSegments].
Result<LinearAttrs> linear_attrs(const AttrMap& attrs);

// Sizes of the product and of every weight. [M, K] is X with its leading axes merged.
struct LinearShapes {
  int64_t m = 0, k = 0, n_total = 0;
  std::array<int64_t, kMaxSegments> n{};
  std::array<int64_t, kMaxSegments> column{};  // where the outputs of a weight start in the joined result
};

// Checks X (input 0) against the weights (inputs 1 .. num_weights) and biases (from input `bias` on, each [N] or
// absent), and sets nothing.
template <class Ctx>
Result<LinearShapes> linear_shapes(const Ctx& ctx, const LinearAttrs& attrs, int bias);

// Sets the outputs: split = one [.., N_i] per weight, else one [.., sum of N_i].
void set_linear_outputs(InferContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes, DType dtype);
// The residual must be float32 (or `dtype`), not split, and broadcast to the output without growing it. more_outputs:
// those behind Y.
Status check_residual(const InferContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes, int input,
                      DType dtype, int more_outputs = 0);

// y += residual, where the residual is smaller than y and broadcasts. For f32 results of the fast path.
void add_broadcast(ThreadPool& pool, const TensorView& y, const ConstTensorView& residual);

template <class Ctx>
Result<LinearShapes> linear_shapes(const Ctx& ctx, const LinearAttrs& attrs, int bias) {
  const auto fail = [](const std::string& text) { return Status(Code::kBadModel, text); };
  LinearShapes shapes;
  const Shape& x = linear_x_shape(ctx, attrs);
  if (x.rank() < 1) return fail("X needs at least one axis");
  shapes.m = x.num_elements(0, x.rank() - 1);
  shapes.k = x.back();
  for (int i = 0; i < attrs.num_weights; ++i) {
    if (!ctx.has_input(1 + i)) return fail("weight " + std::to_string(i) + " is missing");
    const Shape& w = ctx.input(1 + i).shape;
    if (w.rank() != 2 || w[attrs.trans_w ? 1 : 0] != shapes.k) {
      return fail("weight " + std::to_string(i) + " of shape " + w.to_string() +
                  " does not fit K = " + std::to_string(shapes.k));
    }
    const auto at = static_cast<size_t>(i);
    shapes.n[at] = w[attrs.trans_w ? 0 : 1];
    shapes.column[at] = shapes.n_total;
    shapes.n_total += shapes.n[at];
    if (ctx.has_input(bias + i) && ctx.input(bias + i).num_elements() != shapes.n[at]) {
      return fail("bias of shape " + ctx.input(bias + i).shape.to_string() + ", expected [" +
                  std::to_string(shapes.n[at]) + "]");
    }
  }
  return shapes;
}

}  // namespace sprun::graph
