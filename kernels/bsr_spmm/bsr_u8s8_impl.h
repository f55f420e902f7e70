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
  static constexpr int64_t kBatch = 128;  // outputs whose rows are written in one go
  static constexpr int kRows = kLayout.block.rows;
  static constexpr int kLanes = I::kLanes;
  static constexpr bool kColumns = kLayout.x_layout == XLayout::kColumnSlabs;

  // 4x1: vectors kFirst .. of the four 16-token vectors; x points to the part of the rows that one
  // load covers.
  template <int kFirst, int kCount>
  static void columns(const Groups& g, const uint8_t* x, int32_t* out) {
    Sums<Dot, kRows, kCount> sums;
    sums.begin(g.start, out + 16 * kFirst, kSlab, 16);
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
    sums[0].begin(g.start, out, kSlab, kLanes);
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
  static constexpr int kSets = kPart * kPass <= 2 ? 2 * Shape::kSets : kPart * kPass <= 4 ? Shape::kSets : 1;

  static void run_quads(const Groups& g, const uint8_t* x, int64_t tokens, int32_t* out) {
    const int64_t vectors = (tokens + kLanes - 1) / kLanes;
    for (int64_t r = 0; r < kRows; r += kPart) {
      const int32_t* start = g.start == nullptr ? nullptr : g.start + r;
      const Groups part = {g.cols, g.values + 4 * r, g.count, start};
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
  // serves all rows.
  static void start_unit(const GemmU8S8Args& args, int64_t u, int32_t* start) {
    const bool common = args.x_zero_point != nullptr && args.x_zero_point_stride == 0;
    const int32_t zero = common ? *args.x_zero_point : 0;
    for (int64_t r = 0; r < kUnit; ++r) start[r] = zero == 0 ? 0 : -zero * args.w_sum[u * kUnit + r];
  }

  // rows x cols of Y from n0 on: own zero points per row, then scales, bias, activation, residual.
  static void finish_tile(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0,
                          int32_t* tile) {
    if (args.x_zero_point != nullptr && args.x_zero_point_stride != 0) {
      for (int64_t r = 0; r < rows; ++r) {
        const I zero = I::broadcast(args.x_zero_point[(m + r) * args.x_zero_point_stride]);
        for (int64_t c = 0; c < min_of(kBatch, args.n - n0); c += kLanes) {
          int32_t* at = tile + r * kBatch + c;
          (I::load(at) - zero * I::load(args.w_sum + n0 + c)).store(at);
        }
      }
    }
    gemm::FinishU8S8<Arch, kBatch>::run(args, m, rows, n0, min_of(kBatch, args.n - n0), tile);
  }

  // Rows that are a multiple of 2 KiB apart share a few cache sets: 16 tokens would push each other
  // out before their next line is written. Such rows are written one after the other.
  static bool rows_collide(const GemmU8S8Args& args) { return args.ldy * 4 % 2048 == 0; }

  // True when 16 x 16 tiles may go to Y straight from registers.
  static bool can_finish_direct(const GemmU8S8Args& args) {
    if (args.x_zero_point != nullptr && args.x_zero_point_stride != 0) return false;
    if (kUnit != 16 || rows_collide(args)) return false;
    if (args.y_s32 != nullptr) return true;
    return args.w_scale_stride == 1 && args.epilogue.activation == Activation::kNone;
  }

  static void finish_direct(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0,
                            const int32_t* sums) {
    const int64_t cols = min_of(16, args.n - n0);
    if (rows == 16 && cols == 16) return finish_whole(args, m, n0, sums);
    alignas(64) int32_t tile[16 * 16];
    turn_16x16<Arch>(sums, kSlab, [&](int i, int j, V v) __attribute__((always_inline)) {
      I::as_i32(v).store(tile + i * 16 + j);
    });
    gemm::FinishU8S8<Arch, 16>::run(args, m, rows, n0, cols, tile);
  }

  static void finish_whole(const GemmU8S8Args& args, int64_t m, int64_t n0, const int32_t* sums) {
    if (args.y_s32 != nullptr) {
      int32_t* y = args.y_s32 + m * args.ldy + n0;
      turn_16x16<Arch>(sums, kSlab, [&](int t, int c, V v) __attribute__((always_inline)) {
        I::as_i32(v).store(y + t * args.ldy + c);
      });
      return;
    }
    const gemm::DirectOut out(args.epilogue, args.y, args.ldy, m, n0, true);
    const float* x_scale = args.x_scale + m * args.x_scale_stride;
    const float* w_scale = args.w_scale + n0;
    turn_16x16<Arch>(sums, kSlab, [&](int t, int c, V v) __attribute__((always_inline)) {
      const V scale = V::broadcast(x_scale[t * args.x_scale_stride]) * V::load(w_scale + c);
      out.write(t, c, I::as_i32(v).to_f32(), scale);
    });
  }

  // All sums of up to kBatch outputs from n0 on, 16 tokens at a time.
  static void finish_rows(const GemmU8S8Args& args, int64_t m, int64_t tokens, int64_t n0,
                          const int32_t* sums, int32_t* tile) {
    const int64_t cols = min_of(kBatch, args.n - n0);
    for (int64_t t = 0; t < tokens; t += 16) {
      for (int64_t c = 0; c < cols; c += 16) {
        turn_16x16<Arch>(sums + c * kSlab + t, kSlab,
                         [&](int i, int j, V v) __attribute__((always_inline)) {
                           I::as_i32(v).store(tile + i * kBatch + c + j);
                         });
      }
      finish_tile(args, m + t, min_of(16, tokens - t), n0, tile);
    }
  }

  // Sums of unit u; calls between() after each run.
  template <class Between>
  SPRUN_INLINE static void multiply(const BsrU8S8Args& args, int64_t slab, int64_t u,
                                    int64_t tokens, int32_t* start, int32_t* sums,
                                    const Between& between) {
    constexpr int64_t kGroupBytes = 4 * kRows;
    const BsrWeights& w = args.w;
    const BsrUnit& unit = w.units[u];
    const uint8_t* x = args.slabs + slab * x_slab_elements(kLayout, args.gemm.k);
    start_unit(args.gemm, u, start);
    Groups g = {w.cols + int64_t{unit.first_group} * kLayout.group_blocks,
                static_cast<const int8_t*>(w.values) + unit.first_group * kGroupBytes, 0, start};
    const int32_t first_block_end = unit.first_run + static_cast<int32_t>(kUnit / kRows);
    for (int32_t i = unit.first_run; i < w.units[u + 1].first_run; ++i) {
      const BsrRun run = w.runs[i];
      g.count = run.groups;
      g.start = i < first_block_end ? start + run.row : nullptr;  // later K blocks add
      if constexpr (kColumns) run_columns(g, x, tokens, sums + run.row * kSlab);
      else run_quads(g, x, tokens, sums + run.row * kSlab);
      g.cols += g.count * kLayout.group_blocks;
      g.values += g.count * kGroupBytes;
      between();
    }
  }

  // Batches of units, each finished as whole rows of kBatch outputs.
  static void run_batches(const BsrU8S8Args& args, const BsrRange& range, int64_t slab,
                          int64_t tokens, int32_t* sums, int32_t* tile, int32_t* start) {
    constexpr int64_t kUnits = kBatch / kUnit;
    for (int64_t u0 = range.unit_begin; u0 < range.unit_end; u0 += kUnits) {
      for (int64_t u = u0; u < min_of(u0 + kUnits, range.unit_end); ++u) {
        multiply(args, slab, u, tokens, start, sums + (u - u0) * kUnit * kSlab, [] {});
      }
      // Outputs past the range are not written: they belong to another worker.
      GemmU8S8Args own = args.gemm;
      own.n = min_of(own.n, range.unit_end * kUnit);
      finish_rows(own, slab * kSlab, tokens, u0 * kUnit, sums, tile);
    }
  }

  // Units one by one. The tiles of a unit are written between the runs of the next one, so that
  // the stores drain while the multipliers work.
  static void run_direct(const BsrU8S8Args& args, const BsrRange& range, int64_t slab,
                         int64_t tokens, int32_t* sums, int32_t* start) {
    const int64_t m = slab * kSlab;
    int64_t u = range.unit_begin, t = tokens;
    const auto write_tile = [&] {  // of unit u - 1
      if (t >= tokens) return;
      const int32_t* from = sums + (u - 1) % 2 * kUnit * kSlab + t;
      finish_direct(args.gemm, m + t, min_of(16, tokens - t), (u - 1) * 16, from);
      t += 16;
    };
    for (; u < range.unit_end; ++u) {
      multiply(args, slab, u, tokens, start, sums + u % 2 * kUnit * kSlab, write_tile);
      while (t < tokens) write_tile();
      t = 0;
    }
    while (t < tokens) write_tile();
  }

  static void run(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
    int32_t* sums = static_cast<int32_t*>(scratch);
    int32_t* tile = sums + kBatch * kSlab;
    int32_t* start = tile + 16 * kBatch;
    const bool direct = can_finish_direct(args.gemm);
    for (int64_t s = range.slab_begin; s < range.slab_end; ++s) {
      const int64_t tokens = min_of(kSlab, args.gemm.m - s * kSlab);
      if (direct) run_direct(args, range, s, tokens, sums, start);
      else run_batches(args, range, s, tokens, sums, tile, start);
    }
  }

  static constexpr int64_t kScratchBytes = (kBatch * kSlab + 16 * kBatch + kUnit) * 4;
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
