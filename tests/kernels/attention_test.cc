// Every attention kernel against the reference: layouts, odd sizes, masks, bands, groups, decode, canaries.
#include "kernels/attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kCanary = 12345.5F;
constexpr int64_t kPad = 40;  // floats around and between rows

enum class Layout { kBshd, kBhsd, kBhds, kPacked };

struct Case {
  std::string name;
  int64_t batch = 1, heads = 2, kv_heads = 2, q_len = 5, kv_len = 7, head_dim = 16, v_dim = 16;
  Layout q = Layout::kBshd, k = Layout::kBshd, v = Layout::kBshd, out = Layout::kBshd;
  float softcap = 0;
  bool causal = false;
  int64_t left = -1, right = -1, offset = 0;
  float fill = -kInf;
  bool key_bias = false, lengths = false, sink = false;
  MaskKind mask = MaskKind::kNone;
  int mask_axes = 0xf;            // bit 0 batch, 1 head, 2 query, 3 key: set = the mask varies along it
  float masked = -kInf;           // what about a third of the mask is
  bool mask_whole_rows = false;   // some rows have nothing left
  float magnitude = 1;
};

std::vector<float> random_floats(std::mt19937& rng, int64_t n, float magnitude) {
  std::normal_distribution<float> normal(0.0F, magnitude);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(rng);
  return values;
}

// A [B, H, S, D] operand inside a larger buffer of canaries, at an odd offset.
struct Operand {
  std::vector<float> buffer;
  AttentionStrides strides;
  int64_t batch, heads, rows, dim;

  Operand(Layout layout, int64_t b, int64_t h, int64_t s, int64_t d) : batch(b), heads(h), rows(s), dim(d) {
    switch (layout) {
      case Layout::kBshd: strides = {s * (h * d + kPad), d, h * d + kPad, 1}; break;
      case Layout::kPacked: strides = {s * 3 * h * d + kPad, 3 * d, 3 * h * d, 1}; break;
      case Layout::kBhsd: strides = {h * s * (d + 3), s * (d + 3), d + 3, 1}; break;
      case Layout::kBhds: strides = {h * d * (s + 1), d * (s + 1), 1, s + 1}; break;
    }
    buffer.assign(static_cast<size_t>(b * std::max(strides.batch, int64_t{1}) + s * strides.row + 2 * kPad + 1),
                  kCanary);
  }
  float* data() { return buffer.data() + kPad + 1; }
  float& at(int64_t b, int64_t h, int64_t s, int64_t d) {
    return data()[b * strides.batch + h * strides.head + s * strides.row + d * strides.dim];
  }
  template <class Fn>
  void for_each(const Fn& fn) {
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t s = 0; s < rows; ++s) {
          for (int64_t d = 0; d < dim; ++d) fn(at(b, h, s, d));
        }
      }
    }
  }
  void fill(std::mt19937& rng, float magnitude) {
    std::normal_distribution<float> normal(0.0F, magnitude);
    for_each([&](float& x) { x = normal(rng); });
  }
};

// Everything a case points at.
struct Problem {
  Operand q, k, v, out, expected;
  std::vector<float> mask, key_bias, sink;
  std::vector<uint8_t> bytes;
  std::vector<int64_t> lengths, offsets;
  AttentionArgs args;

  Problem(const Case& c, uint32_t seed)
      : q(c.q, c.batch, c.heads, c.q_len, c.head_dim),
        k(c.k, c.batch, c.kv_heads, c.kv_len, c.head_dim),
        v(c.v, c.batch, c.kv_heads, c.kv_len, c.v_dim),
        out(c.out, c.batch, c.heads, c.q_len, c.v_dim),
        expected(c.out, c.batch, c.heads, c.q_len, c.v_dim) {
    std::mt19937 rng(seed);
    q.fill(rng, c.magnitude), k.fill(rng, c.magnitude), v.fill(rng, 1.0F);
    args.batch = c.batch, args.heads = c.heads, args.kv_heads = c.kv_heads;
    args.q_len = c.q_len, args.kv_len = c.kv_len, args.head_dim = c.head_dim, args.v_dim = c.v_dim;
    args.q = q.data(), args.k = k.data(), args.v = v.data(), args.out = out.data();
    args.q_strides = q.strides, args.k_strides = k.strides, args.v_strides = v.strides, args.out_strides = out.strides;
    args.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
    args.softcap = c.softcap, args.causal = c.causal, args.frontier_fill = c.fill;
    args.left_window = c.left, args.right_window = c.right, args.offset = c.offset;
    set_mask(c, rng);
    set_keys(c, rng);
  }

