// The emulator of AMX instructions as a signal handler: addresses, threads, chaining.
#include "tests/support/amx_sigill.h"

#include <gtest/gtest.h>
#include <ucontext.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>

#include "kernels/amx/tile_hw.h"
#include "kernels/isa.h"

namespace sprun::tests {
namespace {

using kernels::Isa;
using kernels::amx::AmxScope;
using kernels::amx::TileConfig;
using kernels::amx::TileFault;
using kernels::amx::TileHw;

TileConfig config_of_tile(int tile, int rows, int row_bytes) {
  TileConfig config;
  config.set(tile, rows, row_bytes);
  return config;
}

TEST(AmxSigill, AmxIsReportedWhileAnEmulatorLives) {
  const auto detected = kernels::detected_isas();
  {
    const AmxEmulator outer;
    { const AmxEmulator inner; }
    const auto with = kernels::detected_isas();
    const auto real = kernels::hardware_isas();
    EXPECT_EQ(with.contains(Isa::kAmxInt8), has_real_amx() || real.contains(Isa::kAvx512Vnni));
    EXPECT_EQ(with.contains(Isa::kAmxBf16), has_real_amx() || real.contains(Isa::kAvx512Bf16));
    if (with.contains(Isa::kAmxInt8) && std::getenv("SPRUN_MAX_ISA") == nullptr) {  // which is named first
      EXPECT_NE(kernels::unavailable_reason(Isa::kAmxInt8, {}).find("excluded"), std::string::npos);
    }
  }
  EXPECT_EQ(kernels::detected_isas(), detected);
}

// Loads tile 4 with this base, index, scale and displacement, and stores it with the operands
// swapped round to scale 1.
// (Values first, registers last: computing one must not use the register of the other.)
#define SPRUN_LOAD_CASE(base_register, index_register, scale, displacement) \
  [](const char* middle, int64_t stride, void* out) {                       \
    const char* const base_value = middle - (displacement);                 \
    const int64_t index_value = stride / (scale);                           \
    register const char* base asm(base_register) = base_value;              \
    register int64_t index asm(index_register) = index_value;               \
    asm volatile("tileloadd " #displacement "(%0,%1," #scale "), %%tmm4"    \
                 :                                                          \
                 : "r"(base), "r"(index)                                    \
                 : "memory");                                               \
    TileHw().store<4>(out, 16);                                             \
  }

TEST(AmxSigill, AddressesAreBasePlusDisplacementAndStrideTimesScale) {
  using Case = void (*)(const char*, int64_t, void*);
  const Case cases[] = {
      SPRUN_LOAD_CASE("rax", "rbx", 1, 0),     SPRUN_LOAD_CASE("rcx", "rdx", 2, 64),
      SPRUN_LOAD_CASE("rsi", "rdi", 4, -64),   SPRUN_LOAD_CASE("r8", "r9", 8, 4096),
      SPRUN_LOAD_CASE("r10", "r11", 1, -4096), SPRUN_LOAD_CASE("r12", "r13", 2, 0),
      SPRUN_LOAD_CASE("r13", "r12", 4, 0),     SPRUN_LOAD_CASE("r14", "r15", 8, 127),
      SPRUN_LOAD_CASE("r15", "rax", 1, -128),  SPRUN_LOAD_CASE("rdi", "r8", 2, 128),
      SPRUN_LOAD_CASE("r9", "rcx", 8, -129),
  };
  const AmxEmulator emulator;
  std::array<char, 1024> memory;
  std::iota(memory.begin(), memory.end(), static_cast<char>(3));
  for (size_t i = 0; i < std::size(cases); ++i) {
    for (const int64_t stride : {int64_t{72}, int64_t{-72}}) {
      TileHw tile;
      const AmxScope<TileHw> scope(tile, config_of_tile(4, 5, 16));
      std::array<char, 80> got{};
      cases[i](memory.data() + 512, stride, got.data());
      for (int64_t r = 0; r < 5; ++r) {
        EXPECT_EQ(std::memcmp(got.data() + 16 * r, memory.data() + 512 + r * stride, 16), 0)
            << "case " << i << " row " << r << " stride " << stride;
      }
    }
  }
}
#undef SPRUN_LOAD_CASE

TEST(AmxSigill, WithoutIndexTheStrideIsZero) {
  const AmxEmulator emulator;
  TileHw tile;
  const AmxScope<TileHw> scope(tile, config_of_tile(1, 3, 8));
  const uint64_t value = 0x0123456789abcdef;
  std::array<uint64_t, 4> got{1, 1, 1, 1};
  asm volatile("tileloaddt1 (%0), %%tmm1" : : "r"(&value) : "memory");
  tile.store<1>(got.data(), 8);
  EXPECT_EQ(got, (std::array<uint64_t, 4>{value, value, value, 1}));
}

TEST(AmxSigill, ConfigurationMayLieAnywhere) {
  static const TileConfig config = config_of_tile(2, 7, 24);
  alignas(64) TileConfig stored[2];
  const AmxEmulator emulator;
  asm volatile("ldtilecfg %0" : : "m"(config));  // relative to the instruction
  asm volatile("sttilecfg 64(%0,%1,2)" : : "r"(stored), "r"(int64_t{0}) : "memory");
  asm volatile("tilerelease");
  EXPECT_EQ(std::memcmp(&stored[1], &config, sizeof(config)), 0);
  EXPECT_EQ(stored[0].rows[2], 0);
}

TEST(AmxSigill, EachThreadHasTilesOfItsOwn) {
  const AmxEmulator emulator;
  const auto work = [](char fill, bool* equal) {
    std::array<char, 1024> in;
    in.fill(fill);
    TileHw tile;
    const AmxScope<TileHw> scope(tile, config_of_tile(0, 16, 64));
    tile.load<0>(in.data(), 64);
    *equal = true;
    for (int i = 0; i < 50; ++i) {
      std::array<char, 1024> out{};
      tile.store<0>(out.data(), 64);
      *equal = *equal && in == out;
    }
  };
  bool first = false;
  bool second = false;
  std::thread a(work, 'a', &first);
  std::thread b(work, 'b', &second);
  a.join();
  b.join();
  EXPECT_TRUE(first);
  EXPECT_TRUE(second);
}

// ---- chaining -----------------------------------------------------------------------------------
volatile std::sig_atomic_t passed_on = 0;
volatile std::sig_atomic_t skip_bytes = 0;

void count_and_skip(int, siginfo_t*, void* context) {
  passed_on = passed_on + 1;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += skip_bytes;
}

class AmxSigillChain : public testing::Test {
 protected:
  AmxSigillChain() {
    struct sigaction action = {};
    action.sa_sigaction = count_and_skip;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGILL, &action, &old_);
    passed_on = 0;
  }
  ~AmxSigillChain() override { sigaction(SIGILL, &old_, nullptr); }

 private:
  struct sigaction old_;
};

TEST_F(AmxSigillChain, OtherInstructionsGoToTheHandlerBefore) {
  const AmxEmulator emulator;
  skip_bytes = 2;
  asm volatile("ud2");
  EXPECT_EQ(passed_on, 1);
  TileHw().release();
  EXPECT_EQ(passed_on, 1);
}

TEST_F(AmxSigillChain, FaultsGoToTheHandlerBefore) {
  const AmxEmulator emulator;
  take_amx_fault();
  TileHw tile;
  tile.release();
  skip_bytes = 5;
  tile.zero<0>();
  EXPECT_EQ(passed_on, 1);
  EXPECT_EQ(take_amx_fault(), TileFault::kNotConfigured);
  EXPECT_EQ(take_amx_fault(), TileFault::kNone);
}

TEST_F(AmxSigillChain, TheHandlerBeforeComesBack) {
  { const AmxEmulator emulator; }
  skip_bytes = 2;
  asm volatile("ud2");
  EXPECT_EQ(passed_on, 1);
}

}  // namespace
}  // namespace sprun::tests
