// Every compressed GEMV variant of this machine against the scalar reference, the reference against
// the dense family, and the packer against itself.
#include "kernels/bsr_gemv/bsr_gemv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/bsr_gemv/pack.h"
#include "kernels/gemm/gemm.h"
#include "kernels/simd/half.h"
#include "tests/support/draw.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::kCanary;
using testing_support::Size;
using testing_support::SerialParallelFor;

constexpr GemvFormat kFormats[] = {GemvFormat::kBitmap, GemvFormat::kQuads,
                                   GemvFormat::kOneOfFour, GemvFormat::kTwoOfFour};
const char* const kFormatNames[] = {"bitmap", "1x4", "1:4", "2:4"};

unsigned seed() { return testing_support::seed_or(20240607U); }

// Around chunks of 64 inputs, groups of 4 and panels of 32 outputs, passes of 2, 4 and 6 rows and
// blocks of 16; primes.
const Size kSizes[] = {{1, 1, 1},    {1, 3, 63},  {2, 4, 64},   {3, 5, 65},   {4, 31, 131},
                       {5, 32, 128}, {6, 33, 7},  {7, 67, 192}, {16, 97, 70}, {17, 13, 61},
                       {35, 37, 97}, {1, 67, 1031}, {3, 9, 4181}, {2, 5, 0}};

// kMixed: few and many zeros in turns, in stretches of 1024 inputs.
enum class Zeros { kAll, kOneBlock, kMost, kHalf, kNone, kEmptyRows, kMixed };
constexpr Zeros kZeros[] = {Zeros::kAll,  Zeros::kOneBlock,  Zeros::kMost, Zeros::kHalf,
                            Zeros::kNone, Zeros::kEmptyRows, Zeros::kMixed};

// Which elements are stored, in a pattern that `format` can hold.
std::vector<bool> make_mask(Size s, GemvFormat format, Zeros zeros, std::mt19937& rng) {
  std::vector<bool> mask(static_cast<size_t>(s.n * s.k));
  const auto density_at = [zeros](int64_t k) {
    if (zeros == Zeros::kMixed) return k / 1024 % 2 == 0 ? 0.1 : 0.9;
    return zeros == Zeros::kMost ? 0.1 : zeros == Zeros::kNone ? 1.0 : 0.5;
  };
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int64_t n = 0; n < s.n; ++n) {
    for (int64_t k = 0; k < s.k; k += 4) {
      if (zeros == Zeros::kAll || (zeros == Zeros::kEmptyRows && n % 3 != 1)) continue;
      if (zeros == Zeros::kOneBlock && (n != s.n / 2 || k / 4 != s.k / 8)) continue;
      const double density = density_at(k);
      const bool quad = uniform(rng) < density;
      int64_t room = 4;
      if (format == GemvFormat::kOneOfFour) room = 1;
      if (format == GemvFormat::kTwoOfFour) room = 2;
      const int64_t first = static_cast<int64_t>(rng() % 4);
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t at = k + (first + i) % 4;
        const bool keep = format == GemvFormat::kQuads ? quad : uniform(rng) < density;
        if (at >= s.k || !keep || room == 0) continue;
        --room;
        mask[static_cast<size_t>(n * s.k + at)] = true;
      }
    }
  }
  return mask;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<void, Free>;

Buffer aligned(int64_t bytes) {
  return Buffer(std::aligned_alloc(64, static_cast<size_t>(bytes + 63) / 64 * 64));
}

// W stored with other strides: [K + 1, N + 2] transposed, or [N, K + 3].
template <class T>
struct Stored {
  std::vector<T> data;
  WeightSource<T> source;
  Stored(const std::vector<T>& w, Size s, bool transposed) {
    const int64_t stride_n = transposed ? 1 : s.k + 3;
    const int64_t stride_k = transposed ? s.n + 2 : 1;
    data.assign(static_cast<size_t>((s.n + 2) * (s.k + 3)), T{77});
    for (int64_t i = 0; i < s.n * s.k; ++i) {
      const int64_t at = i / s.k * stride_n + i % s.k * stride_k;
      data[static_cast<size_t>(at)] = w[static_cast<size_t>(i)];
    }
    source = {data.data(), s.n, s.k, stride_n, stride_k};
  }
};

