// f32 GEMM bodies over 8- and 16-bit weights, instantiated per Arch by gemm_narrow_<isa>.cc. The loop nest and the
// register tile are those of the f32 family.
//
// A vector of weights is widened once for all rows of a tile, on ports that the multiply-adds leave free: measured on
// Zen 5, 2048 x 2048 out of cache, that is 4.0x the speed of f32 weights for 1 row, 1.2x for 12, 1.04x for 128. With
// blocks the scales take a multiply-add too, and baseline vectors have no widening load: many rows then get whole chunks
// dequantised first, for the f32 micro-kernel.
#pragma once

#include "kernels/gemm/epilogue_impl.h"
#include "kernels/gemm/gemm_f32_impl.h"
#include "kernels/gemm/gemm_loop.h"
#include "kernels/simd/stored.h"

namespace sprun::kernels::gemm {

// Register tile: kMaxRows x 2 vectors of sums, 2 of weights, 1 broadcast; with blocks 4 of scales and shifts.
template <class Arch>
inline constexpr int64_t kNarrowMaxRows = 6;
template <>
inline constexpr int64_t kNarrowMaxRows<simd::Avx512> = 12;

// Register tiles of rows from which on a chunk is widened first. Blocks of 32 on Zen 5, 128 rows: 0.94 of the speed of
// f32 weights on AVX2 against 0.83 in registers; AVX-512 has registers for scales and is no slower without (0.9).
template <class Arch>
inline constexpr int64_t kWideTiles = 4;
template <>
inline constexpr int64_t kWideTiles<simd::Avx512> = int64_t{1} << 40;

template <class ArchT, class Type>
struct NarrowFamily {
  using Arch = ArchT;
  using Args = GemmNarrowArgs;
  using Acc = float;
  using Element = typename Type::Element;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kNr = 2 * V::kLanes;
  static constexpr int64_t kMaxRows = kNarrowMaxRows<Arch>;
  static constexpr int64_t kStep = 1;
  static constexpr int64_t kChunk = 768;
  static constexpr int64_t kXBytes = 4;
  static constexpr int64_t kWBytes = sizeof(Element);

  static constexpr int unroll(int rows) { return rows == 1 ? 4 : rows <= 4 ? 2 : 1; }

  // Scales and shifts of the outputs of a panel for one block after the other.
  struct Blocks {
    const float* params;  // scales and shifts of the block of the first input
    int64_t left;         // inputs up to the end of that block
    int64_t size;
  };

  // One chunk of one tile.
  struct Part {
    int64_t k;
    const float* x;
    int64_t ldx;
    const Element* w;
    Blocks blocks;
    bool first;
    float* sums;
    const float* scale;  // [kNr] of the panel with the last chunk, may be null; unused with blocks
    float alpha;
    Prefetch prefetch;
  };

  template <int kRows, bool kBlocked>
  struct Tile {
    static constexpr int kUnroll = unroll(kRows);
    static constexpr int kBases = (kRows + 2) / 3;
    V acc[kUnroll][kRows][2];
    V scale[2], shift[2];
    // Every third row has a pointer, as in the f32 family.
    const float* base[kBases];
    int64_t ldx;
    const Element* w;
    const char* fetch;
    int64_t fetch_step;

    SPRUN_INLINE V weight(int64_t offset, int half) const {
      const V q = Type::template load<simd::VecArch<Arch>>(w + offset * kNr + half * V::kLanes);
      if constexpr (kBlocked) return V::fma(q, scale[half], shift[half]);
      return q;
    }
    SPRUN_INLINE void step(int u, int64_t offset) {
      const V w0 = weight(offset, 0), w1 = weight(offset, 1);
      __builtin_prefetch(fetch);
      fetch += fetch_step;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V a = V::broadcast(base[r / 3][(r % 3) * ldx + offset]);
        acc[u][r][0] = V::fma(a, w0, acc[u][r][0]);
        acc[u][r][1] = V::fma(a, w1, acc[u][r][1]);
      }
    }
    SPRUN_INLINE void advance(int64_t n) {
#pragma GCC unroll 8
      for (int i = 0; i < kBases; ++i) {
        base[i] += n;
        asm("" : "+r"(base[i]));  // keeps the compiler from expanding one pointer per row
      }
      w += n * kNr;
    }
    SPRUN_INLINE void run(int64_t k) {
      for (; k >= kUnroll; k -= kUnroll) {
#pragma GCC unroll 4
        for (int u = 0; u < kUnroll; ++u) step(u, u);
        advance(kUnroll);
      }
      for (; k > 0; --k) {
        step(0, 0);
        advance(1);
      }
    }
    SPRUN_INLINE void run_blocks(int64_t k, Blocks b) {
      while (k > 0) {
        const int64_t n = b.left < k ? b.left : k;
        scale[0] = V::load(b.params), scale[1] = V::load(b.params + V::kLanes);
        shift[0] = V::load(b.params + kNr), shift[1] = V::load(b.params + kNr + V::kLanes);
        __builtin_prefetch(b.params + 16 * kNr);
        __builtin_prefetch(b.params + 17 * kNr);
        run(n);
        k -= n;
        b.params += 2 * kNr;
        b.left = b.size;
      }
    }
  };

