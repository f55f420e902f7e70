// Attention over keys and values stored as bf16 or 8-bit codes: every kernel against the reference on widened values,
// and results that do not depend on the number of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_cache.h"
#include "kernels/isa.h"
#include "runtime/base/half.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kCanary = 12345.5F;
constexpr int64_t kPad = 24;  // floats around the output and between its rows

using Edit = std::function<void(std::vector<float>& k, std::vector<float>& v)>;

struct Case {
  std::string name;
  int64_t batch = 1, heads = 8, kv_heads = 2, q_len = 1, kv_len = 70, head_dim = 64, v_dim = 64;
  int64_t spare = 3;  // rows of the cache after the last key
  int64_t row_pad = 0;  // elements between rows of the cache
  float softcap = 0;
  bool causal = false;
  int64_t left = -1, offset = 0;
  float fill = -kInf;
  MaskKind mask = MaskKind::kNone;
  bool mask_rows = true;  // varies along queries
  float masked = -kInf;
  bool key_bias = false, lengths = false, sink = false;
  float magnitude = 1;
  Edit edit = nullptr;  // of the values before they are stored
};

// Keys or values [batch, kv_heads, capacity, dim] as stored, and widened. What no row owns holds canaries.
struct Stored {
  DType dtype;
  int64_t pitch, capacity, heads;
  std::vector<char> data;  // from element 1 on: alignment is that of an element only
  std::vector<float> scales, widened;

  Stored(DType type, const std::vector<float>& x, const Case& c, int64_t dim)
      : dtype(type), pitch(dim + c.row_pad), capacity(c.kv_len + c.spare), heads(c.batch * c.kv_heads) {
    const auto size = static_cast<size_t>(dtype_size(dtype));
    data.assign(static_cast<size_t>(heads * capacity * pitch + 1) * size, 0x7f);
    scales.assign(static_cast<size_t>(heads * capacity), kCanary);
    widened.resize(x.size());
    const KvCacheKernel& kernel = *kv_cache_kernels().back().kernel;
    for (int64_t r = 0; r < heads * c.kv_len; ++r) {
      const int64_t row = r / std::max<int64_t>(c.kv_len, 1) * capacity + r % c.kv_len;
      const float* from = x.data() + r * dim;
      float* wide = widened.data() + r * dim;
      if (dtype == DType::kS8) {
        int8_t* to = reinterpret_cast<int8_t*>(elements()) + row * pitch;
        float& scale = scales[static_cast<size_t>(row)];
        kernel.store_s8(from, dim, 1, dim, to, &scale);
        for (int64_t d = 0; d < dim; ++d) wide[d] = static_cast<float>(to[d]) * scale;
      } else {
        auto* to = reinterpret_cast<uint16_t*>(elements()) + row * pitch;
        kernel.store_bf16(from, dim, 1, dim, to);
        for (int64_t d = 0; d < dim; ++d) wide[d] = to_float(BFloat16{to[d]});
      }
    }
  }
  char* elements() { return data.data() + dtype_size(dtype); }
  AttentionStrides strides(const Case& c) const {
    return {c.kv_heads * capacity * pitch, capacity * pitch, pitch, 1};
  }
};

std::vector<float> random_floats(std::mt19937& rng, int64_t n, float magnitude) {
  std::normal_distribution<float> normal(0.0F, magnitude);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(rng);
  return values;
}

struct Problem {
  std::vector<float> q, x_k, x_v, out, expected, mask, key_bias, sink;
  std::vector<uint8_t> bytes;
  std::vector<int64_t> lengths, offsets;
  Stored k, v;
  AttentionArgs args, wide;  // over the cache; over widened values

  Problem(const Case& c, DType dtype, uint32_t seed)
      : Problem(c, dtype, std::mt19937(seed)) {}

