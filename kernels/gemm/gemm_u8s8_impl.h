// u8 x s8 GEMM bodies, instantiated per Arch by gemm_u8s8_<isa>.cc.
#pragma once

#include "kernels/gemm/finish_u8s8_impl.h"
#include "kernels/gemm/gemm_loop.h"
#include "kernels/simd/dot4.h"

namespace sprun::kernels::gemm {

// VNNI keeps rows x 2 sums in registers like f32; pmaddwd needs four registers for weights.
template <class Arch>
inline constexpr int64_t kU8S8MaxRows = 4;
template <>
inline constexpr int64_t kU8S8MaxRows<simd::AvxVnni> = 6;
template <>
inline constexpr int64_t kU8S8MaxRows<simd::Avx512> = 10;
template <>
inline constexpr int64_t kU8S8MaxRows<simd::Avx512Vnni> = 12;

template <class ArchT>
struct U8S8Family {
  using Arch = ArchT;
  using Args = GemmU8S8Args;
  using Acc = int32_t;
  using Dot = simd::Dot4<Arch>;
  using I = typename Dot::Acc;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kNr = 2 * I::kLanes;
  static constexpr int64_t kMaxRows = kU8S8MaxRows<Arch>;
  static constexpr int64_t kStep = 4;
  static constexpr int64_t kChunk = 3072;
  static constexpr int64_t kXBytes = 1;
  static constexpr int64_t kWBytes = 1;

  static constexpr int unroll(int rows) { return rows == 1 ? 4 : rows <= 4 ? 2 : 1; }

  // What the sums of a tile start from: -zero[r * stride] * w_sum[c], or the sums of the chunk
  // before. (The zero point costs nothing here; subtracted from finished sums it cost 3 to 10 %.)
  struct Start {
    const int32_t* sums;   // [rows, kNr] of the chunk before; null in the first chunk
    const int32_t* w_sum;  // [kNr]; null = start from 0
    const int32_t* zero;
    int64_t zero_stride;
    SPRUN_INLINE I at(int64_t r, int64_t c) const {
      if (sums != nullptr) return I::load(sums + r * kNr + c);
      if (w_sum == nullptr) return I::zero();
      return I::zero() - I::broadcast(zero[r * zero_stride]) * I::load(w_sum + c);
    }
  };

  // How sums become floats when they leave straight from registers.
  struct Direct {
    DirectOut out;
    const float* w_scale;  // [kNr]
    const float* x_scale;  // of the first row
    int64_t x_scale_stride;
  };

