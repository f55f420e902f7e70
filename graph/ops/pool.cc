// MaxPool, AveragePool and LpPool: one loop nest over windows, three ways to reduce one.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ops/op_util.h"
#include "graph/ops/window.h"

namespace sprun::graph {

namespace {

Result<Window> pool_window(const AttrMap& attrs, const Shape& x) {
  const std::vector<int64_t>& kernel = attrs.get_ints("kernel_shape");
  if (kernel.empty()) return Status(Code::kBadModel, "attribute kernel_shape is missing");
  return make_window(attrs, x, kernel, attrs.get_int("ceil_mode", 0) != 0);
}

Status infer_pool(InferContext& ctx) {
  const Result<Window> w = pool_window(ctx.attrs(), ctx.shape(0));
  if (!w.ok()) return ctx.error(w.status().message());
  const Result<Shape> y = Shape::checked(w->out_shape(ctx.shape(0)[0], ctx.shape(0)[1]).dims());
  if (!y.ok()) return ctx.error(y.status().message());
  ctx.set_output(0, ctx.dtype(0), *y);
  ctx.set_output(1, DType::kS64, *y);
  return {};
}

Status infer_max(InferContext& ctx) {
  SPRUN_TRY(
      ctx.check(is_float(ctx.dtype(0)) || is_integer(ctx.dtype(0)), "input must be a number type"));
  return infer_pool(ctx);
}

Status infer_float(InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)), "input must be a float type"));
  SPRUN_TRY(ctx.check(ctx.attrs().get_int("p", 2) > 0, "p must be positive"));
  return infer_pool(ctx);
}

// The part of one window that lies inside the input.
struct Patch {
  int64_t start[kMaxSpatial];
  KernelRange range[kMaxSpatial];
};

// Calls visit(offset) for every input element of the patch, in row-major order.
template <class Visit>
void visit_patch(const Window& w, const Patch& patch, const Visit& visit) {
  const auto& [ad, ah, aw] = w.axis;
  for (int64_t i = patch.range[0].begin; i < patch.range[0].end; ++i) {
    const int64_t d = patch.start[0] + i * ad.dilation;
    for (int64_t j = patch.range[1].begin; j < patch.range[1].end; ++j) {
      const int64_t line = (d * ah.in + patch.start[1] + j * ah.dilation) * aw.in + patch.start[2];
      for (int64_t k = patch.range[2].begin; k < patch.range[2].end; ++k)
        visit(line + k * aw.dilation);
    }
  }
}

// Calls reduce(patch, o) for every output o of one plane.
template <class Reduce>
void for_each_window(const Window& w, const Reduce& reduce) {
  const auto& [ad, ah, aw] = w.axis;
  Patch patch;
  int64_t o = 0;
  const auto place = [&](size_t axis, int64_t out) {
    patch.start[axis] = w.axis[axis].start(out);
    patch.range[axis] = kernel_range(w.axis[axis], patch.start[axis], w.axis[axis].in);
  };
  for (int64_t d = 0; d < ad.out; ++d) {
    place(0, d);
    for (int64_t h = 0; h < ah.out; ++h) {
      place(1, h);
      for (int64_t x = 0; x < aw.out; ++x) {
        place(2, x);
        reduce(patch, o++);
      }
    }
  }
}

// Runs plane(x, y, first_output) for every [batch, channel] plane on the pool.
template <class T, class Plane>
void for_each_plane(RunContext& ctx, const Window& w, const Plane& plane) {
  const Shape& shape = ctx.input(0).shape;
  const int64_t out = w.out_size();
  const int64_t work = std::min<int64_t>(out, 65536) * std::min<int64_t>(w.kernel_size(), 65536);
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(work, 1));
  ctx.pool().parallel_for(shape[0] * shape[1], grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      plane(ctx.input(0).as<T>() + i * w.in_size(), ctx.output(0).as<T>() + i * out, i);
    }
  });
}

// ------------------------------------------------------------------ whole rows at a time

// Output positions [begin, end) of the last axis whose input for kernel element k lies inside.
KernelRange output_range(const WindowAxis& a, int64_t k) {
  const int64_t shift = k * a.dilation - a.pad_begin;  // input position of output 0
  KernelRange r{shift < 0 ? (-shift + a.stride - 1) / a.stride : 0, 0};
  r.end = shift >= a.in ? 0 : std::min(a.out, (a.in - 1 - shift) / a.stride + 1);
  r.begin = std::min(r.begin, r.end);
  return r;
}

