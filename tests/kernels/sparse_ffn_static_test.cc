// Layers of statically quantised graphs: codes in, values rounded to codes on the way. All scales are powers of two, so
// that every float is exact and each variant, path and number of tokens must give the bits of the reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/sparse_ffn/requant.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "runtime/base/thread_pool.h"
#include "tests/support/aligned.h"
#include "tests/support/draw.h"

namespace sprun::kernels {
namespace {

using testing_support::aligned;

constexpr float kXScale = 1.0F / 16, kWScale = 1.0F / 64, kHScale = 1.0F / 4;
constexpr int32_t kXZero = 7, kHZero = 100;

float round_to_codes(float v, float scale, int32_t zero) {
  const float code = std::nearbyint(v / scale) + static_cast<float>(zero);
  return (std::clamp(code, 0.0F, 255.0F) - static_cast<float>(zero)) * scale;
}

struct StaticLayer {
  int64_t d, d_ff, d_out, tokens;
  bool gated, codes_signed;
  std::vector<int8_t> weights[3];
  std::vector<float> scales, bias[3], offset, residual;
  std::vector<uint8_t> x;
  FfnRequant gate_requant, up_requant;

  StaticLayer(int64_t in, int64_t ff, int64_t out, int64_t rows, bool with_up, bool s8)
      : d(in), d_ff(ff), d_out(out), tokens(rows), gated(with_up), codes_signed(s8) {
    std::mt19937 rng(testing_support::seed_or(77U));
    const auto draw = [&rng](int low, int high) { return low + static_cast<int>(rng() % static_cast<unsigned>(high - low + 1)); };
    const int64_t sizes[] = {d_ff * d, d_ff * d, d_out * d_ff}, outputs[] = {d_ff, d_ff, d_out};
    for (int m = 0; m < 3; ++m) {
      for (int64_t i = 0; i < sizes[m]; ++i) weights[m].push_back(static_cast<int8_t>(draw(-128, 127)));
      for (int64_t i = 0; i < outputs[m]; ++i) bias[m].push_back(static_cast<float>(draw(-2000, 2000)) / 1024);
    }
    for (int64_t i = 0; i < std::max(d_ff, d_out); ++i) scales.push_back(i % 2 == 0 ? kWScale : kWScale / 2);
    for (int64_t i = 0; i < d_ff; ++i) offset.push_back(static_cast<float>(draw(-8, 8)) / 4);
    for (int64_t i = 0; i < tokens * d_out; ++i) residual.push_back(static_cast<float>(draw(-99, 99)) / 8);
    for (int64_t i = 0; i < tokens * d; ++i) x.push_back(static_cast<uint8_t>(draw(0, 255)));
    gate_requant = {{{0.5F, 140, nullptr}, {0, 0, offset.data()}, {0.25F, 200, nullptr}}, 3};
    up_requant = {{{1.0F, 120, nullptr}, {0, 0, offset.data()}}, 2};
  }

  float linear(int m, const std::vector<int32_t>& row, int64_t n, float scale) const {
    int32_t sum = 0;
    const auto k = static_cast<int64_t>(row.size());
    for (int64_t i = 0; i < k; ++i) sum += row[static_cast<size_t>(i)] * weights[m][static_cast<size_t>(n * k + i)];
    return static_cast<float>(sum) * (scale * scales[static_cast<size_t>(n)]) + bias[m][static_cast<size_t>(n)];
  }

  float hidden(const std::vector<int32_t>& row, int64_t j) const {
    const float at = offset[static_cast<size_t>(j)];
    float g = round_to_codes(linear(0, row, j, kXScale), 0.5F, 140);
    g = std::max(round_to_codes(g + at, 0.25F, 200), 0.0F);
    return gated ? g * (round_to_codes(linear(1, row, j, kXScale), 1.0F, 120) + at) : g;
  }

