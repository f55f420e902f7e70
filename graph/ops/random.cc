// Bernoulli-15, 22, Multinomial-7, 22, RandomNormal(Like)-1, 22, RandomUniform(Like)-1, 22.
//
// Element i of an output is a hash of (seed, i): the same seed gives the same numbers whatever the number of threads.
// Without a seed attribute every run draws a new one.
#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <numbers>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

constexpr int64_t kGrainElements = 4096;

// The mixing function of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(const AttrMap& attrs) {
    if (attrs.has("seed")) {
      seed_ = mix(std::bit_cast<uint32_t>(attrs.get_float("seed", 0.0f)) + 1ull);
      return;
    }
    static constinit std::atomic<uint64_t> draws{0};
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    seed_ = mix(static_cast<uint64_t>(now) + mix(++draws));
  }

  // Uniform in [0, 1), 53 bits. Every `i` is an independent draw.
  double uniform(int64_t i) const {
    return static_cast<double>(mix(seed_ + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ull) >> 11) * 0x1p-53;
  }
  // Standard normal by the Box-Muller transform.
  double normal(int64_t i) const {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform(2 * i)));
    return radius * std::cos(2.0 * std::numbers::pi * uniform(2 * i + 1));
  }

 private:
  uint64_t seed_ = 0;
};

// Output type: attribute dtype, else `fallback`.
Result<DType> output_dtype(const AttrMap& attrs, DType fallback) {
  return attrs.has("dtype") ? dtype_from_number(attrs.get_int("dtype", 0)) : Result<DType>(fallback);
}

Status infer_random(InferContext& ctx) {
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(ctx.attrs().get_ints("shape"))));
  SPRUN_ASSIGN(const DType dtype, at_node(ctx, output_dtype(ctx.attrs(), DType::kF32)));
  ctx.set_output(0, dtype, out);
  return {};
}

Status infer_random_like(InferContext& ctx) {
  SPRUN_ASSIGN(const DType dtype, at_node(ctx, output_dtype(ctx.attrs(), ctx.dtype(0))));
  ctx.set_output(0, dtype, ctx.shape(0));
  return {};
}

// Fills the output with draw(random, i).
template <class Draw>
Status fill_random(RunContext& ctx, const Draw& draw) {
  const TensorView& out = ctx.output(0);
  const Random random(ctx.attrs());
  return dispatch_real(ctx, out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.pool().parallel_for(out.num_elements(), kGrainElements, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) out.as<T>()[i] = store<T>(draw(random, i));
    });
    return Status();
  });
}

Status run_random_normal(RunContext& ctx) {
  const double mean = ctx.attrs().get_float("mean", 0.0f), scale = ctx.attrs().get_float("scale", 1.0f);
  return fill_random(ctx, [&](const Random& random, int64_t i) { return mean + scale * random.normal(i); });
}

Status run_random_uniform(RunContext& ctx) {
  const double low = ctx.attrs().get_float("low", 0.0f), high = ctx.attrs().get_float("high", 1.0f);
  return fill_random(ctx, [&](const Random& random, int64_t i) { return low + (high - low) * random.uniform(i); });
}

// --- Bernoulli: 1 with the probability that the input gives

template <class In>
Status draw_bernoulli(RunContext& ctx) {
  const In* probability = ctx.input(0).as<In>();
  const TensorView& out = ctx.output(0);
  const Random random(ctx.attrs());
  return dispatch_numeric(ctx, out.dtype == DType::kBool ? DType::kU8 : out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.pool().parallel_for(out.num_elements(), kGrainElements, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        out.as<T>()[i] = store<T>(random.uniform(i) < static_cast<double>(load(probability[i])) ? 1.0f : 0.0f);
      }
    });
    return Status();
  });
}

Status run_bernoulli(RunContext& ctx) {
  return dispatch_real(ctx, ctx.input(0).dtype,
                       [&](auto tag) { return draw_bernoulli<typename decltype(tag)::type>(ctx); });
}

// --- Multinomial: indices of classes, drawn with the probabilities exp(input) / sum

Status infer_multinomial(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  const int64_t samples = ctx.attrs().get_int("sample_size", 1);
  if (in.rank() != 2 || in[1] == 0)
    return ctx.error("expected an input of shape [batch, classes], got " + in.to_string());
  SPRUN_ASSIGN(const DType dtype, at_node(ctx, output_dtype(ctx.attrs(), DType::kS32)));
  SPRUN_TRY(check_index_type(ctx, dtype));
  const int64_t dims[] = {in[0], samples};
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, dtype, out);
  return {};
}

template <class In, class Out>
void draw_classes(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  const Random random(ctx.attrs());
  const int64_t classes = in.shape[1], samples = out.shape[1];
  std::vector<double> sums(static_cast<size_t>(classes));
  for (int64_t row = 0; row < in.shape[0]; ++row) {
    const In* logits = in.as<In>() + row * classes;
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < classes; ++i) largest = std::max(largest, static_cast<double>(load(logits[i])));
    for (int64_t i = 0; i < classes; ++i) {
      const double weight = std::exp(static_cast<double>(load(logits[i])) - largest);
      sums[static_cast<size_t>(i)] = sum += weight > 0 ? weight : 0;  // NaN counts as impossible
    }
    for (int64_t s = 0; s < samples; ++s) {
      const auto it = std::upper_bound(sums.begin(), sums.end(), random.uniform(row * samples + s) * sum);
      out.as<Out>()[row * samples + s] = static_cast<Out>(std::min<int64_t>(it - sums.begin(), classes - 1));
    }
  }
}

Status run_multinomial(RunContext& ctx) {
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto in_tag) {
    return dispatch_index(ctx, ctx.output(0).dtype, [&](auto out_tag) {
      draw_classes<typename decltype(in_tag)::type, typename decltype(out_tag)::type>(ctx);
      return Status();
    });
  });
}

constexpr OpDef kOps[] = {
    {.name = "Bernoulli", .since = 15, .infer = infer_random_like, .run = run_bernoulli, .flags = kRandom},
    {.name = "Multinomial", .since = 7, .infer = infer_multinomial, .run = run_multinomial, .flags = kRandom},
    {.name = "RandomNormal", .inputs = {0, 0}, .infer = infer_random, .run = run_random_normal, .flags = kRandom},
    {.name = "RandomNormalLike", .infer = infer_random_like, .run = run_random_normal, .flags = kRandom},
    {.name = "RandomUniform", .inputs = {0, 0}, .infer = infer_random, .run = run_random_uniform, .flags = kRandom},
    {.name = "RandomUniformLike", .infer = infer_random_like, .run = run_random_uniform, .flags = kRandom},
};

}  // namespace

extern const std::span<const OpDef> k_random_ops;
const std::span<const OpDef> k_random_ops = kOps;

}  // namespace sprun::graph
