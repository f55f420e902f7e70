// Tiles three ways: the formulas of tile.h, TileEmu, and the instructions themselves. On a CPU with
// AMX the instructions run there, and these tests prove that the emulation does the same; elsewhere
// they run under the emulator of tests/support/amx_sigill.h.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "kernels/amx/tile_emu.h"
#include "kernels/amx/tile_hw.h"
#include "kernels/simd/half.h"
#include "tests/support/amx_sigill.h"

namespace sprun::kernels::amx {
namespace {

// One line of the summary: what "the instructions" were in this run.
class AmxSummary : public testing::Environment {
 public:
  void TearDown() override {
    if (tests::has_real_amx()) {
      std::printf("[   AMX    ] instructions ran on this CPU's tiles\n");
    } else {
      std::printf("[   AMX    ] this CPU has none; %lld instructions were emulated\n",
                  static_cast<long long>(tests::amx_emulated_instructions()));
    }
  }
};
const auto* const kSummary = testing::AddGlobalTestEnvironment(new AmxSummary);

// ---- operations by run-time tile number -------------------------------------------------------
template <class F>
void with_tile(int tile, F f) {
  switch (tile) {
    case 0:
      return f(std::integral_constant<int, 0>());
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    case 4:
      return f(std::integral_constant<int, 4>());
    case 5:
      return f(std::integral_constant<int, 5>());
    case 6:
      return f(std::integral_constant<int, 6>());
    case 7:
      return f(std::integral_constant<int, 7>());
    default:
      FAIL() << "no tile " << tile;
  }
}

template <int kC, int kA, int kB, class Tile>
void dot(Tile& tile, TileDot kind) {
  switch (kind) {
    case TileDot::kS8S8:
      return tile.template dp_s8s8<kC, kA, kB>();
    case TileDot::kS8U8:
      return tile.template dp_s8u8<kC, kA, kB>();
    case TileDot::kU8S8:
      return tile.template dp_u8s8<kC, kA, kB>();
    case TileDot::kU8U8:
      return tile.template dp_u8u8<kC, kA, kB>();
    case TileDot::kBf16:
      return tile.template dp_bf16<kC, kA, kB>();
  }
}

struct Triple {
  int c, a, b;
};
// A product whose three tiles are c, c + 1 or c + 3 and c + 4 (modulo 8).
template <class Tile>
void dot(Tile& tile, TileDot kind, const Triple& t) {
  with_tile(t.c, [&](auto c) {
    constexpr int kC = decltype(c)::value;
    if (t.a == (kC + 1) % 8) return dot<kC, (kC + 1) % 8, (kC + 4) % 8>(tile, kind);
    return dot<kC, (kC + 3) % 8, (kC + 4) % 8>(tile, kind);
  });
}

template <class Tile>
void load(Tile& tile, int number, const void* from, int64_t stride, bool streamed = false) {
  with_tile(number, [&](auto n) {
    if (streamed) return tile.template load_streamed<decltype(n)::value>(from, stride);
    tile.template load<decltype(n)::value>(from, stride);
  });
}

template <class Tile>
void store(Tile& tile, int number, void* to, int64_t stride) {
  with_tile(number, [&](auto n) { tile.template store<decltype(n)::value>(to, stride); });
}

// ---- operands ---------------------------------------------------------------------------------
using Bytes = std::vector<uint8_t>;

Bytes random_bytes(size_t n, std::mt19937& rng) {
  Bytes v(n);
  for (uint8_t& x : v) {
    const unsigned r = static_cast<unsigned>(rng());
    constexpr uint8_t kExtremes[] = {0, 1, 127, 128, 129, 255};
    x = (r & 0x300U) == 0 ? kExtremes[(r >> 10) % 6] : static_cast<uint8_t>(r);
  }
  return v;
}

float random_float(std::mt19937& rng) {
  std::uniform_real_distribution<float> uniform(-4.0F, 4.0F);
  const float x = uniform(rng);
  switch (rng() % 40) {
    case 0:
      return x * 1e-39F;  // denormal
    case 1:
      return x * 1e-30F;
    case 2:
      return x * 1e30F;
    case 3:
      return -0.0F;
    case 4:
      return std::numeric_limits<float>::infinity();
    case 5:
      return std::numeric_limits<float>::quiet_NaN();
    default:
      return x;
  }
}

// Bytes of random bf16 (even dwords as pairs) or f32 numbers.
Bytes random_numbers(size_t bytes, bool bf16, std::mt19937& rng) {
  Bytes v(bytes);
  const size_t size = bf16 ? 2 : 4;
  for (size_t i = 0; i + size <= bytes; i += size) {
    const uint32_t bits = std::bit_cast<uint32_t>(random_float(rng)) >> (bf16 ? 16 : 0);
    std::memcpy(&v[i], &bits, size);
  }
  return v;
}

// Equal, or both not a number: which bits a NaN has is not our business.
bool same_numbers(const Bytes& a, const Bytes& b) {
  for (size_t i = 0; i + 4 <= a.size(); i += 4) {
    float x;
    float y;
    std::memcpy(&x, &a[i], 4);
    std::memcpy(&y, &b[i], 4);
    if (std::isnan(x) && std::isnan(y)) continue;
    if (std::bit_cast<uint32_t>(x) != std::bit_cast<uint32_t>(y)) return false;
  }
  return true;
}

// Shapes of one random product and where its operands lie.
struct Product {
  TileDot kind;
  Triple tiles;
  int rows, columns, depth;  // C is rows x columns dwords; A has `depth` dwords in a row
  int64_t stride_a, stride_b, stride_c;
  Bytes a, b, c;

