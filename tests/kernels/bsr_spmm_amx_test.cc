// Block-sparse products on AMX tiles against plain loops over the dense weight. Each case runs
// twice: on TileEmu, which checks every tile operation, and as the machine code that ships, on this
// CPU's tiles or under the emulator of tests/support/amx_sigill.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/amx/tile_emu.h"
#include "kernels/bsr_spmm/bsr_spmm.h"
#include "tests/support/draw.h"
#include "tests/support/aligned.h"
#include "tests/support/amx_sigill.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::aligned;
using testing_support::Aligned;
using testing_support::Size;
using testing_support::SerialParallelFor;
using tests::AmxEmulator;

unsigned seed() { return 20261124U; }

// Around the tiles: 16 and 32 tokens, 16 and 32 outputs, 64 inputs of a group.
const Size kSizes[] = {{1, 1, 1},     {15, 15, 63},  {16, 16, 64},  {17, 17, 65}, {32, 32, 128},
                       {33, 33, 129}, {67, 67, 131}, {31, 47, 257}, {64, 16, 5},  {20, 70, 400}};

enum class Zeros { kAll, kOneBlock, kTenth, kHalf, kNone, kSharedColumns, kRunsOfColumns };
constexpr Zeros kZeros[] = {Zeros::kAll,  Zeros::kOneBlock,      Zeros::kTenth,        Zeros::kHalf,
                            Zeros::kNone, Zeros::kSharedColumns, Zeros::kRunsOfColumns};

// Which blocks of 16 outputs x 4 inputs hold weights.
bool is_stored(Zeros zeros, int64_t strip, int64_t quad, std::mt19937& rng) {
  switch (zeros) {
    case Zeros::kAll:
      return false;
    case Zeros::kOneBlock:
      return strip == 0 && quad == 0;
    case Zeros::kTenth:
      return strip != 1 && rng() % 10 == 0;  // strip 1 is empty
    case Zeros::kHalf:
      return rng() % 2 == 0;
    case Zeros::kNone:
      return true;
    // The strips of a unit agree in 20 columns and then differ.
    case Zeros::kSharedColumns:
      return quad < 60 ? quad % 3 == 0 : (quad + strip) % 2 == 0;
    // 20 columns in a row, a gap, and the rest.
    case Zeros::kRunsOfColumns:
      return quad < 20 || quad > 23 + strip;
  }
  return false;
}

std::vector<int8_t> sparse_weights(const Size& s, Zeros zeros, std::mt19937& rng) {
  std::vector<int8_t> w(static_cast<size_t>(s.n * s.k), 0);
  for (int64_t n0 = 0; n0 < s.n; n0 += 16) {
    for (int64_t k0 = 0; k0 < s.k; k0 += 4) {
      if (!is_stored(zeros, n0 / 16, k0 / 4, rng)) continue;
      for (int64_t n = n0; n < std::min(n0 + 16, s.n); ++n) {
        for (int64_t k = k0; k < std::min(k0 + 4, s.k); ++k) {
          constexpr int8_t kExtremes[] = {-128, 127};
          const unsigned r = static_cast<unsigned>(rng());
          w[static_cast<size_t>(n * s.k + k)] =
              r % 8 == 0 ? kExtremes[(r >> 8) % 2] : static_cast<int8_t>(r >> 8);
        }
      }
    }
  }
  return w;
}

// One product, its own stride for every operand, canaries in all gaps.
struct U8S8Problem {
  static constexpr int32_t kCanary = -123456789;
  Size size;
  int64_t ldx, ldy;
  std::vector<uint8_t> x;
  std::vector<int8_t> w;
  std::vector<int32_t> zeros;  // of X, per row

  U8S8Problem(const Size& s, Zeros pattern) : size(s), ldx(s.k + 3), ldy(s.n + 5) {
    std::mt19937 rng(seed() + static_cast<unsigned>(pattern));
    x.resize(static_cast<size_t>(s.m * ldx + 1));
    for (uint8_t& v : x) v = rng() % 8 == 0 ? 255 : static_cast<uint8_t>(rng());
    w = sparse_weights(s, pattern, rng);
    for (int64_t m = 0; m < s.m; ++m) zeros.push_back(static_cast<int32_t>(rng() % 256));
  }

