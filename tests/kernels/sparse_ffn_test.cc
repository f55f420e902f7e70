// Every sparse feed-forward variant of this machine against a double computation from the unpacked
// weights; paths, numbers of threads and numbers of tokens against each other.
#include "kernels/sparse_ffn/sparse_ffn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/gemm/quantize_rows.h"
#include "kernels/simd/half.h"
#include "runtime/base/thread_pool.h"
#include "tests/support/draw.h"
#include "tests/support/aligned.h"

namespace sprun::kernels {
namespace {

using testing_support::kCanary;

using testing_support::aligned;
using testing_support::Aligned;

constexpr FfnWeights kWeights[] = {FfnWeights::kF32, FfnWeights::kBf16, FfnWeights::kInt8};

unsigned seed() { return testing_support::seed_or(20240607U); }

// One matrix [n, k], stored transposed or with a gap, and its values in double.
struct Matrix {
  int64_t n, k;
  std::vector<double> value;
  std::vector<float> f32;
  std::vector<uint8_t> codes;
  std::vector<float> scale, bias;
  std::vector<int32_t> zero;
  SparseFfnMatrix source;

  Matrix(FfnWeights weights, int64_t outputs, int64_t inputs, bool transposed, bool zeros,
         std::mt19937& rng)
      : n(outputs), k(inputs), value(static_cast<size_t>(n * k)) {
    std::normal_distribution<float> normal;
    source.stride_n = transposed ? 1 : k + 3;
    source.stride_k = transposed ? n + 2 : 1;
    const auto size = static_cast<size_t>((n + 2) * (k + 3));
    f32.assign(size, 77.0F);
    codes.assign(size, 77);
    for (int64_t i = 0; i < n; ++i) {
      scale.push_back(0.01F + 0.0001F * static_cast<float>(i % 50));
      bias.push_back(0.1F * normal(rng));
      zero.push_back(zeros ? static_cast<int32_t>(rng() % 256) : 0);
      for (int64_t j = 0; j < k; ++j) set(weights, i, j, zeros, rng, normal(rng));
    }
    source.f32 = f32.data();
    source.codes = codes.data();
    source.codes_unsigned = zeros;
    source.scale = scale.data();
    source.scale_stride = 1;
    source.zero_point = zeros ? zero.data() : nullptr;
    source.zero_point_stride = 1;
    source.bias = bias.data();
  }

