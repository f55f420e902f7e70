// bf16 GEMM bodies, instantiated per Arch by gemm_bf16_<isa>.cc.
#pragma once

#include "kernels/gemm/epilogue_impl.h"
#include "kernels/gemm/gemm_loop.h"
#include "kernels/simd/dot2.h"
#include "kernels/simd/half.h"

namespace sprun::kernels::gemm {

// Without a bf16 instruction weights take four registers and each row two.
template <class Arch>
inline constexpr int64_t kBf16MaxRows = 4;
template <>
inline constexpr int64_t kBf16MaxRows<simd::Avx512> = 10;
template <>
inline constexpr int64_t kBf16MaxRows<simd::Avx512Bf16> = 12;

template <class ArchT>
struct Bf16Family {
  using Arch = ArchT;
  using Args = GemmBf16Args;
  using Acc = float;
  using Dot = simd::Dot2<Arch>;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kNr = 2 * V::kLanes;
  static constexpr int64_t kMaxRows = kBf16MaxRows<Arch>;
  static constexpr int64_t kStep = 2;
  static constexpr int64_t kChunk = 1536;
  static constexpr int64_t kXBytes = 2;
  static constexpr int64_t kWBytes = 2;

  static constexpr int unroll(int rows) { return rows == 1 ? 4 : rows <= 4 ? 2 : 1; }

  // sums[r, 0..kNr) (+)= x[r, 0..2 pairs) * w
  template <int kRows>
  static void micro_rows(int64_t pairs, const uint16_t* x, int64_t ldx, const uint16_t* w,
                         bool first,
                         float* sums, const DirectOut& out, float alpha, Prefetch prefetch) {
    constexpr int kUnroll = unroll(kRows);
    constexpr int kBases = (kRows + 2) / 3;
    V acc[kUnroll][kRows][2];
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        acc[u][r][0] = first || u > 0 ? V::zero() : V::load(sums + r * kNr);
        acc[u][r][1] = first || u > 0 ? V::zero() : V::load(sums + r * kNr + V::kLanes);
      }
    }
    const uint16_t* base[kBases];
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) base[i] = x + 3 * i * ldx;
    const char* fetch = prefetch.at;
    const auto step = [&](V(&sum)[kRows][2], int64_t offset) __attribute__((always_inline)) {
      const auto w0 = Dot::load(w + offset * kNr);
      const auto w1 = Dot::load(w + offset * kNr + 2 * V::kLanes);
      __builtin_prefetch(fetch);
      if constexpr (4 * kNr > 64) __builtin_prefetch(fetch + 64);
      fetch += prefetch.step_bytes;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto a = Dot::broadcast(simd::load_pair(base[r / 3] + (r % 3) * ldx + offset));
        sum[r][0] = Dot::add(sum[r][0], a, w0);
        sum[r][1] = Dot::add(sum[r][1], a, w1);
      }
    };
    const auto advance = [&](int64_t n) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int i = 0; i < kBases; ++i) {
        base[i] += n;
        asm("" : "+r"(base[i]));  // keeps the compiler from expanding one pointer per row
      }
      w += n * kNr;
    };
    for (; pairs >= kUnroll; pairs -= kUnroll) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) step(acc[u], 2 * u);
      advance(2 * kUnroll);
    }
    for (; pairs > 0; --pairs) {
      step(acc[0], 0);
      advance(2);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; ++u) {
        acc[0][r][0] = acc[0][r][0] + acc[u][r][0];
        acc[0][r][1] = acc[0][r][1] + acc[u][r][1];
      }
    }
    if (out.y != nullptr) {
      const V scale = V::broadcast(alpha);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        out.write(r, 0, acc[0][r][0], scale);
        out.write(r, V::kLanes, acc[0][r][1], scale);
      }
      return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      acc[0][r][0].store(sums + r * kNr);
      acc[0][r][1].store(sums + r * kNr + V::kLanes);
    }
  }

  using MicroFn = void(int64_t, const uint16_t*, int64_t, const uint16_t*, bool, float*,
                       const DirectOut&, float, Prefetch);
  template <int kRows>
  static constexpr MicroFn* kMicroAt = micro_rows<kRows <= kMaxRows ? kRows : 1>;
  static constexpr MicroFn* kMicro[12] = {
      kMicroAt<1>, kMicroAt<2>, kMicroAt<3>, kMicroAt<4>,  kMicroAt<5>,  kMicroAt<6>,
      kMicroAt<7>, kMicroAt<8>, kMicroAt<9>, kMicroAt<10>, kMicroAt<11>, kMicroAt<12>};

  static void micro(int64_t rows, const Args& args, int64_t m, int64_t panel, int64_t k_begin,
                    int64_t k_end, float* sums, Prefetch prefetch) {
    const Epilogue& e = args.epilogue;
    const bool last = k_end == args.k;
    const int64_t n0 = panel * kNr;
    const int64_t cols = args.n - n0 < kNr ? args.n - n0 : kNr;
    const int64_t padded_k = (args.k + 1) / 2 * 2;
    DirectOut out;
    if (last) out = DirectOut(e, args.y, args.ldy, m, n0, cols == kNr);
    kMicro[rows - 1]((k_end - k_begin + 1) / 2, args.x + m * args.ldx + k_begin, args.ldx,
                     args.w + (panel * padded_k + k_begin) * kNr, k_begin == 0, sums, out, e.alpha,
                     prefetch);
    if (!last || out.y != nullptr) return;
    finish_f32<Arch, kNr>(e, args.y, args.ldy, m, rows, n0, cols, sums);
  }

  static void pack(const WeightSource<float>& w, int64_t panel_begin, int64_t panel_end,
                   uint16_t* packed) {
    const int64_t padded_k = (w.k + 1) / 2 * 2;
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      const int64_t n0 = p * kNr;
      const int64_t cols = w.n - n0 < kNr ? w.n - n0 : kNr;
      uint16_t* out = packed + n0 * padded_k;
      for (int64_t k = 0; k < padded_k; k += 2, out += 2 * kNr) {
        alignas(64) float pairs[2 * kNr] = {};
        const int64_t inputs = w.k - k < 2 ? w.k - k : 2;
        for (int64_t i = 0; i < inputs; ++i) {
          const float* in = w.data + n0 * w.stride_n + (k + i) * w.stride_k;
          for (int64_t c = 0; c < cols; ++c) pairs[2 * c + i] = in[c * w.stride_n];
        }
        for (int64_t c = 0; c < 2 * kNr; c += V::kLanes) V::load(pairs + c).store_bf16(out + c);
      }
    }
  }

  static void convert(const float* x, int64_t ldx, int64_t rows, int64_t k, uint16_t* y,
                      int64_t ldy) {
    for (int64_t r = 0; r < rows; ++r) {
      const float* in = x + r * ldx;
      uint16_t* out = y + r * ldy;
      int64_t i = 0;
      for (; i + V::kLanes <= k; i += V::kLanes) V::load(in + i).store_bf16(out + i);
      V::load_partial(in + i, k - i).store_bf16_partial(out + i, k - i);
      for (i = k; i < ldy; ++i) out[i] = 0;
    }
  }
};

template <class Arch>
inline constexpr GemmBf16Kernel kGemmBf16 = {
    Bf16Family<Arch>::kNr, Loop<Bf16Family<Arch>>::kScratchBytes, Loop<Bf16Family<Arch>>::run,
    Bf16Family<Arch>::pack, Bf16Family<Arch>::convert};

}  // namespace sprun::kernels::gemm