  Problem(const Case& c, DType dtype, std::mt19937 rng)
      : q(random_floats(rng, c.batch * c.heads * c.q_len * c.head_dim, c.magnitude)),
        x_k(edited(random_floats(rng, c.batch * c.kv_heads * c.kv_len * c.head_dim, c.magnitude), c, true)),
        x_v(edited(random_floats(rng, c.batch * c.kv_heads * c.kv_len * c.v_dim, 1.0F), c, false)),
        k(dtype, x_k, c, c.head_dim),
        v(dtype, x_v, c, c.v_dim) {
    args.batch = c.batch, args.heads = c.heads, args.kv_heads = c.kv_heads;
    args.q_len = c.q_len, args.kv_len = c.kv_len, args.head_dim = c.head_dim, args.v_dim = c.v_dim;
    args.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
    args.softcap = c.softcap, args.causal = c.causal, args.left_window = c.left, args.offset = c.offset;
    args.frontier_fill = c.fill;
    const int64_t row = c.heads * c.v_dim + kPad;
    out.assign(static_cast<size_t>(c.batch * c.q_len * row + 2 * kPad), kCanary);
    expected = out;
    args.q = q.data(), args.q_strides = bshd_strides(c.heads, c.q_len, c.head_dim);
    args.out = out.data() + kPad + 1, args.out_strides = {c.q_len * row, c.v_dim, row, 1};
    set_masks(c, rng);
    wide = args;
    args.k = k.elements(), args.v = v.elements(), args.k_dtype = args.v_dtype = dtype;
    args.k_strides = k.strides(c), args.v_strides = v.strides(c);
    args.k_scale = k.scales.data(), args.v_scale = v.scales.data();
    args.scale_head = k.capacity, args.scale_batch = c.kv_heads * k.capacity;
    wide.k = k.widened.data(), wide.v = v.widened.data(), wide.out = expected.data() + kPad + 1;
    wide.k_strides = bhsd_strides(c.kv_heads, c.kv_len, c.head_dim);
    wide.v_strides = bhsd_strides(c.kv_heads, c.kv_len, c.v_dim);
  }

  static std::vector<float> edited(std::vector<float> x, const Case& c, bool keys) {
    std::vector<float> other;
    if (c.edit) c.edit(keys ? x : other, keys ? other : x);
    return x;
  }

  void set_masks(const Case& c, std::mt19937& rng) {
    args.mask_kind = c.mask;
    const int64_t rows = c.mask_rows ? c.q_len : 1;
    args.mask_row = c.mask_rows ? c.kv_len : 0, args.mask_batch = rows * c.kv_len;
    mask = random_floats(rng, c.batch * rows * c.kv_len, 1.0F);
    for (float& m : mask) {
      bytes.push_back(rng() % 3 != 0);
      if (bytes.back() == 0) m = c.masked;
    }
    args.mask = c.mask == MaskKind::kAllow ? static_cast<const void*>(bytes.data()) : mask.data();
    if (c.key_bias) {
      key_bias = random_floats(rng, c.batch * c.kv_len, 1.0F);
      args.key_bias = key_bias.data(), args.key_bias_stride = c.kv_len;
    }
    if (c.sink) {
      sink = random_floats(rng, c.heads, 1.0F);
      args.sink = sink.data();
    }
    for (int64_t b = 0; c.lengths && b < c.batch; ++b) {
      lengths.push_back(1 + static_cast<int64_t>(rng() % static_cast<uint32_t>(c.kv_len)));
      offsets.push_back(lengths.back() - c.q_len);
      args.batch_kv_len = lengths.data(), args.batch_offset = offsets.data();
    }
  }
};

PackedBlob scratch_for(const AttentionArgs& args, int threads) {
  return allocate_blob(std::max<int64_t>(attention_scratch_bytes(args, threads), 64)).value();
}

bool same(float a, float b, float tolerance) {
  return (std::isnan(a) && std::isnan(b)) || a == b || std::abs(a - b) <= tolerance * std::max(1.0F, std::abs(b));
}

void expect_same(const std::vector<float>& got, const std::vector<float>& expected, float tolerance,
                 const std::string& what) {
  int64_t wrong = 0;
  float worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {  // canaries too
    if (same(got[i], expected[i], tolerance)) continue;
    ++wrong;
    worst = std::max(worst, std::abs(got[i] - expected[i]));
  }
  EXPECT_EQ(wrong, 0) << what << ", worst difference " << worst;
}

void check(const Case& c) {
  ThreadPool pool(2);
  for (const DType dtype : {DType::kBf16, DType::kS8}) {
    Problem p(c, dtype, 1);
    attention_reference(p.wide, pool);
    const std::string name = c.name + " " + std::string(dtype_name(dtype));
    // Scores grow with the square of the magnitude, and with them what one rounding does to a weight.
    const float tolerance = 2e-5F * std::max(1.0F, c.magnitude * c.magnitude / 10.0F);
    for (const auto& info : attention_kernels(dtype)) {
      if (!available_isas().contains(info.isa)) continue;
      std::fill(p.out.begin(), p.out.end(), kCanary);
      p.args.kernel = info.kernel;
      ASSERT_TRUE(attention_is_fast(p.args)) << name;
      const PackedBlob scratch = scratch_for(p.args, pool.num_threads());
      attention(p.args, pool, scratch.data.get());
      expect_same(p.out, p.expected, tolerance, name + " " + std::string(info.name));
    }
    if (c.kv_len > 300) continue;
    std::fill(p.out.begin(), p.out.end(), kCanary);
    attention_reference(p.args, pool);
    expect_same(p.out, p.expected, tolerance, name + " reference");
  }
}

