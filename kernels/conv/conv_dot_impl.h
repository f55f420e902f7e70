// Convolution with very few output positions (an image of 1x1 after pooling, say): dot products
// along the terms.
#pragma once

#include "kernels/conv/conv_epilogue_impl.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::conv {

template <class Arch>
struct Dot {
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kL = V::kLanes;
  static constexpr int64_t kRows = 4;     // output channels at a time
  static constexpr int64_t kColumns = 2;  // output positions at a time

  static int64_t scratch_floats(const ConvShape& s) {
    return kRows * s.out_size() + s.out_size() * s.depth();
  }

  // columns[o, k] = the input value of term k of output o.
  static void gather(const ConvShape& s, const float* x, float* columns) {
    const auto& [ad, ah, aw] = s.axis;
    for (int64_t o = 0; o < s.out_size(); ++o) {
      const int64_t d0 = o / (ah.out * aw.out) * ad.stride - ad.pad_begin;
      const int64_t h0 = o / aw.out % ah.out * ah.stride - ah.pad_begin;
      const int64_t w0 = o % aw.out * aw.stride - aw.pad_begin;
      for (int64_t c = 0; c < s.group_in(); ++c) {
        for (int64_t k = 0; k < s.kernel_size(); ++k) {
          const int64_t d = d0 + k / (ah.kernel * aw.kernel) * ad.dilation;
          const int64_t h = h0 + k / aw.kernel % ah.kernel * ah.dilation;
          const int64_t w = w0 + k % aw.kernel * aw.dilation;
          const bool inside = d >= 0 && d < ad.in && h >= 0 && h < ah.in && w >= 0 && w < aw.in;
          *columns++ = inside ? x[((c * ad.in + d) * ah.in + h) * aw.in + w] : 0.0F;
        }
      }
    }
  }

  // sums[r * ld + c] = dot(w + r * depth, x + c * depth) for a block of rows and columns.
  template <int kR, int kC>
  static void block(int64_t depth, const float* w, const float* x, float* sums, int64_t ld) {
    V acc[kR][kC];
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) acc[r][c] = V::zero();
    }
    for (int64_t k = 0; k < depth; k += kL) {
      const int64_t n = depth - k < kL ? depth - k : kL;
      V xs[kC];
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) xs[c] = part(x + c * depth + k, n);
#pragma GCC unroll 4
      for (int r = 0; r < kR; ++r) {
        const V a = part(w + r * depth + k, n);
#pragma GCC unroll 4
        for (int c = 0; c < kC; ++c) acc[r][c] = V::fma(a, xs[c], acc[r][c]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) sums[r * ld + c] = acc[r][c].reduce_add();
    }
  }

  SPRUN_INLINE static V part(const float* p, int64_t n) {
    return n == kL ? V::load(p) : V::load_partial(p, n);
  }

  template <int kR>
  static void rows(int64_t depth, const float* w, const float* x, float* sums, int64_t columns) {
    int64_t c = 0;
    for (; c + kColumns <= columns; c += kColumns)
      block<kR, kColumns>(depth, w, x + c * depth, sums + c, columns);
    if (c < columns) block<kR, 1>(depth, w, x + c * depth, sums + c, columns);
  }

  static void run(const ConvArgs& args, int64_t begin, int64_t end, float* scratch) {
    const ConvShape& s = args.shape;
    const int64_t depth = s.depth();
    const int64_t out = s.out_size();
    float* const columns = scratch + kRows * out;
    int64_t gathered = -1;
    for (int64_t at = begin; at < end;) {
      const int64_t m = at % s.out_channels;
      const int64_t group = at / s.group_out();  // over all images
      if (group != gathered) gather(s, args.x + group * s.group_in() * s.in_size(), columns);
      gathered = group;
      int64_t count = (group + 1) * s.group_out() - at;
      if (count > end - at) count = end - at;
      if (count >= kRows) {
        count = kRows;
        rows<kRows>(depth, args.w + m * depth, columns, scratch, out);
      } else {
        count = 1;
        rows<1>(depth, args.w + m * depth, columns, scratch, out);
      }
      finish<Arch>({.sums = scratch,
                    .ld_sums = out,
                    .bias = args.bias == nullptr ? nullptr : args.bias + m,
                    .residual = args.residual == nullptr ? nullptr : args.residual + at * out,
                    .y = args.y + at * out,
                    .ld = out,
                    .rows = count,
                    .cols = out},
                   args.epilogue);
      at += count;
    }
  }
};

}  // namespace sprun::kernels::conv