Buffer pack_s8_blob(const std::vector<int8_t>& w, Size s, GemvFormat format, bool transposed) {
  const Stored<int8_t> stored(w, s, transposed);
  const GemvCounts counts = count_gemv_s8(stored.source, nullptr, 0);
  EXPECT_EQ(gemv_refusal(counts, format, 1), nullptr);
  Buffer blob = aligned(gemv_packed_bytes(counts, format, 1));
  pack_gemv_s8(stored.source, nullptr, 0, counts, format, blob.get());
  return blob;
}

template <class Kernel, class Fn>
void for_each_variant(std::span<const KernelInfo<Kernel>> list, Fn fn) {
  for (const auto& info : list) {
    if (available_isas().contains(info.isa)) fn(info);
  }
}

enum class Mode { kRaw, kXZero, kPerTensor, kWeightZero, kFull };

struct U8S8Problem {
  Size size;
  GemvFormat format;
  int64_t ldx, ldy, ldr;
  std::vector<uint8_t> x;
  std::vector<int8_t> w;
  std::vector<int32_t> x_zero, w_zero, x_sum;
  std::vector<float> x_scale, w_scale, bias, residual;

  U8S8Problem(Size s, GemvFormat f, Zeros zeros, bool extreme, unsigned salt)
      : size(s), format(f), ldx(s.k + 3), ldy(s.n + 5), ldr(s.n + 2) {
    std::mt19937 rng(seed() + salt);
    const auto value = [&](int lo, int hi) {
      if (extreme) return rng() % 4 == 0 ? lo : hi;
      return std::uniform_int_distribution<int>(lo, hi)(rng);
    };
    const std::vector<bool> mask = make_mask(s, f, zeros, rng);
    w.assign(static_cast<size_t>(s.n * s.k), 0);
    for (size_t i = 0; i < w.size(); ++i) {
      if (mask[i]) w[i] = static_cast<int8_t>(value(-128, extreme ? -128 : 127));
    }
    for (size_t i = 0; extreme && i < w.size(); i += 3) {
      if (mask[i]) w[i] = 127;
    }
    x.assign(static_cast<size_t>(s.m * ldx + 1), 0xee);
    for (int64_t m = 0; m < s.m; ++m) {
      int32_t sum = 0;
      for (int64_t i = 0; i < s.k; ++i) {
        const auto v = static_cast<uint8_t>(value(0, 255));
        x[static_cast<size_t>(1 + m * ldx + i)] = v;
        sum += v;
      }
      x_sum.push_back(sum);
      x_zero.push_back(value(0, 255));
      x_scale.push_back(0.01F + 0.001F * static_cast<float>(m));
    }
    for (int64_t n = 0; n < s.n; ++n) {
      w_zero.push_back(value(-100, 100));
      w_scale.push_back(0.02F + 0.0007F * static_cast<float>(n));
      bias.push_back(static_cast<float>(n) - 3.0F);
    }
    for (int64_t i = 0; i < s.m * ldr; ++i) residual.push_back(static_cast<float>(i % 89) * 0.5F);
  }

  GemmU8S8Args args(Mode mode) const {
    GemmU8S8Args a{};
    a.m = size.m;
    a.n = size.n;
    a.k = size.k;
    a.x = x.data() + 1;
    a.ldx = ldx;
    a.ldy = ldy;
    a.x_scale = x_scale.data();
    a.w_scale = w_scale.data();
    a.x_scale_stride = a.w_scale_stride = mode == Mode::kPerTensor ? 0 : 1;
    if (mode != Mode::kRaw) {
      a.x_zero_point = x_zero.data();
      a.x_zero_point_stride = mode == Mode::kPerTensor ? 0 : 1;
    }
    if (mode == Mode::kWeightZero) {
      a.w_zero_point = w_zero.data();
      a.w_zero_point_stride = 1;
      a.x_sum = x_sum.data();
    }
    if (mode == Mode::kFull) {
      a.epilogue.bias = bias.data();
      a.epilogue.activation = Activation::kSilu;
      a.epilogue.residual = residual.data();
      a.epilogue.ld_residual = ldr;
    }
    return a;
  }

