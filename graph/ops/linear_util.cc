#include "graph/ops/linear_util.h"

#include <cmath>

#include "graph/ops/columns.h"

namespace sprun::graph {

using kernels::Activation;

std::optional<Activation> parse_activation(std::string_view name) {
  struct Entry {
    std::string_view name;
    Activation activation;
  };
  constexpr Entry kEntries[] = {
      {"none", Activation::kNone},        {"relu", Activation::kRelu},
      {"gelu_erf", Activation::kGeluErf}, {"gelu_tanh", Activation::kGeluTanh},
      {"silu", Activation::kSilu},        {"tanh", Activation::kTanh},
      {"sigmoid", Activation::kSigmoid},  {"quick_gelu", Activation::kQuickGelu},
  };
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return entry.activation;
  }
  return std::nullopt;
}

double activate(Activation activation, double x) {
  const auto sigmoid = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x > 0 ? x : 0;
    case Activation::kGeluErf:
    case Activation::kGeluErfCodes:
      return 0.5 * x * (1.0 + std::erf(x * std::sqrt(0.5)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case Activation::kQuickGelu:
      return x * sigmoid(1.702 * x);
    case Activation::kSilu:
      return x * sigmoid(x);
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kSigmoid:
      return sigmoid(x);
  }
  return x;
}

Result<LinearAttrs> linear_attrs(const AttrMap& attrs) {
  LinearAttrs result;
  const int64_t count = attrs.get_int("num_weights", 1);
  if (count < 1 || count > kMaxSegments) {
    return Status(Code::kBadModel,
                  "num_weights = " + std::to_string(count) + ", expected 1 to " + std::to_string(kMaxSegments));
  }
  result.num_weights = static_cast<int>(count);
  result.trans_w = attrs.get_int("trans_w", 0) != 0;
  result.split = attrs.get_int("split", 0) != 0;
  const std::string_view name = attrs.get_string("activation", "none");
  const auto activation = parse_activation(name);
  if (!activation) return Status(Code::kBadModel, "unknown activation '" + std::string(name) + "'");
  result.activation = *activation;
  if (const auto& shape = attrs.get_ints("x_shape"); !shape.empty()) {
    SPRUN_ASSIGN(result.x_shape, Shape::checked(shape));
  }
  result.y_columns = attrs.get_int("y_columns", 0) != 0;
  return result;
}

void set_linear_outputs(InferContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes, DType dtype) {
  if (attrs.y_columns) return ctx.set_output(0, dtype, Columns::shape(shapes.m, shapes.n_total));
  Shape out = linear_x_shape(ctx, attrs);
  if (!attrs.split) {
    out[out.rank() - 1] = shapes.n_total;
    return ctx.set_output(0, dtype, out);
  }
  for (int i = 0; i < attrs.num_weights; ++i) {
    out[out.rank() - 1] = shapes.n[static_cast<size_t>(i)];
    ctx.set_output(i, dtype, out);
  }
}

Status check_residual(const InferContext& ctx, const LinearAttrs& attrs, const LinearShapes& shapes, int input,
                      DType dtype, int more_outputs) {
  const int outputs = (attrs.split ? attrs.num_weights : 1) + more_outputs;
  SPRUN_TRY(ctx.check(ctx.num_outputs() == outputs, "expected " + std::to_string(outputs) + " outputs"));
  if (!ctx.has_input(input)) return {};
  SPRUN_TRY(ctx.check(!attrs.split && !attrs.y_columns, "a residual needs one output of rows"));
  SPRUN_TRY(ctx.check(ctx.dtype(input) == dtype, "the residual has another type"));
  Shape out = linear_x_shape(ctx, attrs);
  out[out.rank() - 1] = shapes.n_total;
  const auto joined = broadcast_shapes(ctx.shape(input), out);
  return ctx.check(joined.ok() && *joined == out,
                   "residual of shape " + ctx.shape(input).to_string() + " does not broadcast to " + out.to_string());
}

void add_broadcast(ThreadPool& pool, const TensorView& y, const ConstTensorView& residual) {
  const int64_t columns = y.shape.back();
  if (columns == 0) return;
  const auto strides = broadcast_strides(residual.shape, y.shape);
  const int last = y.shape.rank() - 1;
  const int64_t step = strides[static_cast<size_t>(last)];
  pool.parallel_for(y.num_elements() / columns, 16384 / columns + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t rest = r, at = 0;
      for (int axis = last - 1; axis >= 0; --axis) {
        at += rest % y.shape[axis] * strides[static_cast<size_t>(axis)];
        rest /= y.shape[axis];
      }
      float* out = y.as<float>() + r * columns;
      const float* add = residual.as<float>() + at;
      for (int64_t j = 0; j < columns; ++j) out[j] += add[j * step];
    }
  });
}

}  // namespace sprun::graph