  void set(FfnWeights weights, int64_t i, int64_t j, bool zeros, std::mt19937& rng, float v) {
    const auto at = static_cast<size_t>(i * source.stride_n + j * source.stride_k);
    double& exact = value[static_cast<size_t>(i * k + j)];
    if (weights == FfnWeights::kInt8) {
      const int code = static_cast<int>(rng() % 256) - (zeros ? 0 : 128);
      codes[at] = static_cast<uint8_t>(code);
      exact = static_cast<double>(scale[static_cast<size_t>(i)]) *
              (code - zero[static_cast<size_t>(i)]);
      return;
    }
    f32[at] = v;
    exact = static_cast<double>(
        weights == FfnWeights::kBf16 ? simd::bf16_to_f32(simd::f32_to_bf16(v)) : v);
  }
  double at(int64_t i, int64_t j) const { return value[static_cast<size_t>(i * k + j)]; }
};

double activate(FfnActivation a, double v) {
  switch (a) {
    case FfnActivation::kIdentity:
      return v;
    case FfnActivation::kGeluTanh:
      return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    case FfnActivation::kGeluErf:
      return 0.5 * v * std::erfc(-v / std::sqrt(2.0));
    case FfnActivation::kSilu:
      return v / (1 + std::exp(-v));
    case FfnActivation::kRelu:
      return std::max(v, 0.0);
    case FfnActivation::kReluSquared:
      return std::max(v, 0.0) * std::max(v, 0.0);
  }
  return v;
}

// The zeros of one row of gate values.
std::vector<double> sparsify(const SparseFfnRule& rule, std::vector<double> g) {
  const double n = static_cast<double>(g.size());
  double mean = 0;
  double squares = 0;
  for (double v : g) mean += v / n;
  for (double v : g) squares += (v - mean) * (v - mean);
  const double theta = mean + rule.z * std::sqrt(squares / std::max(n - rule.ddof, 1.0));
  std::vector<size_t> order(g.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const bool by_abs = rule.sparsifier == FfnSparsifier::kTopKAbs;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return by_abs ? std::fabs(g[a]) > std::fabs(g[b]) : g[a] > g[b];
  });
  std::vector<bool> top(g.size(), false);
  for (size_t i = 0; i < order.size() && i < static_cast<size_t>(rule.k); ++i) top[order[i]] = true;
  for (size_t i = 0; i < g.size(); ++i) {
    const double t =
        static_cast<double>(rule.thresholds != nullptr ? rule.thresholds[i] : rule.threshold);
    const double a = activate(rule.activation, g[i]);
    switch (rule.sparsifier) {
      case FfnSparsifier::kRelu:
        g[i] = std::max(g[i], 0.0);
        break;
      case FfnSparsifier::kStatTopK:
        g[i] = std::max(g[i] - theta, 0.0);
        break;
      case FfnSparsifier::kGateThreshold:
        g[i] = g[i] > t ? g[i] : 0;
        break;
      case FfnSparsifier::kActThreshold:
        g[i] = std::fabs(a) > t ? a : 0;
        break;
      case FfnSparsifier::kTopK:
      case FfnSparsifier::kTopKAbs:
        g[i] = top[i] ? g[i] : 0;
        break;
    }
  }
  return g;
}

struct Problem {
  SparseFfnShape shape;
  int64_t tokens;
  bool zeros;
  SparseFfnRule rule;
  Matrix gate, up, down;
  std::vector<float> thresholds, x_gate, x_up, residual;
  int64_t ld_gate, ld_up, ld_residual, ldy;
  bool per_tensor = false;

  Problem(const SparseFfnShape& s, int64_t t, const SparseFfnRule& r, bool with_zeros,
          unsigned salt)
      : Problem(s, t, r, with_zeros, std::mt19937(seed() + salt)) {}
  Problem(const SparseFfnShape& s, int64_t t, const SparseFfnRule& r, bool with_zeros,
          std::mt19937 rng)
      : shape(s),
        tokens(t),
        zeros(with_zeros),
        rule(r),
        gate(s.weights, s.d_ff, s.d_gate, t % 2 == 0, with_zeros, rng),
        up(s.weights, s.d_ff, std::max<int64_t>(s.d_up, 1), t % 2 == 1, with_zeros, rng),
        down(s.weights, s.d_out, s.d_ff, t % 2 == 1, with_zeros, rng),
        ld_gate(s.d_gate + 3),
        ld_up(s.d_up + 1),
        ld_residual(s.d_out + 2),
        ldy(s.d_out + 5) {
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& v, int64_t size) {
      for (int64_t i = 0; i < size; ++i) v.push_back(normal(rng));
    };
    fill(x_gate, tokens * ld_gate);
    fill(x_up, tokens * ld_up);
    fill(residual, tokens * ld_residual);
    fill(thresholds, s.d_ff);
  }

