// Scalar references of the u8 x s8 block-sparse products: the shortest loops over the packed form.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/bsr_spmm/bsr_ref.h"
#include "kernels/gemm/epilogue_ref.h"

namespace sprun::kernels {
namespace {

// Index of input k of a token (counted inside its slab) in a slab of u8.
int64_t slab_index(const BsrLayout& layout, int64_t token, int64_t k) {
  if (layout.x_layout == XLayout::kGroupSlabs) {
    return (k / 4 * layout.slab_tokens + token) * 4 + k % 4;
  }
  return k * layout.slab_tokens + token % 16 / 4 * 16 + token / 16 * 4 + token % 4;
}

template <const BsrLayout& kLayout>
void pack_x(const uint8_t* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint8_t* out) {
  std::memset(out, 0, static_cast<size_t>(x_slab_elements(kLayout, k)));
  for (int64_t t = 0; t < kLayout.slab_tokens && slab * kLayout.slab_tokens + t < m; ++t) {
    const uint8_t* row = x + (slab * kLayout.slab_tokens + t) * ldx;
    for (int64_t i = 0; i < k; ++i) out[slab_index(kLayout, t, i)] = row[i];
  }
}

// Sum of element (m, n) of Y, zero points taken out.
template <const BsrLayout& kLayout>
int32_t sum_of(const BsrU8S8Args& args, int64_t m, int64_t n) {
  const GemmU8S8Args& a = args.gemm;
  const uint8_t* slab = args.slabs + m / kLayout.slab_tokens * x_slab_elements(kLayout, a.k);
  const int32_t zero = a.x_zero_point == nullptr ? 0 : a.x_zero_point[m * a.x_zero_point_stride];
  int32_t sum = -zero * (zero == 0 ? 0 : a.w_sum[n]);
  for_each_stored(kLayout, args.w, n, [&](int64_t at, int64_t k) {
    sum += static_cast<const int8_t*>(args.w.values)[at] *
           slab[slab_index(kLayout, m % kLayout.slab_tokens, k)];
  });
  return sum;
}

template <const BsrLayout& kLayout>
void run(const BsrU8S8Args& args, const BsrRange& range, void*) {
  for_each_output(kLayout, range, args.gemm.m, args.gemm.n, [&](int64_t m, int64_t n) {
    finish_u8s8_ref(args.gemm, m, n, sum_of<kLayout>(args, m, n));
  });
}

uint8_t code(float y, float scale, int32_t zero_point) {
  const float rounded = std::nearbyint(y / scale);
  if (std::isnan(rounded)) return 0;
  const float low = static_cast<float>(-zero_point), high = static_cast<float>(255 - zero_point);
  return static_cast<uint8_t>(static_cast<int32_t>(std::min(high, std::max(low, rounded))) + zero_point);
}

template <const BsrLayout& kLayout>
void run_columns(const BsrU8S8Args& args, const BsrColumns& y, const BsrRange& range, void*) {
  for_each_output(kLayout, range, args.gemm.m, args.gemm.n, [&](int64_t m, int64_t n) {
    const GemmU8S8Args& a = args.gemm;
    const float scale = *a.x_scale * a.w_scale[n * a.w_scale_stride];
    const float bias = a.epilogue.bias == nullptr ? 0.0F : a.epilogue.bias[n];
    const float sum = static_cast<float>(sum_of<kLayout>(args, m, n));
    const float value = activate_ref(a.epilogue.activation, sum * scale + bias);
    const int64_t row = (m / 64 * a.n + n) * 64;
    if (y.codes != nullptr) {
      y.codes[row + m % 64 % 16 / 4 * 16 + m % 64 / 16 * 4 + m % 4] = code(value, y.scale, y.zero_point);
      return;
    }
    y.floats[row + m % 64] = value;
    y.range[0] = std::min(y.range[0], std::min(0.0F, std::isnan(value) ? 0.0F : value));
    y.range[1] = std::max(y.range[1], std::max(0.0F, std::isnan(value) ? 0.0F : value));
  });
}

void quantize_columns(const float* x, int64_t inputs, int64_t tokens, float scale, int32_t zero_point, uint8_t* out) {
  for (int64_t i = 0; i < inputs * 64; ++i) {
    const int64_t t = i % 64;
    if (t < tokens) out[i - t + t % 16 / 4 * 16 + t / 16 * 4 + t % 4] = code(x[i], scale, zero_point);
  }
}

void rows_of_columns(const uint8_t* codes, int64_t outputs, int64_t tokens, uint8_t flip, uint8_t* y, int64_t ldy) {
  for (int64_t t = 0; t < tokens; ++t) {
    const uint8_t* of_token = codes + t % 16 / 4 * 16 + t / 16 * 4 + t % 4;
    for (int64_t n = 0; n < outputs; ++n) y[t * ldy + n] = of_token[n * 64] ^ flip;
  }
}

template <const BsrLayout& kLayout>
constexpr BsrU8S8Kernel make() {
  BsrU8S8Kernel kernel = {kLayout, 1, 0, run<kLayout>, pack_x<kLayout>};
  if constexpr (kLayout.x_layout == XLayout::kColumnSlabs) {
    kernel.run_columns = run_columns<kLayout>;
    kernel.quantize_columns = quantize_columns;
    kernel.rows_of_columns = rows_of_columns;
  }
  return kernel;
}
template <const BsrLayout& kLayout>
constexpr BsrU8S8Kernel kKernel = make<kLayout>();

}  // namespace

extern constinit const BsrU8S8Kernel bsr_spmm_16x4_u8s8_ref = kKernel<kBsr16x4U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_4x4_u8s8_ref = kKernel<kBsr4x4U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_4x1_u8s8_ref = kKernel<kBsr4x1U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_1x4_u8s8_ref = kKernel<kBsr1x4U8S8>;

}  // namespace sprun::kernels
