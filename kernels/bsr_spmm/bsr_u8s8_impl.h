// u8 x s8 block-sparse products with tokens as lanes, instantiated per Arch and pattern.
//
// One step multiplies the quads of kCount vectors of tokens (made from four columns of X, or loaded
// as they are) by one dword of weights per output: kRows * kCount sums stay in registers while a
// run lasts.
#pragma once

#include "kernels/bsr_spmm/pack_x_impl.h"
#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/finish_u8s8_impl.h"
#include "kernels/simd/dot4.h"
#include "kernels/simd/interleave.h"

namespace sprun::kernels::bsr {

// Vectors of tokens that one pass over a run computes: what fits into the registers beside the
// weights, for the rows that a pass covers.
template <class Arch>
struct U8S8Shape {
  static constexpr int kColumnVectors = 2, kQuadRows = 4, kQuadVectors = 1, kSets = 1;
};
template <>
struct U8S8Shape<simd::AvxVnni> {
  static constexpr int kColumnVectors = 2, kQuadRows = 4, kQuadVectors = 2, kSets = 1;
};
template <>
struct U8S8Shape<simd::Avx512> {
  static constexpr int kColumnVectors = 2, kQuadRows = 4, kQuadVectors = 2, kSets = 1;
};
template <>
struct U8S8Shape<simd::Avx512Vnni> {
  static constexpr int kColumnVectors = 4, kQuadRows = 8, kQuadVectors = 2, kSets = 2;
};


// kRows x kVectors sums. out: [kRows][ld], vector v at out + v * step.
template <class Dot, int kRows, int kVectors>
struct Sums {
  using I = typename Dot::Acc;
  I at[kRows][kVectors];

  // Each row starts from its own number, or from the sums that are there when `start` is null.
  SPRUN_INLINE void begin(const int32_t* start, const int32_t* out, int64_t ld, int64_t step) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        at[r][v] = start != nullptr ? I::broadcast(start[r]) : I::load(out + r * ld + v * step);
      }
    }
  }
  SPRUN_INLINE void store(int32_t* out, int64_t ld, int64_t step) const {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v].store(out + r * ld + v * step);
    }
  }
  template <class A>
  SPRUN_INLINE void add(const A (&x)[kVectors], const int8_t* w) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int32_t quad;
      __builtin_memcpy(&quad, w + 4 * r, 4);
      const auto b = Dot::broadcast_s8(quad);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) Dot::accumulate(at[r][v], x[v], b);
    }
  }
};

// The groups of one run and what its sums start from (see Sums::begin).
struct Groups {
  const uint16_t* cols;
  const int8_t* values;
  int64_t count;
  const int32_t* start;
};

template <class ArchT, const BsrLayout& kLayout>
struct U8S8 {
  using Arch = ArchT;
  using Dot = simd::Dot4<Arch>;
  using I = typename Dot::Acc;
  using Shape = U8S8Shape<Arch>;
  using VecArch = simd::VecArch<Arch>;
  using V = simd::F32<VecArch>;
  static constexpr int64_t kSlab = kLayout.slab_tokens;
  static constexpr int64_t kUnit = kLayout.unit_rows;
  static constexpr int kRows = kLayout.block.rows;
  static constexpr int kLanes = I::kLanes;
  static constexpr bool kColumns = kLayout.x_layout == XLayout::kColumnSlabs;
  static constexpr bool kOneRun = kLayout.k_block == 0;  // each output belongs to one run

  // 4x1: vectors kFirst .. of the four 16-token vectors; x points to the part of the rows that one
  // load covers.
  template <int kFirst, int kCount>
  static void columns(const Groups& g, const uint8_t* x, int32_t* out) {
    Sums<Dot, kRows, kCount> sums;
    sums.begin(kOneRun ? g.start : nullptr, out + 16 * kFirst, kSlab, 16);
    const uint16_t* col = g.cols;
    const int8_t* w = g.values;
    for (int64_t i = 0; i < g.count; ++i, col += 4, w += 16) {
      typename simd::Interleave<VecArch>::Raw raw[kCount];
      simd::quads<VecArch, kFirst, kCount>(x + col[0] * kSlab, x + col[1] * kSlab,
                                           x + col[2] * kSlab, x + col[3] * kSlab, raw);
      typename Dot::A a[kCount];
#pragma GCC unroll 4
      for (int v = 0; v < kCount; ++v) a[v] = Dot::split_u8(raw[v]);
      sums.add(a, w);
    }
    sums.store(out + 16 * kFirst, kSlab, 16);
  }

