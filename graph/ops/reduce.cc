// ReduceSum, Mean, Max, Min, Prod, L1, L2, LogSum, LogSumExp and SumSquare.
#include "kernels/reduce/reduce.h"

#include <cmath>
#include <limits>

#include "graph/ops/elementwise.h"
#include "graph/ops/reduce_loop.h"

namespace sprun::graph {
namespace {

// --- reducers. Floats add up in double; integers wrap around in 64 bits and drop high bits at the
// end.

template <class T>
inline constexpr bool kIsReal = !std::is_integral_v<T>;
template <class T>
using SumAcc = std::conditional_t<kIsReal<T>, double, uint64_t>;

// The result of a computation in double as T; integers truncate.
template <class T>
T from_double(double v) {
  if constexpr (kIsReal<T>) {
    return store<T>(v);
  } else {
    return float_to_int<T>(v);
  }
}

template <class T>
T from_sum(SumAcc<T> acc) {
  if constexpr (kIsReal<T>) {
    return store<T>(acc);
  } else {
    return static_cast<T>(acc);
  }
}

// A signed integer sum as the number it stands for.
template <class T>
double sum_value(SumAcc<T> acc) {
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    return static_cast<double>(static_cast<int64_t>(acc));
  } else {
    return static_cast<double>(acc);
  }
}

template <class T>
struct Summing {
  using In = T;
  using Out = T;
  using Acc = SumAcc<T>;
  static Acc init() { return 0; }
};

template <class T>
struct SumReducer : Summing<T> {
  using typename Summing<T>::Acc;
  static void step(Acc& acc, T x) { acc += static_cast<Acc>(load(x)); }
  static T finish(Acc acc, int64_t) { return from_sum<T>(acc); }
};

template <class T>
struct MeanReducer : SumReducer<T> {
  static T finish(SumAcc<T> acc, int64_t count) {
    if constexpr (kIsReal<T>) {
      return store<T>(acc / static_cast<double>(count));
    } else {
      if (count == 0) return 0;
      if constexpr (std::is_signed_v<T>) return static_cast<T>(static_cast<int64_t>(acc) / count);
      return static_cast<T>(acc / static_cast<uint64_t>(count));
    }
  }
};

template <class T>
struct SumSquareReducer : Summing<T> {
  using typename Summing<T>::Acc;
  static void step(Acc& acc, T x) { acc += static_cast<Acc>(load(x)) * static_cast<Acc>(load(x)); }
  static T finish(Acc acc, int64_t) { return from_sum<T>(acc); }
};

template <class T>
struct L2Reducer : Summing<T> {
  using Acc = double;
  static Acc init() { return 0; }
  static void step(Acc& acc, T x) {
    acc += static_cast<double>(load(x)) * static_cast<double>(load(x));
  }
  static T finish(Acc acc, int64_t) { return from_double<T>(std::sqrt(acc)); }
};

template <class T>
struct L1Reducer : Summing<T> {
  using typename Summing<T>::Acc;
  static void step(Acc& acc, T x) {
    const auto v = static_cast<Acc>(load(x));
    acc += load(x) < 0 ? Acc{0} - v : v;
  }
  static T finish(Acc acc, int64_t) { return from_sum<T>(acc); }
};

template <class T>
struct LogSumReducer : SumReducer<T> {
  static T finish(SumAcc<T> acc, int64_t) { return from_double<T>(std::log(sum_value<T>(acc))); }
};

template <class T>
struct ProdReducer : Summing<T> {
  using typename Summing<T>::Acc;
  static Acc init() { return 1; }
  static void step(Acc& acc, T x) { acc *= static_cast<Acc>(load(x)); }
  static T finish(Acc acc, int64_t) { return from_sum<T>(acc); }
};

// One pass: the sum is kept relative to the largest element so far, so that nothing overflows.
template <class T>
struct LogSumExpReducer {
  using In = T;
  using Out = T;
  struct Acc {
    double max, sum;
  };
  static Acc init() { return {-std::numeric_limits<double>::infinity(), 0}; }
  static void step(Acc& acc, T element) {
    const auto x = static_cast<double>(load(element));
    if (x == acc.max) {  // also equal infinities, whose difference is NaN
      if (x != -std::numeric_limits<double>::infinity()) acc.sum += 1;
    } else if (x > acc.max) {
      acc.sum = acc.sum * std::exp(acc.max - x) + 1;
      acc.max = x;
    } else {
      acc.sum += std::exp(x - acc.max);
    }
  }
  static T finish(Acc acc, int64_t) { return from_double<T>(acc.max + std::log(acc.sum)); }
};

// Max and Min start from the value that loses against everything; NaN beats everything.
template <class T>
ComputeType<T> lowest() {
  using C = ComputeType<T>;
  if constexpr (std::is_floating_point_v<C>) return -std::numeric_limits<C>::infinity();
  return std::numeric_limits<C>::lowest();
}

template <class T>
ComputeType<T> highest() {
  using C = ComputeType<T>;
  if constexpr (std::is_floating_point_v<C>) return std::numeric_limits<C>::infinity();
  return std::numeric_limits<C>::max();
}

template <class T>
struct MaxReducer {
  using In = T;
  using Out = T;
  using Acc = ComputeType<T>;
  static Acc init() { return lowest<T>(); }
  static void step(Acc& acc, T x) {
    const Acc v = load(x);
    if (v > acc || v != v) acc = v;
  }
  static T finish(Acc acc, int64_t) { return store<T>(acc); }
};

template <class T>
struct MinReducer {
  using In = T;
  using Out = T;
  using Acc = ComputeType<T>;
  static Acc init() { return highest<T>(); }
  static void step(Acc& acc, T x) {
    const Acc v = load(x);
    if (v < acc || v != v) acc = v;
  }
  static T finish(Acc acc, int64_t) { return store<T>(acc); }
};

// --- axes: an attribute in old opsets, input 1 in new ones

// Marks the axes to reduce. Neither given, or an empty list: all of them, or none with
// noop_with_empty_axes.
template <class Ctx>
Status read_axes(const Ctx& ctx, const std::optional<std::vector<int64_t>>& axes, int rank,
                 AxisMask* mask) {
  if (!axes || axes->empty()) {
    const bool none = ctx.attrs().get_int("noop_with_empty_axes", 0) != 0;
    std::fill_n(mask->begin(), rank, !none);
    return {};
  }
  for (const int64_t axis : *axes) {
    auto normal = normalize_axis(axis, rank);
    if (!normal.ok()) return ctx.error(normal.status().message());
    (*mask)[static_cast<size_t>(*normal)] = true;
  }
  return {};
}

Status infer_reduce(InferContext& ctx) {
  bool missing = false;
  SPRUN_ASSIGN(const auto axes, ints_from_input_or_attr(ctx, 1, "axes", &missing));
  if (missing) return ctx.needs_data();
  const Shape& shape = ctx.shape(0);
  AxisMask mask{};
  SPRUN_TRY(read_axes(ctx, axes, shape.rank(), &mask));
  const bool keep = ctx.attrs().get_int("keepdims", 1) != 0;
  Shape out;
  for (int i = 0; i < shape.rank(); ++i) {
    if (!mask[static_cast<size_t>(i)]) {
      out.push_back(shape[i]);
    } else if (keep) {
      out.push_back(1);
    }
  }
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// The kernel that reduces float rows to what Reducer::finish() takes; nullptr if there is none.
template <class Reducer>
kernels::ReduceRowsF32Fn* row_kernel() {
  const kernels::ReduceKernel& kernel = *kernels::best_reduce().kernel;
  if constexpr (std::is_base_of_v<SumReducer<float>, Reducer>) return kernel.sum;
  if constexpr (std::is_same_v<Reducer, L1Reducer<float>>) return kernel.sum_abs;
  if constexpr (std::is_same_v<Reducer, L2Reducer<float>>) return kernel.sum_squares;
  if constexpr (std::is_same_v<Reducer, SumSquareReducer<float>>) return kernel.sum_squares;
  if constexpr (std::is_same_v<Reducer, MaxReducer<float>>) return kernel.max;
  if constexpr (std::is_same_v<Reducer, MinReducer<float>>) return kernel.min;
  return nullptr;
}

// Reduction of [outputs, n] over the last axis.
template <class Reducer>
void reduce_f32_rows(RunContext& ctx, kernels::ReduceRowsF32Fn* kernel, int64_t n) {
  const float* x = ctx.input(0).as<float>();
  float* y = ctx.output(0).as<float>();
  ctx.pool().parallel_for(ctx.output(0).num_elements(), std::max<int64_t>(1, kCheapGrain / n),
                          [&](int64_t begin, int64_t end, int) {
                            kernel(x + begin * n, end - begin, n, n, y + begin);
                            for (int64_t i = begin; i < end; ++i) y[i] = Reducer::finish(y[i], n);
                          });
}

template <class Reducer>
void reduce(RunContext& ctx, const AxisMask& mask) {
  const auto* x = ctx.input(0).as<typename Reducer::In>();
  auto* y = ctx.output(0).as<typename Reducer::Out>();
  const int64_t outputs = ctx.output(0).num_elements();
  if (ctx.input(0).num_elements() == 0) {
    std::fill_n(y, outputs, Reducer::finish(Reducer::init(), 0));
    return;
  }
  const ReduceLoop loop = make_reduce_loop(ctx.input(0).shape, mask);
  if constexpr (std::is_same_v<typename Reducer::In, float> &&
                std::is_floating_point_v<typename Reducer::Acc>) {
    auto* kernel = row_kernel<Reducer>();
    if (kernel != nullptr && loop.inner_reduced && loop.reduced.rank == 1) {
      return reduce_f32_rows<Reducer>(ctx, kernel, loop.reduced.dims[0]);
    }
  }
  const int64_t grain = std::max<int64_t>(1, kCheapGrain / loop.reduced.count());
  ctx.pool().parallel_for(outputs, grain, [&](int64_t begin, int64_t end, int) {
    loop.inner_reduced ? reduce_rows<Reducer>(loop, x, y, begin, end)
                       : reduce_columns<Reducer>(loop, x, y, begin, end);
  });
}

// Sums and products exist for floats and for 32 and 64-bit integers.
template <class Fn>
Status dispatch_summable(const RunContext& ctx, DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kU32:
      return fn(TypeTag<uint32_t>{});
    case DType::kS32:
      return fn(TypeTag<int32_t>{});
    case DType::kU64:
      return fn(TypeTag<uint64_t>{});
    case DType::kS64:
      return fn(TypeTag<int64_t>{});
    default:
      return dispatch_real(ctx, dtype, fn);
  }
}

Result<AxisMask> reduced_axes(RunContext& ctx) {
  SPRUN_ASSIGN(const auto axes, ints_from_input_or_attr(ctx, 1, "axes"));
  AxisMask mask{};
  SPRUN_TRY(read_axes(ctx, axes, ctx.input(0).shape.rank(), &mask));
  return mask;
}

template <template <class> class Reducer>
Status run_sum(RunContext& ctx) {
  SPRUN_ASSIGN(const AxisMask mask, reduced_axes(ctx));
  return dispatch_summable(ctx, ctx.input(0).dtype, [&](auto tag) {
    reduce<Reducer<typename decltype(tag)::type>>(ctx, mask);
    return Status();
  });
}

// Max and Min also exist for small integers and, since opset 20, bool (false < true).
template <template <class> class Reducer>
Status run_order(RunContext& ctx) {
  SPRUN_ASSIGN(const AxisMask mask, reduced_axes(ctx));
  DType dtype = ctx.input(0).dtype;
  SPRUN_TRY(ctx.check(!is_4bit(dtype), "4-bit integers are not supported"));
  if (dtype == DType::kBool) dtype = DType::kU8;
  SPRUN_TRY(dispatch_numeric(ctx, dtype, [&](auto tag) {
    reduce<Reducer<typename decltype(tag)::type>>(ctx, mask);
    return Status();
  }));
  if (ctx.output(0).dtype == DType::kBool) {  // the minimum of nothing is 255
    auto* y = ctx.output(0).as<uint8_t>();
    for (int64_t i = 0; i < ctx.output(0).num_elements(); ++i) y[i] = y[i] != 0;
  }
  return {};
}

constexpr OpDef reduce_op(std::string_view name, Status (*run)(RunContext&)) {
  return {.name = name, .inputs = {1, 2}, .infer = infer_reduce, .run = run};
}

constexpr OpDef kOps[] = {
    reduce_op("ReduceSum", run_sum<SumReducer>),
    reduce_op("ReduceMean", run_sum<MeanReducer>),
    reduce_op("ReduceMax", run_order<MaxReducer>),
    reduce_op("ReduceMin", run_order<MinReducer>),
    reduce_op("ReduceProd", run_sum<ProdReducer>),
    reduce_op("ReduceL1", run_sum<L1Reducer>),
    reduce_op("ReduceL2", run_sum<L2Reducer>),
    reduce_op("ReduceLogSum", run_sum<LogSumReducer>),
    reduce_op("ReduceLogSumExp", run_sum<LogSumExpReducer>),
    reduce_op("ReduceSumSquare", run_sum<SumSquareReducer>),
};

}  // namespace

extern const std::span<const OpDef> k_reduce_ops;
const std::span<const OpDef> k_reduce_ops = kOps;

}  // namespace sprun::graph