  int64_t sum(int64_t m, int64_t n, int64_t zero) const {
    int64_t out = 0;
    for (int64_t k = 0; k < size.k; ++k) {
      out += (int64_t{x[static_cast<size_t>(1 + m * ldx + k)]} - zero) *
             w[static_cast<size_t>(n * size.k + k)];
    }
    return out;
  }

  // Packs, runs `kernel` with what `args` holds beside sizes and operands; Y is in args.
  void run(const BsrU8S8Kernel& kernel, GemmU8S8Args gemm, int workers) const {
    const NonZeros bits = NonZeros::of(WeightSource<int8_t>{w.data(), size.n, size.k, size.k, 1});
    const BsrSize packed_size = bsr_size(kernel.layout, bits);
    const Aligned blob = aligned(packed_size.bytes(1), 0);
    auto* values = reinterpret_cast<int8_t*>(blob.get() + packed_size.values_at());
    const int64_t units = packed_size.units;
    std::vector<int32_t> w_sum(static_cast<size_t>(units * kernel.layout.unit_rows), 0);
    BsrU8S8Args args;
    args.w = bsr_pack(kernel.layout, bits, packed_size, blob.get(),
                      [&](int64_t at, int64_t n, int64_t k) {
                        values[at] = w[static_cast<size_t>(n * size.k + k)];
                        w_sum[static_cast<size_t>(n)] += values[at];
                      });
    const SerialParallelFor parallel_for{workers};
    const int64_t slabs = num_slabs(kernel.layout, size.m);
    const Aligned slab_memory = aligned(slabs * x_slab_elements(kernel.layout, size.k), 0x5a);
    auto* slab_data = reinterpret_cast<uint8_t*>(slab_memory.get());
    pack_x_slabs(kernel, x.data() + 1, ldx, size.m, size.k, slab_data, parallel_for);
    gemm.m = size.m;
    gemm.n = size.n;
    gemm.k = size.k;
    gemm.ldy = ldy;
    gemm.w_sum = w_sum.data();
    args.gemm = gemm;
    args.slabs = slab_data;
    const Aligned scratch = aligned(align_scratch(kernel.scratch_bytes) * workers, 0x5a);
    run_bsr(kernel, args, bsr_parts(args.w, slabs, workers), scratch.get(), parallel_for);
    EXPECT_EQ(amx::take_tile_fault(), amx::TileFault::kNone);
  }

  // zero_stride: -1 none, 0 one for all rows, 1 one for each.
  void expect_exact(const KernelInfo<BsrU8S8Kernel>& info, int zero_stride, int workers) const {
    std::vector<int32_t> y(static_cast<size_t>(size.m * ldy), kCanary);
    GemmU8S8Args args;
    args.y_s32 = y.data();
    args.x_zero_point = zero_stride < 0 ? nullptr : zeros.data();
    args.x_zero_point_stride = zero_stride == 1 ? 1 : 0;
    run(*info.kernel, args, workers);
    for (int64_t m = 0; m < size.m; ++m) {
      const int64_t zero =
          zero_stride < 0 ? 0 : zeros[static_cast<size_t>(zero_stride == 1 ? m : 0)];
      for (int64_t n = 0; n < ldy; ++n) {
        const int64_t want = n < size.n ? sum(m, n, zero) : kCanary;
        ASSERT_EQ(y[static_cast<size_t>(m * ldy + n)], want)
            << info.name << " M " << size.m << " N " << size.n << " K " << size.k << " row " << m
            << " column " << n << " zero " << zero;
      }
    }
  }
};

// Every kernel that works on tiles and can run here while an AmxEmulator lives.
std::vector<KernelInfo<BsrU8S8Kernel>> tile_kernels() {
  std::vector<KernelInfo<BsrU8S8Kernel>> list;
  for (const auto& info : bsr_u8s8_kernels()) {
    const bool amx = info.isa == Isa::kAmxInt8;
    if (amx && detected_isas().contains(info.isa)) list.push_back(info);
  }
  for (const auto& info : bsr_u8s8_test_kernels()) list.push_back(info);
  return list;
}

TEST(BsrSpmmAmx, Int8IsExactForEverySizeAndPattern) {
  const AmxEmulator emulator;
  for (const auto& info : tile_kernels()) {
    for (const Size& size : kSizes) {
      for (const Zeros zeros : kZeros) {
        const U8S8Problem problem(size, zeros);
        ASSERT_NO_FATAL_FAILURE(problem.expect_exact(info, static_cast<int>(zeros) % 3 - 1, 1));
      }
    }
  }
}