  // sums[r, 0..kNr) = start + x[r, 0..k) * w; the last quad of a row may be short.
  template <int kRows>
  static void micro_rows(int64_t k, const uint8_t* x, int64_t ldx, const int8_t* w,
                         const Start& start, int32_t* sums, const Direct& direct,
                         Prefetch prefetch) {
    constexpr int kUnroll = unroll(kRows);
    constexpr int kBases = (kRows + 2) / 3;
    I acc[kUnroll][kRows][2];
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        acc[u][r][0] = u > 0 ? I::zero() : start.at(r, 0);
        acc[u][r][1] = u > 0 ? I::zero() : start.at(r, I::kLanes);
      }
    }
    const uint8_t* base[kBases];
#pragma GCC unroll 8
    for (int i = 0; i < kBases; ++i) base[i] = x + 3 * i * ldx;
    const char* fetch = prefetch.at;
    const auto step = [&](I(&sum)[kRows][2], int64_t offset, auto quad)
                          __attribute__((always_inline)) {
      const auto w0 = Dot::load(w + offset * kNr);
      const auto w1 = Dot::load(w + offset * kNr + 4 * I::kLanes);
      __builtin_prefetch(fetch);
      if constexpr (4 * kNr > 64) __builtin_prefetch(fetch + 64);
      fetch += prefetch.step_bytes;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto a = Dot::broadcast(quad(base[r / 3] + (r % 3) * ldx + offset));
        sum[r][0] = Dot::add(sum[r][0], a, w0);
        sum[r][1] = Dot::add(sum[r][1], a, w1);
      }
    };
    const auto full = [](const uint8_t* p) __attribute__((always_inline)) {
      return simd::load_quad(p);
    };
    const auto advance = [&](int64_t n) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int i = 0; i < kBases; ++i) {
        base[i] += n;
        asm("" : "+r"(base[i]));  // keeps the compiler from expanding one pointer per row
      }
      w += n * kNr;
    };
    for (; k >= 4 * kUnroll; k -= 4 * kUnroll) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) step(acc[u], 4 * u, full);
      advance(4 * kUnroll);
    }
    for (; k >= 4; k -= 4) {
      step(acc[0], 0, full);
      advance(4);
    }
    if (k > 0) {
      step(acc[0], 0, [k](const uint8_t* p) __attribute__((always_inline)) {
        int32_t quad = p[0];
        if (k > 1) quad |= p[1] << 8;
        if (k > 2) quad |= p[2] << 16;
        return quad;
      });
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; ++u) {
        acc[0][r][0] = acc[0][r][0] + acc[u][r][0];
        acc[0][r][1] = acc[0][r][1] + acc[u][r][1];
      }
    }
    if (direct.out.y != nullptr) {
      const V scale0 = V::load(direct.w_scale);
      const V scale1 = V::load(direct.w_scale + V::kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const V sx = V::broadcast(direct.x_scale[r * direct.x_scale_stride]);
        direct.out.write(r, 0, acc[0][r][0].to_f32(), sx * scale0);
        direct.out.write(r, V::kLanes, acc[0][r][1].to_f32(), sx * scale1);
      }
      return;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      acc[0][r][0].store(sums + r * kNr);
      acc[0][r][1].store(sums + r * kNr + I::kLanes);
    }
  }

  using MicroFn = void(int64_t, const uint8_t*, int64_t, const int8_t*, const Start&,
                       int32_t*, const Direct&, Prefetch);
  template <int kRows>
  static constexpr MicroFn* kMicroAt = micro_rows<kRows <= kMaxRows ? kRows : 1>;
  static constexpr MicroFn* kMicro[12] = {
      kMicroAt<1>, kMicroAt<2>, kMicroAt<3>, kMicroAt<4>,  kMicroAt<5>,  kMicroAt<6>,
      kMicroAt<7>, kMicroAt<8>, kMicroAt<9>, kMicroAt<10>, kMicroAt<11>, kMicroAt<12>};

  static void micro(int64_t rows, const Args& args, int64_t m, int64_t panel, int64_t k_begin,
                    int64_t k_end, int32_t* sums, Prefetch prefetch) {
    const int64_t padded_k = (args.k + 3) / 4 * 4;
    const bool last = k_end == args.k;
    const int64_t n0 = panel * kNr;
    const int64_t cols = args.n - n0 < kNr ? args.n - n0 : kNr;
    Direct direct{};
    if (last && args.y_s32 == nullptr && args.w_zero_point == nullptr &&
        args.w_scale_stride == 1) {
      direct = {DirectOut(args.epilogue, args.y, args.ldy, m, n0, cols == kNr), args.w_scale + n0,
                args.x_scale + m * args.x_scale_stride, args.x_scale_stride};
    }
    Start start{nullptr, nullptr, nullptr, args.x_zero_point_stride};
    if (k_begin > 0) start.sums = sums;
    if (args.x_zero_point != nullptr) {
      start.w_sum = args.w_sum + panel * kNr;
      start.zero = args.x_zero_point + m * args.x_zero_point_stride;
    }
    kMicro[rows - 1](k_end - k_begin, args.x + m * args.ldx + k_begin, args.ldx,
                     args.w + (panel * padded_k + k_begin) * kNr, start, sums, direct, prefetch);
    if (last && direct.out.y == nullptr) {
      FinishU8S8<Arch, kNr>::run(args, m, rows, n0, cols, sums);
    }
  }
};

template <class Arch>
inline constexpr GemmU8S8Kernel kGemmU8S8 = {U8S8Family<Arch>::kNr,
                                             Loop<U8S8Family<Arch>>::kScratchBytes,
                                             Loop<U8S8Family<Arch>>::run};

}  // namespace sprun::kernels::gemm
