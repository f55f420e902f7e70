// Depthwise convolution: every output channel reads one input channel. Vectors run along the width.
//
// The rows that a strip of output rows needs are copied into a zero-bordered buffer, columns split
// by their remainder modulo the stride, so that the inner loops have no borders and read neighbours
// whatever the stride.
#pragma once

#include "kernels/conv/conv_epilogue_impl.h"
#include "kernels/conv/strided_impl.h"

namespace sprun::kernels::conv {

template <class Arch>
struct Depthwise {
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kL = V::kLanes;
  static constexpr int64_t kBufferFloats = 6 * 1024;
  static constexpr int64_t kMaxRows = 8;  // output rows at a time

  // The buffer: [kernel depth][strip rows][stride phases][width].
  struct Layout {
    int64_t width;      // floats of one phase of one row
    int64_t row;        // width * phases
    int64_t rows;       // input rows of a full strip
    int64_t out_width;  // output columns rounded up to whole vectors
    int64_t strip;      // output rows of a strip
  };

  static Layout layout(const ConvShape& s) {
    const auto& [ad, ah, aw] = s.axis;
    Layout l;
    l.out_width = (aw.out + kL - 1) / kL * kL;
    l.width = l.out_width + (aw.kernel - 1) * aw.dilation / aw.stride;
    l.width = (l.width + kL - 1) / kL * kL;
    l.row = l.width * aw.stride;
    // As many output rows as keep the buffer in L1, in whole blocks of rows_square.
    const int64_t fit = kBufferFloats / (l.row * ah.stride * ad.kernel) / kMaxRows * kMaxRows;
    l.strip = fit < kMaxRows ? kMaxRows : fit;
    if (l.strip > ah.out) l.strip = ah.out;
    // One output row of slack, in the sums too.
    l.rows = l.strip * ah.stride + (ah.kernel - 1) * ah.dilation + 1;
    return l;
  }

  static int64_t scratch_floats(const ConvShape& s) {
    const Layout l = layout(s);
    return (l.strip + 1) * l.out_width + s.axis[0].kernel * l.rows * l.row + 2 * s.kernel_size();
  }

  // Input rows [h, h + rows) of one depth slice to the buffer, 0 outside the image.
  static void fill_slice(const ConvShape& s, const Layout& l, const float* slice, int64_t h,
                         int64_t rows, float* to) {
    const ConvAxis& aw = s.axis[2];
    for (int64_t r = 0; r < rows; ++r) {
      if (slice == nullptr || h + r < 0 || h + r >= s.axis[1].in)
        zero_line<Arch>(to + r * l.row, l.row);
    }
    if (slice == nullptr) return;
    const int64_t begin = h < 0 ? -h : 0;
    const int64_t end = h + rows > s.axis[1].in ? s.axis[1].in - h : rows;
    if (begin >= end) return;
    const Rows r{end - begin, slice + (h + begin) * aw.in - aw.pad_begin, aw.in, to + begin * l.row,
                 l.row};
    if (aw.stride == 1) {
      fill_1(r, aw, l.width);
    } else if (aw.stride == 2) {
      fill_2(r, aw, l.width);
    } else {
      fill_any(r, aw, l.width);
    }
  }

  struct Rows {
    int64_t count;
    const float* src;  // column -pad_begin of the first row
    int64_t src_step;
    float* dst;
    int64_t dst_step;
  };

  // Column by column of vectors, so that borders are worked out once for all rows. Stores are whole
  // aligned vectors.
  static void fill_1(const Rows& rows, const ConvAxis& a, int64_t width) {
    for (int64_t i = 0; i < width; i += kL) {
      const int64_t from = clamp(a.pad_begin - i, kL);
      const int64_t to = clamp(a.pad_begin + a.in - i, kL);
      const float* src = from < to ? rows.src + i : rows.dst;
      float* dst = rows.dst + i;
      if (from == 0 && to == kL) {
        for (int64_t r = 0; r < rows.count; ++r)
          V::load(src + r * rows.src_step).store(dst + r * rows.dst_step);
        continue;
      }
      const int64_t step = from < to ? rows.src_step : 0;
      for (int64_t r = 0; r < rows.count; ++r) {
        Strided<simd::VecArch<Arch>>::load1(src + r * step, from, to)
            .store(dst + r * rows.dst_step);
      }
    }
  }

  static void fill_2(const Rows& rows, const ConvAxis& a, int64_t width) {
    using S = Strided<simd::VecArch<Arch>>;
    for (int64_t i = 0; i < width; i += kL) {
      const int64_t from = clamp(a.pad_begin - 2 * i, 2 * kL);
      const int64_t to = clamp(a.pad_begin + a.in - 2 * i, 2 * kL);
      const float* src = from < to ? rows.src + 2 * i : rows.dst;
      const int64_t step = from < to ? rows.src_step : 0;
      float* dst = rows.dst + i;
      for (int64_t r = 0; r < rows.count; ++r) {
        V even, odd;
        S::load2(src + r * step, from, to, &even, &odd);
        even.store(dst + r * rows.dst_step);
        odd.store(dst + r * rows.dst_step + width);
      }
    }
  }