  // x as the products see it: rounded to bf16, or through 8-bit codes.
  std::vector<double> seen(const std::vector<float>& x, int64_t ld, int64_t k) const {
    std::vector<double> out;
    float low = 0;
    float high = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < k; ++i) {
        low = std::min(low, x[static_cast<size_t>(t * ld + i)]);
        high = std::max(high, x[static_cast<size_t>(t * ld + i)]);
      }
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const auto begin = x.begin() + t * ld;
      QuantParams q = dynamic_quant_params(*std::min_element(begin, begin + k),
                                           *std::max_element(begin, begin + k));
      if (per_tensor) q = dynamic_quant_params(low, high);
      for (int64_t i = 0; i < k; ++i) out.push_back(seen_value(begin[i], q));
    }
    return out;
  }
  double seen_value(float v, QuantParams q) const {
    if (shape.weights == FfnWeights::kF32) return static_cast<double>(v);
    if (shape.weights == FfnWeights::kBf16) {
      return static_cast<double>(simd::bf16_to_f32(simd::f32_to_bf16(v)));
    }
    const float code =
        std::clamp(std::nearbyint(v / q.scale) + static_cast<float>(q.zero_point), 0.0F, 255.0F);
    return static_cast<double>(q.scale) *
           static_cast<double>(code - static_cast<float>(q.zero_point));
  }

  struct Exact {
    std::vector<double> y, tolerance;  // [tokens, d_out]
    int64_t active = 0;
  };
  Exact exact() const {
    Exact e;
    const std::vector<double> xg = seen(x_gate, ld_gate, shape.d_gate);
    const std::vector<double> xu = seen(x_up, ld_up, shape.d_up);
    for (int64_t t = 0; t < tokens; ++t) exact_row(t, xg, xu, &e);
    return e;
  }
  void exact_row(int64_t t, const std::vector<double>& xg, const std::vector<double>& xu,
                 Exact* e) const {
    const auto product = [](const Matrix& w, int64_t j, const double* x) {
      double sum = static_cast<double>(w.bias[static_cast<size_t>(j)]);
      for (int64_t i = 0; i < w.k; ++i) sum += w.at(j, i) * x[i];
      return sum;
    };
    std::vector<double> h;
    for (int64_t j = 0; j < shape.d_ff; ++j) {
      h.push_back(product(gate, j, xg.data() + t * shape.d_gate));
    }
    h = sparsify(rule, h);
    double low = 0;
    double high = 0;
    for (int64_t j = 0; j < shape.d_ff; ++j) {
      double& v = h[static_cast<size_t>(j)];
      e->active += v != 0 ? 1 : 0;
      if (v != 0 && rule.sparsifier != FfnSparsifier::kActThreshold)
        v = activate(rule.activation, v);
      if (v != 0 && shape.gated()) {
        v *= activate(rule.up_activation, product(up, j, xu.data() + t * shape.d_up));
      }
      low = std::min(low, v);
      high = std::max(high, v);
    }
    // What rounding of one h costs: half a code, half a unit of bf16, or sums in float.
    const double range = std::max(high, -low);
    const double step = shape.weights == FfnWeights::kInt8   ? (high - low) / 255 * 0.51
                        : shape.weights == FfnWeights::kBf16 ? range / 256
                                                             : range * 1e-6;
    for (int64_t n = 0; n < shape.d_out; ++n) {
      double sum = static_cast<double>(down.bias[static_cast<size_t>(n)]);
      double weights = 0;
      for (int64_t j = 0; j < shape.d_ff; ++j) {
        const double v = h[static_cast<size_t>(j)];
        sum += down.at(n, j) * v;
        weights += v != 0 ? std::fabs(down.at(n, j)) : 0;
      }
      sum += static_cast<double>(residual[static_cast<size_t>(t * ld_residual + n)]);
      e->y.push_back(sum);
      e->tolerance.push_back(step * weights + 1e-4 * (1 + std::fabs(sum)));
    }
  }
};

// A packed layer and its runs.
struct Layer {
  const Problem& p;
  SparseFfn ffn;
  Aligned blob;
  Layer(const Problem& problem, int64_t variant)
      : p(problem), ffn(make_sparse_ffn_variant(p.shape, available_isas(), variant)) {
    SparseFfnSource source{p.gate.source, p.up.source, p.down.source};
    if (!p.shape.gated()) source.up = {};
    ThreadPool pool(1);
    blob = aligned(plan_sparse_ffn(&ffn, source), 0x55);
    pack_sparse_ffn(ffn, source, pool, blob.get());
  }