void check_all(const std::vector<Case>& cases) {
  for (const Case& c : cases) check(c);
}

TEST(AttentionKv, AgreesForLengthsAroundTilesAndParts) {
  for (const int64_t kv_len : {1, 15, 16, 17, 63, 64, 65, 131, 1023, 4097}) {
    for (const int64_t q_len : {1, 2, 8, 40}) {
      check({.name = "k" + std::to_string(kv_len) + " q" + std::to_string(q_len), .q_len = q_len, .kv_len = kv_len});
    }
  }
}

TEST(AttentionKv, AgreesForEveryNumberOfRows) {
  for (const int64_t group : {1, 2, 3, 4, 7, 8}) {
    for (const int64_t q_len : {1, 2, 3, 5, 8, 49}) {
      check({.name = "group " + std::to_string(group) + " q" + std::to_string(q_len), .heads = 2 * group,
             .q_len = q_len, .kv_len = 75, .causal = true, .offset = 75 - q_len});
    }
  }
}

TEST(AttentionKv, AgreesForOddHeadSizesAndStrides) {
  for (const int64_t head_dim : {1, 7, 16, 33, 80, 128}) {
    for (const int64_t v_dim : {1, 15, 32, 72, 128}) {
      for (const int64_t q_len : {1, 19}) {
        check({.name = "d" + std::to_string(head_dim) + " v" + std::to_string(v_dim), .batch = 2, .q_len = q_len,
               .kv_len = 37, .head_dim = head_dim, .v_dim = v_dim, .spare = 5, .row_pad = 3});
      }
    }
  }
}

TEST(AttentionKv, AgreesForOptions) {
  const float lowest = std::numeric_limits<float>::lowest();
  for (const int64_t q_len : {1, 5, 30}) {
    for (const int64_t kv_len : {90, 1100}) {
      const std::string n = " q" + std::to_string(q_len) + " k" + std::to_string(kv_len);
      const Case base{.name = "causal" + n, .q_len = q_len, .kv_len = kv_len, .causal = true,
                      .offset = kv_len - q_len};
      Case window = base, early = base, capped = base, added = base, bias = base, allowed = base, lengths = base;
      window.name = "window" + n, window.left = 70;
      early.name = "early" + n, early.offset = -2;
      capped.name = "capped" + n, capped.softcap = 0.7F, capped.sink = true;
      added.name = "added" + n, added.mask = MaskKind::kAdd;
      bias.name = "bias" + n, bias.mask = MaskKind::kAdd, bias.mask_rows = false, bias.key_bias = true;
      allowed.name = "allowed" + n, allowed.mask = MaskKind::kAllow, allowed.sink = true;
      lengths.name = "lengths" + n, lengths.batch = 3, lengths.lengths = true;
      Case starved = added, padded = added;
      starved.name = "starved" + n, starved.fill = lowest, starved.masked = lowest, starved.offset = -1;
      padded.name = "padded" + n, padded.causal = false, padded.fill = lowest, padded.masked = lowest;
      check_all({base, window, early, capped, added, bias, allowed, lengths, starved, padded});
    }
  }
}

// A part of the keys whose mask is the lowest float everywhere must not be counted for the others.
TEST(AttentionKv, PartsOfLowestFloatsWeighNothing) {
  const float lowest = std::numeric_limits<float>::lowest();
  ThreadPool pool(1);
  for (const int64_t q_len : {1, 12}) {
    for (const DType dtype : {DType::kBf16, DType::kS8}) {
      Problem p({.name = "", .q_len = q_len, .kv_len = 1200, .fill = lowest, .mask = MaskKind::kAdd}, dtype, 5);
      for (size_t i = 0; i < p.mask.size(); ++i) p.mask[i] = i % 1200 < 700 ? lowest : p.mask[i];
      attention_reference(p.wide, pool);
      const PackedBlob scratch = scratch_for(p.args, 1);
      attention(p.args, pool, scratch.data.get());
      expect_same(p.out, p.expected, 2e-5F, "lowest q" + std::to_string(q_len));
    }
  }
}

