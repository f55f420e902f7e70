// Convolution as a matrix product, Y[m, o] = sum_k W[m, k] * P[k, o] with P gathered in panels of
// kNr output positions.
//
// Weights are read in place, one broadcast per row and term; a tile of kMaxRows x kNr sums stays in
// registers. Panels of a block are gathered together, so that a tile's weights are read from memory
// once for all of them.
#pragma once

#include "kernels/conv/conv_epilogue_impl.h"
#include "kernels/conv/gather_impl.h"

namespace sprun::kernels::conv {

// Register tile: kMaxRows x 2 vectors of sums, 2 of positions, 1 broadcast.
template <class Arch>
inline constexpr int64_t kGemmMaxRows = 6;
template <>
inline constexpr int64_t kGemmMaxRows<simd::Avx512> = 12;

template <class Arch>
struct Gemm {
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kNr = 2 * V::kLanes;
  static constexpr int64_t kMaxRows = kGemmMaxRows<Arch>;
  using GatherT = Gather<Arch, kNr>;

  // sums[r, 0..kVecs * kLanes) = sum over k of w[r, k] * p[k, ...]
  template <int kRows, int kVecs>
  static void micro(int64_t k, const float* w, int64_t ldw, const float* p, int64_t ldp,
                    float* sums) {
    constexpr int kBases = (kRows + 2) / 3;
    V acc[kRows][kVecs];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) acc[r][v] = V::zero();
    }
    // Every third row gets a pointer and the two after it are reached by scaled indexing: twelve
    // rows need four registers.
    const float* base[kBases];
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) base[i] = w + 3 * i * ldw;
    for (; k > 0; --k) {
      V x[kVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) x[v] = V::load(p + v * V::kLanes);
      p += ldp;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V a = V::broadcast(base[r / 3][(r % 3) * ldw]);
#pragma GCC unroll 2
        for (int v = 0; v < kVecs; ++v) acc[r][v] = V::fma(a, x[v], acc[r][v]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kBases; ++i) {
        ++base[i];
        asm("" : "+r"(base[i]));  // keeps the compiler from expanding one pointer per row
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) acc[r][v].store(sums + r * kNr + v * V::kLanes);
    }
  }

  using MicroFn = void(int64_t, const float*, int64_t, const float*, int64_t, float*);
  template <int kRows>
  static constexpr int kClamped = kRows <= kMaxRows ? kRows : 1;
  template <int kVecs>
  static constexpr MicroFn* kMicro[12] = {micro<1, kVecs>,
                                          micro<2, kVecs>,
                                          micro<3, kVecs>,
                                          micro<4, kVecs>,
                                          micro<5, kVecs>,
                                          micro<6, kVecs>,
                                          micro<kClamped<7>, kVecs>,
                                          micro<kClamped<8>, kVecs>,
                                          micro<kClamped<9>, kVecs>,
                                          micro<kClamped<10>, kVecs>,
                                          micro<kClamped<11>, kVecs>,
                                          micro<kClamped<12>, kVecs>};

  // What the units of one image and group have in common.
  struct Problem {
    const ConvArgs& args;
    const ConvTiling& tiling;
    const float* x;   // first channel of the group
    int64_t channel;  // first output channel of the group
    int64_t out;      // index of that channel's first output
    float* panels;    // [block_panels, depth, kNr]
    float* sums;      // [kMaxRows, kNr]
  };

  static int64_t scratch_floats(const ConvShape& s, const ConvTiling& t) {
    return kMaxRows * kNr + t.block_panels * s.depth() * kNr;
  }

  static int64_t panel_width(const ConvShape& s, int64_t panel) {
    const int64_t left = s.out_size() - panel * kNr;
    return left < kNr ? left : kNr;
  }

  static void gather(const Problem& p, int64_t first_panel, int64_t count) {
    const ConvShape& s = p.args.shape;
    const bool pointwise = p.tiling.pointwise;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (first_panel + i) * kNr;
      const int64_t n = panel_width(s, first_panel + i);
      float* dst = p.panels + i * s.depth() * kNr;
      if (p.tiling.in_place && n == kNr) continue;
      if (pointwise) {
        GatherT::pointwise(p.x + at, s.in_size(), s.group_in(), n, dst);
      } else {
        GatherT::panel(s, p.x, at, n, dst);
      }
    }
  }

  // Output channels [row, row + rows) of the group for one gathered panel.
  static void tile(const Problem& p, int64_t row, int64_t rows, int64_t panel,
                   const float* gathered) {
    const ConvArgs& a = p.args;
    const int64_t depth = a.shape.depth();
    const int64_t out_size = a.shape.out_size();
    const int64_t n = panel_width(a.shape, panel);
    const float* w = a.w + (p.channel + row) * depth;
    const bool direct = p.tiling.in_place && n == kNr;
    const float* terms = direct ? p.x + panel * kNr : gathered;
    const int64_t ld = direct ? a.shape.in_size() : kNr;
    const auto& micros = n > V::kLanes ? kMicro<2> : kMicro<1>;
    micros[rows - 1](depth, w, depth, terms, ld, p.sums);
    const int64_t at = p.out + row * out_size + panel * kNr;
    finish<Arch>({.sums = p.sums,
                  .ld_sums = kNr,
                  .bias = a.bias == nullptr ? nullptr : a.bias + p.channel + row,
                  .residual = a.residual == nullptr ? nullptr : a.residual + at,
                  .y = a.y + at,
                  .ld = out_size,
                  .rows = rows,
                  .cols = n},
                 a.epilogue);
  }

  static void run(const ConvArgs& args, const ConvTiling& t, int64_t begin, int64_t end,
                  float* scratch) {
    const ConvShape& s = args.shape;
    const int64_t panels = (s.out_size() + kNr - 1) / kNr;
    const int64_t rows = s.group_out();
    int64_t gathered = -1;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t part = unit % t.row_parts;
      const int64_t block = unit / t.row_parts % t.blocks;
      const int64_t image_group = unit / t.row_parts / t.blocks;
      const int64_t n = image_group / s.groups;
      const int64_t g = image_group % s.groups;
      const Problem p{args,
                      t,
                      args.x + (n * s.in_channels + g * s.group_in()) * s.in_size(),
                      g * rows,
                      (n * s.out_channels + g * rows) * s.out_size(),
                      scratch + kMaxRows * kNr,
                      scratch};
      const int64_t first = block * t.block_panels;
      const int64_t count = panels - first < t.block_panels ? panels - first : t.block_panels;
      if (gathered != unit / t.row_parts) gather(p, first, count);
      gathered = unit / t.row_parts;
      const int64_t row_begin = rows * part / t.row_parts;
      const int64_t row_count = rows * (part + 1) / t.row_parts - row_begin;
      const int64_t tiles = (row_count + kMaxRows - 1) / kMaxRows;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t r0 = row_begin + row_count * i / tiles;
        const int64_t r1 = row_begin + row_count * (i + 1) / tiles;
        for (int64_t j = 0; j < count; ++j)
          tile(p, r0, r1 - r0, first + j, p.panels + j * s.depth() * kNr);
      }
    }
  }
};

}  // namespace sprun::kernels::conv
