#include "graph/ops/resize_smooth.h"

#include <algorithm>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// What every output position of one axis reads.
template <class C>
struct AxisTable {
  Tensor first, count, weights;  // s64 [out], s64 [out] (0: extrapolated), C [out, taps]
  int64_t taps = 0;

  int64_t first_of(int64_t i) const { return first.as<int64_t>()[i]; }
  int64_t count_of(int64_t i) const { return count.as<int64_t>()[i]; }
  const C* weights_of(int64_t i) const { return weights.template as<C>() + i * taps; }
};

template <class C>
Result<AxisTable<C>> make_axis_table(const ResizeAxis& axis, const ResizeStyle& style) {
  AxisTable<C> table;
  table.taps = max_taps(axis, style);
  const int64_t dims[] = {axis.out, table.taps};
  SPRUN_ASSIGN(const Shape weights_shape, Shape::checked(dims));
  SPRUN_ASSIGN(table.first, Tensor::allocate(DType::kS64, {axis.out}));
  SPRUN_ASSIGN(table.count, Tensor::allocate(DType::kS64, {axis.out}));
  SPRUN_ASSIGN(table.weights, Tensor::allocate(dtype_of<C>(), weights_shape));
  SPRUN_ASSIGN(Tensor scratch, Tensor::allocate(DType::kF64, {table.taps}));
  auto* precise = scratch.mutable_view().as<double>();
  for (int64_t i = 0; i < axis.out; ++i) {
    int64_t first = 0, count = 0;
    if (!is_extrapolated(axis, style.coordinates, i)) count = tap_weights(axis, style, i, &first, precise);
    table.first.mutable_view().template as<int64_t>()[i] = first;
    table.count.mutable_view().template as<int64_t>()[i] = count;
    C* weights = table.weights.mutable_view().template as<C>() + i * table.taps;
    for (int64_t k = 0; k < count; ++k) weights[k] = static_cast<C>(precise[k]);
  }
  return table;
}

// sum[j] = sum over k < count of weights[k] * src[k * stride + j].
template <class S, class C>
void combine_rows(const S* src, int64_t stride, const C* weights, int64_t count, C* sum, int64_t width) {
  const auto at = [src](int64_t i) { return static_cast<C>(load(src[i])); };
  if (count == 2) {
    for (int64_t j = 0; j < width; ++j) sum[j] = weights[0] * at(j) + weights[1] * at(stride + j);
    return;
  }
  for (int64_t j = 0; j < width; ++j) sum[j] = weights[0] * at(j);
  for (int64_t k = 1; k < count; ++k) {
    for (int64_t j = 0; j < width; ++j) sum[j] += weights[k] * at(k * stride + j);
  }
}

// One axis that is not among the last two: src [outer, in, inner] -> dst [outer, out, inner].
template <class S, class C>
void resize_axis(const AxisTable<C>& table, const ResizeAxis& axis, int64_t outer, int64_t inner, C extrapolation,
                 const S* src, C* dst, ThreadPool& pool) {
  const int64_t grain = std::max<int64_t>(1, 8192 / (inner * table.taps));
  pool.parallel_for(outer * axis.out, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = item % axis.out, count = table.count_of(i);
      if (count == 0) {
        std::fill_n(dst + item * inner, inner, extrapolation);
      } else {
        const S* from = src + (item / axis.out * axis.in + table.first_of(i)) * inner;
        combine_rows(from, inner, table.weights_of(i), count, dst + item * inner, inner);
      }
    }
  });
}

// The last two axes together, row by row of the output: first down, then along. A table is null where nothing changes.
template <class S, class T, class C>
struct PlaneResize {
  const AxisTable<C>*down, *along;
  ResizeAxis rows, columns;
  C extrapolation;

  // src [planes, rows.in, columns.in] -> dst [planes, rows.out, columns.out]; kResourceLimit without memory for a row
  // per thread.
  Status run(const S* src, T* dst, int64_t planes, ThreadPool& pool) const {
    SPRUN_ASSIGN(Tensor buffer, Tensor::allocate(dtype_of<C>(), {pool.num_threads(), columns.in}));
    C* sums = buffer.mutable_view().as<C>();
    const int64_t grain = std::max<int64_t>(1, 8192 / (columns.in + columns.out));
    pool.parallel_for(planes * rows.out, grain, [&](int64_t begin, int64_t end, int worker) {
      C* sum = sums + worker * columns.in;
      for (int64_t item = begin; item < end; ++item) {
        T* to = dst + item * columns.out;
        if (sum_down(src + item / rows.out * rows.in * columns.in, item % rows.out, sum)) {
          spread_along(sum, to);
        } else {
          std::fill_n(to, columns.out, store_saturating<T>(extrapolation));
        }
      }
    });
    return {};
  }