  SparseFfnArgs args(int64_t first, int64_t tokens) const {
    SparseFfnArgs a;
    a.tokens = tokens;
    a.weights = blob.get();
    a.x_gate.x = p.x_gate.data() + first * p.ld_gate;
    a.x_gate.ld = p.ld_gate;
    a.x_up.x = p.x_up.data() + first * p.ld_up;
    a.x_up.ld = p.ld_up;
    a.rule = p.rule;
    a.range = p.per_tensor ? FfnRange::kPerTensor : FfnRange::kPerRow;
    a.residual = p.residual.data() + first * p.ld_residual;
    a.ld_residual = p.ld_residual;
    a.ldy = p.ldy;
    return a;
  }

  // y of tokens [first, first + tokens), rows ldy apart, canaries between.
  std::vector<float> run(SparseFfnArgs a, int threads, SparseFfnStats* stats) const {
    ThreadPool pool(threads);
    const int64_t bytes = sparse_ffn_scratch_bytes(ffn, a.tokens, pool.num_threads());
    const Aligned scratch = aligned(bytes + 64, 0x7f);
    std::vector<float> y(static_cast<size_t>(a.tokens * p.ldy + 1), kCanary);
    a.y = y.data() + 1;
    a.stats = stats;
    run_sparse_ffn(ffn, a, pool, scratch.get());
    for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(scratch.get()[align_scratch(bytes) + i], 0x7f);
    for (int64_t t = 0; t < a.tokens; ++t) {
      for (int64_t n = p.shape.d_out; n < p.ldy; ++n) {
        EXPECT_EQ(y[static_cast<size_t>(1 + t * p.ldy + n)], kCanary);
      }
    }
    return y;
  }
};

void expect_close(const Problem& p, const Problem::Exact& exact, const std::vector<float>& y,
                  const std::string& what) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t n = 0; n < p.shape.d_out; ++n) {
      const auto i = static_cast<size_t>(t * p.shape.d_out + n);
      const double got = static_cast<double>(y[static_cast<size_t>(1 + t * p.ldy + n)]);
      ASSERT_NEAR(got, exact.y[i], exact.tolerance[i]) << what << " token " << t << " output " << n;
    }
  }
}

// Integer layers give the same bits on every path, float ones differ by rounding.
void expect_same(const Problem& p, const std::vector<float>& y, const std::vector<float>& other,
                 const std::string& what) {
  for (int64_t t = 0; t < p.tokens; ++t) {
    for (int64_t n = 0; n < p.shape.d_out; ++n) {
      const auto i = static_cast<size_t>(1 + t * p.ldy + n);
      const bool exact = p.shape.weights == FfnWeights::kInt8;
      ASSERT_NEAR(y[i], other[i], exact ? 0.0F : 2e-3F * (10.0F + std::fabs(other[i])))
          << what << " token " << t << " output " << n;
    }
  }
}

template <class Fn>
void for_each_variant(FfnWeights weights, Fn fn) {
  const auto list = sparse_ffn_kernels(weights);
  for (size_t i = 0; i < list.size(); ++i) {
    if (available_isas().contains(list[i].isa)) {
      fn(static_cast<int64_t>(i), std::string(list[i].name));
    }
  }
}

SparseFfnRule stat_rule(double k_of_d) {
  SparseFfnRule rule;
  rule.sparsifier = FfnSparsifier::kStatTopK;
  rule.activation = FfnActivation::kGeluTanh;
  rule.z = -gaussian_quantile(k_of_d);
  return rule;
}

// Around lines, groups of 4, units of 64 and blocks of 2048 neurons; primes.
const SparseFfnShape kShapes[] = {
    {1, 1, 1, 1, {}},     {3, 5, 63, 7, {}},        {64, 64, 64, 64, {}},   {65, 130, 65, 67, {}},
    {37, 0, 131, 33, {}}, {129, 127, 259, 521, {}}, {16, 24, 2049, 100, {}}};