  std::vector<float> expected() const {
    std::vector<float> y;
    const int32_t flip = codes_signed ? 128 : 0;  // the same bits, read as s8
    for (int64_t t = 0; t < tokens; ++t) {
      std::vector<int32_t> row, h;
      for (int64_t i = 0; i < d; ++i) {
        const uint8_t code = x[static_cast<size_t>(t * d + i)];
        row.push_back((codes_signed ? static_cast<int8_t>(code) + flip : code) - kXZero - flip);
      }
      for (int64_t j = 0; j < d_ff; ++j) {
        h.push_back(static_cast<int32_t>(round_to_codes(hidden(row, j), kHScale, kHZero) / kHScale));
      }
      for (int64_t n = 0; n < d_out; ++n) y.push_back(linear(2, h, n, kHScale) + residual[static_cast<size_t>(t * d_out + n)]);
    }
    return y;
  }

  SparseFfnSource source() const {
    SparseFfnMatrix all[3];
    const int64_t inputs[] = {d, d, d_ff};
    for (int m = 0; m < 3; ++m) {
      all[m].codes = weights[m].data();
      all[m].stride_n = inputs[m], all[m].stride_k = 1;
      all[m].scale = scales.data(), all[m].scale_stride = 1;
      all[m].bias = bias[m].data();
    }
    return {all[0], gated ? all[1] : SparseFfnMatrix{}, all[2]};
  }