  struct Output {
    std::vector<int32_t> s32;
    std::vector<float> f32;
  };

  template <class Run>
  Output run_both(Mode mode, const Run& run) const {
    Output out;
    out.s32.assign(static_cast<size_t>(size.m * ldy + 1), -777);
    out.f32.assign(static_cast<size_t>(size.m * ldy + 1), kCanary);
    GemmU8S8Args a = args(mode);
    a.y_s32 = out.s32.data() + 1;
    run(a);
    a.y_s32 = nullptr;
    a.y = out.f32.data() + 1;
    run(a);
    return out;
  }

  Output run(const BsrGemvU8S8Kernel& kernel, const void* blob, Mode mode, int workers) const {
    return run_both(mode, [&](GemmU8S8Args a) {
      a.w = static_cast<const int8_t*>(blob);
      bsr_gemv(kernel, a, workers, SerialParallelFor{workers});
    });
  }

  Output run_dense(Mode mode) const {
    const GemmU8S8Kernel& kernel = *gemm_u8s8_kernels().back().kernel;
    std::vector<int8_t> packed(static_cast<size_t>(packed_size_s8(size.n, size.k, kernel.nr)));
    const int64_t panels = num_panels(size.n, kernel.nr);
    std::vector<int32_t> w_sum(static_cast<size_t>(panels * kernel.nr));
    pack_s8({w.data(), size.n, size.k, size.k, 1}, kernel.nr, 0, panels, packed.data(),
            w_sum.data());
    return run_both(mode, [&](GemmU8S8Args a) {
      a.w = packed.data();
      a.w_sum = w_sum.data();
      const Buffer scratch = aligned(gemm_scratch_bytes(kernel, 1) + 64);
      gemm_u8s8(kernel, a, 1, scratch.get(), SerialParallelFor{1});
    });
  }
};

void expect_same(const U8S8Problem::Output& got, const U8S8Problem::Output& want,
                 const std::string& what) {
  ASSERT_EQ(got.s32, want.s32) << what << " seed " << seed();
  for (size_t i = 0; i < got.f32.size(); ++i) {
    const double w = static_cast<double>(want.f32[i]);
    ASSERT_NEAR(static_cast<double>(got.f32[i]), w, 1e-5 + 2e-6 * std::fabs(w))
        << what << " at " << i << " seed " << seed();
  }
}

std::string describe(std::string_view name, Size s, GemvFormat format, Zeros zeros) {
  return std::string(name) + " " + kFormatNames[static_cast<int>(format)] + " zeros " +
         std::to_string(static_cast<int>(zeros)) + " " + std::to_string(s.m) + "x" +
         std::to_string(s.n) + "x" + std::to_string(s.k);
}

TEST(BsrGemvU8S8, ReferenceEqualsTheDenseFamily) {
  for (GemvFormat format : kFormats) {
    const Size s{5, 37, 131};
    const U8S8Problem p(s, format, Zeros::kHalf, false, 7);
    const Buffer blob = pack_s8_blob(p.w, s, format, false);
    for (Mode mode : {Mode::kRaw, Mode::kXZero, Mode::kPerTensor, Mode::kWeightZero, Mode::kFull}) {
      expect_same(p.run(*bsr_gemv_u8s8_kernels().back().kernel, blob.get(), mode, 1),
                  p.run_dense(mode), describe("ref", s, format, Zeros::kHalf));
    }
  }
}

TEST(BsrGemvU8S8, EveryVariantAndFormatIsExact) {
  unsigned salt = 0;
  for (const Size& s : kSizes) {
    for (GemvFormat format : kFormats) {
      for (Zeros zeros : kZeros) {
        const U8S8Problem p(s, format, zeros, false, ++salt);
        const Buffer blob = pack_s8_blob(p.w, s, format, salt % 2 == 0);
        const auto want = p.run_dense(Mode::kXZero);
        for_each_variant(bsr_gemv_u8s8_kernels(), [&](const auto& info) {
          expect_same(p.run(*info.kernel, blob.get(), Mode::kXZero, 1), want,
                      describe(info.name, s, format, zeros));
        });
      }
    }
  }
}