TEST(AttentionKv, SurvivesExtremeValues) {
  for (const int64_t q_len : {1, 20}) {
    for (const int64_t kv_len : {130, 1023}) {
      const auto one_huge = [](std::vector<float>& k, std::vector<float>& v) {
        for (size_t i = 64; i < 128 && i < k.size(); ++i) k[i] = 1000.0F;
        for (size_t i = 64; i < 128 && i < v.size(); ++i) v[i] = -1000.0F;
      };
      const auto equal = [](std::vector<float>& k, std::vector<float>& v) {
        std::fill(k.begin(), k.end(), 0.25F), std::fill(v.begin(), v.end(), -3.0F);
      };
      const auto zeros = [](std::vector<float>& k, std::vector<float>& v) {
        std::fill(k.begin(), k.end(), 0.0F), std::fill(v.begin(), v.end(), 0.0F);
      };
      const Case base{.name = "large", .q_len = q_len, .kv_len = kv_len, .magnitude = 30};
      Case huge = base, same_keys = base, nothing = base;
      huge.name = "huge", huge.magnitude = 10, huge.edit = one_huge;
      same_keys.name = "equal", same_keys.magnitude = 1, same_keys.edit = equal;
      nothing.name = "zeros", nothing.magnitude = 1, nothing.edit = zeros;
      check_all({base, huge, same_keys, nothing});
    }
  }
}

TEST(AttentionKv, ValuesThatAreNotFiniteGiveNaN) {
  ThreadPool pool(1);
  const auto edit = [](std::vector<float>& k, std::vector<float>&) {
    if (!k.empty()) k[5] = std::numeric_limits<float>::quiet_NaN();
  };
  for (const DType dtype : {DType::kBf16, DType::kS8}) {
    Problem p({.name = "nan", .q_len = 1, .kv_len = 40, .edit = edit}, dtype, 1);
    const PackedBlob scratch = scratch_for(p.args, 1);
    attention(p.args, pool, scratch.data.get());
    const auto* out = static_cast<const float*>(p.args.out);
    EXPECT_TRUE(std::isnan(out[0])) << dtype_name(dtype);
    EXPECT_FALSE(std::isnan(out[7 * 64])) << dtype_name(dtype);  // another kv head
  }
}

TEST(AttentionKv, OtherCombinationsTakeTheReference) {
  Problem p({.name = "mixed"}, DType::kS8, 1);
  AttentionArgs mixed = p.args, transposed = p.args, products = p.args;
  mixed.k_dtype = DType::kBf16;
  transposed.k_strides.dim = 71;
  EXPECT_FALSE(attention_is_fast(mixed));
  EXPECT_FALSE(attention_is_fast(transposed));
  products.q_len = 40, products.bf16_products = true;
  std::vector<Rejection> why_not;
  EXPECT_TRUE(attention_kernel_name(products, &why_not).starts_with("attention_kv_s8"));
  ASSERT_EQ(why_not.size(), 1U);
  EXPECT_EQ(why_not[0].kernel, "attention_bf16");
}

TEST(AttentionKv, ResultsDoNotDependOnThreads) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kS8}) {
    for (const int64_t q_len : {1, 3, 8, 70}) {
      for (const int64_t kv_len : {1, 1023, 4097}) {
        Problem p({.name = "", .q_len = q_len, .kv_len = kv_len, .causal = true, .offset = kv_len - q_len},
                  dtype == DType::kF32 ? DType::kBf16 : dtype, 9);
        AttentionArgs& args = dtype == DType::kF32 ? p.wide : p.args;
        const std::vector<float>& out = dtype == DType::kF32 ? p.expected : p.out;
        std::vector<float> first;
        for (const int threads : {1, 2, 5}) {
          ThreadPool pool(threads);
          const PackedBlob scratch = scratch_for(args, pool.num_threads());
          pool.enter([&] { attention(args, pool, scratch.data.get()); });
          if (first.empty()) first = out;
          EXPECT_EQ(std::memcmp(first.data(), out.data(), out.size() * sizeof(float)), 0)
              << dtype_name(dtype) << " q" << q_len << " k" << kv_len << " threads " << threads;
        }
      }
    }
  }
}

TEST(AttentionKv, EmptyProblemsTouchNothing) {
  check_all({{.name = "no keys", .kv_len = 0}, {.name = "no keys, many rows", .q_len = 40, .kv_len = 0}});
}

}  // namespace
}  // namespace sprun::kernels
