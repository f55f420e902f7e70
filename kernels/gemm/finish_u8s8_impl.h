// Last step of a u8 x s8 product: exact int32 sums of a tile become f32 or s32 elements of Y.
#pragma once

#include "kernels/gemm/epilogue_impl.h"
#include "kernels/simd/dot4.h"

namespace sprun::kernels::gemm {

// Tiles are kNr outputs wide: acc[r * kNr + c] is row m + r and output n0 + c.
template <class Arch, int64_t kNr>
struct FinishU8S8 {
  using Args = GemmU8S8Args;
  using I = typename simd::Dot4<Arch>::Acc;
  using V = simd::F32<simd::VecArch<Arch>>;

  // The values of one panel of a per-output array: in place where that is possible, else a padded
  // copy in `buffer`.
  template <class T>
  static const T* panel_values(const T* values, int64_t stride, int64_t n0, int64_t cols,
                               T* buffer) {
    if (cols == kNr && stride == 1) return values + n0;
    for (int64_t c = 0; c < kNr; ++c) buffer[c] = c < cols ? values[(n0 + c) * stride] : T{0};
    return buffer;
  }

  // Weight zero points, in place: with Start, sum (X - zx)(W - zw) lacks -zw (sum X - K zx).
  [[gnu::noinline]] static void subtract_weight_zero_points(const Args& args, int64_t m,
                                                            int64_t rows, int64_t n0, int64_t cols,
                                                            int32_t* acc) {
    alignas(64) int32_t buffer[kNr];
    const int32_t* w_zero =
        panel_values(args.w_zero_point, args.w_zero_point_stride, n0, cols, buffer);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t zx = args.x_zero_point == nullptr
                             ? 0
                             : args.x_zero_point[(m + r) * args.x_zero_point_stride];
      const I centred = I::broadcast(args.x_sum[m + r] - static_cast<int32_t>(args.k) * zx);
      int32_t* row = acc + r * kNr;
#pragma GCC unroll 2
      for (int64_t c = 0; c < kNr; c += I::kLanes) {
        (I::load(row + c) - centred * I::load(w_zero + c)).store(row + c);
      }
    }
  }

  [[gnu::noinline]] static void write_f32(const Args& args, int64_t m, int64_t rows, int64_t n0,
                                          int64_t cols, const int32_t* acc) {
    const Epilogue& e = args.epilogue;
    OutTile out{args.y + m * args.ldy + n0, args.ldy, nullptr, e.ld_residual, rows, cols};
    if (e.residual != nullptr) out.residual = e.residual + m * e.ld_residual + n0;
    alignas(64) float scale_buffer[kNr];
    alignas(64) float bias_buffer[kNr] = {};
    const float* w_scale =
        panel_values(args.w_scale, args.w_scale_stride, n0, cols, scale_buffer);
    const float* bias =
        e.bias == nullptr ? bias_buffer : panel_values(e.bias, 1, n0, cols, bias_buffer);
    const float* x_scale = args.x_scale + m * args.x_scale_stride;
    const int64_t x_scale_stride = args.x_scale_stride;
    write_tile<V, kNr>(out, e.activation,
                       [=](int64_t r, int64_t c, int64_t) __attribute__((always_inline)) {
                         const V sum = I::load(acc + r * kNr + c).to_f32();
                         const V sx = V::broadcast(x_scale[r * x_scale_stride]);
                         return V::fma(sum, sx * V::load(w_scale + c), V::load(bias + c));
                       });
  }

  static void run(const Args& args, int64_t m, int64_t rows, int64_t n0, int64_t cols,
                     int32_t* acc) {
    if (args.w_zero_point != nullptr) {
      subtract_weight_zero_points(args, m, rows, n0, cols, acc);
    }
    if (args.y_s32 == nullptr) return write_f32(args, m, rows, n0, cols, acc);
    for (int64_t r = 0; r < rows; ++r) {
      int32_t* y = args.y_s32 + (m + r) * args.ldy + n0;
      for (int64_t c = 0; c < cols; ++c) y[c] = acc[r * kNr + c];
    }
  }
};

}  // namespace sprun::kernels::gemm
