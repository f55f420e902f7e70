// im2col for one panel of output positions: dst[k, 0..kNr) = the input value that term k of each
// position multiplies.
#pragma once

#include "kernels/conv/conv_types.h"
#include "kernels/conv/strided_impl.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::conv {

// Neighbouring output positions of one output line.
struct Segment {
  int64_t d, h, w;  // of the first position
  int64_t count;
};

template <class Arch, int64_t kNr>
struct Gather {
  using V = simd::F32<simd::VecArch<Arch>>;

  // `n` positions from `first` of the group whose first channel is at x; lanes past n are 0.
  static void panel(const ConvShape& s, const float* x, int64_t first, int64_t n, float* dst) {
    if (n < kNr) {
      for (int64_t k = 0; k < s.depth(); ++k) {
        for (int64_t c = 0; c < kNr; c += V::kLanes) V::zero().store(dst + k * kNr + c);
      }
    }
    const auto& [ad, ah, aw] = s.axis;
    int64_t done = 0;
    while (done < n) {
      const int64_t at = first + done;
      Segment g{at / (ah.out * aw.out), at / aw.out % ah.out, at % aw.out, 0};
      g.count = aw.out - g.w < n - done ? aw.out - g.w : n - done;
      segment(s, x, g, dst + done);
      done += g.count;
    }
  }

  // 1x1 kernel, stride 1, no padding: positions are neighbours in X.
  static void pointwise(const float* x, int64_t ldx, int64_t channels, int64_t n, float* dst) {
    for (int64_t k = 0; k < channels; ++k) {
      if (n == kNr) {
#pragma GCC unroll 4
        for (int64_t c = 0; c < kNr; c += V::kLanes)
          V::load(x + k * ldx + c).store(dst + k * kNr + c);
        continue;
      }
      for (int64_t c = 0; c < kNr; c += V::kLanes) {
        const int64_t left = n - c < 0 ? 0 : n - c;
        const V v =
            left >= V::kLanes ? V::load(x + k * ldx + c) : V::load_partial(x + k * ldx + c, left);
        v.store(dst + k * kNr + c);
      }
    }
  }

 private:
  static void segment(const ConvShape& s, const float* x, const Segment& g, float* dst) {
    const auto& [ad, ah, aw] = s.axis;
    const int64_t w0 = g.w * aw.stride - aw.pad_begin;
    const int64_t last = w0 + (g.count - 1) * aw.stride + aw.kernel - 1;
    const bool by_rows =
        aw.stride > 2 && aw.dilation == 1 && aw.kernel > 2 && w0 >= 0 && last < aw.in;
    for (int64_t kd = 0; kd < ad.kernel; ++kd) {
      const int64_t d = g.d * ad.stride - ad.pad_begin + kd * ad.dilation;
      for (int64_t kh = 0; kh < ah.kernel; ++kh) {
        const int64_t h = g.h * ah.stride - ah.pad_begin + kh * ah.dilation;
        const bool inside = d >= 0 && d < ad.in && h >= 0 && h < ah.in;
        const float* line = inside ? x + (d * ah.in + h) * aw.in : nullptr;
        float* to = dst + (kd * ah.kernel + kh) * aw.kernel * kNr;
        if (by_rows && inside) {
          for (int64_t c = 0; c < s.group_in(); ++c) {
            patch_rows(line + c * s.in_size() + w0, aw, g.count, to + c * s.kernel_size() * kNr);
          }
          continue;
        }
        for (int64_t kw = 0; kw < aw.kernel; ++kw)
          tap(s, line, w0 + kw * aw.dilation, g.count, to + kw * kNr);
      }
    }
  }