  std::vector<float> run(int64_t variant, FfnPath path, int threads) const {
    const SparseFfnShape shape = {d, gated ? d : 0, d_ff, d_out, FfnWeights::kInt8};
    SparseFfn ffn = make_sparse_ffn_variant(shape, available_isas(), variant);
    ThreadPool pool(threads);
    const auto blob = aligned(plan_sparse_ffn(&ffn, source()), 0x55);
    pack_sparse_ffn(ffn, source(), pool, blob.get());
    const auto scratch = aligned(sparse_ffn_scratch_bytes(ffn, tokens, threads), 0x7f);
    std::vector<float> y(static_cast<size_t>(tokens * d_out));
    SparseFfnArgs a;
    a.tokens = tokens;
    a.weights = blob.get();
    a.x_gate.ld = d, a.x_gate.codes = x.data(), a.x_gate.codes_signed = codes_signed;
    a.x_gate.scale = &kXScale, a.x_gate.zero_point = &kXZero;
    a.x_up = a.x_gate;
    a.h_scale = kHScale, a.h_zero_point = kHZero;
    a.gate_requant = &gate_requant, a.up_requant = &up_requant;
    a.residual = residual.data(), a.ld_residual = d_out;
    a.y = y.data(), a.ldy = d_out;
    a.path = path;
    run_sparse_ffn(ffn, a, pool, scratch.get());
    return y;
  }
};

TEST(SparseFfnStatic, EveryVariantAndPathGivesTheBitsOfTheReference) {
  for (bool gated : {false, true}) {
    for (int64_t tokens : {1, 3, 8, 9, 33}) {
      const StaticLayer layer(37, 261, 67, tokens, gated, tokens % 2 == 0);
      const std::vector<float> expected = layer.expected();
      const auto list = sparse_ffn_kernels(FfnWeights::kInt8);
      for (size_t v = 0; v < list.size(); ++v) {
        if (!available_isas().contains(list[v].isa)) continue;
        for (FfnPath path : {FfnPath::kAuto, FfnPath::kSparse, FfnPath::kTokenLists, FfnPath::kDense}) {
          EXPECT_EQ(layer.run(static_cast<int64_t>(v), path, tokens == 3 ? 2 : 1), expected)
              << list[v].name << " tokens " << tokens << " path " << static_cast<int>(path) << " gated " << gated;
        }
      }
    }
  }
}

TEST(SparseFfnStatic, StagesOfListedNeurons) {
  const QuantizeRowsKernel& quantize = *select(quantize_rows_kernels(), available_isas()).kernel;
  std::vector<float> offset(2000);
  for (size_t i = 0; i < offset.size(); ++i) offset[i] = static_cast<float>(i) / 512;
  const FfnRequant requant = {{{0, 0, offset.data()}, {0.125F, 3, nullptr}}, 2};
  for (int64_t n : {1, 63, 512, 513, 1031}) {
    std::vector<float> v(static_cast<size_t>(n)), listed;
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i) {
      v[static_cast<size_t>(i)] = static_cast<float>(i % 41) - 20.5F;
      ids.push_back(static_cast<int32_t>(i + 5));
    }
    v[0] = std::nanf("");
    listed = v;
    std::vector<float> plain = v;
    requantize(quantize, requant, 5, nullptr, plain.data(), n);
    requantize(quantize, requant, 0, ids.data(), listed.data(), n);
    EXPECT_EQ(plain, listed);
    EXPECT_EQ(plain[0], -0.375F);  // NaN is code 0
    for (size_t i = 1; i < plain.size(); ++i) EXPECT_EQ(plain[i], round_to_codes(v[i] + offset[i + 5], 0.125F, 3)) << i;
  }
}

// No gate layer: its values are a mask, every value of which that is not zero is taken, negative ones too.
TEST(SparseFfnStatic, GivenGateValues) {
  constexpr int64_t kD = 37, kFf = 301, kOut = 67;
  std::mt19937 rng(testing_support::seed_or(5U));
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto draw = [&](int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& f : v) f = uniform(rng);
    return v;
  };
  const std::vector<float> up = draw(kFf * kD), down = draw(kOut * kFf), bias = draw(kFf);
  for (int64_t tokens : {1, 3, 9, 40}) {
    const std::vector<float> x = draw(tokens * kD);
    std::vector<float> mask = draw(tokens * kFf);
    for (float& v : mask) v = std::abs(v) < 0.8F ? 0.0F : v;
    std::vector<double> want(static_cast<size_t>(tokens * kOut));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t j = 0; j < kFf; ++j) {
        double u = static_cast<double>(bias[static_cast<size_t>(j)]);
        for (int64_t i = 0; i < kD; ++i) u += static_cast<double>(x[static_cast<size_t>(t * kD + i)] * up[static_cast<size_t>(j * kD + i)]);
        const double h = static_cast<double>(mask[static_cast<size_t>(t * kFf + j)]) * std::max(u, 0.0);
        for (int64_t n = 0; n < kOut; ++n) want[static_cast<size_t>(t * kOut + n)] += h * static_cast<double>(down[static_cast<size_t>(n * kFf + j)]);
      }
    }
    const auto list = sparse_ffn_kernels(FfnWeights::kF32);
    for (size_t v = 0; v < list.size(); ++v) {
      if (!available_isas().contains(list[v].isa)) continue;
      for (FfnPath path : {FfnPath::kSparse, FfnPath::kTokenLists, FfnPath::kDense}) {
        SparseFfn ffn = make_sparse_ffn_variant({0, kD, kFf, kOut, FfnWeights::kF32}, available_isas(), static_cast<int64_t>(v));
        SparseFfnSource source;
        source.up.f32 = up.data(), source.up.stride_n = kD, source.up.stride_k = 1, source.up.bias = bias.data();
        source.down.f32 = down.data(), source.down.stride_n = kFf, source.down.stride_k = 1;
        ThreadPool pool(1);
        const auto blob = aligned(plan_sparse_ffn(&ffn, source), 0x55);
        pack_sparse_ffn(ffn, source, pool, blob.get());
        const auto scratch = aligned(sparse_ffn_scratch_bytes(ffn, tokens, 1), 0x7f);
        std::vector<float> y(want.size());
        SparseFfnArgs a;
        a.tokens = tokens, a.weights = blob.get(), a.path = path;
        a.gate_values = mask.data(), a.ld_gate_values = kFf;
        a.x_up.x = x.data(), a.x_up.ld = kD;
        a.rule.sparsifier = FfnSparsifier::kGateThreshold, a.rule.up_activation = FfnActivation::kRelu;
        a.rule.threshold = -std::numeric_limits<float>::infinity();
        a.y = y.data(), a.ldy = kOut;
        run_sparse_ffn(ffn, a, pool, scratch.get());
        for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(static_cast<double>(y[i]), want[i], 2e-4) << list[v].name << " tokens " << tokens;
      }
    }
  }
}

}  // namespace
}  // namespace sprun::kernels