  Product(TileDot dot_kind, std::mt19937& rng) : kind(dot_kind) {
    const auto draw = [&](int low, int high) {
      return low + static_cast<int>(rng() % static_cast<unsigned>(high - low + 1));
    };
    const int first = draw(0, 7);
    tiles = {first, (first + (draw(0, 1) == 0 ? 1 : 3)) % 8, (first + 4) % 8};
    rows = draw(0, 2) == 0 ? 16 : draw(1, 16);
    columns = draw(0, 2) == 0 ? 16 : draw(1, 16);
    depth = draw(0, 2) == 0 ? 16 : draw(1, 16);
    stride_a = 4 * depth + draw(0, 70);
    stride_b = 4 * columns + draw(0, 70);
    stride_c = 4 * columns + 4 * draw(0, 20);
    const bool bf16 = kind == TileDot::kBf16;
    const auto operand = [&](int n, int64_t stride, bool half) {
      const size_t bytes = static_cast<size_t>(n * stride) + 64;
      if (!bf16) return random_bytes(bytes, rng);
      return random_numbers(bytes, half, rng);
    };
    if (bf16) stride_a += stride_a % 2;
    if (bf16) stride_b += stride_b % 2;
    a = operand(rows, stride_a, true);
    b = operand(depth, stride_b, true);
    c = operand(rows, stride_c, false);
  }

  TileConfig config() const {
    TileConfig config;
    config.set(tiles.c, rows, 4 * columns);
    config.set(tiles.a, rows, 4 * depth);
    config.set(tiles.b, depth, 4 * columns);
    return config;
  }

