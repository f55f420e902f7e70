// Rows written to the KV cache: every variant gives the reference's bits and touches nothing else.
#include "kernels/attention/kv_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "runtime/base/half.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

constexpr char kCanary = 0x5a;
constexpr DType kTypes[] = {DType::kF32, DType::kBf16, DType::kS8};

struct Cache {
  std::vector<char> data, scales;
  KvCacheView view;
  Cache(DType dtype, int64_t kv_heads, int64_t capacity, int64_t dim)
      : data(static_cast<size_t>(kv_cache_data_bytes(dtype, kv_heads, capacity, dim) + 64), kCanary),
        scales(static_cast<size_t>(kv_cache_scale_bytes(DType::kS8, kv_heads, capacity) + 64), kCanary),
        view{.dtype = dtype, .data = data.data() + dtype_size(dtype),
             .scales = reinterpret_cast<float*>(scales.data() + sizeof(float)), .capacity = capacity} {}
  bool operator==(const Cache& other) const { return data == other.data && scales == other.scales; }
};

std::vector<float> values(int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(rng);
  return x;
}

void expect_variants_agree(const KvCacheRows& rows, int64_t capacity, int64_t position, const std::string& what) {
  ThreadPool one(1), two(2);
  for (const DType dtype : kTypes) {
    Cache expected(dtype, rows.kv_heads, capacity, rows.dim);
    kv_cache_store(rows, expected.view, position, one, kv_cache_kernels().back().kernel);
    for (const auto& info : kv_cache_kernels()) {
      if (!available_isas().contains(info.isa)) continue;
      Cache got(dtype, rows.kv_heads, capacity, rows.dim);
      kv_cache_store(rows, got.view, position, two, info.kernel);
      EXPECT_TRUE(got == expected) << what << " " << info.name << " " << dtype_name(dtype);
    }
  }
}

TEST(KvCache, VariantsAgreeForSizesAndStrides) {
  for (const int64_t dim : {1, 3, 4, 7, 8, 15, 16, 17, 31, 64, 67, 80, 128, 257}) {
    for (const int64_t rows : {0, 1, 2, 5}) {
      for (const int64_t position : {0, 1, 4}) {
        const int64_t x_row = dim + 3, x_head = rows * x_row + 5;
        const std::vector<float> x = values(3 * x_head + 1, static_cast<uint32_t>(dim));
        expect_variants_agree({.kv_heads = 3, .rows = rows, .dim = dim, .x = x.data() + 1, .x_head = x_head,
                               .x_row = x_row}, position + rows + 2, position, "dim " + std::to_string(dim));
      }
    }
  }
}

TEST(KvCache, ManyRowsAreSharedOut) {
  const std::vector<float> x = values(4 * 300 * 128, 3);  // [rows, heads, dim]
  expect_variants_agree({.kv_heads = 4, .rows = 300, .dim = 128, .x = x.data(), .x_head = 128, .x_row = 4 * 128}, 512,
                        77, "prefill");
}

TEST(KvCache, VariantsAgreeForExtremeValues) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float special : {0.0F, -0.0F, inf, -inf, nan, 1e-45F, 1e-38F, -0x1p-100F, 0x1p-101F,
                              std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()}) {
    for (const int64_t at : {0, 20, 36}) {
      for (std::vector<float> x : {std::vector<float>(37, 0.0F), values(37, 1)}) {
        x[static_cast<size_t>(at)] = special;
        expect_variants_agree({.kv_heads = 1, .rows = 1, .dim = 37, .x = x.data()}, 1, 0,
                              "one of " + std::to_string(special));
      }
    }
  }
}

TEST(KvCache, CodesAndScalesAreThoseOfTheFormula) {
  const std::vector<float> x = {-2.0F, 1.0F, 0.0F, 0.5F, 1.99F, 2.0F};
  ThreadPool pool(1);
  Cache cache(DType::kS8, 1, 1, 6);
  kv_cache_store({.kv_heads = 1, .rows = 1, .dim = 6, .x = x.data()}, cache.view, 0, pool);
  const auto* codes = static_cast<const int8_t*>(cache.view.data);
  EXPECT_EQ(std::vector<int>(codes, codes + 6), (std::vector<int>{-127, 64, 0, 32, 126, 127}));
  EXPECT_EQ(cache.view.scales[0], 2.0F / 127.0F);
}

TEST(KvCache, RowsOfZerosAndOfNoNumbers) {
  std::vector<float> x(64, 0.0F);
  ThreadPool pool(1);
  for (const auto& info : kv_cache_kernels()) {
    if (!available_isas().contains(info.isa)) continue;
    Cache cache(DType::kS8, 1, 1, 64);
    x[7] = 0.0F;
    kv_cache_store({.kv_heads = 1, .rows = 1, .dim = 64, .x = x.data()}, cache.view, 0, pool, info.kernel);
    EXPECT_EQ(cache.view.scales[0], 0.0F) << info.name;
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      x[7] = bad;
      kv_cache_store({.kv_heads = 1, .rows = 1, .dim = 64, .x = x.data()}, cache.view, 0, pool, info.kernel);
      EXPECT_TRUE(std::isnan(cache.view.scales[0])) << info.name;
      EXPECT_EQ(static_cast<const int8_t*>(cache.view.data)[7], 0) << info.name;
    }
  }
}

TEST(KvCache, CodesAreWithinHalfAStep) {
  const std::vector<float> x = values(64 * 128, 11);
  ThreadPool pool(1);
  Cache cache(DType::kS8, 1, 64, 128);
  kv_cache_store({.kv_heads = 1, .rows = 64, .dim = 128, .x = x.data(), .x_row = 128}, cache.view, 0, pool);
  for (int64_t i = 0; i < 64 * 128; ++i) {
    const float scale = cache.view.scales[i / 128];
    const auto code = static_cast<float>(static_cast<const int8_t*>(cache.view.data)[i]);
    EXPECT_LE(std::abs(code * scale - x[static_cast<size_t>(i)]), 0.5001F * scale);
  }
}

}  // namespace
}  // namespace sprun::kernels