TEST(BsrGemvU8S8, EpilogueIsThatOfTheDenseFamily) {
  const Size s{9, 75, 200};
  for (Mode mode : {Mode::kRaw, Mode::kXZero, Mode::kPerTensor, Mode::kWeightZero, Mode::kFull}) {
    const U8S8Problem p(s, GemvFormat::kQuads, Zeros::kHalf, false, 11);
    const Buffer blob = pack_s8_blob(p.w, s, GemvFormat::kQuads, false);
    const auto want = p.run_dense(mode);
    for_each_variant(bsr_gemv_u8s8_kernels(), [&](const auto& info) {
      expect_same(p.run(*info.kernel, blob.get(), mode, 1), want,
                  describe(info.name, s, GemvFormat::kQuads, Zeros::kHalf));
    });
  }
}

TEST(BsrGemvU8S8, EveryRowCountUpToTwoBlocksMatches) {
  for (int64_t m = 1; m <= 34; ++m) {
    const Size s{m, 36, 67};
    for (GemvFormat format : kFormats) {
      const U8S8Problem p(s, format, Zeros::kHalf, false, static_cast<unsigned>(m));
      const Buffer blob = pack_s8_blob(p.w, s, format, false);
      const auto want = p.run_dense(Mode::kFull);
      for_each_variant(bsr_gemv_u8s8_kernels(), [&](const auto& info) {
        expect_same(p.run(*info.kernel, blob.get(), Mode::kFull, 1), want,
                    describe(info.name, s, format, Zeros::kHalf));
      });
    }
  }
}

TEST(BsrGemvU8S8, ExtremeValuesDoNotSaturate) {
  for (const Size& s : {Size{3, 33, 64}, Size{1, 32, 4099}, Size{7, 9, 129}}) {
    for (GemvFormat format : kFormats) {
      const U8S8Problem p(s, format, Zeros::kNone, true, 300);
      const Buffer blob = pack_s8_blob(p.w, s, format, true);
      const auto want = p.run_dense(Mode::kXZero);
      for_each_variant(bsr_gemv_u8s8_kernels(), [&](const auto& info) {
        expect_same(p.run(*info.kernel, blob.get(), Mode::kXZero, 1), want,
                    describe(info.name, s, format, Zeros::kNone));
      });
    }
  }
}

TEST(BsrGemvU8S8, LargestAllowedKDoesNotOverflow) {
  constexpr int64_t kK = 65793;
  const std::vector<uint8_t> x(kK, 255);
  const std::vector<int8_t> w(kK, -128);
  for (GemvFormat format : {GemvFormat::kBitmap, GemvFormat::kQuads}) {
    const Buffer blob = pack_s8_blob(w, {1, 1, kK}, format, false);
    for_each_variant(bsr_gemv_u8s8_kernels(), [&](const auto& info) {
      int32_t y = 0;
      GemmU8S8Args args{};
      args.m = args.n = args.ldy = 1;
      args.k = args.ldx = kK;
      args.x = x.data();
      args.w = static_cast<const int8_t*>(blob.get());
      args.y_s32 = &y;
      bsr_gemv(*info.kernel, args, 1, SerialParallelFor{1});
      EXPECT_EQ(y, -2147483520) << info.name;
    });
  }
}

TEST(BsrGemvU8S8, SplitWorkGivesTheSameResult) {
  const Size s{4, 1000, 4096};  // large enough for several parts
  for (GemvFormat format : kFormats) {
    const U8S8Problem p(s, format, Zeros::kMost, false, 21);
    const Buffer blob = pack_s8_blob(p.w, s, format, false);
    const auto& info = select(bsr_gemv_u8s8_kernels(), available_isas());
    const auto& header = *static_cast<const GemvBlob*>(blob.get());
    EXPECT_GT(make_gemv_split(header, s.m, 3).parts, 1);
    expect_same(p.run(*info.kernel, blob.get(), Mode::kFull, 3),
                p.run(*info.kernel, blob.get(), Mode::kFull, 1),
                describe(info.name, s, format, Zeros::kMost));
  }
}

