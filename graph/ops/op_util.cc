#include "graph/ops/op_util.h"

#include <algorithm>

namespace sprun::graph {

Result<int> normalize_axis(int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) {
    return Status(Code::kBadModel, "axis " + std::to_string(axis) + " is outside [-" + std::to_string(rank) + ", " +
                                       std::to_string(rank) + ")");
  }
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Result<std::vector<int>> normalize_axes(std::span<const int64_t> axes, int rank) {
  std::vector<int> result;
  for (int64_t axis : axes) {
    SPRUN_ASSIGN(const int normal, normalize_axis(axis, rank));
    if (std::find(result.begin(), result.end(), normal) != result.end()) {
      return Status(Code::kBadModel, "axis " + std::to_string(axis) + " is given twice");
    }
    result.push_back(normal);
  }
  return result;
}

Result<Shape> broadcast_shapes(const Shape& a, const Shape& b) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out;
  for (int i = 0; i < rank; ++i) {
    const int64_t da = i < rank - a.rank() ? 1 : a[i - (rank - a.rank())];
    const int64_t db = i < rank - b.rank() ? 1 : b[i - (rank - b.rank())];
    if (da != db && da != 1 && db != 1) {
      return Status(Code::kBadModel, "shapes " + a.to_string() + " and " + b.to_string() + " cannot be broadcast");
    }
    out.push_back(da == 1 ? db : da);
  }
  return Shape::checked(out.dims());
}

std::array<int64_t, kMaxRank> row_major_strides(const Shape& shape) {
  std::array<int64_t, kMaxRank> strides{};
  int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = stride;
    stride *= shape[i];
  }
  return strides;
}

std::array<int64_t, kMaxRank> broadcast_strides(const Shape& shape, const Shape& out) {
  const auto own = row_major_strides(shape);
  std::array<int64_t, kMaxRank> strides{};
  const int offset = out.rank() - shape.rank();
  for (int i = 0; i < shape.rank(); ++i) {
    strides[static_cast<size_t>(i + offset)] = shape[i] == 1 ? 0 : own[static_cast<size_t>(i)];
  }
  return strides;
}

Result<std::vector<int64_t>> read_ints(const ConstTensorView& view) {
  const auto n = static_cast<size_t>(view.num_elements());
  if (view.dtype == DType::kS64) return std::vector<int64_t>(view.as<int64_t>(), view.as<int64_t>() + n);
  if (view.dtype == DType::kS32) return std::vector<int64_t>(view.as<int32_t>(), view.as<int32_t>() + n);
  return Status(Code::kBadModel, "expected int64 or int32, got " + std::string(dtype_name(view.dtype)));
}

namespace {
// Only carries error() for the dispatchers, which want a context.
struct PlainErrors {
  Status error(const std::string& text) const { return {Code::kBadModel, text}; }
};

template <class Out>
Result<Out> read_one(const ConstTensorView& view) {
  if (view.num_elements() != 1) {
    return Status(Code::kBadModel, "expected one element, got shape " + view.shape.to_string());
  }
  if (view.dtype == DType::kBool) return static_cast<Out>(*view.as<uint8_t>() != 0);
  Out out{};
  SPRUN_TRY(dispatch_numeric(PlainErrors{}, view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    out = static_cast<Out>(load(*view.as<T>()));
    return Status();
  }));
  return out;
}
}  // namespace

Result<double> read_scalar(const ConstTensorView& view) { return read_one<double>(view); }

Result<int64_t> read_scalar_int(const ConstTensorView& view) {
  if (is_float(view.dtype)) {
    return Status(Code::kBadModel, "expected an integer, got " + std::string(dtype_name(view.dtype)));
  }
  return read_one<int64_t>(view);
}

Result<std::optional<std::vector<int64_t>>> ints_from_input_or_attr(const InferContext& ctx, int index,
                                                                    std::string_view name, bool* missing) {
  *missing = ctx.has_input(index) && !ctx.has_data(index);
  if (*missing) return std::optional<std::vector<int64_t>>();
  if (ctx.has_input(index)) {
    SPRUN_ASSIGN(std::vector<int64_t> ints, read_ints(ctx.input(index)));
    return std::optional(std::move(ints));
  }
  if (ctx.attrs().has(name)) return std::optional(ctx.attrs().get_ints(name));
  return std::optional<std::vector<int64_t>>();
}

Result<std::optional<std::vector<int64_t>>> ints_from_input_or_attr(const RunContext& ctx, int index,
                                                                    std::string_view name) {
  if (ctx.has_input(index)) {
    SPRUN_ASSIGN(std::vector<int64_t> ints, read_ints(ctx.input(index)));
    return std::optional(std::move(ints));
  }
  if (ctx.attrs().has(name)) return std::optional(ctx.attrs().get_ints(name));
  return std::optional<std::vector<int64_t>>();
}

Status infer_same_as_input(InferContext& ctx) {
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

}  // namespace sprun::graph
