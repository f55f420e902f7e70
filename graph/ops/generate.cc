// Ops that make tensors from little input: Constant, ConstantOfShape, Range, EyeLike, OneHot, Trilu.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// --- Constant-1..25: exactly one of value, value_int(s), value_float(s); the reader makes sparse ones dense

// The element type and shape of a Constant node.
Result<ConstTensorView> constant_type(const AttrMap& attrs) {
  if (const Tensor* value = attrs.get_tensor("value")) return value->view();
  if (attrs.has("value_int")) return ConstTensorView{nullptr, DType::kS64, {}};
  if (attrs.has("value_float")) return ConstTensorView{nullptr, DType::kF32, {}};
  const auto list = [](DType dtype, size_t size) {
    return ConstTensorView{nullptr, dtype, {static_cast<int64_t>(size)}};
  };
  if (attrs.has("value_ints")) return list(DType::kS64, attrs.get_ints("value_ints").size());
  if (attrs.has("value_floats")) return list(DType::kF32, attrs.get_floats("value_floats").size());
  if (attrs.has("value_string") || attrs.has("value_strings")) {
    return Status(Code::kBadModel, "string constants are not supported");
  }
  return Status(Code::kBadModel, "none of the value attributes is there");
}

Status infer_constant(InferContext& ctx) {
  SPRUN_ASSIGN(const ConstTensorView type, at_node(ctx, constant_type(ctx.attrs())));
  ctx.set_output(0, type.dtype, type.shape);
  return {};
}

Status run_constant(RunContext& ctx) {
  const AttrMap& attrs = ctx.attrs();
  const TensorView& out = ctx.output(0);
  const auto bytes = static_cast<size_t>(out.size_bytes());
  if (const Tensor* value = attrs.get_tensor("value")) {
    kernels::parallel_copy(value->data(), out.data, out.size_bytes(), ctx.pool());
  } else if (attrs.has("value_int")) {
    *out.as<int64_t>() = attrs.get_int("value_int", 0);
  } else if (attrs.has("value_float")) {
    *out.as<float>() = attrs.get_float("value_float", 0.0f);
  } else if (bytes > 0) {
    std::memcpy(out.data,
                out.dtype == DType::kS64 ? static_cast<const void*>(attrs.get_ints("value_ints").data())
                                         : attrs.get_floats("value_floats").data(),
                bytes);
  }
  return {};
}

// --- ConstantOfShape-9..25

Status infer_constant_of_shape(InferContext& ctx) {
  if (!ctx.has_data(0)) return ctx.needs_data();
  SPRUN_ASSIGN(const std::vector<int64_t> dims, at_node(ctx, read_ints(ctx.input(0))));
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  const Tensor* value = ctx.attrs().get_tensor("value");
  if (value != nullptr && value->num_elements() != 1) return ctx.error("value must have one element");
  ctx.set_output(0, value != nullptr ? value->dtype() : DType::kF32, out);
  return {};
}

Status run_constant_of_shape(RunContext& ctx) {
  const TensorView& out = ctx.output(0);
  const uint64_t zero = 0;
  const Tensor* value = ctx.attrs().get_tensor("value");
  kernels::parallel_fill(value != nullptr ? value->data() : &zero, dtype_size(out.dtype), out.data, out.num_elements(),
                         ctx.pool());
  return {};
}

// --- Range-11, 27: start, start + delta, ... before limit

Result<int64_t> float_range_count(double start, double limit, double delta) {
  const double count = std::ceil((limit - start) / delta);
  if (std::isnan(count)) return Status(Code::kBadModel, "start, limit and delta do not make a range");
  if (count > static_cast<double>(kMaxElements)) return Status(Code::kResourceLimit, "the range is too long");
  return count <= 0 ? int64_t{0} : static_cast<int64_t>(count);
}

Result<int64_t> int_range_count(int64_t start, int64_t limit, int64_t delta) {
  if (delta == 0) return Status(Code::kBadModel, "delta is 0");
  if (delta > 0 ? start >= limit : start <= limit) return int64_t{0};
  // Differences of two int64 fit uint64.
  const auto first = static_cast<uint64_t>(start), last = static_cast<uint64_t>(limit);
  const uint64_t distance = delta > 0 ? last - first : first - last;
  const uint64_t step = delta > 0 ? static_cast<uint64_t>(delta) : uint64_t{0} - static_cast<uint64_t>(delta);
  const uint64_t count = (distance - 1) / step + 1;
  if (count > static_cast<uint64_t>(kMaxElements)) return Status(Code::kResourceLimit, "the range is too long");
  return static_cast<int64_t>(count);
}

