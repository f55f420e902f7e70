// Softmax, LogSoftmax and Hardmax. Up to opset 12 the input is flattened to two axes at `axis`
// (default 1) and the whole second one is normalised; from opset 13 only `axis` itself is (default
// the last).
#include "kernels/softmax/softmax.h"

#include <cmath>

#include "graph/ops/broadcast.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

// The input as [outer, n, inner]; n is normalised.
struct Lines {
  int64_t outer = 1, n = 1, inner = 1;
};

Result<Lines> split_lines(const AttrMap& attrs, int opset, const Shape& shape) {
  const bool flatten = opset < 13;
  const int64_t given = attrs.get_int("axis", flatten ? 1 : -1);
  const int rank = shape.rank();
  if (rank == 0 && given >= -1 && given <= (flatten ? 1 : 0)) return Lines{};
  if (flatten && given == rank) return Lines{.outer = shape.num_elements(), .n = 1, .inner = 1};
  SPRUN_ASSIGN(const int axis, normalize_axis(given, rank));
  return Lines{.outer = shape.num_elements(0, axis),
               .n = flatten ? shape.num_elements(axis, rank) : shape[axis],
               .inner = flatten ? 1 : shape.num_elements(axis + 1, rank)};
}

Status infer_softmax(InferContext& ctx) {
  auto lines = split_lines(ctx.attrs(), ctx.opset(), ctx.shape(0));
  if (!lines.ok()) return ctx.error(lines.status().message());
  return infer_same_as_input(ctx);
}

template <class T>
ComputeType<T> line_max(const T* x, int64_t n, int64_t step) {
  ComputeType<T> max = load(x[0]);
  for (int64_t i = 1; i < n; ++i) max = std::max(max, load(x[i * step]));
  return max;
}

// e^(x - max) / sum over one line of n elements, `step` apart. y may be x.
struct SoftmaxLine {
  template <class T>
  static void run(const T* x, T* y, int64_t n, int64_t step) {
    using C = ComputeType<T>;
    const C max = line_max(x, n, step);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(load(x[i * step]) - max);
    const auto scale = static_cast<C>(1 / sum);
    for (int64_t i = 0; i < n; ++i)
      y[i * step] = store<T>(std::exp(load(x[i * step]) - max) * scale);
  }
};

// x - max - log(sum e^(x - max))
struct LogSoftmaxLine {
  template <class T>
  static void run(const T* x, T* y, int64_t n, int64_t step) {
    using C = ComputeType<T>;
    const C max = line_max(x, n, step);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(load(x[i * step]) - max);
    const auto log_sum = static_cast<C>(std::log(sum));
    for (int64_t i = 0; i < n; ++i) y[i * step] = store<T>(load(x[i * step]) - max - log_sum);
  }
};

// 1 at the first maximum, 0 elsewhere.
struct HardmaxLine {
  template <class T>
  static void run(const T* x, T* y, int64_t n, int64_t step) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; ++i) {
      if (load(x[i * step]) > load(x[best * step])) best = i;
    }
    for (int64_t i = 0; i < n; ++i) y[i * step] = store<T>(i == best ? 1.0f : 0.0f);
  }
};

template <class Line>
kernels::SoftmaxF32Fn* row_kernel() {
  const kernels::SoftmaxKernel& kernel = *kernels::best_softmax().kernel;
  if constexpr (std::is_same_v<Line, SoftmaxLine>) return kernel.softmax;
  if constexpr (std::is_same_v<Line, LogSoftmaxLine>) return kernel.log_softmax;
  return nullptr;
}

template <class Line>
Status run_lines(RunContext& ctx) {
  SPRUN_ASSIGN(const Lines lines, split_lines(ctx.attrs(), ctx.opset(), ctx.input(0).shape));
  if (ctx.input(0).num_elements() == 0) return {};
  kernels::SoftmaxF32Fn* rows = row_kernel<Line>();
  if (rows != nullptr && ctx.input(0).dtype == DType::kF32 && lines.inner == 1) {
    const float* x = ctx.input(0).as<float>();
    float* y = ctx.output(0).as<float>();
    ctx.pool().parallel_for(lines.outer, std::max<int64_t>(1, kCheapGrain / lines.n),
                            [&](int64_t begin, int64_t end, int) {
                              rows(x + begin * lines.n, y + begin * lines.n, end - begin, lines.n,
                                   lines.n);
                            });
    return {};
  }
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    T* y = ctx.output(0).as<T>();
    ctx.pool().parallel_for(lines.outer * lines.inner, std::max<int64_t>(1, kMathGrain / lines.n),
                            [&](int64_t begin, int64_t end, int) {
                              for (int64_t line = begin; line < end; ++line) {
                                const int64_t start =
                                    line / lines.inner * lines.n * lines.inner + line % lines.inner;
                                Line::run(x + start, y + start, lines.n, lines.inner);
                              }
                            });
    return Status();
  });
}

Status prepare_softmax(PrepareContext& ctx) {
  if (ctx.input(0).dtype == DType::kF32) ctx.kernel = kernels::best_softmax().name;
  return {};
}

constexpr OpDef softmax_op(std::string_view name, Status (*run)(RunContext&)) {
  return {.name = name,
          .infer = infer_softmax,
          .run = run,
          .prepare = prepare_softmax,
          .flags = kInPlace};
}

constexpr OpDef kOps[] = {
    softmax_op("Softmax", run_lines<SoftmaxLine>),
    softmax_op("LogSoftmax", run_lines<LogSoftmaxLine>),
    {.name = "Hardmax", .infer = infer_softmax, .run = run_lines<HardmaxLine>, .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_softmax_ops;
const std::span<const OpDef> k_softmax_ops = kOps;

}  // namespace sprun::graph
