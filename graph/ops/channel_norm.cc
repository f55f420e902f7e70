// BatchNormalization, InstanceNormalization and GroupNormalization: x is [batch, channels,
// spatial...].
#include <algorithm>
#include <cmath>

#include "graph/ops/op_util.h"

namespace sprun::graph {

namespace {

constexpr int64_t kGrainElements = 16384;

int64_t rows_grain(int64_t row_elements) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(row_elements, 1));
}

struct Moments {
  double mean = 0, variance = 0;
};

// Sum of f(x[i]), in blocks: sixteen interleaved partial sums keep vector units busy, and blocks
// short enough for float partial sums are added in double.
template <class T, class F>
double block_sum(const T* x, int64_t n, const F& f) {
  using C = ComputeType<T>;
  constexpr int64_t kLanes = 16;
  constexpr int64_t kBlock = 4096;
  double total = 0;
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t count = std::min(kBlock, n - at);
    C partial[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) partial[k] += f(static_cast<C>(load(x[at + i + k])));
    }
    for (int64_t k = 0; i + k < count; ++k) partial[k] += f(static_cast<C>(load(x[at + i + k])));
    for (C v : partial) total += static_cast<double>(v);
  }
  return total;
}

template <class T>
double sum(const T* x, int64_t n) {
  return block_sum(x, n, [](ComputeType<T> v) { return v; });
}

// Sum of (x - mean)^2.
template <class T>
double centred_squares(const T* x, int64_t n, double mean) {
  const auto m = static_cast<ComputeType<T>>(mean);
  return block_sum(x, n, [m](ComputeType<T> v) { return (v - m) * (v - m); });
}

// Mean and population variance of n elements, in two passes.
template <class T>
Moments moments(const T* x, int64_t n) {
  const double mean = sum(x, n) / static_cast<double>(n);
  return {mean, centred_squares(x, n, mean) / static_cast<double>(n)};
}

// y = x * a + b over n elements.
template <class T>
void affine(const T* x, T* y, int64_t n, double a, double b) {
  using C = ComputeType<T>;
  const C ca = static_cast<C>(a);
  const C cb = static_cast<C>(b);
  for (int64_t i = 0; i < n; ++i) y[i] = store<T>(static_cast<C>(load(x[i])) * ca + cb);
}

Status check_vector(const InferContext& ctx, int i, int64_t n) {
  const Shape& s = ctx.shape(i);
  return ctx.check(s.num_elements() == n && is_float(ctx.dtype(i)),
                   "input " + std::to_string(i) + " must hold " + std::to_string(n) +
                       " float elements, got shape " + s.to_string());
}

Status check_image(const InferContext& ctx, int min_rank) {
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)), "input must be a float type"));
  return ctx.check(ctx.shape(0).rank() >= min_rank,
                   "input must have at least " + std::to_string(min_rank) + " axes, got shape " +
                       ctx.shape(0).to_string());
}

double element(const ConstTensorView& view, int64_t i) {
  switch (view.dtype) {
    case DType::kF64:
      return view.as<double>()[i];
    case DType::kF16:
      return static_cast<double>(to_float(view.as<Float16>()[i]));
    case DType::kBf16:
      return static_cast<double>(to_float(view.as<BFloat16>()[i]));
    default:
      return static_cast<double>(view.as<float>()[i]);
  }
}

void set_element(const TensorView& view, int64_t i, double v) {
  switch (view.dtype) {
    case DType::kF64:
      view.as<double>()[i] = v;
      break;
    case DType::kF16:
      view.as<Float16>()[i] = to_float16(v);
      break;
    case DType::kBf16:
      view.as<BFloat16>()[i] = to_bfloat16(v);
      break;
    default:
      view.as<float>()[i] = static_cast<float>(v);
      break;
  }
}

// ------------------------------------------------------------------ BatchNormalization

bool is_spatial(const Node& node) {
  return node.version >= 9 || node.attrs.get_int("spatial", 1) != 0;
}

// Elements that have their own scale: channels, or every position of an image for spatial = 0.
int64_t num_features(const Node& node, const Shape& x) {
  if (x.rank() == 1) return 1;
  return is_spatial(node) ? x[1] : x.num_elements(1, x.rank());
}

template <class Ctx>
bool is_training(const Ctx& ctx) {
  if (ctx.opset() >= 14) return ctx.attrs().get_int("training_mode", 0) != 0;
  return ctx.has_output(1) || ctx.has_output(2) || ctx.has_output(3) || ctx.has_output(4);
}

Status infer_batch_norm(InferContext& ctx) {
  SPRUN_TRY(check_image(ctx, 1));
  const int64_t features = num_features(ctx.node(), ctx.shape(0));
  for (int i = 1; i < 5; ++i) SPRUN_TRY(check_vector(ctx, i, features));
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  for (int i = 1; i < ctx.num_outputs(); ++i) {
    SPRUN_TRY(
        ctx.check(!ctx.has_output(i) || is_training(ctx), "statistics outputs need training_mode"));
    ctx.set_output(i, ctx.dtype(i % 2 == 1 ? 3 : 4), ctx.shape(i % 2 == 1 ? 3 : 4));
  }
  return {};
}

// x seen as [batch, features, inner].
struct Planes {
  int64_t batch = 1, features = 1, inner = 1;
};

Planes planes_of(const Node& node, const Shape& x) {
  Planes p;
  p.features = num_features(node, x);
  p.batch = x[0];
  p.inner = x.rank() > 2 && is_spatial(node) ? x.num_elements(2, x.rank()) : 1;
  return p;
}