TEST(BsrGemvU8S8, EmptyProblemsWriteNothing) {
  for (const Size& s : {Size{0, 5, 3}, Size{3, 0, 5}}) {
    const Buffer blob = pack_s8_blob(std::vector<int8_t>(static_cast<size_t>(s.n * s.k), 1), s,
                                     GemvFormat::kBitmap, false);
    for_each_variant(bsr_gemv_u8s8_kernels(), [&](const auto& info) {
      int32_t y = -777;
      GemmU8S8Args args{};
      args.m = s.m;
      args.n = args.ldy = s.n;
      args.k = args.ldx = s.k;
      args.w = static_cast<const int8_t*>(blob.get());
      args.y_s32 = &y;
      bsr_gemv(*info.kernel, args, 2, SerialParallelFor{2});
      EXPECT_EQ(y, -777) << info.name;
    });
  }
}

struct Bf16Problem {
  Size size;
  int64_t ldx, ldy;
  std::vector<float> w, bias;
  std::vector<uint16_t> x;

  Bf16Problem(Size s, Zeros zeros, unsigned salt) : size(s), ldx(s.k + 3), ldy(s.n + 5) {
    std::mt19937 rng(seed() + salt);
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    const std::vector<bool> mask = make_mask(s, GemvFormat::kBitmap, zeros, rng);
    for (size_t i = 0; i < mask.size(); ++i) w.push_back(mask[i] ? uniform(rng) : 0.0F);
    for (int64_t n = 0; n < s.n; ++n) bias.push_back(uniform(rng));
    x.assign(static_cast<size_t>(s.m * ldx + 1), simd::f32_to_bf16(NAN));
    for (int64_t i = 0; i < s.m * s.k; ++i) {
      x[static_cast<size_t>(1 + i / s.k * ldx + i % s.k)] = simd::f32_to_bf16(uniform(rng));
    }
  }

  Buffer pack(bool transposed) const {
    const Stored<float> stored(w, size, transposed);
    const GemvCounts counts = count_gemv_bf16(stored.source);
    Buffer blob = aligned(gemv_packed_bytes(counts, GemvFormat::kBitmap, 2));
    pack_gemv_bf16(stored.source, counts, GemvFormat::kBitmap, blob.get());
    return blob;
  }

  std::vector<float> run(const BsrGemvBf16Kernel& kernel, const void* blob, int workers) const {
    std::vector<float> y(static_cast<size_t>(size.m * ldy + 1), kCanary);
    GemmBf16Args args{size.m, size.n, size.k, x.data() + 1, ldx, nullptr, y.data() + 1, ldy, {}};
    args.w = static_cast<const uint16_t*>(blob);
    args.epilogue.bias = bias.data();
    args.epilogue.alpha = -0.75F;
    args.epilogue.activation = Activation::kGeluTanh;
    bsr_gemv(kernel, args, workers, SerialParallelFor{workers});
    return y;
  }
};

TEST(BsrGemvBf16, EveryVariantMatchesTheReference) {
  unsigned salt = 500;
  for (const Size& s : kSizes) {
    for (Zeros zeros : kZeros) {
      const Bf16Problem p(s, zeros, ++salt);
      const Buffer blob = p.pack(salt % 2 == 0);
      const auto want = p.run(*bsr_gemv_bf16_kernels().back().kernel, blob.get(), 1);
      const double bound = static_cast<double>(std::numeric_limits<float>::epsilon()) *
                               (static_cast<double>(s.k) + 1.0) * 2.0 + 2e-6;
      for_each_variant(bsr_gemv_bf16_kernels(), [&](const auto& info) {
        const auto got = p.run(*info.kernel, blob.get(), 3);
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(static_cast<double>(got[i]), static_cast<double>(want[i]), bound)
              << describe(info.name, s, GemvFormat::kBitmap, zeros) << " at " << i << " seed "
              << seed();
        }
      });
    }
  }
}