// y[i] = combine(y[i], x[i * stride]) for i < n. The common strides get loops that the compiler
// turns into vectors.
template <class T, class Combine>
void combine_line(const T* x, int64_t stride, int64_t n, T* y, const Combine& combine) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = combine(y[i], x[i]);
  } else if (stride == 2) {
    for (int64_t i = 0; i < n; ++i) y[i] = combine(y[i], x[2 * i]);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = combine(y[i], x[i * stride]);
  }
}

// Folds the windows of one plane into y, starting from `start`: one kernel element after the other,
// a row at a time.
template <class T, class Combine>
void combine_plane(const Window& w, const T* x, T start, T* y, const Combine& combine) {
  const auto& [ad, ah, aw] = w.axis;
  std::fill_n(y, w.out_size(), start);
  for (int64_t row = 0; row < ad.out * ah.out; ++row) {
    const int64_t d0 = ad.start(row / ah.out);
    const int64_t h0 = ah.start(row % ah.out);
    const KernelRange kd = kernel_range(ad, d0, ad.in);
    const KernelRange kh = kernel_range(ah, h0, ah.in);
    for (int64_t k = 0; k < aw.kernel; ++k) {
      const KernelRange r = output_range(aw, k);
      if (r.begin == r.end) continue;
      const int64_t column = aw.start(r.begin) + k * aw.dilation;
      for (int64_t i = kd.begin; i < kd.end; ++i) {
        for (int64_t j = kh.begin; j < kh.end; ++j) {
          const int64_t line = (d0 + i * ad.dilation) * ah.in + h0 + j * ah.dilation;
          combine_line(x + line * aw.in + column, aw.stride, r.end - r.begin,
                       y + row * aw.out + r.begin, combine);
        }
      }
    }
  }
}

// ------------------------------------------------------------------ MaxPool

// Offset inside a plane -> the number that Indices holds: flattened row by row, or column by
// column.
int64_t plane_index(const Window& w, int64_t offset, bool column_major) {
  if (!column_major) return offset;
  const auto& [ad, ah, aw] = w.axis;
  const int64_t x = offset % aw.in;
  const int64_t h = offset / aw.in % ah.in;
  const int64_t d = offset / aw.in / ah.in;
  // The first real axis runs fastest.
  if (w.spatial == 1) return x;
  if (w.spatial == 2) return h + x * ah.in;
  return d + (h + x * ah.in) * ad.in;
}

template <class T>
T lowest() {
  if constexpr (std::is_same_v<T, Float16>)
    return Float16{0xfc00};
  else if constexpr (std::is_same_v<T, BFloat16>)
    return BFloat16{0xff80};
  else if constexpr (std::is_floating_point_v<T>)
    return -std::numeric_limits<T>::infinity();
  else
    return std::numeric_limits<T>::min();
}

template <class T>
void max_plane(const Window& w, const T* x, T* y, int64_t* indices, int64_t base,
               bool column_major) {
  for_each_window(w, [&](const Patch& patch, int64_t o) {
    T best = lowest<T>();
    int64_t at = -1;
    visit_patch(w, patch, [&](int64_t i) {
      if (at < 0 || load(x[i]) > load(best)) {
        best = x[i];
        at = i;
      }
    });
    y[o] = best;
    if (indices != nullptr) indices[o] = at < 0 ? -1 : base + plane_index(w, at, column_major);
  });
}

Status run_max(RunContext& ctx) {
  SPRUN_ASSIGN(const Window w, pool_window(ctx.attrs(), ctx.input(0).shape));
  int64_t* indices = ctx.has_output(1) ? ctx.output(1).as<int64_t>() : nullptr;
  const bool column_major = ctx.attrs().get_int("storage_order", 0) != 0;
  return dispatch_numeric(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (std::is_arithmetic_v<T>) {
      if (indices == nullptr) {
        for_each_plane<T>(ctx, w, [&](const T* x, T* y, int64_t) {
          combine_plane(w, x, lowest<T>(), y, [](T a, T b) { return a < b ? b : a; });
        });
        return Status();
      }
    }
    for_each_plane<T>(ctx, w, [&](const T* x, T* y, int64_t plane) {
      int64_t* out = indices == nullptr ? nullptr : indices + plane * w.out_size();
      max_plane(w, x, y, out, plane * w.in_size(), column_major);
    });
    return Status();
  });
}