Status infer_range(InferContext& ctx) {
  for (int i = 0; i < 3; ++i) {
    if (!ctx.has_input(i)) return ctx.error("an input is missing");
    if (ctx.shape(i).num_elements() != 1) return ctx.error("inputs must be scalars, got " + ctx.shape(i).to_string());
    SPRUN_TRY(check_same_dtype(ctx, 0, i));
    if (!ctx.has_data(i)) return ctx.needs_data();
  }
  int64_t count = 0;
  SPRUN_TRY(dispatch_numeric(ctx, ctx.dtype(0), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto start = load(*ctx.input(0).as<T>()), limit = load(*ctx.input(1).as<T>()),
               delta = load(*ctx.input(2).as<T>());
    if constexpr (std::is_integral_v<T>) {
      SPRUN_ASSIGN(count, at_node(ctx, int_range_count(static_cast<int64_t>(start), static_cast<int64_t>(limit),
                                                       static_cast<int64_t>(delta))));
    } else {
      SPRUN_ASSIGN(count, at_node(ctx, float_range_count(start, limit, delta)));
    }
    return Status();
  }));
  ctx.set_output(0, ctx.dtype(0), {count});
  return {};
}

Status run_range(RunContext& ctx) {
  const TensorView& out = ctx.output(0);
  return dispatch_numeric(ctx, out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* dst = out.as<T>();
    for (int64_t i = 0; i < out.num_elements(); ++i) {
      if constexpr (std::is_integral_v<T>) {
        const auto start = static_cast<uint64_t>(*ctx.input(0).as<T>()),
                   delta = static_cast<uint64_t>(*ctx.input(2).as<T>());
        dst[i] = static_cast<T>(start + static_cast<uint64_t>(i) * delta);
      } else {
        const double start = load(*ctx.input(0).as<T>()), delta = load(*ctx.input(2).as<T>());
        dst[i] = store<T>(start + static_cast<double>(i) * delta);
      }
    }
    return Status();
  });
}

// --- EyeLike-9, 22

Status infer_eye_like(InferContext& ctx) {
  if (ctx.shape(0).rank() != 2) return ctx.error("expected an input of rank 2, got " + ctx.shape(0).to_string());
  DType dtype = ctx.dtype(0);
  if (ctx.attrs().has("dtype")) {
    SPRUN_ASSIGN(dtype, at_node(ctx, dtype_from_number(ctx.attrs().get_int("dtype", 0))));
  }
  ctx.set_output(0, dtype, ctx.shape(0));
  return {};
}

Status run_eye_like(RunContext& ctx) {
  const TensorView& out = ctx.output(0);
  const int64_t rows = out.shape[0], cols = out.shape[1];
  const int64_t k = std::clamp(ctx.attrs().get_int("k", 0), -rows, cols);
  if (out.num_elements() == 0) return {};
  std::memset(out.data, 0, static_cast<size_t>(out.size_bytes()));
  const DType dtype = out.dtype == DType::kBool ? DType::kU8 : out.dtype;
  return dispatch_numeric(ctx, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t row = std::max<int64_t>(0, -k); row < rows && row + k < cols; ++row) {
      out.as<T>()[row * cols + row + k] = store<T>(1.0f);
    }
    return Status();
  });
}

// --- OneHot-9..28: values = [off, on]; positions outside [-depth, depth) are off everywhere

// A scalar of any numeric type as int64; what does not fit becomes the smallest int64, which is no valid position.
template <class T>
int64_t to_position(T value) {
  const auto v = load(value);
  if constexpr (std::is_floating_point_v<std::remove_const_t<decltype(v)>>) {
    return v > -9e18 && v < 9e18 ? static_cast<int64_t>(v) : std::numeric_limits<int64_t>::min();
  } else if constexpr (std::is_same_v<T, uint64_t>) {
    return v <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ? static_cast<int64_t>(v)
                                                                           : std::numeric_limits<int64_t>::min();
  } else {
    return static_cast<int64_t>(v);
  }
}

template <class Ctx>
Result<int64_t> read_depth(const Ctx& ctx, const ConstTensorView& view) {
  int64_t depth = -1;
  if (view.num_elements() != 1) return Status(Code::kBadModel, "depth must have one element");
  SPRUN_TRY(dispatch_numeric(ctx, view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    depth = to_position(*view.as<T>());
    return Status();
  }));
  if (depth < 0) return Status(Code::kBadModel, "depth is negative");
  return depth;
}

// The position of the new axis in the output.
template <class Ctx>
Result<int> one_hot_axis(const Ctx& ctx, int indices_rank) {
  return normalize_axis(ctx.attrs().get_int("axis", -1), indices_rank + 1);
}