TEST(BsrSpmmAmx, Int8PartsOfSeveralWorkersMeet) {
  const AmxEmulator emulator;
  for (const auto& info : tile_kernels()) {
    const U8S8Problem problem({67, 133, 140}, Zeros::kHalf);
    problem.expect_exact(info, 1, 3);
  }
}

TEST(BsrSpmmAmx, Int8ScalesBiasActivationAndResidual) {
  const AmxEmulator emulator;
  const Size size = {35, 50, 70};
  const U8S8Problem problem(size, Zeros::kTenth);
  std::mt19937 rng(seed());
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  const auto floats = [&](int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& f : v) f = uniform(rng);
    return v;
  };
  const std::vector<float> bias = floats(size.n);
  const std::vector<float> w_scale = floats(size.n);
  const std::vector<float> residual = floats(size.m * (size.n + 2));
  const float x_scale = 0.01F;
  for (const auto& info : tile_kernels()) {
    for (const Activation activation : {Activation::kNone, Activation::kRelu}) {
      std::vector<float> y(static_cast<size_t>(size.m * problem.ldy), -7.5F);
      GemmU8S8Args args;
      args.y = y.data();
      args.x_zero_point = problem.zeros.data();
      args.x_scale = &x_scale;
      args.w_scale = w_scale.data();
      args.w_scale_stride = 1;
      args.epilogue.bias = bias.data();
      args.epilogue.activation = activation;
      args.epilogue.residual = residual.data();
      args.epilogue.ld_residual = size.n + 2;
      problem.run(*info.kernel, args, 1);
      for (int64_t m = 0; m < size.m; ++m) {
        for (int64_t n = 0; n < problem.ldy; ++n) {
          const float got = y[static_cast<size_t>(m * problem.ldy + n)];
          if (n >= size.n) {
            ASSERT_EQ(got, -7.5F);
            continue;
          }
          const auto sum = static_cast<float>(problem.sum(m, n, problem.zeros[0]));
          float want =
              sum * x_scale * w_scale[static_cast<size_t>(n)] + bias[static_cast<size_t>(n)];
          if (activation == Activation::kRelu) want = std::max(want, 0.0F);
          want += residual[static_cast<size_t>(m * (size.n + 2) + n)];
          const float bound = 1e-5F * (1.0F + std::abs(sum * x_scale));
          ASSERT_NEAR(got, want, bound) << info.name << " row " << m << " column " << n;
        }
      }
    }
  }
}

TEST(BsrSpmmAmx, TheShippedMachineCodeRan) {
#if defined(SPRUN_NO_AVX512) || defined(SPRUN_NO_AMX)
  GTEST_SKIP() << "built without AMX";
#endif
  const AmxEmulator emulator;
  const auto list = bsr_u8s8_kernels();
  const auto info =
      std::find_if(list.begin(), list.end(), [](const auto& i) { return i.isa == Isa::kAmxInt8; });
  ASSERT_NE(info, list.end());
  if (!detected_isas().contains(Isa::kAmxInt8)) GTEST_SKIP() << "needs AVX-512 VNNI";
  const int64_t before = tests::amx_emulated_instructions();
  U8S8Problem({17, 33, 70}, Zeros::kHalf).expect_exact(*info, 0, 1);
  EXPECT_EQ(tests::amx_emulated_instructions() > before, !tests::has_real_amx());
}

// A machine without AMX never gets a tile kernel, and one with it gets the hardware's.
TEST(BsrSpmmAmx, EmulationIsNeverSelected) {
  const auto select = [](IsaSet isas, int64_t m) {
    return std::string(select_bsr(bsr_u8s8_kernels(), kBlock16x4, m, isas)->name);
  };
  EXPECT_EQ(select({Isa::kScalar, Isa::kAvx2}, 64).find("amx"), std::string::npos);
#if !defined(SPRUN_NO_AVX512) && !defined(SPRUN_NO_AMX)
  const IsaSet all = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAmxInt8};
  EXPECT_EQ(select(all, 64), "bsr_spmm_16x4_u8s8_amxint8");
  EXPECT_EQ(select(all, 8).find("amx"), std::string::npos);
#endif
  for (const auto& info : bsr_u8s8_test_kernels()) {
    EXPECT_EQ(info.name.find("amxemu") == std::string::npos, false);
  }
}

}  // namespace
}  // namespace sprun::kernels