// Moments over batch and inner of one feature.
template <class T>
Moments feature_moments(const T* x, const Planes& p, int64_t feature) {
  const double count = static_cast<double>(p.batch) * static_cast<double>(p.inner);
  Moments m;
  const auto row = [&](int64_t b) { return x + (b * p.features + feature) * p.inner; };
  for (int64_t b = 0; b < p.batch; ++b) m.mean += sum(row(b), p.inner);
  m.mean /= count;
  for (int64_t b = 0; b < p.batch; ++b) m.variance += centred_squares(row(b), p.inner, m.mean);
  m.variance /= count;
  return m;
}

void write_running(RunContext& ctx, int64_t feature, const Moments& batch) {
  const double momentum = static_cast<double>(ctx.attrs().get_float("momentum", 0.9F));
  const double values[4] = {
      element(ctx.input(3), feature) * momentum + batch.mean * (1 - momentum),
      element(ctx.input(4), feature) * momentum + batch.variance * (1 - momentum), batch.mean,
      batch.variance};
  for (int i = 0; i < 4; ++i) {
    if (ctx.has_output(i + 1)) set_element(ctx.output(i + 1), feature, values[i]);
  }
}

Status run_batch_norm(RunContext& ctx) {
  const Planes p = planes_of(ctx.node(), ctx.input(0).shape);
  const bool training = is_training(ctx);
  const double epsilon = static_cast<double>(ctx.attrs().get_float("epsilon", 1e-5F));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    T* y = ctx.output(0).as<T>();
    const auto one_feature = [&](int64_t f) {
      Moments m{element(ctx.input(3), f), element(ctx.input(4), f)};
      if (training) {
        m = feature_moments(x, p, f);
        write_running(ctx, f, m);
      }
      const double a = element(ctx.input(1), f) / std::sqrt(m.variance + epsilon);
      const double b = element(ctx.input(2), f) - m.mean * a;
      for (int64_t n = 0; n < p.batch; ++n) {
        const int64_t offset = (n * p.features + f) * p.inner;
        affine(x + offset, y + offset, p.inner, a, b);
      }
    };
    ctx.pool().parallel_for(p.features, rows_grain(p.batch * p.inner),
                            [&](int64_t begin, int64_t end, int) {
                              for (int64_t f = begin; f < end; ++f) one_feature(f);
                            });
    return Status();
  });
}

// ------------------------------------------------------------------ Instance and group

Status infer_instance_norm(InferContext& ctx) {
  SPRUN_TRY(check_image(ctx, 2));
  for (int i = 1; i < 3; ++i) SPRUN_TRY(check_vector(ctx, i, ctx.shape(0)[1]));
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

Status infer_group_norm(InferContext& ctx) {
  SPRUN_TRY(check_image(ctx, 2));
  const int64_t channels = ctx.shape(0)[1];
  const int64_t groups = ctx.attrs().get_int("num_groups", 0);
  SPRUN_TRY(ctx.check(groups > 0 && channels % groups == 0,
                      "num_groups " + std::to_string(groups) + " does not divide " +
                          std::to_string(channels) + " channels"));
  for (int i = 1; i < 3; ++i) SPRUN_TRY(check_vector(ctx, i, ctx.opset() < 21 ? groups : channels));
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

// Normalises each of batch * groups blocks of channels; scale and bias per channel or per group.
Status run_groups(RunContext& ctx, int64_t groups, bool per_group_scale) {
  const Shape& shape = ctx.input(0).shape;
  const int64_t inner = shape.num_elements(2, shape.rank());
  const int64_t channels = groups == 0 ? 0 : shape[1] / groups;  // in one group
  const int64_t block = channels * inner;
  const double epsilon = static_cast<double>(ctx.attrs().get_float("epsilon", 1e-5F));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto one_block = [&](int64_t i) {
      const int64_t group = i % groups;
      const T* x = ctx.input(0).as<T>() + i * block;
      T* y = ctx.output(0).as<T>() + i * block;
      const Moments m = moments(x, block);
      const double inv_std = 1.0 / std::sqrt(m.variance + epsilon);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t s = per_group_scale ? group : group * channels + c;
        const double a = element(ctx.input(1), s) * inv_std;
        affine(x + c * inner, y + c * inner, inner, a, element(ctx.input(2), s) - m.mean * a);
      }
    };
    ctx.pool().parallel_for(shape[0] * groups, rows_grain(block),
                            [&](int64_t begin, int64_t end, int) {
                              for (int64_t i = begin; i < end; ++i) one_block(i);
                            });
    return Status();
  });
}

Status run_instance_norm(RunContext& ctx) { return run_groups(ctx, ctx.input(0).shape[1], false); }

Status run_group_norm(RunContext& ctx) {
  return run_groups(ctx, ctx.attrs().get_int("num_groups", 1), ctx.opset() < 21);
}

constexpr OpDef kOps[] = {
    {.name = "BatchNormalization",
     .inputs = {5, 5},
     .outputs = {1, 5},
     .infer = infer_batch_norm,
     .run = run_batch_norm,
     .flags = kInPlace},
    {.name = "GroupNormalization",
     .since = 18,
     .inputs = {3, 3},
     .infer = infer_group_norm,
     .run = run_group_norm,
     .flags = kInPlace},
    {.name = "InstanceNormalization",
     .inputs = {3, 3},
     .infer = infer_instance_norm,
     .run = run_instance_norm,
     .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_channel_norm_ops;
const std::span<const OpDef> k_channel_norm_ops = kOps;

}  // namespace sprun::graph