 private:
  // Row y of the output before its columns are resized; false if it lies outside.
  bool sum_down(const S* plane, int64_t y, C* sum) const {
    constexpr C kOne = 1;
    const int64_t first = down ? down->first_of(y) : y, count = down ? down->count_of(y) : 1;
    if (count == 0) return false;
    combine_rows(plane + first * columns.in, columns.in, down ? down->weights_of(y) : &kOne, count, sum, columns.in);
    return true;
  }

  void spread_along(const C* sum, T* to) const {
    if (along == nullptr) {
      for (int64_t x = 0; x < columns.out; ++x) to[x] = store_saturating<T>(sum[x]);
      return;
    }
    const auto* firsts = along->first.template as<int64_t>();
    const auto* counts = along->count.template as<int64_t>();
    const C* weights = along->weights.template as<C>();
    for (int64_t x = 0; x < columns.out; ++x, weights += along->taps) {
      const C* from = sum + firsts[x];
      C value = extrapolation;
      if (counts[x] == 2) {
        value = weights[0] * from[0] + weights[1] * from[1];
      } else if (counts[x] > 0) {
        value = 0;
        for (int64_t k = 0; k < counts[x]; ++k) value += weights[k] * from[k];
      }
      to[x] = store_saturating<T>(value);
    }
  }
};

template <class T, class C>
class SmoothResize {
 public:
  SmoothResize(RunContext& ctx, std::span<const ResizeAxis> axes, const ResizeStyle& style)
      : ctx_(ctx), axes_(axes), style_(style), shape_(ctx.input(0).shape) {}

  Status run() {
    for (int i = 0; i + 2 < shape_.rank(); ++i) SPRUN_TRY(resize_outer(i));
    return current_.empty() ? resize_plane(ctx_.input(0).as<T>()) : resize_plane(current_.as<C>());
  }

 private:
  C extrapolation() const { return static_cast<C>(style_.extrapolation_value); }

  Status resize_outer(int i) {
    const ResizeAxis& axis = axes_[static_cast<size_t>(i)];
    if (axis.is_identity(style_.coordinates)) return {};
    SPRUN_ASSIGN(const AxisTable<C> table, make_axis_table<C>(axis, style_));
    shape_[i] = axis.out;
    SPRUN_TRY(Shape::checked(shape_.dims()).status());
    SPRUN_ASSIGN(Tensor next, Tensor::allocate(dtype_of<C>(), shape_));
    const int64_t outer = shape_.num_elements(0, i), inner = shape_.num_elements(i + 1, shape_.rank());
    C* dst = next.mutable_view().as<C>();
    if (current_.empty()) {
      resize_axis(table, axis, outer, inner, extrapolation(), ctx_.input(0).as<T>(), dst, ctx_.pool());
    } else {
      resize_axis(table, axis, outer, inner, extrapolation(), current_.as<C>(), dst, ctx_.pool());
    }
    current_ = std::move(next);
    return {};
  }

  template <class S>
  Status resize_plane(const S* src) {
    const size_t rank = axes_.size();
    const ResizeAxis single{};
    const ResizeAxis &rows = rank > 1 ? axes_[rank - 2] : single, &columns = axes_[rank - 1];
    AxisTable<C> down, along;
    const bool changes_rows = !rows.is_identity(style_.coordinates);
    const bool changes_columns = !columns.is_identity(style_.coordinates);
    if (changes_rows) {
      SPRUN_ASSIGN(down, make_axis_table<C>(rows, style_));
    }
    if (changes_columns) {
      SPRUN_ASSIGN(along, make_axis_table<C>(columns, style_));
    }
    const PlaneResize<S, T, C> resize{changes_rows ? &down : nullptr, changes_columns ? &along : nullptr, rows, columns,
                                      extrapolation()};
    const int64_t planes = shape_.num_elements(0, std::max(0, shape_.rank() - 2));
    return resize.run(src, ctx_.output(0).template as<T>(), planes, ctx_.pool());
  }

  RunContext& ctx_;
  std::span<const ResizeAxis> axes_;
  const ResizeStyle& style_;
  Shape shape_;     // of `current_`, or of the input
  Tensor current_;  // C, after the axes so far
};

}  // namespace

Status resize_smooth(RunContext& ctx, std::span<const ResizeAxis> axes, const ResizeStyle& style) {
  return dispatch_numeric(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr bool kWide = std::is_same_v<T, double> || (std::is_integral_v<T> && sizeof(T) >= 4);
    return at_node(ctx, SmoothResize<T, std::conditional_t<kWide, double, float>>(ctx, axes, style).run());
  });
}

}  // namespace sprun::graph