  // C after the product; what is not C stays as it was.
  template <class Tile>
  Bytes run() const {
    Tile tile;
    Bytes out = c;
    const AmxScope<Tile> scope(tile, config());
    load(tile, tiles.c, c.data(), stride_c);
    load(tile, tiles.a, a.data(), stride_a, true);
    load(tile, tiles.b, b.data(), stride_b);
    dot(tile, kind, tiles);
    store(tile, tiles.c, out.data(), stride_c);
    return out;
  }
};

unsigned seed() { return 20261123U; }

constexpr TileDot kInt8Dots[] = {TileDot::kS8S8, TileDot::kS8U8, TileDot::kU8S8, TileDot::kU8U8};

int operand_value(const Bytes& v, int64_t at, bool is_signed) {
  const uint8_t byte = v[static_cast<size_t>(at)];
  return is_signed ? static_cast<int>(static_cast<int8_t>(byte)) : static_cast<int>(byte);
}

TEST(AmxTile, Int8ProductsFollowTheFormula) {
  std::mt19937 rng(seed());
  for (int i = 0; i < 100; ++i) {
    const Product p(kInt8Dots[i % 4], rng);
    const bool signed_a = p.kind == TileDot::kS8S8 || p.kind == TileDot::kS8U8;
    const bool signed_b = p.kind == TileDot::kS8S8 || p.kind == TileDot::kU8S8;
    Bytes want = p.c;
    for (int m = 0; m < p.rows; ++m) {
      for (int n = 0; n < p.columns; ++n) {
        const size_t at = static_cast<size_t>(m * p.stride_c + 4 * n);
        uint32_t sum;
        std::memcpy(&sum, &want[at], 4);
        for (int k = 0; k < 4 * p.depth; ++k) {
          const int x = operand_value(p.a, m * p.stride_a + k, signed_a);
          const int y = operand_value(p.b, k / 4 * p.stride_b + 4 * n + k % 4, signed_b);
          sum += static_cast<uint32_t>(x * y);
        }
        std::memcpy(&want[at], &sum, 4);
      }
    }
    ASSERT_EQ(p.run<TileEmu>(), want) << "product " << i;
  }
  EXPECT_EQ(take_tile_fault(), TileFault::kNone);
}

// C of one row and column: sum over pairs of x[i] * y[i], starting from `start`.
float bf16_product(const std::vector<float>& x, const std::vector<float>& y, float start) {
  TileConfig config;
  const int depth = static_cast<int>(x.size()) / 2;
  config.set(0, 1, 4);
  config.set(1, 1, 4 * depth);
  config.set(2, depth, 4);
  std::vector<uint16_t> a;
  std::vector<uint16_t> b;
  for (float v : x) a.push_back(simd::f32_to_bf16(v));
  for (float v : y) b.push_back(simd::f32_to_bf16(v));
  TileEmu tile;
  const AmxScope<TileEmu> scope(tile, config);
  float c = start;
  tile.load<0>(&c, 4);
  tile.load<1>(a.data(), 4 * depth);
  tile.load<2>(b.data(), 4);
  tile.dp_bf16<0, 1, 2>();
  tile.store<0>(&c, 4);
  return c;
}

TEST(AmxTile, Bf16ProductsRoundAsDocumented) {
  const float tiny = 0x1p-140F;  // denormal
  const float smallest = 0x1p-126F;
  EXPECT_EQ(bf16_product({2, 3}, {5, 7}, 1), 32.0F);
  // Even and odd sums are added before C is: 2^24 + 1 + 1 in one chain would lose both ones.
  EXPECT_EQ(bf16_product({1, 1}, {1, 1}, 0x1p24F), 0x1p24F + 2.0F);
  // Within the even sums each product is added with one rounding, to nearest even.
  EXPECT_EQ(bf16_product({0x1p12F, 0, 1, 0, 1, 0}, {0x1p12F, 0, 1, 0, 1, 0}, 0), 0x1p24F);
  EXPECT_EQ(bf16_product({0x1p12F, 0, 1.5F, 0}, {0x1p12F, 0, 1, 0}, 0), 0x1p24F + 2.0F);
  // Denormals in and out are 0.
  EXPECT_EQ(bf16_product({tiny, 0}, {0x1p100F, 0}, 0), 0.0F);
  EXPECT_EQ(bf16_product({0, 0}, {0, 0}, tiny), 0.0F);
  EXPECT_EQ(bf16_product({0x1p-70F, 0}, {0x1p-70F, 0}, 0), 0.0F);
  EXPECT_EQ(bf16_product({0x1p-63F, 0}, {0x1p-63F, 0}, 0), smallest);
  EXPECT_EQ(bf16_product({0x1p-63F, 0}, {-0x1p-64F, 0}, smallest), smallest);
  EXPECT_EQ(bf16_product({0x1p-63F, 0}, {-0x1p-63F, 0}, 1.5F * smallest), 0.0F);
  EXPECT_EQ(bf16_product({0x1p100F, 0}, {0x1p100F, 0}, 0), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(bf16_product({std::numeric_limits<float>::infinity(), 0}, {0, 0}, 0)));
  EXPECT_EQ(take_tile_fault(), TileFault::kNone);
}

// On a CPU with AMX this is hardware against emulation, elsewhere decoder and handler against
// TileEmu.
TEST(AmxTile, InstructionsAndEmulationAgree) {
  const tests::AmxEmulator emulator;
  const int64_t before = tests::amx_emulated_instructions();
  std::mt19937 rng(seed());
  for (int i = 0; i < 400; ++i) {
    const Product p(kInt8Dots[i % 4], rng);
    ASSERT_EQ(p.run<TileHw>(), p.run<TileEmu>()) << "product " << i;
  }
  for (int i = 0; i < 200; ++i) {
    const Product p(TileDot::kBf16, rng);
    ASSERT_TRUE(same_numbers(p.run<TileHw>(), p.run<TileEmu>())) << "product " << i;
  }
  EXPECT_EQ(take_tile_fault(), TileFault::kNone);
  const int64_t ran = tests::amx_emulated_instructions() - before;
  EXPECT_EQ(ran, tests::has_real_amx() ? 0 : 600 * 7);
}

TEST(AmxTile, MovesKeepEveryTileApart) {
  const tests::AmxEmulator emulator;
  std::mt19937 rng(seed());
  const Bytes in = random_bytes(8 * 1024, rng);
  Bytes from_hw(8 * 1024, 1);
  Bytes from_emu(8 * 1024, 1);
  TileConfig config;
  for (int t = 0; t < kTiles; ++t) config.set(t, 2 * t + 1, 4 * (16 - t));
  const auto move = [&]<class Tile>(std::type_identity<Tile>, Bytes* out) {
    Tile tile;
    const AmxScope<Tile> scope(tile, config);
    for (int t = 0; t < kTiles; ++t) load(tile, t, &in[static_cast<size_t>(1024 * t)], 64);
    tile.template zero<6>();
    // Backwards, with a stride that is no multiple of anything, and one row over and over.
    for (int t = 0; t < 5; ++t) store(tile, t, &(*out)[static_cast<size_t>(1024 * t + 900)], -65);
    store(tile, 6, &(*out)[6 * 1024], 64);
    load(tile, 7, in.data(), 0);
    store(tile, 7, &(*out)[7 * 1024], 64);
  };
  move(std::type_identity<TileHw>(), &from_hw);
  move(std::type_identity<TileEmu>(), &from_emu);
  EXPECT_EQ(from_hw, from_emu);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(from_hw[6 * 1024 + i], i < 40 ? 0 : 1) << i;
  EXPECT_EQ(std::memcmp(&from_hw[7 * 1024], in.data(), 36), 0);
  EXPECT_EQ(std::memcmp(&from_hw[7 * 1024 + 64], in.data(), 36), 0);
  EXPECT_EQ(from_hw[7 * 1024 + 36], 1);
  EXPECT_EQ(take_tile_fault(), TileFault::kNone);
}

// ---- what the hardware would fault on -----------------------------------------------------------
template <class Change>
TileFault config_fault(Change change) {
  TileConfig config;
  config.set(0, 16, 64);
  change(config);
  TileState state;
  return tile_load_config(state, &config);
}

TEST(AmxTile, BadConfigurationsAreFaults) {
  EXPECT_EQ(config_fault([](TileConfig&) {}), TileFault::kNone);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.palette = 2; }), TileFault::kBadPalette);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.start_row = 1; }), TileFault::kReservedNotZero);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.reserved[13] = 1; }), TileFault::kReservedNotZero);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.rows[8] = 1; }), TileFault::kReservedNotZero);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.row_bytes[15] = 1; }), TileFault::kReservedNotZero);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.set(1, 17, 64); }), TileFault::kTooManyRows);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.set(1, 16, 65); }), TileFault::kRowTooLong);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.set(7, 16, 0); }), TileFault::kHalfEmpty);
  EXPECT_EQ(config_fault([](TileConfig& c) { c.set(7, 0, 64); }), TileFault::kHalfEmpty);
}

