// MaxUnpool: puts each value where MaxPool took it from; everything else is zero.
#include <cstring>

#include "graph/ops/op_util.h"
#include "graph/ops/window.h"

namespace sprun::graph {

namespace {

// (in - 1) * stride + kernel - pads for every spatial axis.
Result<Shape> natural_shape(const AttrMap& attrs, const Shape& x) {
  const std::vector<int64_t>& kernel = attrs.get_ints("kernel_shape");
  if (kernel.empty()) return Status(Code::kBadModel, "attribute kernel_shape is missing");
  SPRUN_ASSIGN(const Window w, make_transposed_window(attrs, x, kernel));
  return Shape::checked(w.out_shape(x[0], x[1]).dims());
}

Status infer(InferContext& ctx) {
  const Shape& x = ctx.shape(0);
  SPRUN_TRY(ctx.check(dtype_size(ctx.dtype(0)) > 0, "input must be a number type"));
  SPRUN_TRY(ctx.check(ctx.shape(1) == x && ctx.dtype(1) == DType::kS64,
                      "indices must be int64 of the input's shape " + x.to_string() + ", got " +
                          ctx.shape(1).to_string()));
  const Result<Shape> natural = natural_shape(ctx.attrs(), x);
  if (!natural.ok()) return ctx.error(natural.status().message());
  if (!ctx.has_input(2)) {
    ctx.set_output(0, ctx.dtype(0), *natural);
    return {};
  }
  if (!ctx.has_data(2)) return ctx.needs_data();
  SPRUN_ASSIGN(const std::vector<int64_t> dims, read_ints(ctx.input(2)));
  const Result<Shape> wanted = Shape::checked(dims);
  if (!wanted.ok()) return ctx.error(wanted.status().message());
  bool fits = wanted->rank() == x.rank();
  for (int i = 0; fits && i < x.rank(); ++i) fits = (*wanted)[i] >= (*natural)[i];
  SPRUN_TRY(ctx.check(
      fits, "output_shape " + wanted->to_string() + " is smaller than " + natural->to_string()));
  ctx.set_output(0, ctx.dtype(0), *wanted);
  return {};
}

// Indices count in the natural shape; a larger output_shape keeps the coordinates (as ONNX's
// reference does).
Status run(RunContext& ctx) {
  const TensorView& y = ctx.output(0);
  SPRUN_ASSIGN(const Shape natural, natural_shape(ctx.attrs(), ctx.input(0).shape));
  const auto strides = row_major_strides(y.shape);
  const int64_t* indices = ctx.input(1).as<int64_t>();
  const int64_t size = natural.num_elements();
  const int64_t count = ctx.input(0).num_elements();
  if (y.num_elements() > 0) std::memset(y.data, 0, static_cast<size_t>(y.size_bytes()));
  return dispatch_size(ctx, y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < count; ++i) {
      if (indices[i] < 0 || indices[i] >= size) {
        return ctx.error("index " + std::to_string(indices[i]) + " is outside the shape " +
                         natural.to_string());
      }
      int64_t rest = indices[i];
      int64_t at = 0;
      for (int axis = natural.rank() - 1; axis >= 0; --axis) {
        at += rest % natural[axis] * strides[static_cast<size_t>(axis)];
        rest /= natural[axis];
      }
      y.as<T>()[at] = ctx.input(0).as<T>()[i];
    }
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "MaxUnpool", .since = 9, .inputs = {2, 3}, .infer = infer, .run = run},
};

}  // namespace

extern const std::span<const OpDef> k_max_unpool_ops;
const std::span<const OpDef> k_max_unpool_ops = kOps;

}  // namespace sprun::graph