TEST(SparseFfn, EveryVariantMatchesDouble) {
  unsigned salt = 0;
  for (FfnWeights weights : kWeights) {
    for (SparseFfnShape shape : kShapes) {
      shape.weights = weights;
      for (int64_t tokens : {1, 3, 8, 33}) {
        if (tokens == 33 && shape.d_ff > 300) continue;  // slow
        const Problem p(shape, tokens, stat_rule(0.1), tokens % 3 == 0, ++salt);
        const Problem::Exact exact = p.exact();
        for_each_variant(weights, [&](int64_t variant, const std::string& name) {
          const Layer layer(p, variant);
          for (FfnPath path :
               {FfnPath::kSparse, FfnPath::kTokenLists, FfnPath::kDense, FfnPath::kAuto}) {
            SparseFfnArgs args = layer.args(0, tokens);
            args.path = path;
            SparseFfnStats stats;
            const std::vector<float> y = layer.run(args, 1, &stats);
            expect_close(p, exact, y, name + " d_ff " + std::to_string(shape.d_ff));
            EXPECT_LE(std::abs(stats.active - exact.active), 1) << name;  // one on the threshold
            const FfnPath few = path == FfnPath::kTokenLists ? FfnPath::kSparse : path;
            EXPECT_TRUE(path == FfnPath::kAuto || stats.path == (tokens < 9 ? few : path));
          }
        });
      }
    }
  }
}

std::vector<SparseFfnRule> every_rule(const float* thresholds) {
  using S = FfnSparsifier;
  using A = FfnActivation;
  std::vector<SparseFfnRule> rules;
  const auto add = [&](S s, A a, A up, float t, int64_t k) {
    SparseFfnRule rule;
    rule.sparsifier = s;
    rule.activation = a;
    rule.up_activation = up;
    rule.threshold = t;
    rule.k = k;
    rule.ddof = 1;
    rule.z = 1;
    rules.push_back(rule);
  };
  add(S::kRelu, A::kIdentity, A::kIdentity, 0, 0);
  add(S::kRelu, A::kReluSquared, A::kIdentity, 0, 0);
  add(S::kRelu, A::kIdentity, A::kRelu, 0, 0);
  add(S::kStatTopK, A::kGeluErf, A::kIdentity, 0, 0);
  add(S::kStatTopK, A::kSilu, A::kSilu, 0, 0);
  add(S::kGateThreshold, A::kRelu, A::kIdentity, 1.5F, 0);
  add(S::kActThreshold, A::kSilu, A::kIdentity, 0.7F, 0);
  add(S::kTopK, A::kRelu, A::kIdentity, 0, 13);
  add(S::kTopKAbs, A::kIdentity, A::kIdentity, 0, 13);
  add(S::kGateThreshold, A::kGeluTanh, A::kIdentity, 0, 0);
  rules.back().thresholds = thresholds;
  rules.back().strict = true;
  add(S::kActThreshold, A::kGeluTanh, A::kGeluTanh, 0, 0);
  rules.back().thresholds = thresholds;
  return rules;
}

TEST(SparseFfn, EveryRuleMatchesDouble) {
  unsigned salt = 1000;
  for (FfnWeights weights : kWeights) {
    const SparseFfnShape shape{40, 72, 203, 65, weights};
    std::vector<float> thresholds;
    for (int64_t j = 0; j < shape.d_ff; ++j) thresholds.push_back(0.02F * static_cast<float>(j));
    for (const SparseFfnRule& rule : every_rule(thresholds.data())) {
      for (int64_t tokens : {1, 2}) {
        const Problem p(shape, tokens, rule, false, ++salt);
        const Problem::Exact exact = p.exact();
        for_each_variant(weights, [&](int64_t variant, const std::string& name) {
          const Layer layer(p, variant);
          SparseFfnStats stats;
          SparseFfnArgs args = layer.args(0, tokens);
          args.path = FfnPath::kSparse;
          const std::vector<float> y = layer.run(args, 1, &stats);
          const std::string what =
              name + " rule " + std::to_string(static_cast<int>(rule.sparsifier));
          expect_close(p, exact, y, what);
          EXPECT_LE(std::abs(stats.active - exact.active), 1) << what;  // one on the threshold
        });
      }
    }
  }
}