  static void fill_any(const Rows& rows, const ConvAxis& a, int64_t width) {
    for (int64_t r = 0; r < rows.count; ++r) {
      for (int64_t phase = 0; phase < a.stride; ++phase) {
        const LineRange range = line_range(phase - a.pad_begin, a.stride, a.in, width);
        float* dst = rows.dst + r * rows.dst_step + phase * width;
        zero_line<Arch>(dst, width);
        for (int64_t i = range.begin; i < range.end; ++i)
          dst[i] = rows.src[r * rows.src_step + phase + i * a.stride];
      }
    }
  }

  SPRUN_INLINE static int64_t clamp(int64_t n, int64_t limit) {
    return n < 0 ? 0 : n > limit ? limit : n;
  }

  // Copies the input rows of output rows [oh, oh + count) at output depth od.
  static void fill(const ConvShape& s, const Layout& l, const float* x, int64_t od, int64_t oh,
                   int64_t count, float* buffer) {
    const auto& [ad, ah, aw] = s.axis;
    const int64_t rows = (count - 1) * ah.stride + (ah.kernel - 1) * ah.dilation + 1;
    for (int64_t kd = 0; kd < ad.kernel; ++kd) {
      const int64_t d = od * ad.stride - ad.pad_begin + kd * ad.dilation;
      const float* slice = d < 0 || d >= ad.in ? nullptr : x + d * ah.in * aw.in;
      fill_slice(s, l, slice, oh * ah.stride - ah.pad_begin, rows, buffer + kd * l.rows * l.row);
    }
  }

  // offsets[i] = where kernel element i of output column 0 of the first row of the strip lies.
  static void tap_offsets(const ConvShape& s, const Layout& l, int64_t* offsets) {
    const auto& [ad, ah, aw] = s.axis;
    for (int64_t i = 0; i < s.kernel_size(); ++i) {
      const int64_t kd = i / (ah.kernel * aw.kernel);
      const int64_t kh = i / aw.kernel % ah.kernel;
      const int64_t column = i % aw.kernel * aw.dilation;
      offsets[i] = (kd * l.rows + kh * ah.dilation) * l.row + column % aw.stride * l.width +
                   column / aw.stride;
    }
  }

  struct Taps {
    int64_t count;
    const int64_t* offsets;
    const float* w;
    float bias;
  };