  void set_mask(const Case& c, std::mt19937& rng) {
    args.mask_kind = c.mask;
    const auto axis = [&](int bit, int64_t n) { return (c.mask_axes >> bit & 1) != 0 ? n : 1; };
    const int64_t nb = axis(0, c.batch), nh = axis(1, c.heads), nq = axis(2, c.q_len), nk = axis(3, c.kv_len);
    const int64_t n = nb * nh * nq * nk;
    args.mask_batch = nb == 1 ? 0 : nh * nq * nk, args.mask_head = nh == 1 ? 0 : nq * nk;
    args.mask_row = nq == 1 ? 0 : nk, args.mask_key = nk == 1 ? 0 : 1;
    mask = random_floats(rng, n, 1.0F);
    bytes.assign(static_cast<size_t>(n), 1);
    for (int64_t i = 0; i < n; ++i) {
      const bool whole_row = c.mask_whole_rows && i / nk % 3 == 0;
      if (!whole_row && rng() % 3 != 0) continue;
      mask[static_cast<size_t>(i)] = c.masked;
      bytes[static_cast<size_t>(i)] = 0;
    }
    args.mask = c.mask == MaskKind::kAllow ? static_cast<const void*>(bytes.data()) : mask.data();
  }

  void set_keys(const Case& c, std::mt19937& rng) {
    if (c.key_bias) {
      key_bias = random_floats(rng, c.batch * c.kv_len, 1.0F);
      for (float& x : key_bias) x = rng() % 4 == 0 ? c.masked : x;
      args.key_bias = key_bias.data();
      args.key_bias_stride = c.kv_len;
    }
    if (c.lengths) {
      for (int64_t b = 0; b < c.batch; ++b) {
        lengths.push_back(static_cast<int64_t>(rng() % static_cast<uint32_t>(c.kv_len + 1)));
        offsets.push_back(lengths.back() - c.q_len);
      }
      args.batch_kv_len = lengths.data();
      args.batch_offset = offsets.data();
    }
    if (c.sink) {
      sink = random_floats(rng, c.heads, 1.0F);
      args.sink = sink.data();
    }
  }
};

PackedBlob scratch_for(const AttentionArgs& args, int threads) {
  return allocate_blob(std::max<int64_t>(attention_scratch_bytes(args, threads), 64)).value();
}

bool same(float a, float b, float tolerance) {
  return (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= tolerance * std::max(1.0F, std::abs(b));
}

void expect_same(Problem& p, const std::string& what, float tolerance) {
  int64_t wrong = 0;
  float worst = 0;
  for (size_t i = 0; i < p.out.buffer.size(); ++i) {  // canaries too
    if (same(p.out.buffer[i], p.expected.buffer[i], tolerance)) continue;
    ++wrong;
    worst = std::max(worst, std::abs(p.out.buffer[i] - p.expected.buffer[i]));
  }
  EXPECT_EQ(wrong, 0) << what << ", worst difference " << worst;
}

// Q, K and V of deviation m, m and 1 lose up to 2^-9 of each element: a score, a sum of D products with deviation
// m^2 sqrt(D) and a scale of 1 / sqrt(D), moves by some 2^-9 m^2 times the 4 deviations of extreme cases; a weight by
// that much and 2^-9 of itself, values, of up to 5, by 2^-9.
float bf16_tolerance(const Case& c) {
  constexpr float kStep = 1.0F / 512;
  return kStep * (4.0F * c.magnitude * c.magnitude + 2.0F) * 4.0F;
}

void check(const Case& c) {
  ThreadPool pool(2);
  for (uint32_t seed = 1; seed <= 2; ++seed) {
    Problem p(c, seed);
    AttentionArgs reference = p.args;
    reference.out = p.expected.data();
    attention_reference(reference, pool);
    const auto run = [&](const KernelInfo<AttentionKernel>& info, float tolerance) {
      if (!available_isas().contains(info.isa)) return;
      std::fill(p.out.buffer.begin(), p.out.buffer.end(), kCanary);
      p.args.kernel = info.kernel;
      const PackedBlob scratch = scratch_for(p.args, pool.num_threads());
      attention(p.args, pool, scratch.data.get());
      expect_same(p, c.name + " " + std::string(info.name) + " seed " + std::to_string(seed), tolerance);
    };
    for (const auto& info : attention_kernels()) run(info, 2e-5F * c.magnitude);
    for (const auto& info : attention_bf16_kernels()) run(info, bf16_tolerance(c));
  }
}

void check_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) check(c);
}

TEST(Attention, AgreesForSizesAroundTheTiles) {
  for (const int64_t q_len : {9, 15, 16, 17, 31, 33, 47, 48, 49, 97}) {
    for (const int64_t kv_len : {1, 7, 8, 63, 64, 65, 131}) {
      check({.name = "q" + std::to_string(q_len) + " k" + std::to_string(kv_len), .q_len = q_len, .kv_len = kv_len});
    }
  }
}