TEST(SparseFfn, ThreadsGiveTheSameBits) {
  unsigned salt = 2000;
  for (FfnWeights weights : kWeights) {
    const SparseFfnShape shape{512, 640, 3001, 700, weights};
    for (int64_t tokens : {1, 4}) {
      const Problem p(shape, tokens, stat_rule(0.2), false, ++salt);
      for_each_variant(weights, [&](int64_t variant, const std::string& name) {
        if (name.ends_with("_ref") && tokens > 1) return;  // slow
        const Layer layer(p, variant);
        const SparseFfnArgs args = layer.args(0, tokens);
        const std::vector<float> one = layer.run(args, 1, nullptr);
        for (int threads : {2, 5}) EXPECT_EQ(layer.run(args, threads, nullptr), one) << name;
      });
    }
  }
}

TEST(SparseFfn, IntegerPathsGiveTheSameBits) {
  for (bool zeros : {false, true}) {
    const SparseFfnShape shape{96, 160, 700, 300, FfnWeights::kInt8};
    for (int64_t tokens : {1, 2, 4, 8, 35}) {
      const Problem p(shape, tokens, stat_rule(0.1), zeros, 3000U + static_cast<unsigned>(tokens));
      for_each_variant(FfnWeights::kInt8, [&](int64_t variant, const std::string& name) {
        const Layer layer(p, variant);
        SparseFfnArgs args = layer.args(0, tokens);
        args.path = FfnPath::kSparse;
        const std::vector<float> sparse = layer.run(args, 1, nullptr);
        args.path = FfnPath::kDense;
        EXPECT_EQ(layer.run(args, 1, nullptr), sparse) << name;
        for (int64_t t = 0; t < tokens; ++t) {
          SparseFfnArgs single = layer.args(t, 1);
          single.path = FfnPath::kSparse;
          const std::vector<float> y = layer.run(single, 1, nullptr);
          const auto row = sparse.begin() + 1 + t * p.ldy;
          EXPECT_TRUE(std::equal(row, row + shape.d_out, y.begin() + 1)) << name << " token " << t;
        }
      });
    }
  }
}

TEST(SparseFfn, TokensTogetherMatchTokensAlone) {
  for (FfnWeights weights : {FfnWeights::kF32, FfnWeights::kBf16}) {
    const SparseFfnShape shape{96, 160, 700, 300, weights};
    for (int64_t tokens : {2, 4, 8}) {
      const Problem p(shape, tokens, stat_rule(0.1), false, 4000U + static_cast<unsigned>(tokens));
      for_each_variant(weights, [&](int64_t variant, const std::string& name) {
        const Layer layer(p, variant);
        const std::vector<float> y = layer.run(layer.args(0, tokens), 1, nullptr);
        for (int64_t t = 0; t < tokens; ++t) {
          const std::vector<float> alone = layer.run(layer.args(t, 1), 1, nullptr);
          for (int64_t n = 0; n < shape.d_out; ++n) {
            const float want = alone[static_cast<size_t>(1 + n)];
            ASSERT_NEAR(y[static_cast<size_t>(1 + t * p.ldy + n)], want,
                        1e-3F * (10.0F + std::fabs(want)))
                << name;
          }
        }
      });
    }
  }
}