// ------------------------------------------------------------------ AveragePool, LpPool

// Kernel elements that fall on the input or its padding, but not beyond it (ceil_mode).
int64_t padded_count(const Window& w, const Patch& patch) {
  int64_t count = 1;
  for (size_t i = 0; i < kMaxSpatial; ++i) {
    const WindowAxis& a = w.axis[i];
    const KernelRange r =
        kernel_range(a, patch.start[i] + a.pad_begin, a.pad_begin + a.in + a.pad_end);
    count *= r.end - r.begin;
  }
  return count;
}

int64_t inner_count(const Patch& patch) {
  int64_t count = 1;
  for (const KernelRange& r : patch.range) count *= r.end - r.begin;
  return count;
}

// Divides sums by the sizes of their windows.
template <class T>
void average_plane(const Window& w, bool include_pad, T* y) {
  for_each_window(w, [&](const Patch& patch, int64_t o) {
    const int64_t count = include_pad ? padded_count(w, patch) : inner_count(patch);
    y[o] = count == 0 ? T{0} : y[o] / static_cast<T>(count);
  });
}

// True if every window has all its elements: the count is the same everywhere.
bool windows_are_full(const Window& w) {
  return std::all_of(w.axis.begin(), w.axis.end(), [](const WindowAxis& a) {
    return a.pad_begin == 0 && a.start(a.out - 1) + (a.kernel - 1) * a.dilation < a.in;
  });
}

template <class T>
void average_by_window(const Window& w, bool include_pad, const T* x, T* y) {
  using C = ComputeType<T>;
  for_each_window(w, [&](const Patch& patch, int64_t o) {
    C sum = 0;
    visit_patch(w, patch, [&](int64_t i) { sum += load(x[i]); });
    const int64_t count = include_pad ? padded_count(w, patch) : inner_count(patch);
    y[o] = store<T>(count == 0 ? C{0} : sum / static_cast<C>(count));
  });
}

Status run_average(RunContext& ctx) {
  SPRUN_ASSIGN(const Window w, pool_window(ctx.attrs(), ctx.input(0).shape));
  const bool include_pad = ctx.attrs().get_int("count_include_pad", 0) != 0;
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_plane<T>(ctx, w, [&](const T* x, T* y, int64_t) {
      if constexpr (std::is_arithmetic_v<T>) {
        combine_plane(w, x, T{0}, y, [](T a, T b) { return a + b; });
        if (!windows_are_full(w)) return average_plane(w, include_pad, y);
        const T count = static_cast<T>(w.kernel_size());
        for (int64_t i = 0; i < w.out_size(); ++i) y[i] /= count;
      } else {
        average_by_window(w, include_pad, x, y);
      }
    });
    return Status();
  });
}

Status run_lp(RunContext& ctx) {
  SPRUN_ASSIGN(const Window w, pool_window(ctx.attrs(), ctx.input(0).shape));
  const double p = static_cast<double>(ctx.attrs().get_int("p", 2));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for_each_plane<T>(ctx, w, [&](const T* x, T* y, int64_t) {
      for_each_window(w, [&](const Patch& patch, int64_t o) {
        double sum = 0;
        visit_patch(w, patch, [&](int64_t i) {
          sum += std::pow(std::abs(static_cast<double>(load(x[i]))), p);
        });
        y[o] = store<T>(static_cast<ComputeType<T>>(std::pow(sum, 1.0 / p)));
      });
    });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "AveragePool", .infer = infer_float, .run = run_average},
    {.name = "LpPool", .since = 2, .infer = infer_float, .run = run_lp},
    {.name = "MaxPool", .outputs = {1, 2}, .infer = infer_max, .run = run_max},
};

}  // namespace

extern const std::span<const OpDef> k_pool_ops;
const std::span<const OpDef> k_pool_ops = kOps;

}  // namespace sprun::graph