TEST(BsrGemvBf16, ReferenceEqualsTheDenseFamily) {
  const Size s{3, 41, 150};
  const Bf16Problem p(s, Zeros::kHalf, 900);
  const Buffer blob = p.pack(false);
  const GemmBf16Kernel& dense = *gemm_bf16_kernels().back().kernel;
  std::vector<uint16_t> packed(static_cast<size_t>(packed_size_bf16(s.n, s.k, dense.nr)));
  dense.pack({p.w.data(), s.n, s.k, s.k, 1}, 0, num_panels(s.n, dense.nr), packed.data());
  std::vector<float> want(static_cast<size_t>(s.m * p.ldy + 1), kCanary);
  GemmBf16Args args{s.m,           s.n,             s.k,   p.x.data() + 1, p.ldx,
                    packed.data(), want.data() + 1, p.ldy, {}};
  args.epilogue.bias = p.bias.data();
  args.epilogue.alpha = -0.75F;
  args.epilogue.activation = Activation::kGeluTanh;
  dense.run(args, {0, s.m, 0, num_panels(s.n, dense.nr)}, nullptr);
  const auto got = p.run(*bsr_gemv_bf16_kernels().back().kernel, blob.get(), 1);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-6) << i;
}

TEST(BsrGemvPack, UnpackGivesTheWeightsBack) {
  for (const Size& s : kSizes) {
    for (GemvFormat format : kFormats) {
      for (Zeros zeros : kZeros) {
        const U8S8Problem p(s, format, zeros, false, 40);
        const Buffer blob = pack_s8_blob(p.w, s, format, false);
        std::vector<int8_t> out(p.w.size() + 1, 99);
        unpack_gemv_s8(blob.get(), out.data());
        EXPECT_EQ(out.back(), 99);
        out.pop_back();
        EXPECT_EQ(out, p.w) << describe("unpack", s, format, zeros);
      }
    }
    const Bf16Problem p(s, Zeros::kHalf, 41);
    std::vector<uint16_t> out(p.w.size());
    unpack_gemv_bf16(p.pack(true).get(), out.data());
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], simd::f32_to_bf16(p.w[i]));
  }
}

// Header, sums, panel offsets and padding aside, the sizes are those of the table in the contract.
TEST(BsrGemvPack, BytesAreKnownFromTheCounts) {
  const Size s{1, 256, 1024};
  const double weights = static_cast<double>(s.n * s.k);
  const double expected[] = {0.5 + 0.125, 0.5 + 0.03125, 0.3125, 0.625};
  for (GemvFormat format : kFormats) {
    const U8S8Problem p(s, format, Zeros::kHalf, false, 50);
    const GemvCounts counts = count_gemv_s8({p.w.data(), s.n, s.k, s.k, 1}, nullptr, 0);
    const int64_t bytes = gemv_packed_bytes(counts, format, 1);
    const Buffer blob = aligned(bytes + 64);
    std::memset(static_cast<char*>(blob.get()) + bytes, 0x5a, 64);
    pack_gemv_s8({p.w.data(), s.n, s.k, s.k, 1}, nullptr, 0, counts, format, blob.get());
    EXPECT_EQ(static_cast<const GemvBlob*>(blob.get())->bytes, bytes);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(static_cast<char*>(blob.get())[bytes + i], 0x5a);
    const double per_weight = static_cast<double>(bytes) / weights;
    EXPECT_NEAR(per_weight, expected[static_cast<int>(format)], 0.02)
        << kFormatNames[static_cast<int>(format)];
  }
}