TEST(SparseFfn, NoneOneAndAllActive) {
  for (FfnWeights weights : kWeights) {
    const SparseFfnShape shape{33, 70, 150, 90, weights};
    for (int64_t k : {0, 1, 150}) {
      SparseFfnRule rule;
      rule.sparsifier = FfnSparsifier::kTopK;
      rule.k = k;
      const Problem p(shape, 1, rule, false, 5000U + static_cast<unsigned>(k));
      const Problem::Exact exact = p.exact();
      for_each_variant(weights, [&](int64_t variant, const std::string& name) {
        const Layer layer(p, variant);
        SparseFfnArgs args = layer.args(0, 1);
        args.path = FfnPath::kSparse;
        SparseFfnStats stats;
        expect_close(p, exact, layer.run(args, 2, &stats), name);
        EXPECT_EQ(stats.active, k);
        EXPECT_EQ(stats.bytes_touched, sparse_ffn_bytes(layer.ffn, k));
        args.path = FfnPath::kAuto;
        layer.run(args, 1, &stats);
        EXPECT_EQ(stats.path, k == 150 ? FfnPath::kDense : FfnPath::kSparse);
      });
    }
  }
}

TEST(SparseFfn, GivenCodesAndOneRangeForAllRows) {
  const SparseFfnShape shape{50, 70, 150, 90, FfnWeights::kInt8};
  Problem p(shape, 3, stat_rule(0.2), true, 6000);
  p.per_tensor = true;
  const Problem::Exact exact = p.exact();
  for_each_variant(FfnWeights::kInt8, [&](int64_t variant, const std::string& name) {
    const Layer layer(p, variant);
    SparseFfnArgs args = layer.args(0, 3);
    const std::vector<float> y = layer.run(args, 1, nullptr);
    // The ranges of rows differ, so the tolerance of exact() holds for the widest only.
    for (int64_t n = 0; n < shape.d_out; ++n) {
      ASSERT_NEAR(y[static_cast<size_t>(1 + n)], exact.y[static_cast<size_t>(n)],
                  8 * exact.tolerance[static_cast<size_t>(n)])
          << name;
    }
    // The same from codes that the caller made.
    std::vector<uint8_t> gate(static_cast<size_t>(3 * shape.d_gate));
    std::vector<uint8_t> up(static_cast<size_t>(3 * shape.d_up));
    float scale[2];
    int32_t zero[2];
    alignas(64) char scratch[64];
    const auto inline_for = [](int64_t n, int64_t, const auto& fn) { fn(0, n, 0); };
    quantize_per_tensor(
        *layer.ffn.quantize,
        {args.x_gate.x, args.x_gate.ld, 3, shape.d_gate, gate.data(), shape.d_gate, scale, zero}, 1,
        scratch, inline_for);
    quantize_per_tensor(
        *layer.ffn.quantize,
        {args.x_up.x, args.x_up.ld, 3, shape.d_up, up.data(), shape.d_up, scale + 1, zero + 1}, 1,
        scratch, inline_for);
    args.x_gate = {nullptr, shape.d_gate, gate.data(), scale, zero, 0};
    args.x_up = {nullptr, shape.d_up, up.data(), scale + 1, zero + 1, 0};
    EXPECT_EQ(layer.run(args, 1, nullptr), y) << name;
  });
}

// Lists of each token: around groups of 256 and blocks of 1024 neurons, pieces of 256 outputs, with
// and without the copy of down rows; the integer path gives the bits of the dense one.
TEST(SparseFfn, TokenListsMatchTheDensePath) {
  unsigned salt = 7000;
  for (FfnWeights weights : kWeights) {
    for (const SparseFfnShape& of :
         {SparseFfnShape{17, 70, 255, 31, {}}, SparseFfnShape{33, 0, 1024, 257, {}},
          SparseFfnShape{16, 24, 1025, 256, {}}, SparseFfnShape{16, 24, 2311, 520, {}}}) {
      SparseFfnShape shape = of;
      shape.weights = weights;
      for (int64_t tokens : {9, 49}) {
        for (double density : {0.0, 0.08, 0.5, 1.0}) {
          SparseFfnRule rule = stat_rule(0.08);
          if (density != 0.08) rule.sparsifier = FfnSparsifier::kTopK;
          rule.k = static_cast<int64_t>(density * static_cast<double>(shape.d_ff));
          Problem p(shape, tokens, rule, tokens == 49, ++salt);
          p.per_tensor = density == 0.5;
          for_each_variant(weights, [&](int64_t variant, const std::string& name) {
            if (name.ends_with("_ref")) return;  // slow
            const Layer layer(p, variant);
            SparseFfnArgs args = layer.args(0, tokens);
            args.path = FfnPath::kDense;
            SparseFfnStats dense_stats;
            const std::vector<float> dense = layer.run(args, 1, &dense_stats);
            args.path = FfnPath::kTokenLists;
            SparseFfnStats stats;
            const std::vector<float> lists = layer.run(args, 1, &stats);
            EXPECT_EQ(stats.path, FfnPath::kTokenLists);
            EXPECT_EQ(stats.active, dense_stats.active);
            EXPECT_EQ(layer.run(args, 2, nullptr), lists) << name;
            expect_same(p, lists, dense, name);
            args.path = FfnPath::kAuto;
            const std::vector<float> chosen = layer.run(args, 2, &stats);
            EXPECT_NE(stats.path, density > 0.4 ? FfnPath::kTokenLists : FfnPath::kDense) << name;
            expect_same(p, chosen, dense, name);
          });
        }
      }
    }
  }
}

