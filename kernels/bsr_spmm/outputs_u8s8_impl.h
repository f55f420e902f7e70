// u8 x s8 products with 16x4 blocks and outputs as lanes: X stays row-major, for few rows.
//
// One step loads the 16 outputs of a block once and multiplies them by a broadcast quad of each
// token: the same packed weights as with tokens as lanes, streamed once for up to kTokens rows.
#pragma once

#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/finish_u8s8_impl.h"
#include "kernels/simd/dot4_pairs.h"

namespace sprun::kernels::bsr {

// Tokens whose sums of 16 outputs stay in registers.
template <class Arch>
inline constexpr int kOutputTokens = 2;
template <>
inline constexpr int kOutputTokens<simd::AvxVnni> = 4;
template <>
inline constexpr int kOutputTokens<simd::Avx512> = 8;
template <>
inline constexpr int kOutputTokens<simd::Avx512Vnni> = 16;

template <class Arch, class DotT>
struct OutputsU8S8 {
  using Dot = DotT;
  using I = typename Dot::Acc;
  static constexpr int kLanes = I::kLanes;
  static constexpr int kParts = 16 / kLanes;
  static constexpr int kTokens = kOutputTokens<Arch>;
  static constexpr int64_t kBlock = 64;  // bytes
  // Every line of the values is fetched so far ahead. With two threads 90 % of zeros gain 10 % over the hardware's own
  // prefetching alone; 1 KiB is 8 % slower where memory is quick, 8 KiB is no better.
  static constexpr int64_t kAhead = 4096;

  // sums[t * 16 ..] of kCount tokens over all blocks of a unit. The last quad of a row may be short:
  // it is the last block when `short_col` is its column.
  template <int kCount>
  static void tokens(const uint16_t* cols, const int8_t* w, int64_t blocks, const uint8_t* x,
                     int64_t ldx, int64_t short_col, int64_t short_bytes, int32_t* sums) {
    constexpr int kSets = kCount * kParts == 1 ? 4 : kCount * kParts <= 4 ? 2 : 1;
    I acc[kSets][kCount][kParts];
#pragma GCC unroll 4
    for (int s = 0; s < kSets; ++s) {
#pragma GCC unroll 16
      for (int t = 0; t < kCount; ++t) {
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p) {
          acc[s][t][p] = s > 0 ? I::zero() : I::load(sums + t * 16 + p * kLanes);
        }
      }
    }
    const auto step = [&](I(&sum)[kCount][kParts], int64_t i, auto quad)
                          __attribute__((always_inline)) {
      const uint8_t* in = x + 4 * int64_t{cols[i]};
      typename Dot::B b[kParts];
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) b[p] = Dot::load(w + i * kBlock + 4 * kLanes * p);
#pragma GCC unroll 16
      for (int t = 0; t < kCount; ++t) {
        const auto a = Dot::broadcast(quad(in + t * ldx));
#pragma GCC unroll 4
        for (int p = 0; p < kParts; ++p) Dot::accumulate(sum[t][p], a, b[p]);
      }
    };
    const auto full = [](const uint8_t* p) __attribute__((always_inline)) {
      return simd::load_quad(p);
    };
    const bool has_short = short_bytes > 0 && blocks > 0 && cols[blocks - 1] == short_col;
    const int64_t whole = blocks - (has_short ? 1 : 0);
    int64_t i = 0;
    for (; i + kSets <= whole; i += kSets) {
#pragma GCC unroll 4
      for (int s = 0; s < kSets; ++s) {
        __builtin_prefetch(w + (i + s) * kBlock + kAhead);
        step(acc[s], i + s, full);
      }
      __builtin_prefetch(cols + i + 2 * kAhead / kBlock);
    }
    for (; i < whole; ++i) step(acc[0], i, full);
    if (has_short) {
      step(acc[0], i, [=](const uint8_t* p) __attribute__((always_inline)) {
        int32_t quad = p[0];
        if (short_bytes > 1) quad |= p[1] << 8;
        if (short_bytes > 2) quad |= p[2] << 16;
        return quad;
      });
    }
#pragma GCC unroll 16
    for (int t = 0; t < kCount; ++t) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
#pragma GCC unroll 4
        for (int s = 1; s < kSets; ++s) acc[0][t][p] = acc[0][t][p] + acc[s][t][p];
        acc[0][t][p].store(sums + t * 16 + p * kLanes);
      }
    }
  }

  using TokensFn = void(const uint16_t*, const int8_t*, int64_t, const uint8_t*, int64_t, int64_t,
                        int64_t, int32_t*);
  template <int kCount>
  static constexpr TokensFn* kAt = tokens<kCount <= kTokens ? kCount : 1>;
  static constexpr TokensFn* kTokensFn[16] = {kAt<1>,  kAt<2>,  kAt<3>,  kAt<4>, kAt<5>,  kAt<6>,
                                              kAt<7>,  kAt<8>,  kAt<9>,  kAt<10>, kAt<11>, kAt<12>,
                                              kAt<13>, kAt<14>, kAt<15>, kAt<16>};

  // -zx[m] * w_sum[n] for the rows of a tile.
  static void start(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0, int32_t* sums) {
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t zero =
          args.x_zero_point == nullptr ? 0 : args.x_zero_point[(m + r) * args.x_zero_point_stride];
      const I negative = I::zero() - I::broadcast(zero);
      for (int c = 0; c < 16; c += kLanes) {
        const I value = zero == 0 ? I::zero() : negative * I::load(args.w_sum + n0 + c);
        value.store(sums + r * 16 + c);
      }
    }
  }

  static void run(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
    const GemmU8S8Args& product = args.gemm;
    int32_t* sums = static_cast<int32_t*>(scratch);
    for_each_unit(kBsr16x4RowsU8S8, range, product.m, [&](int64_t s, int64_t u, int64_t tokens_here) {
      const BsrUnit& unit = args.w.units[u];
      const int64_t blocks = args.w.units[u + 1].first_group - unit.first_group;
      const int8_t* w = static_cast<const int8_t*>(args.w.values) + unit.first_group * kBlock;
      for (int64_t t = 0; t < tokens_here; t += kTokens) {
        const int64_t m = s * 16 + t, rows = min_of(kTokens, tokens_here - t);
        start(product, m, rows, u * 16, sums);
        kTokensFn[rows - 1](args.w.cols + unit.first_group, w, blocks, product.x + m * product.ldx,
                            product.ldx, product.k / 4, product.k % 4, sums);
        gemm::FinishU8S8<Arch, 16>::run(product, m, rows, u * 16, min_of(16, product.n - u * 16), sums);
      }
    });
  }
};

template <class Arch>
void run_outputs_u8s8(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
  if constexpr (simd::kHasPairs<Arch>) {
    if (args.w.pairs_fit) return OutputsU8S8<Arch, simd::Dot4Pairs<Arch>>::run(args, range, scratch);
  }
  OutputsU8S8<Arch, simd::Dot4<Arch>>::run(args, range, scratch);
}

template <class Arch>
constexpr BsrU8S8Kernel make_outputs_u8s8() {
  return {kBsr16x4RowsU8S8, 1, 16 * 16 * 4, run_outputs_u8s8<Arch>, nullptr, simd::kHasPairs<Arch>};
}

}  // namespace sprun::kernels::bsr
