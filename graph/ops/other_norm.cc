// LpNormalization, MeanVarianceNormalization and LRN.
#include <algorithm>
#include <cmath>

#include "graph/ops/op_util.h"

namespace sprun::graph {

namespace {

constexpr int64_t kGrainElements = 16384;

int64_t grain_for(int64_t elements) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(elements, 1));
}

Status infer_float_same(InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)), "input must be a float type"));
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

// ------------------------------------------------------------------ LpNormalization

Status infer_lp(InferContext& ctx) {
  SPRUN_TRY(infer_float_same(ctx));
  const int64_t p = ctx.attrs().get_int("p", 2);
  SPRUN_TRY(ctx.check(p == 1 || p == 2, "p must be 1 or 2, got " + std::to_string(p)));
  const Result<int> axis = normalize_axis(ctx.attrs().get_int("axis", -1), ctx.shape(0).rank());
  return axis.ok() ? Status() : ctx.error(axis.status().message());
}

// One line along the axis: `stride` elements between neighbours. A line of zeros stays zero.
template <class T>
void normalize_line(const T* x, T* y, int64_t n, int64_t stride, bool l1) {
  using C = ComputeType<T>;
  C total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const C v = load(x[i * stride]);
    total += l1 ? std::abs(v) : v * v;
  }
  const C norm = l1 ? total : std::sqrt(total);
  for (int64_t i = 0; i < n; ++i) {
    const C v = load(x[i * stride]);
    y[i * stride] = store<T>(norm == C{0} ? C{0} : v / norm);
  }
}

Status run_lp(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", -1), shape.rank()));
  const int64_t n = shape[axis];
  const int64_t inner = shape.num_elements(axis + 1, shape.rank());
  const bool l1 = ctx.attrs().get_int("p", 2) == 1;
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t lines = shape.num_elements(0, axis) * inner;
    ctx.pool().parallel_for(lines, grain_for(n), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t offset = i / inner * n * inner + i % inner;
        normalize_line(ctx.input(0).as<T>() + offset, ctx.output(0).as<T>() + offset, n, inner, l1);
      }
    });
    return Status();
  });
}

// ------------------------------------------------------------------ MeanVarianceNormalization

Result<std::vector<int>> mvn_axes(const AttrMap& attrs, int rank) {
  static constexpr int64_t kDefaultAxes[] = {0, 2, 3};
  if (!attrs.has("axes")) return normalize_axes(kDefaultAxes, rank);
  return normalize_axes(attrs.get_ints("axes"), rank);
}

Status infer_mvn(InferContext& ctx) {
  SPRUN_TRY(infer_float_same(ctx));
  const auto axes = mvn_axes(ctx.attrs(), ctx.shape(0).rank());
  return axes.ok() ? Status() : ctx.error(axes.status().message());
}

// x split into axes that are reduced and axes that are kept; walks the reduced ones.
struct ReducedSpace {
  ReducedSpace(const Shape& shape, const std::vector<int>& axes) {
    const auto strides = row_major_strides(shape);
    for (int i = 0; i < shape.rank(); ++i) {
      const bool is_reduced = std::find(axes.begin(), axes.end(), i) != axes.end();
      Shape& dims = is_reduced ? reduced : kept;
      (is_reduced ? reduced_strides : kept_strides)[static_cast<size_t>(dims.rank())] =
          strides[static_cast<size_t>(i)];
      dims.push_back(shape[i]);
    }
  }
  static int64_t offset(const Shape& dims, const std::array<int64_t, kMaxRank>& strides,
                        int64_t index) {
    int64_t result = 0;
    for (int i = dims.rank() - 1; i >= 0; --i) {
      result += index % dims[i] * strides[static_cast<size_t>(i)];
      index /= dims[i];
    }
    return result;
  }
  Shape kept, reduced;
  std::array<int64_t, kMaxRank> kept_strides{}, reduced_strides{};
};

// y = (x - mean) / (sqrt(variance) + 1e-9)
template <class T>
void mvn_one(const T* x, T* y, const ReducedSpace& space) {
  const int64_t n = space.reduced.num_elements();
  const auto at = [&](int64_t i) {
    return ReducedSpace::offset(space.reduced, space.reduced_strides, i);
  };
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(load(x[at(i)]));
  mean /= static_cast<double>(n);
  double square = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(load(x[at(i)])) - mean;
    square += d * d;
  }
  const double scale = 1.0 / (std::sqrt(square / static_cast<double>(n)) + 1e-9);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t k = at(i);
    y[k] = store<T>(static_cast<ComputeType<T>>((static_cast<double>(load(x[k])) - mean) * scale));
  }
}

Status run_mvn(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  SPRUN_ASSIGN(const std::vector<int> axes, mvn_axes(ctx.attrs(), shape.rank()));
  const ReducedSpace space(shape, axes);
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (shape.num_elements() == 0) return Status();
    const int64_t grain = grain_for(space.reduced.num_elements());
    ctx.pool().parallel_for(space.kept.num_elements(), grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t offset = ReducedSpace::offset(space.kept, space.kept_strides, i);
        mvn_one(ctx.input(0).as<T>() + offset, ctx.output(0).as<T>() + offset, space);
      }
    });
    return Status();
  });
}

// ------------------------------------------------------------------ LRN

Status infer_lrn(InferContext& ctx) {
  SPRUN_TRY(infer_float_same(ctx));
  SPRUN_TRY(ctx.check(ctx.shape(0).rank() >= 2,
                      "input must have at least 2 axes, got shape " + ctx.shape(0).to_string()));
  return ctx.check(ctx.attrs().get_int("size", 0) > 0, "size must be positive");
}

// y[c] = x[c] / (bias + alpha / size * sum of x^2 over the channels around c) ^ beta, for one
// position.
template <class T>
void lrn_position(const T* x, T* y, int64_t channels, int64_t stride, const AttrMap& attrs) {
  const int64_t size = attrs.get_int("size", 1);
  const double scale =
      static_cast<double>(attrs.get_float("alpha", 1e-4F)) / static_cast<double>(size);
  const double beta = static_cast<double>(attrs.get_float("beta", 0.75F));
  const double bias = static_cast<double>(attrs.get_float("bias", 1.0F));
  const int64_t before = (size - 1) / 2;
  const int64_t after = size - 1 - before;
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t last = after >= channels - c ? channels - 1 : c + after;
    double sum = 0;
    for (int64_t k = std::max<int64_t>(0, c - before); k <= last; ++k) {
      const double v = static_cast<double>(load(x[k * stride]));
      sum += v * v;
    }
    const double v = static_cast<double>(load(x[c * stride]));
    y[c * stride] = store<T>(static_cast<ComputeType<T>>(v / std::pow(bias + scale * sum, beta)));
  }
}

Status run_lrn(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  const int64_t inner = shape.num_elements(2, shape.rank());
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.pool().parallel_for(
        shape[0] * inner, grain_for(shape[1] * 16), [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t offset = i / inner * shape[1] * inner + i % inner;
            lrn_position(ctx.input(0).as<T>() + offset, ctx.output(0).as<T>() + offset, shape[1],
                         inner, ctx.attrs());
          }
        });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "LpNormalization", .infer = infer_lp, .run = run_lp, .flags = kInPlace},
    {.name = "MeanVarianceNormalization",
     .since = 9,
     .infer = infer_mvn,
     .run = run_mvn,
     .flags = kInPlace},
    {.name = "LRN", .infer = infer_lrn, .run = run_lrn},
};

}  // namespace

extern const std::span<const OpDef> k_other_norm_ops;
const std::span<const OpDef> k_other_norm_ops = kOps;

}  // namespace sprun::graph