TEST(SparseFfn, TokenListsOfEveryRule) {
  unsigned salt = 8000;
  for (FfnWeights weights : kWeights) {
    const SparseFfnShape shape{40, 72, 603, 65, weights};
    std::vector<float> thresholds;
    for (int64_t j = 0; j < shape.d_ff; ++j) thresholds.push_back(0.02F * static_cast<float>(j));
    for (const SparseFfnRule& rule : every_rule(thresholds.data())) {
      const Problem p(shape, 11, rule, false, ++salt);
      const Problem::Exact exact = p.exact();
      for_each_variant(weights, [&](int64_t variant, const std::string& name) {
        const Layer layer(p, variant);
        SparseFfnArgs args = layer.args(0, 11);
        args.path = FfnPath::kTokenLists;
        SparseFfnStats stats;
        const std::string what =
            name + " rule " + std::to_string(static_cast<int>(rule.sparsifier));
        expect_close(p, exact, layer.run(args, 1, &stats), what);
        EXPECT_LE(std::abs(stats.active - exact.active), 1) << what;  // one on the threshold
      });
    }
  }
}

// The h of a static quantisation, whose zero point may lie at either end.
TEST(SparseFfn, TokenListsWithAGivenRangeOfH) {
  const SparseFfnShape shape{50, 70, 350, 90, FfnWeights::kInt8};
  const Problem p(shape, 12, stat_rule(0.2), true, 9000);
  for_each_variant(FfnWeights::kInt8, [&](int64_t variant, const std::string& name) {
    const Layer layer(p, variant);
    for (int32_t zero : {0, 100, 255}) {
      SparseFfnArgs args = layer.args(0, 12);
      args.h_scale = 0.05F;
      args.h_zero_point = zero;
      args.path = FfnPath::kSparse;
      const std::vector<float> together = layer.run(args, 1, nullptr);
      args.path = FfnPath::kTokenLists;
      EXPECT_EQ(layer.run(args, 1, nullptr), together) << name << " zero point " << zero;
    }
  });
}

TEST(SparseFfn, RefusesWhatItCannotHold) {
  EXPECT_EQ(sparse_ffn_refusal({8, 8, 8, 8, FfnWeights::kInt8}), nullptr);
  EXPECT_EQ(sparse_ffn_refusal({8, 0, 8, 8, FfnWeights::kF32}), nullptr);
  EXPECT_NE(sparse_ffn_refusal({0, 0, 8, 8, FfnWeights::kF32}), nullptr);
  EXPECT_NE(sparse_ffn_refusal({8, 8, 70000, 8, FfnWeights::kInt8}), nullptr);
  EXPECT_EQ(sparse_ffn_refusal({8, 8, 70000, 8, FfnWeights::kBf16}), nullptr);
}

}  // namespace
}  // namespace sprun::kernels
