// Every integer attention kernel against the reference: odd sizes, types and zero points, layouts, masks, canaries.
#include "kernels/attention/attention_int8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

constexpr int64_t kPad = 37;  // elements around and between rows
constexpr uint8_t kCanary = 0xa7;
constexpr float kInf = std::numeric_limits<float>::infinity();

struct Case {
  int64_t batch = 1, heads = 2, kv_heads = 2, q_len = 5, kv_len = 7, head_dim = 16, v_dim = 16;
  bool transposed_k = false, bhsd = false, requantise = false, extreme = false;
  DType dtype = DType::kU8;
  MaskKind mask = MaskKind::kNone;
  bool mask_per_row = false, whole_rows = false;
  int zero = 128;  // of u8 codes; of s8 codes 128 less
  int p_zero = 0;
};

std::string describe(const Case& c) {
  std::string text;
  for (const int64_t n : {c.batch, c.heads, c.q_len, c.kv_len, c.head_dim, c.v_dim}) text += std::to_string(n) + " ";
  return text + "zero " + std::to_string(c.zero) + " requantise " + std::to_string(c.requantise) + " mask " +
         std::to_string(static_cast<int>(c.mask)) + std::to_string(c.mask_per_row);
}

// Codes of [B, H, S, D] somewhere in a buffer of canaries.
struct Operand {
  std::vector<uint8_t> buffer;
  AttentionStrides strides;

  Operand(const Case& c, int64_t heads, int64_t rows, int64_t dim, bool transposed, std::mt19937& rng) {
    if (transposed) strides = {heads * dim * (rows + 1), dim * (rows + 1), 1, rows + 1};
    else if (c.bhsd) strides = {heads * rows * (dim + 3), rows * (dim + 3), dim + 3, 1};
    else strides = {rows * (heads * dim + kPad), dim, heads * dim + kPad, 1};
    buffer.assign(static_cast<size_t>(c.batch * strides.batch + 2 * kPad + 1), kCanary);
    std::normal_distribution<float> normal(static_cast<float>(c.dtype == DType::kU8 ? c.zero : c.zero - 128), 30.0F);
    const float low = c.dtype == DType::kU8 ? 0.0F : -128.0F;
    for (uint8_t& code : buffer) {
      const float x = c.extreme ? (rng() % 2 == 0 ? low : low + 255.0F) : std::clamp(normal(rng), low, low + 255.0F);
      code = static_cast<uint8_t>(static_cast<int>(x));
    }
  }
  uint8_t* data() { return buffer.data() + kPad; }
};

struct Problem {
  std::mt19937 rng;
  Operand q, k, v;
  AttentionStrides out_strides;
  std::vector<float> mask;
  std::vector<uint8_t> bytes, out;
  AttentionInt8Args args;

  explicit Problem(const Case& c)
      : rng(3),
        q(c, c.heads, c.q_len, c.head_dim, false, rng),
        k(c, c.kv_heads, c.kv_len, c.head_dim, c.transposed_k, rng),
        v(c, c.kv_heads, c.kv_len, c.v_dim, false, rng),
        out_strides({c.q_len * (c.heads * c.v_dim + kPad), c.v_dim, c.heads * c.v_dim + kPad, 1}) {
    AttentionArgs& a = args.shape;
    a.batch = c.batch, a.heads = c.heads, a.kv_heads = c.kv_heads, a.q_len = c.q_len, a.kv_len = c.kv_len;
    a.head_dim = c.head_dim, a.v_dim = c.v_dim;
    a.q = q.data(), a.k = k.data(), a.v = v.data();
    a.q_strides = q.strides, a.k_strides = k.strides, a.v_strides = v.strides, a.out_strides = out_strides;
    a.scale = 1.0F / std::sqrt(static_cast<float>(c.head_dim));
    const int32_t zero = c.dtype == DType::kU8 ? c.zero : c.zero - 128;
    args.q = {0.031F, zero, c.dtype}, args.k = {0.027F, zero, c.dtype}, args.v = {0.029F, zero, c.dtype};
    args.p = {1.0F / 255, c.p_zero, DType::kU8}, args.y = {0.0113F, zero, c.dtype};
    args.requantise = c.requantise;
    out.assign(static_cast<size_t>(c.batch * out_strides.batch + 2 * kPad) * (c.requantise ? 1 : 4), kCanary);
    set_mask(c);
  }

  void set_mask(const Case& c) {
    AttentionArgs& a = args.shape;
    a.mask_kind = c.mask;
    const int64_t rows = c.mask_per_row ? c.q_len : 1, n = c.batch * rows * c.kv_len;
    a.mask_batch = rows * c.kv_len, a.mask_head = 0, a.mask_row = c.mask_per_row ? c.kv_len : 0, a.mask_key = 1;
    mask.assign(static_cast<size_t>(n), 0.5F);
    bytes.assign(static_cast<size_t>(n), 1);
    for (int64_t i = 0; i < n; ++i) {
      if (!(c.whole_rows && i / c.kv_len % 2 == 0) && rng() % 3 != 0) continue;
      mask[static_cast<size_t>(i)] = -kInf;
      bytes[static_cast<size_t>(i)] = 0;
    }
    a.mask = c.mask == MaskKind::kAllow ? static_cast<const void*>(bytes.data()) : mask.data();
  }