TEST(BsrGemvPack, ZeroPointIsSubtractedAndRefusedWhereItDoesNotFit) {
  const std::vector<uint8_t> w = {128, 130, 128, 255, 1, 128};  // [2, 3]
  const int32_t zero = 128;
  const WeightSource<uint8_t> source{w.data(), 2, 3, 3, 1};
  const GemvCounts counts = count_gemv_u8(source, &zero, 0);
  EXPECT_EQ(counts.weights, 3);
  EXPECT_EQ(counts.quads, 2);
  EXPECT_EQ(counts.most_in_quad, 2);
  ASSERT_EQ(gemv_refusal(counts, GemvFormat::kBitmap, 1), nullptr);
  const Buffer blob = aligned(gemv_packed_bytes(counts, GemvFormat::kBitmap, 1));
  pack_gemv_u8(source, &zero, 0, counts, GemvFormat::kBitmap, blob.get());
  std::vector<int8_t> out(6);
  unpack_gemv_s8(blob.get(), out.data());
  EXPECT_EQ(out, (std::vector<int8_t>{0, 2, 0, 127, -127, 0}));
  const int32_t zeros[] = {100, 128};  // 255 - 100 does not fit: per output
  EXPECT_TRUE(count_gemv_u8({w.data(), 1, 3, 3, 1}, zeros, 1).fits);
  const std::vector<uint8_t> large = {255, 0};
  EXPECT_FALSE(count_gemv_u8({large.data(), 2, 1, 1, 1}, zeros, 1).fits);
  EXPECT_NE(gemv_refusal(count_gemv_u8({large.data(), 2, 1, 1, 1}, zeros, 1),
                         GemvFormat::kBitmap, 1),
            nullptr);
}

TEST(BsrGemvPack, PatternsThatAFormatCannotHoldAreRefused) {
  const std::vector<int8_t> w = {1, 0, 2, 3, 0, 0, 0, 4};
  const GemvCounts counts = count_gemv_s8({w.data(), 1, 8, 8, 1}, nullptr, 0);
  EXPECT_EQ(gemv_refusal(counts, GemvFormat::kBitmap, 1), nullptr);
  EXPECT_EQ(gemv_refusal(counts, GemvFormat::kQuads, 1), nullptr);
  EXPECT_NE(gemv_refusal(counts, GemvFormat::kOneOfFour, 1), nullptr);
  EXPECT_NE(gemv_refusal(counts, GemvFormat::kTwoOfFour, 1), nullptr);
  EXPECT_NE(gemv_refusal(counts, GemvFormat::kQuads, 2), nullptr);
}

TEST(BsrGemvSplit, PartsCoverThePanelsOnceAndHaveEqualBytes) {
  const Size s{1, 2048, 512};
  std::vector<int8_t> w(static_cast<size_t>(s.n * s.k), 0);
  for (size_t i = w.size() / 2; i < w.size(); ++i) w[i] = 1;  // all in the second half
  const Buffer blob = pack_s8_blob(w, s, GemvFormat::kQuads, false);
  const auto& header = *static_cast<const GemvBlob*>(blob.get());
  const GemvSplit split = make_gemv_split(header, 16, 2);
  ASSERT_GT(split.parts, 1);
  EXPECT_EQ(split.begin(0), 0);
  EXPECT_EQ(split.begin(split.parts), 64);
  for (int64_t i = 0; i < split.parts; ++i) EXPECT_LE(split.begin(i), split.begin(i + 1));
  // Half of the bytes lie past three quarters of the rows, nearly.
  EXPECT_NEAR(static_cast<double>(split.begin(split.parts / 2)), 47.0, 2.0);
}

TEST(BsrGemvRegistry, ReferencesAreLast) {
  EXPECT_EQ(bsr_gemv_u8s8_kernels().back().name, "bsr_gemv_u8s8_ref");
  EXPECT_EQ(bsr_gemv_bf16_kernels().back().name, "bsr_gemv_bf16_ref");
  std::vector<Rejection> why;
  EXPECT_EQ(select(bsr_gemv_u8s8_kernels(), IsaSet{Isa::kScalar, Isa::kAvx2}, &why).name,
            "bsr_gemv_u8s8_avx2");
  for (const Rejection& r : why) EXPECT_FALSE(r.reason.empty()) << r.kernel;
}

}  // namespace
}  // namespace sprun::kernels