  // All kernel elements of one row where neighbouring windows lie apart: dst[kw * kNr + i] = src[i
  // * stride + kw]. The rows of windows are read as vectors and transposed.
  static void patch_rows(const float* src, const ConvAxis& a, int64_t count, float* dst) {
    for (int64_t i = 0; i < count; i += V::kLanes) {
      const int64_t windows = clamp(count - i);
      for (int64_t k = 0; k < a.kernel; k += V::kLanes) {
        const int64_t taps = clamp(a.kernel - k);
        V rows[V::kLanes];
#pragma GCC unroll 16
        for (int64_t r = 0; r < V::kLanes; ++r) {
          rows[r] = V::load_partial(src + (i + (r < windows ? r : 0)) * a.stride + k,
                                    r < windows ? taps : 0);
        }
        simd::transpose(rows);
#pragma GCC unroll 16
        for (int64_t t = 0; t < V::kLanes; ++t) {
          if (t < taps) rows[t].store_partial(dst + (k + t) * kNr + i, windows);
        }
      }
    }
  }

  // One kernel element for all channels: dst[c * kernel_size * kNr + i] = line[c * in_size + w + i
  // * stride].
  static void tap(const ConvShape& s, const float* line, int64_t w, int64_t count, float* dst) {
    const ConvAxis& a = s.axis[2];
    const LineRange r = line == nullptr ? LineRange{0, 0} : line_range(w, a.stride, a.in, count);
    const Lines l{s.group_in(), r.begin == r.end ? dst : line + w, s.in_size(), dst,
                  s.kernel_size() * kNr};
    if (a.stride > 2) return copy_any(l, a.stride, r, count);
    if (a.stride == 1) return count > V::kLanes ? copy<2, 1>(l, r, count) : copy<1, 1>(l, r, count);
    return count > V::kLanes ? copy<2, 2>(l, r, count) : copy<1, 2>(l, r, count);
  }

  // The same line of every channel.
  struct Lines {
    int64_t channels;
    const float* src;  // of position 0, which may lie before the line
    int64_t src_step;
    float* dst;
    int64_t dst_step;
  };

  // kVecs vectors of `count` positions, of which those in `r` are read and the others are 0.
  template <int kVecs, int kStride>
  static void copy(const Lines& l, const LineRange& r, int64_t count) {
    if (kStride == 1 && kVecs == 2 && r.begin == 0 && r.end == kNr) {
      for (int64_t c = 0; c < l.channels; ++c) {
        const V first = V::load(l.src + c * l.src_step);
        const V second = V::load(l.src + c * l.src_step + V::kLanes);
        first.store(l.dst + c * l.dst_step);
        second.store(l.dst + c * l.dst_step + V::kLanes);
      }
      return;
    }
    int64_t from[kVecs], to[kVecs], left[kVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) {
      from[v] = clamp(r.begin - v * V::kLanes);
      to[v] = clamp(r.end - v * V::kLanes);
      left[v] = clamp(count - v * V::kLanes);
    }
    using S = Strided<simd::VecArch<Arch>>;
    for (int64_t c = 0; c < l.channels; ++c) {
      const float* src = l.src + c * l.src_step;
      float* dst = l.dst + c * l.dst_step;
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        const float* p = src + v * V::kLanes * kStride;
        V x, unused;
        if constexpr (kStride == 1) {
          x = S::load1(p, from[v], to[v]);
        } else {
          S::load2(p, 2 * from[v], 2 * to[v] - 1, &x, &unused);
        }
        x.store_partial(dst + v * V::kLanes, left[v]);
      }
    }
  }

  static void copy_any(const Lines& l, int64_t stride, const LineRange& r, int64_t count) {
    for (int64_t c = 0; c < l.channels; ++c) {
      const float* src = l.src + c * l.src_step;
      float* dst = l.dst + c * l.dst_step;
      for (int64_t i = 0; i < r.begin; ++i) dst[i] = 0.0F;
      for (int64_t i = r.begin; i < r.end; ++i) dst[i] = src[i * stride];
      for (int64_t i = r.end; i < count; ++i) dst[i] = 0.0F;
    }
  }

  SPRUN_INLINE static int64_t clamp(int64_t n) { return n < 0 ? 0 : n > V::kLanes ? V::kLanes : n; }
};

}  // namespace sprun::kernels::conv