  template <class Run>
  std::vector<uint8_t> result(const Run& run) {
    std::vector<uint8_t> to = out;
    args.shape.out = to.data() + kPad * (args.requantise ? 1 : 4);
    run();
    return to;
  }
};

// Equal, but for codes of the softmax or of the result on the boundary between two values: one step, in few places.
void expect_near_equal(const Problem& p, const std::vector<uint8_t>& x, const std::vector<uint8_t>& y,
                       const std::string& what) {
  ASSERT_EQ(x.size(), y.size());
  size_t moved = 0, count = x.size();
  double worst = 0;
  if (p.args.requantise) {
    for (size_t i = 0; i < x.size(); ++i) {
      const bool is_signed = p.args.y.dtype == DType::kS8;
      const int a = is_signed ? static_cast<int8_t>(x[i]) : x[i], b = is_signed ? static_cast<int8_t>(y[i]) : y[i];
      moved += a != b;
      worst = std::max(worst, std::abs(static_cast<double>(a - b)) * static_cast<double>(p.args.y.scale));
    }
  } else {
    count /= 4;
    for (size_t i = 0; i < count; ++i) {
      float a = 0, b = 0;
      std::memcpy(&a, x.data() + 4 * i, 4);
      std::memcpy(&b, y.data() + 4 * i, 4);
      moved += a != b;
      worst = std::max(worst, static_cast<double>(std::abs(a - b)));
    }
  }
  EXPECT_LE(moved, count / 100 + 1) << what;
  const float step = 255 * p.args.p.scale * p.args.v.scale + (p.args.requantise ? p.args.y.scale : 0.0F);
  EXPECT_LE(worst, static_cast<double>(step) * 1.001) << what;
}

void check(const Case& c) {
  ThreadPool pool(2);
  Problem p(c);
  const auto expected = p.result([&] { attention_int8_reference(p.args, pool); });
  for (const auto& info : attention_int8_kernels()) {
    if (!available_isas().contains(info.isa)) continue;
    p.args.kernel = info.kernel;
    const PackedBlob scratch =
        allocate_blob(std::max<int64_t>(attention_int8_scratch_bytes(p.args, pool.num_threads()), 64)).value();
    const auto got = p.result([&] { attention_int8(p.args, pool, scratch.data.get()); });
    expect_near_equal(p, got, expected, describe(c) + " " + std::string(info.name));
  }
}

TEST(AttentionInt8, AgreesForSizesAroundTheTiles) {
  for (const int64_t q_len : {1, 4, 15, 16, 17, 33, 47, 48, 49, 97}) {
    for (const int64_t kv_len : {1, 3, 7, 8, 9, 64, 67}) check({.q_len = q_len, .kv_len = kv_len});
  }
}

TEST(AttentionInt8, AgreesForOddHeadSizes) {
  for (const int64_t head_dim : {1, 3, 4, 17, 63, 64, 80}) {
    for (const int64_t v_dim : {1, 7, 16, 33, 64}) {
      check({.q_len = 19, .kv_len = 21, .head_dim = head_dim, .v_dim = v_dim, .requantise = v_dim % 2 == 0});
    }
  }
}

TEST(AttentionInt8, TakesEveryTypeZeroPointAndLayout) {
  for (const DType dtype : {DType::kU8, DType::kS8}) {
    for (const int zero : {0, 1, 100, 128, 255}) {
      for (const bool requantise : {false, true}) {
        Case c{.batch = 2, .heads = 4, .kv_heads = 2, .q_len = 21, .kv_len = 30, .head_dim = 24, .v_dim = 20};
        c.dtype = dtype, c.zero = zero, c.requantise = requantise;
        check(c);
        c.bhsd = true, c.transposed_k = true, c.p_zero = zero / 2;
        check(c);
        c.extreme = true;
        check(c);
      }
    }
  }
}

TEST(AttentionInt8, AgreesForMasks) {
  for (const MaskKind mask : {MaskKind::kAdd, MaskKind::kAllow}) {
    for (const bool per_row : {false, true}) {
      for (const bool whole_rows : {false, true}) {
        check({.batch = 2, .q_len = 20, .kv_len = 19, .mask = mask, .mask_per_row = per_row, .whole_rows = whole_rows});
      }
    }
  }
}

TEST(AttentionInt8, NothingToDo) {
  check({.q_len = 3, .kv_len = 0});
  check({.q_len = 0, .kv_len = 5});
}

}  // namespace
}  // namespace sprun::kernels