Status infer_one_hot(InferContext& ctx) {
  const Shape& indices = ctx.shape(0);
  if (ctx.shape(2) != Shape{2}) return ctx.error("values must have shape [2], got " + ctx.shape(2).to_string());
  if (!ctx.has_data(1)) return ctx.needs_data();
  SPRUN_ASSIGN(const int64_t depth, at_node(ctx, read_depth(ctx, ctx.input(1))));
  SPRUN_ASSIGN(const int axis, at_node(ctx, one_hot_axis(ctx, indices.rank())));
  std::vector<int64_t> dims(indices.dims().begin(), indices.dims().end());
  dims.insert(dims.begin() + axis, depth);
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(2), out);
  return {};
}

Status run_one_hot(RunContext& ctx) {
  const ConstTensorView &indices = ctx.input(0), &values = ctx.input(2);
  const TensorView& out = ctx.output(0);
  SPRUN_ASSIGN(const int axis, one_hot_axis(ctx, indices.shape.rank()));
  const int64_t depth = out.shape[axis], inner = out.shape.num_elements(axis + 1, out.shape.rank());
  const int64_t element_bytes = dtype_size(out.dtype);
  if (out.num_elements() == 0) return {};
  kernels::parallel_fill(values.data, element_bytes, out.data, out.num_elements(), ctx.pool());
  const char* on = static_cast<const char*>(values.data) + element_bytes;
  return dispatch_numeric(ctx, indices.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < indices.num_elements(); ++i) {
      int64_t at = to_position(indices.as<T>()[i]);
      if (at < -depth || at >= depth) continue;
      if (at < 0) at += depth;
      const int64_t position = (i / inner * depth + at) * inner + i % inner;
      std::memcpy(out.as<char>() + position * element_bytes, on, static_cast<size_t>(element_bytes));
    }
    return Status();
  });
}

// --- Trilu-14 (and of com.microsoft): keeps j - i >= k (upper) or j - i <= k

Status infer_trilu(InferContext& ctx) {
  if (ctx.shape(0).rank() < 2) return ctx.error("expected an input of rank 2 or more, got " + ctx.shape(0).to_string());
  if (ctx.has_input(1) && (ctx.dtype(1) != DType::kS64 || ctx.shape(1).num_elements() != 1)) {
    return ctx.error("k must be one int64");
  }
  return infer_same_as_input(ctx);
}

Status run_trilu(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  const bool upper = ctx.attrs().get_int("upper", 1) != 0;
  if (out.num_elements() == 0) return {};
  const int64_t cols = out.shape.back(), rows = out.shape[out.shape.rank() - 2];
  const int64_t k = std::clamp(ctx.has_input(1) ? *ctx.input(1).as<int64_t>() : 0, -rows, cols);
  const int64_t element_bytes = dtype_size(out.dtype);
  const auto* src = static_cast<const char*>(in.data);
  const int64_t grain = std::max<int64_t>(1, 16384 / cols);
  ctx.pool().parallel_for(out.num_elements() / cols, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      // Kept columns of this row: [first, last).
      const int64_t diagonal = r % rows + k;
      const int64_t first = upper ? std::clamp<int64_t>(diagonal, 0, cols) : 0;
      const int64_t last = upper ? cols : std::clamp<int64_t>(diagonal + 1, 0, cols);
      char* to = out.as<char>() + r * cols * element_bytes;
      const char* from = src + r * cols * element_bytes;
      std::memset(to, 0, static_cast<size_t>(first * element_bytes));
      if (to != from) {
        std::memcpy(to + first * element_bytes, from + first * element_bytes,
                    static_cast<size_t>((last - first) * element_bytes));
      }
      std::memset(to + last * element_bytes, 0, static_cast<size_t>((cols - last) * element_bytes));
    }
  });
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Constant", .inputs = {0, 0}, .infer = infer_constant, .run = run_constant},
    {.name = "ConstantOfShape", .since = 9, .infer = infer_constant_of_shape, .run = run_constant_of_shape},
    {.name = "EyeLike", .since = 9, .infer = infer_eye_like, .run = run_eye_like, .flags = kShapeOnly},
    {.name = "OneHot", .since = 9, .inputs = {3, 3}, .infer = infer_one_hot, .run = run_one_hot},
    {.name = "Range", .since = 11, .inputs = {3, 3}, .infer = infer_range, .run = run_range},
    {.name = "Trilu", .since = 14, .inputs = {1, 2}, .infer = infer_trilu, .run = run_trilu, .flags = kInPlace},
    {.domain = "com.microsoft",
     .name = "Trilu",
     .inputs = {1, 2},
     .infer = infer_trilu,
     .run = run_trilu,
     .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_generate_ops;
const std::span<const OpDef> k_generate_ops = kOps;

}  // namespace sprun::graph