TEST(Attention, AgreesForOddHeadSizes) {
  for (const int64_t head_dim : {1, 3, 8, 17, 40, 64, 80, 129}) {
    for (const int64_t v_dim : {1, 7, 16, 33, 64, 72}) {
      const std::string name = "d" + std::to_string(head_dim) + " v" + std::to_string(v_dim);
      check({.name = name, .q_len = 19, .kv_len = 21, .head_dim = head_dim, .v_dim = v_dim});
      check({.name = name + " decode", .q_len = 1, .kv_len = 70, .head_dim = head_dim, .v_dim = v_dim});
    }
  }
}

TEST(Attention, ReadsEveryLayout) {
  for (const Layout q : {Layout::kBshd, Layout::kBhsd, Layout::kPacked}) {
    for (const Layout k : {Layout::kBshd, Layout::kBhsd, Layout::kBhds, Layout::kPacked}) {
      for (const Layout out : {Layout::kBshd, Layout::kBhsd}) {
        check({.name = "layouts", .batch = 2, .q_len = 20, .kv_len = 20, .q = q, .k = k, .v = q, .out = out});
        check({.name = "layouts decode", .batch = 2, .q_len = 2, .kv_len = 20, .q = q, .k = k, .v = q, .out = out});
      }
    }
  }
}

TEST(Attention, AgreesForBands) {
  for (const int64_t q_len : {1, 4, 50}) {
    const std::string n = " q" + std::to_string(q_len);
    check_all({{.name = "causal" + n, .q_len = q_len, .kv_len = 50, .causal = true},
               {.name = "causal offset" + n, .q_len = q_len, .kv_len = 150, .causal = true, .offset = 100},
               {.name = "causal early" + n, .q_len = q_len, .kv_len = 70, .causal = true, .offset = -2},
               {.name = "window" + n, .q_len = q_len, .kv_len = 150, .causal = true, .left = 9, .offset = 100},
               {.name = "two sides" + n, .q_len = q_len, .kv_len = 150, .left = 70, .right = 3, .offset = 90},
               {.name = "nothing" + n, .q_len = q_len, .kv_len = 33, .left = 0, .right = 0, .offset = 200},
               {.name = "far" + n, .q_len = q_len, .kv_len = 33, .causal = true, .offset = INT64_MAX},
               {.name = "lengths" + n, .batch = 3, .q_len = q_len, .kv_len = 90, .causal = true, .lengths = true},
               {.name = "ends" + n, .batch = 3, .q_len = q_len, .kv_len = 90, .lengths = true}});
  }
}

TEST(Attention, AgreesForMasks) {
  for (const int64_t q_len : {1, 3, 40}) {
    for (int axes = 0; axes < 16; ++axes) {
      const std::string n = " q" + std::to_string(q_len) + " axes " + std::to_string(axes);
      const Case base{.name = "add" + n, .batch = 2, .heads = 4, .kv_heads = 2, .q_len = q_len, .kv_len = 75,
                      .mask = MaskKind::kAdd, .mask_axes = axes};
      Case allow = base, lowest = base, whole = base, capped = base;
      allow.name = "allow" + n, allow.mask = MaskKind::kAllow, allow.mask_whole_rows = true;
      lowest.name = "lowest" + n, lowest.masked = std::numeric_limits<float>::lowest(), lowest.mask_whole_rows = true;
      whole.name = "whole rows" + n, whole.mask_whole_rows = true, whole.key_bias = true;
      capped.name = "capped" + n, capped.softcap = 0.7F, capped.causal = true, capped.offset = 30;
      check_all({base, allow, lowest, whole, capped});
    }
  }
}

TEST(Attention, RowsWithoutKeysAreZero) {
  Case c{.name = "zero", .q_len = 20, .kv_len = 9, .mask = MaskKind::kAdd, .mask_axes = 0x4, .mask_whole_rows = true};
  Problem p(c, 7);
  ThreadPool pool(1);
  const PackedBlob scratch = scratch_for(p.args, 1);
  attention(p.args, pool, scratch.data.get());
  EXPECT_EQ(p.out.at(0, 1, 0, 3), 0.0F);
  EXPECT_EQ(p.out.at(0, 1, 3, 0), 0.0F);
  EXPECT_NE(p.out.at(0, 1, 1, 0), kCanary);
}