TEST(AmxTile, ProductsOfTilesThatDoNotFitAreFaults) {
  TileState state;
  EXPECT_EQ(tile_zero(state, 0), TileFault::kNotConfigured);
  TileConfig config;
  config.set(0, 3, 20);
  config.set(1, 3, 28);
  config.set(2, 7, 20);
  config.set(3, 4, 28);  // A with other rows than C
  config.set(4, 6, 20);  // B with other rows than A has dwords
  config.set(5, 7, 24);  // B with other columns than C
  config.set(6, 3, 21);
  ASSERT_EQ(tile_load_config(state, &config), TileFault::kNone);
  EXPECT_EQ(tile_dot(state, TileDot::kU8S8, 0, 1, 2), TileFault::kNone);
  EXPECT_EQ(tile_dot(state, TileDot::kU8S8, 0, 3, 2), TileFault::kShapesDisagree);
  EXPECT_EQ(tile_dot(state, TileDot::kU8S8, 0, 1, 4), TileFault::kShapesDisagree);
  EXPECT_EQ(tile_dot(state, TileDot::kBf16, 0, 1, 5), TileFault::kShapesDisagree);
  EXPECT_EQ(tile_dot(state, TileDot::kU8S8, 0, 1, 1), TileFault::kSameTile);
  EXPECT_EQ(tile_dot(state, TileDot::kU8S8, 0, 1, 7), TileFault::kTileAbsent);
  EXPECT_EQ(tile_dot(state, TileDot::kU8S8, 6, 1, 2), TileFault::kNotDwords);
  EXPECT_EQ(tile_load(state, 7, &config, 0), TileFault::kTileAbsent);
  EXPECT_EQ(tile_store(state, 8, &config, 0), TileFault::kTileAbsent);
  tile_release(state);
  EXPECT_EQ(tile_store(state, 0, &config, 0), TileFault::kNotConfigured);
}

TEST(AmxTile, EmuKeepsTheFirstFaultOfTheThread) {
  take_tile_fault();
  TileEmu tile;
  tile.zero<0>();
  tile.load_config([] {
    TileConfig config;
    config.set(0, 17, 64);
    return config;
  }());
  EXPECT_EQ(take_tile_fault(), TileFault::kNotConfigured);
  EXPECT_EQ(take_tile_fault(), TileFault::kNone);
}

TEST(AmxTile, ReleaseForgetsTheConfiguration) {
  const tests::AmxEmulator emulator;
  TileConfig config;
  config.set(3, 5, 12);
  TileConfig stored;
  const auto store_config = [&] { asm volatile("sttilecfg %0" : "=m"(stored)); };
  const TileHw tile;
  tile.load_config(config);
  store_config();
  EXPECT_EQ(std::memcmp(&stored, &config, sizeof(config)), 0);
  tile.release();
  store_config();
  EXPECT_EQ(stored.palette, 0);
  EXPECT_EQ(stored.rows[3], 0);
  tile.load_config(config);
  config.palette = 0;  // the other way to release
  tile.load_config(config);
  store_config();
  EXPECT_EQ(stored.rows[3], 0);
}

}  // namespace
}  // namespace sprun::kernels::amx
