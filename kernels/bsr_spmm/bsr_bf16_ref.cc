// Scalar references of the bf16 block-sparse products; sums are kept in double.
#include <cstring>

#include "kernels/bsr_spmm/bsr_ref.h"
#include "kernels/gemm/epilogue_ref.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

// Index of input k of a token (counted inside its slab) in a slab of bf16.
int64_t slab_index(const BsrLayout& layout, int64_t token, int64_t k) {
  if (layout.x_layout == XLayout::kGroupSlabs) {
    return (k / 2 * layout.slab_tokens + token) * 2 + k % 2;
  }
  const int64_t place = token / 32 * 32 + token % 16 / 4 * 8 + token % 32 / 16 * 4 + token % 4;
  return k * layout.slab_tokens + place;
}

template <const BsrLayout& kLayout>
void pack_x(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint16_t* out) {
  constexpr int64_t kTokens = kLayout.slab_tokens;
  std::memset(out, 0, static_cast<size_t>(2 * x_slab_elements(kLayout, k)));
  for (int64_t t = 0; t < kTokens && slab * kTokens + t < m; ++t) {
    const float* row = x + (slab * kTokens + t) * ldx;
    for (int64_t i = 0; i < k; ++i) out[slab_index(kLayout, t, i)] = simd::f32_to_bf16(row[i]);
  }
}

template <const BsrLayout& kLayout>
void run(const BsrBf16Args& args, const BsrRange& range, void*) {
  constexpr int64_t kTokens = kLayout.slab_tokens;
  const GemmBf16Args& a = args.gemm;
  for_each_output(kLayout, range, a.m, a.n, [&](int64_t m, int64_t n) {
    const uint16_t* slab = args.slabs + m / kTokens * x_slab_elements(kLayout, a.k);
    double sum = 0;
    for_each_stored(kLayout, args.w, n, [&](int64_t at, int64_t k) {
      const uint16_t w = static_cast<const uint16_t*>(args.w.values)[at];
      const uint16_t v = slab[slab_index(kLayout, m % kTokens, k)];
      sum += static_cast<double>(simd::bf16_to_f32(w)) * static_cast<double>(simd::bf16_to_f32(v));
    });
    finish_ref(a.epilogue, m, n, a.epilogue.alpha * static_cast<float>(sum), a.y + m * a.ldy + n);
  });
}

template <const BsrLayout& kLayout>
constexpr BsrBf16Kernel kKernel = {kLayout, 1, 0, run<kLayout>, pack_x<kLayout>};

}  // namespace

extern constinit const BsrBf16Kernel bsr_spmm_16x4_bf16_ref = kKernel<kBsr16x4Bf16>;
extern constinit const BsrBf16Kernel bsr_spmm_16x1_bf16_ref = kKernel<kBsr16x1Bf16>;
extern constinit const BsrBf16Kernel bsr_spmm_4x1_bf16_ref = kKernel<kBsr4x1Bf16>;

}  // namespace sprun::kernels