// com.microsoft: keys after the frontier get the lowest float, so a row of padding spreads over all keys.
TEST(Attention, StarvedRowsSpreadOverKeysOutsideTheBand) {
  const float lowest = std::numeric_limits<float>::lowest();
  for (const int64_t q_len : {1, 6, 130}) {
    check_all({{.name = "starved bias", .batch = 2, .q_len = q_len, .kv_len = 130, .causal = true, .fill = lowest,
                .key_bias = true, .masked = lowest},
               {.name = "starved mask", .q_len = q_len, .kv_len = 130, .causal = true, .fill = lowest,
                .mask = MaskKind::kAdd, .masked = lowest, .mask_whole_rows = true},
               {.name = "early", .q_len = q_len, .kv_len = 200, .causal = true, .offset = -70, .fill = lowest}});
  }
}

TEST(Attention, AgreesForHeadGroupsAndSinks) {
  for (const int64_t q_len : {1, 2, 7, 13, 60}) {
    for (const int64_t kv_heads : {1, 2, 4}) {
      const std::string n = " q" + std::to_string(q_len) + " kv heads " + std::to_string(kv_heads);
      check_all({{.name = "group" + n, .batch = 2, .heads = 8, .kv_heads = kv_heads, .q_len = q_len, .kv_len = 90},
                 {.name = "group causal" + n, .batch = 2, .heads = 8, .kv_heads = kv_heads, .q_len = q_len,
                  .kv_len = 90, .causal = true, .offset = 20, .sink = true},
                 {.name = "group mask" + n, .batch = 2, .heads = 8, .kv_heads = kv_heads, .q_len = q_len,
                  .kv_len = 90, .sink = true, .mask = MaskKind::kAdd}});
    }
  }
}

TEST(Attention, SplitsLongCaches) {
  for (const int64_t kv_len : {255, 256, 257, 2000}) {
    const std::string n = " k" + std::to_string(kv_len);
    check_all({{.name = "split" + n, .heads = 2, .kv_heads = 1, .q_len = 1, .kv_len = kv_len, .sink = true},
               {.name = "split causal" + n, .heads = 1, .kv_heads = 1, .q_len = 4, .kv_len = kv_len, .causal = true,
                .offset = kv_len - 4},
               {.name = "split groups" + n, .heads = 8, .kv_heads = 2, .q_len = 7, .kv_len = kv_len, .causal = true,
                .offset = kv_len - 7, .sink = true},
               {.name = "split block" + n, .heads = 2, .kv_heads = 1, .q_len = 18, .kv_len = kv_len, .causal = true,
                .left = 400, .offset = kv_len - 18, .sink = true},
               {.name = "split window" + n, .heads = 1, .kv_heads = 1, .q_len = 1, .kv_len = kv_len, .left = 300,
                .offset = kv_len - 1},
               {.name = "split masked" + n, .heads = 2, .kv_heads = 1, .q_len = 2, .kv_len = kv_len, .key_bias = true,
                .mask = MaskKind::kAllow, .mask_whole_rows = true}});
  }
}

TEST(Attention, SurvivesLargeScores) {
  check_all({{.name = "large", .q_len = 40, .kv_len = 100, .magnitude = 30},
             {.name = "large decode", .q_len = 1, .kv_len = 100, .magnitude = 30}});
}

TEST(Attention, PropagatesNaN) {
  Case c{.name = "nan", .q_len = 20, .kv_len = 20};
  Problem p(c, 3);
  p.q.at(0, 0, 5, 2) = std::numeric_limits<float>::quiet_NaN();
  ThreadPool pool(1);
  const PackedBlob scratch = scratch_for(p.args, 1);
  attention(p.args, pool, scratch.data.get());
  EXPECT_TRUE(std::isnan(p.out.at(0, 0, 5, 0)));
  EXPECT_FALSE(std::isnan(p.out.at(0, 0, 4, 0)));
}

TEST(Attention, Bf16ProductsGiveWayWithAReason) {
  Problem many({.name = "many", .q_len = 40, .kv_len = 40}, 1), few({.name = "few", .q_len = 1, .kv_len = 40}, 1);
  many.args.bf16_products = few.args.bf16_products = true;
  std::vector<Rejection> why_not;
  EXPECT_TRUE(attention_kernel_name(few.args, &why_not).starts_with("attention_f32"));
  ASSERT_EQ(why_not.size(), 1U);
  why_not.clear();
  const auto list = attention_bf16_kernels();
  const bool available = !list.empty() && available_isas().contains(list.back().isa);
  EXPECT_EQ(attention_kernel_name(many.args, &why_not).starts_with("attention_bf16"), available);
  EXPECT_TRUE(available || list.empty() || why_not.size() == list.size());
}

TEST(Attention, EmptyProblemsTouchNothing) {
  check_all({{.name = "no keys", .q_len = 20, .kv_len = 0}, {.name = "no keys, decode", .q_len = 1, .kv_len = 0}});
  ThreadPool pool(1);
  AttentionArgs none;
  attention(none, pool, nullptr);
}

}  // namespace
}  // namespace sprun::kernels
