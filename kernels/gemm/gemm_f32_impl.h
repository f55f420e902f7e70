// f32 GEMM bodies, instantiated per Arch by gemm_f32_<isa>.cc.
#pragma once

#include "kernels/gemm/epilogue_impl.h"
#include "kernels/gemm/gemm_loop.h"
#include "kernels/gemm/pack_impl.h"

namespace sprun::kernels::gemm {

// Register tile: kMaxRows x 2 vectors of sums, 2 of weights, 1 broadcast.
template <class Arch>
inline constexpr int64_t kF32MaxRows = 6;
template <>
inline constexpr int64_t kF32MaxRows<simd::Avx512> = 12;

template <class ArchT>
struct F32Family {
  using Arch = ArchT;
  using Args = GemmF32Args;
  using Acc = float;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kNr = 2 * V::kLanes;
  static constexpr int64_t kMaxRows = kF32MaxRows<Arch>;
  static constexpr int64_t kStep = 1;
  static constexpr int64_t kChunk = 768;
  static constexpr int64_t kXBytes = 4;
  static constexpr int64_t kWBytes = 4;

  // Independent sums per output that hide the FMA latency when there are few rows.
  static constexpr int unroll(int rows) { return rows == 1 ? 4 : rows <= 4 ? 2 : 1; }

  // sums[r, 0..kNr) (+)= x[r, 0..k) * w[0..k, kNr); overwrites when `first`.
  template <int kRows>
  static void micro_rows(int64_t k, const float* x, int64_t ldx, const float* w, bool first,
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
    // Every third row gets a pointer; the two after it are reached by scaled indexing, so that
    // twelve rows need four registers.
    const float* base[kBases];
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) base[i] = x + 3 * i * ldx;
    const char* fetch = prefetch.at;
    const auto step = [&](V(&sum)[kRows][2], int64_t offset) __attribute__((always_inline)) {
      const V w0 = V::load(w + offset * kNr);
      const V w1 = V::load(w + offset * kNr + V::kLanes);
      __builtin_prefetch(fetch);
      if constexpr (kNr * kWBytes > 64) __builtin_prefetch(fetch + 64);
      fetch += prefetch.step_bytes;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V a = V::broadcast(base[r / 3][(r % 3) * ldx + offset]);
        sum[r][0] = V::fma(a, w0, sum[r][0]);
        sum[r][1] = V::fma(a, w1, sum[r][1]);
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
    for (; k >= kUnroll; k -= kUnroll) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) step(acc[u], u);
      advance(kUnroll);
    }
    for (; k > 0; --k) {
      step(acc[0], 0);
      advance(1);
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

  using MicroFn = void(int64_t, const float*, int64_t, const float*, bool, float*,
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
    DirectOut out;
    if (last) out = DirectOut(e, args.y, args.ldy, m, n0, cols == kNr);
    kMicro[rows - 1](k_end - k_begin, args.x + m * args.ldx + k_begin, args.ldx,
                     args.w + (panel * args.k + k_begin) * kNr, k_begin == 0, sums, out, e.alpha,
                     prefetch);
    if (!last || out.y != nullptr) return;
    finish_f32<Arch, kNr>(e, args.y, args.ldy, m, rows, n0, cols, sums);
  }
};

template <class Arch>
inline constexpr GemmF32Kernel kGemmF32 = {
    F32Family<Arch>::kNr, Loop<F32Family<Arch>>::kScratchBytes, Loop<F32Family<Arch>>::run,
    pack_f32<Arch, F32Family<Arch>::kNr>};

}  // namespace sprun::kernels::gemm