  // sums[r, 0..kNr) (+)= x[r, 0..k) * w[0..k, kNr); overwrites when `first`.
  template <int kRows, bool kBlocked>
  static void micro_rows(const Part& part, const DirectOut& out) {
    Tile<kRows, kBlocked> t;
#pragma GCC unroll 4
    for (int u = 0; u < t.kUnroll; ++u) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        t.acc[u][r][0] = part.first || u > 0 ? V::zero() : V::load(part.sums + r * kNr);
        t.acc[u][r][1] = part.first || u > 0 ? V::zero() : V::load(part.sums + r * kNr + V::kLanes);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < t.kBases; ++i) t.base[i] = part.x + 3 * i * part.ldx;
    t.ldx = part.ldx;
    t.w = part.w;
    t.fetch = part.prefetch.at;
    t.fetch_step = part.prefetch.step_bytes;
    if constexpr (kBlocked) t.run_blocks(part.k, part.blocks);
    else t.run(part.k);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int u = 1; u < t.kUnroll; ++u) {
        t.acc[0][r][0] = t.acc[0][r][0] + t.acc[u][r][0];
        t.acc[0][r][1] = t.acc[0][r][1] + t.acc[u][r][1];
      }
    }
    const V one = V::broadcast(1.0F);
    V s0 = one, s1 = one;
    if (!kBlocked && part.scale != nullptr) s0 = V::load(part.scale), s1 = V::load(part.scale + V::kLanes);
    if (out.y != nullptr) {
      const V alpha = V::broadcast(part.alpha);
      s0 = s0 * alpha, s1 = s1 * alpha;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        out.write(r, 0, t.acc[0][r][0], s0);
        out.write(r, V::kLanes, t.acc[0][r][1], s1);
      }
      return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      (t.acc[0][r][0] * s0).store(part.sums + r * kNr);
      (t.acc[0][r][1] * s1).store(part.sums + r * kNr + V::kLanes);
    }
  }

  using MicroFn = void(const Part&, const DirectOut&);
  template <int kRows, bool kBlocked>
  static constexpr MicroFn* kMicroAt = micro_rows<kRows <= kMaxRows ? kRows : 1, kBlocked>;
  template <bool kBlocked>
  static constexpr MicroFn* kMicro[12] = {
      kMicroAt<1, kBlocked>, kMicroAt<2, kBlocked>,  kMicroAt<3, kBlocked>,  kMicroAt<4, kBlocked>,
      kMicroAt<5, kBlocked>, kMicroAt<6, kBlocked>,  kMicroAt<7, kBlocked>,  kMicroAt<8, kBlocked>,
      kMicroAt<9, kBlocked>, kMicroAt<10, kBlocked>, kMicroAt<11, kBlocked>, kMicroAt<12, kBlocked>};

  static Blocks blocks_of(const Args& args, int64_t panel, int64_t k) {
    const int64_t blocks = (args.k + args.block_size - 1) / args.block_size, block = k / args.block_size;
    return {args.block_params + 2 * kNr * (panel * blocks + block), (block + 1) * args.block_size - k,
            args.block_size};
  }

  static void micro(int64_t rows, const Args& args, int64_t m, int64_t panel, int64_t k_begin, int64_t k_end,
                    float* sums, Prefetch prefetch) {
    const Epilogue& e = args.epilogue;
    const bool last = k_end == args.k;
    const int64_t n0 = panel * kNr;
    const int64_t cols = args.n - n0 < kNr ? args.n - n0 : kNr;
    DirectOut out;
    if (last) out = DirectOut(e, args.y, args.ldy, m, n0, cols == kNr);
    Part part = {k_end - k_begin,
                 args.x + m * args.ldx + k_begin,
                 args.ldx,
                 static_cast<const Element*>(args.w) + (panel * args.k + k_begin) * kNr,
                 {},
                 k_begin == 0,
                 sums,
                 last && args.scale != nullptr ? args.scale + n0 : nullptr,
                 e.alpha,
                 prefetch};
    bool done = false;
    if constexpr (sizeof(Element) == 1) {
      if (args.block_params != nullptr) {
        part.blocks = blocks_of(args, panel, k_begin);
        kMicro<true>[rows - 1](part, out);
        done = true;
      }
    }
    if (!done) kMicro<false>[rows - 1](part, out);
    if (!last || out.y != nullptr) return;
    finish_f32<Arch, kNr>(e, args.y, args.ldy, m, rows, n0, cols, sums);
  }

  // --- many rows: one chunk as f32
  static constexpr int64_t kWideBytes = kChunk * kNr * 4;

  static bool widens(const Args& args, int64_t tiles) {
    constexpr bool kSlowLoads = V::kLanes == 4;
    return tiles >= kWideTiles<Arch> && (args.block_params != nullptr || kSlowLoads);
  }

  // wide[k - k_begin, 0..kNr) = W
  static void widen(const Args& args, int64_t panel, int64_t k_begin, int64_t k_end, float* wide) {
    const Element* w = static_cast<const Element*>(args.w) + (panel * args.k + k_begin) * kNr;
    const bool blocked = args.block_params != nullptr;
    const float* scale = args.scale == nullptr ? nullptr : args.scale + panel * kNr;
    for (int64_t k = k_begin; k < k_end;) {
      V s[2], shift[2] = {V::zero(), V::zero()};
      int64_t count = k_end - k;
      for (int64_t h = 0; h < 2; ++h) s[h] = scale == nullptr ? V::broadcast(1.0F) : V::load(scale + h * V::kLanes);
      if (blocked) {
        const Blocks b = blocks_of(args, panel, k);
        if (b.left < count) count = b.left;
        for (int64_t h = 0; h < 2; ++h) {
          s[h] = V::load(b.params + h * V::kLanes);
          shift[h] = V::load(b.params + kNr + h * V::kLanes);
        }
      }
      for (int64_t i = 0; i < count; ++i, w += kNr, wide += kNr) {
        V::fma(Type::template load<simd::VecArch<Arch>>(w), s[0], shift[0]).store(wide);
        V::fma(Type::template load<simd::VecArch<Arch>>(w + V::kLanes), s[1], shift[1]).store(wide + V::kLanes);
      }
      k += count;
    }
  }

  static void micro_wide(int64_t rows, const Args& args, int64_t m, int64_t panel, int64_t k_begin, int64_t k_end,
                         float* sums, Prefetch prefetch, const float* wide) {
    const Epilogue& e = args.epilogue;
    const bool last = k_end == args.k;
    const int64_t n0 = panel * kNr;
    const int64_t cols = args.n - n0 < kNr ? args.n - n0 : kNr;
    DirectOut out;
    if (last) out = DirectOut(e, args.y, args.ldy, m, n0, cols == kNr);
    F32Family<Arch>::kMicro[rows - 1](k_end - k_begin, args.x + m * args.ldx + k_begin, args.ldx, wide, k_begin == 0,
                                      sums, out, e.alpha, prefetch);
    if (!last || out.y != nullptr) return;
    finish_f32<Arch, kNr>(e, args.y, args.ldy, m, rows, n0, cols, sums);
  }
};

template <class Arch, class Type>
inline constexpr GemmNarrowKernel kGemmNarrow = {
    NarrowFamily<Arch, Type>::kNr, Loop<NarrowFamily<Arch, Type>>::kScratchBytes,
    Loop<NarrowFamily<Arch, Type>>::run};

}  // namespace sprun::kernels::gemm