  static void run_columns(const Groups& g, const uint8_t* x, int64_t tokens, int32_t* out) {
    const int64_t vectors = (tokens + 15) / 16;
    for (int64_t h = 0; h < 16; h += kLanes, x += 4 * kLanes, out += kLanes) {
      if constexpr (Shape::kColumnVectors == 4) {
        if (vectors == 1) columns<0, 1>(g, x, out);
        if (vectors == 2) columns<0, 2>(g, x, out);
        if (vectors == 3) columns<0, 3>(g, x, out);
        if (vectors == 4) columns<0, 4>(g, x, out);
      } else {
        if (vectors == 1) columns<0, 1>(g, x, out);
        if (vectors >= 2) columns<0, 2>(g, x, out);
        if (vectors == 3) columns<2, 1>(g, x, out);
        if (vectors == 4) columns<2, 2>(g, x, out);
      }
    }
  }

  // Rx4: kPart outputs of a block and kCount vectors of tokens; kSets sets of sums take turns so
  // that short chains do not wait for each other.
  template <int kPart, int kCount, int kSets>
  static void quads(const Groups& g, const uint8_t* x, int32_t* out) {
    Sums<Dot, kPart, kCount> sums[kSets];
    sums[0].begin(kOneRun ? g.start : nullptr, out, kSlab, kLanes);
#pragma GCC unroll 4
    for (int s = 1; s < kSets; ++s) {
#pragma GCC unroll 16
      for (int r = 0; r < kPart; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kCount; ++v) sums[s].at[r][v] = I::zero();
      }
    }
    const int8_t* w = g.values;
    const uint16_t* col = g.cols;
    const auto step = [&](Sums<Dot, kPart, kCount>& sum, int64_t i) __attribute__((always_inline)) {
      const uint8_t* in = x + col[i] * (4 * kSlab);
      typename Dot::A a[kCount];
#pragma GCC unroll 8
      for (int v = 0; v < kCount; ++v) {
        a[v] = Dot::split_u8(simd::Interleave<VecArch>::load(in + 4 * kLanes * v));
      }
      sum.add(a, w + i * (4 * kRows));
    };
    int64_t left = g.count;
    for (; left >= kSets; left -= kSets, col += kSets, w += kSets * 4 * kRows) {
#pragma GCC unroll 4
      for (int s = 0; s < kSets; ++s) step(sums[s], s);
    }
    for (int64_t i = 0; i < left; ++i) step(sums[0], i);
#pragma GCC unroll 4
    for (int s = 1; s < kSets; ++s) {
#pragma GCC unroll 16
      for (int r = 0; r < kPart; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kCount; ++v) sums[0].at[r][v] = sums[0].at[r][v] + sums[s].at[r][v];
      }
    }
    sums[0].store(out, kSlab, kLanes);
  }

  // Outputs and vectors of one pass: many rows share few vectors, single rows take many.
  static constexpr int kPart = kRows < Shape::kQuadRows ? kRows : Shape::kQuadRows;
  static constexpr int kBudget = Shape::kQuadRows * Shape::kQuadVectors;
  static constexpr int kMany = kBudget / kPart < 4 ? kBudget / kPart : 4;
  static constexpr int kSlabVectors = static_cast<int>(kSlab) / kLanes;
  static constexpr int kPass = kMany < kSlabVectors ? kMany : kSlabVectors;
  static constexpr int kSets = kPart * kPass <= 4 ? Shape::kSets : 1;

  static void run_quads(const Groups& g, const uint8_t* x, int64_t tokens, int32_t* out) {
    const int64_t vectors = (tokens + kLanes - 1) / kLanes;
    for (int64_t r = 0; r < kRows; r += kPart) {
      const Groups part = {g.cols, g.values + 4 * r, g.count, g.start + r};
      int32_t* to = out + r * kSlab;
      int64_t v = 0;
      for (; v + kPass <= vectors; v += kPass) {
        quads<kPart, kPass, kSets>(part, x + 4 * kLanes * v, to + kLanes * v);
      }
      for (; v < vectors; ++v) {
        quads<kPart, 1, kPart == 1 ? Shape::kSets : 1>(part, x + 4 * kLanes * v, to + kLanes * v);
      }
    }
  }

  // start[r] of the outputs of a unit: 0, or -zero point * (sum of the weights) where one zero point
  // serves all rows. Written into the sums themselves where an output has several runs.
  static void start_unit(const GemmU8S8Args& args, int64_t u, int64_t tokens, int32_t* start,
                         int32_t* sums) {
    const bool common = args.x_zero_point != nullptr && args.x_zero_point_stride == 0;
    const int32_t zero = common ? *args.x_zero_point : 0;
    for (int64_t r = 0; r < kUnit; ++r) {
      start[r] = zero == 0 ? 0 : -zero * args.w_sum[u * kUnit + r];
      if constexpr (!kOneRun) {
        for (int64_t t = 0; t < tokens; t += kLanes) {
          I::broadcast(start[r]).store(sums + r * kSlab + t);
        }
      }
    }
  }

  // A tile of 16 tokens x 16 outputs that needs more than scales and bias.
  static void finish(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0, int32_t* tile) {
    if (args.x_zero_point != nullptr && args.x_zero_point_stride != 0) {
      for (int64_t r = 0; r < rows; ++r) {
        const I zero = I::broadcast(args.x_zero_point[(m + r) * args.x_zero_point_stride]);
        for (int64_t c = 0; c < 16; c += kLanes) {
          int32_t* at = tile + r * 16 + c;
          (I::load(at) - zero * I::load(args.w_sum + n0 + c)).store(at);
        }
      }
    }
    gemm::FinishU8S8<Arch, 16>::run(args, m, rows, n0, min_of(16, args.n - n0), tile);
  }

  // The rows of a 16 x 16 tile straight from registers, where nothing else has to be done.
  static bool finish_direct(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0,
                            const int32_t* sums) {
    const bool own_zeros = args.x_zero_point != nullptr && args.x_zero_point_stride != 0;
    if (own_zeros || args.y_s32 != nullptr || args.w_scale_stride != 1) return false;
    if (rows < 16 || args.n - n0 < 16) return false;
    const gemm::DirectOut out(args.epilogue, args.y, args.ldy, m, n0, true);
    if (out.y == nullptr) return false;
    const float* x_scale = args.x_scale + m * args.x_scale_stride;
    const float* w_scale = args.w_scale + n0;
    turn_16x16<Arch>(sums, kSlab, [&](int t, int c, V v) __attribute__((always_inline)) {
      const V scale = V::broadcast(x_scale[t * args.x_scale_stride]) * V::load(w_scale + c);
      out.write(t, c, I::as_i32(v).to_f32(), scale);
    });
    return true;
  }

  static void finish_unit(const GemmU8S8Args& args, int64_t m, int64_t tokens, int64_t u,
                          const int32_t* sums, int32_t* tile) {
    const int64_t end = min_of((u + 1) * kUnit, args.n);
    for (int64_t n0 = u * kUnit; n0 < end; n0 += 16, sums += 16 * kSlab) {
      for (int64_t t = 0; t < tokens; t += 16) {
        const int64_t rows = min_of(16, tokens - t);
        if (finish_direct(args, m + t, rows, n0, sums + t)) continue;
        turn_16x16<Arch>(sums + t, kSlab, [&](int i, int c, V v) __attribute__((always_inline)) {
          I::as_i32(v).store(tile + i * 16 + c);
        });
        finish(args, m + t, rows, n0, tile);
      }
    }
  }

  static void run(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
    int32_t* sums = static_cast<int32_t*>(scratch);
    int32_t* tile = sums + kUnit * kSlab;
    int32_t* start = tile + 16 * 16;
    const BsrWeights& w = args.w;
    const int64_t slab_bytes = x_slab_elements(kLayout, args.gemm.k);
    constexpr int64_t kGroupBytes = 4 * kRows;
    for_each_unit(kLayout, range, args.gemm.m, [&](int64_t s, int64_t u, int64_t tokens) {
      start_unit(args.gemm, u, tokens, start, sums);
      const BsrUnit& unit = w.units[u];
      Groups g = {w.cols + int64_t{unit.first_group} * kLayout.group_blocks,
                  static_cast<const int8_t*>(w.values) + unit.first_group * kGroupBytes, 0, start};
      const uint8_t* x = args.slabs + s * slab_bytes;
      for (int32_t i = unit.first_run; i < w.units[u + 1].first_run; ++i) {
        const BsrRun run = w.runs[i];
        g.count = run.groups;
        g.start = start + run.row;
        if constexpr (kColumns) run_columns(g, x, tokens, sums + run.row * kSlab);
        else run_quads(g, x, tokens, sums + run.row * kSlab);
        g.cols += g.count * kLayout.group_blocks;
        g.values += g.count * kGroupBytes;
      }
      finish_unit(args.gemm, s * kSlab, tokens, u, sums, tile);
    });
  }

  static constexpr int64_t kScratchBytes = (kUnit * kSlab + 16 * 16 + kUnit) * 4;
};

template <class Arch, const BsrLayout& kLayout>
constexpr BsrU8S8Kernel make_u8s8(int64_t min_m) {
  using K = U8S8<Arch, kLayout>;
  if constexpr (K::kColumns) {
    return {kLayout, min_m, K::kScratchBytes, K::run, pack_x_columns<Arch>};
  } else {
    return {kLayout, min_m, K::kScratchBytes, K::run, pack_x_quads<Arch, K::kSlab>};
  }
}

}  // namespace sprun::kernels::bsr