  // Any kernel: the vectors of `count` output rows, eight at a time. Input rows of neighbouring
  // output rows are row_step apart.
  static void strip_any(const Layout& l, int64_t count, const Taps& taps, const float* in,
                        int64_t row_step, float* sums) {
    constexpr int kTile = 8;
    const int64_t per_row = l.out_width / kL;
    const int64_t total = count * per_row;
    int64_t row = 0;
    int64_t column = 0;
    for (int64_t first = 0; first < total; first += kTile) {
      const float* p[kTile];
      V acc[kTile];
#pragma GCC unroll 8
      for (int i = 0; i < kTile; ++i) {  // past the end, the last vector is computed again
        p[i] = in + row * row_step + column * kL;
        acc[i] = V::broadcast(taps.bias);
        if (first + i + 1 < total && ++column == per_row) {
          column = 0;
          ++row;
        }
      }
      for (int64_t t = 0; t < taps.count; ++t) {
        const V a = V::broadcast(taps.w[t]);
        const int64_t at = taps.offsets[t];
#pragma GCC unroll 8
        for (int i = 0; i < kTile; ++i) acc[i] = V::fma(a, V::load(p[i] + at), acc[i]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kTile; ++i) {
        if (first + i < total) acc[i].store(sums + (first + i) * kL);
      }
    }
  }

  // Stops the compiler from loading the same vector again at each use.
  SPRUN_INLINE static V keep(V v) {
    asm("" : "+v"(v.v));
    return v;
  }

  // kRows output rows of a kSize x kSize kernel without dilation. Column by column of the kernel,
  // whose weights then stay in registers while each input vector serves all rows that see it.
  template <int kSize, int kDown, int kAcross, int kRows>
  static void rows_square(const Layout& l, const float* w, float bias, const float* in,
                          float* sums) {
    const int64_t width = l.width;
    const int64_t row = l.row;
    const int64_t out_width = l.out_width;
    for (int64_t o = 0; o < out_width; o += kL) {
      V acc[kRows];
#pragma GCC unroll 8
      for (int q = 0; q < kRows; ++q) acc[q] = V::broadcast(bias);
#pragma GCC unroll 8
      for (int kw = 0; kw < kSize; ++kw) {
        const float* p = in + kw % kAcross * width + kw / kAcross + o;
        V weights[kSize];
#pragma GCC unroll 8
        for (int kh = 0; kh < kSize; ++kh) weights[kh] = keep(V::broadcast(w[kh * kSize + kw]));
#pragma GCC unroll 32
        for (int r = 0; r < (kRows - 1) * kDown + kSize; ++r) {
          const V x = keep(V::load(p + r * row));
#pragma GCC unroll 8
          for (int q = 0; q < kRows; ++q) {
            const int kh = r - q * kDown;
            if (kh >= 0 && kh < kSize) acc[q] = V::fma(weights[kh], x, acc[q]);
          }
        }
      }
#pragma GCC unroll 8
      for (int q = 0; q < kRows; ++q) acc[q].store(sums + q * out_width + o);
    }
  }

  // Blocks have an even number of rows: an odd one computes a row of the buffer's slack too.
  template <int kSize, int kDown, int kAcross>
  static void strip_square(const Layout& l, int64_t count, const float* w, float bias,
                           const float* in, float* sums) {
    const int64_t blocks = (count + kMaxRows - 1) / kMaxRows;
    for (int64_t i = 0; i < blocks; ++i) {
      const int64_t r = count * i / blocks;
      const float* from = in + r * l.row * kDown;
      float* to = sums + r * l.out_width;
      switch ((count * (i + 1) / blocks - r + 1) / 2) {
        case 1:
          rows_square<kSize, kDown, kAcross, 2>(l, w, bias, from, to);
          break;
        case 2:
          rows_square<kSize, kDown, kAcross, 4>(l, w, bias, from, to);
          break;
        case 3:
          rows_square<kSize, kDown, kAcross, 6>(l, w, bias, from, to);
          break;
        default:
          rows_square<kSize, kDown, kAcross, 8>(l, w, bias, from, to);
          break;
      }
    }
  }

  using StripFn = void(const Layout&, int64_t, const float*, float, const float*, float*);

  // The specialised body for small square kernels, or nullptr.
  static StripFn* square_body(const ConvShape& s) {
    const auto& [ad, ah, aw] = s.axis;
    if (ad.kernel != 1 || ah.kernel != aw.kernel || ah.dilation != 1 || aw.dilation != 1)
      return nullptr;
    if (ah.kernel == 3) return square_by_stride<3>(ah.stride, aw.stride);
    if (ah.kernel == 5) return square_by_stride<5>(ah.stride, aw.stride);
    if (ah.kernel == 7) return square_by_stride<7>(ah.stride, aw.stride);
    return nullptr;
  }
  template <int kSize>
  static StripFn* square_by_stride(int64_t down, int64_t across) {
    if (down == 1 && across == 1) return strip_square<kSize, 1, 1>;
    if (down == 1 && across == 2) return strip_square<kSize, 1, 2>;
    if (down == 2 && across == 1) return strip_square<kSize, 2, 1>;
    if (down == 2 && across == 2) return strip_square<kSize, 2, 2>;
    return nullptr;
  }

  static void run(const ConvArgs& args, int64_t begin, int64_t end, float* scratch) {
    const ConvShape& s = args.shape;
    const auto& [ad, ah, aw] = s.axis;
    const Layout l = layout(s);
    StripFn* const body = square_body(s);
    float* const sums = scratch;
    float* const buffer = sums + (l.strip + 1) * l.out_width;
    auto* const offsets = reinterpret_cast<int64_t*>(buffer + ad.kernel * l.rows * l.row);
    tap_offsets(s, l, offsets);
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t m = plane % s.out_channels;
      const int64_t channel = plane / s.out_channels * s.in_channels + m / s.group_out();
      const float* x = args.x + channel * s.in_size();
      const float* w = args.w + m * s.kernel_size();
      const float bias = args.bias == nullptr ? 0.0F : args.bias[m];
      for (int64_t row = 0; row < ad.out * ah.out;) {
        const int64_t od = row / ah.out;
        const int64_t oh = row % ah.out;
        const int64_t count = ah.out - oh < l.strip ? ah.out - oh : l.strip;
        fill(s, l, x, od, oh, count, buffer);
        if (body != nullptr) {
          body(l, count, w, bias, buffer, sums);
        } else {
          strip_any(l, count, {s.kernel_size(), offsets, w, bias}, buffer, ah.stride * l.row, sums);
        }
        const int64_t at = (plane * ad.out * ah.out + row) * aw.out;
        finish<Arch>({.sums = sums,
                      .ld_sums = l.out_width,
                      .bias = nullptr,
                      .residual = args.residual == nullptr ? nullptr : args.residual + at,
                      .y = args.y + at,
                      .ld = aw.out,
                      .rows = count,
                      .cols = aw.out},
                     args.epilogue);
        row += count;
      }
    }
  }
};

}  // namespace sprun::kernels::conv
