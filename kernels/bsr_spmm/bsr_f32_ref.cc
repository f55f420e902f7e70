// Scalar references of the f32 block-sparse products; sums are kept in double.
#include <cstring>

#include "kernels/bsr_spmm/bsr_ref.h"
#include "kernels/gemm/epilogue_ref.h"

namespace sprun::kernels {
namespace {

template <const BsrLayout& kLayout>
void pack_x(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, float* out) {
  constexpr int64_t kTokens = kLayout.slab_tokens;
  std::memset(out, 0, static_cast<size_t>(4 * x_slab_elements(kLayout, k)));
  for (int64_t t = 0; t < kTokens && slab * kTokens + t < m; ++t) {
    const float* row = x + (slab * kTokens + t) * ldx;
    for (int64_t i = 0; i < k; ++i) out[i * kTokens + t] = row[i];
  }
}

template <const BsrLayout& kLayout>
void run(const BsrF32Args& args, const BsrRange& range, void*) {
  constexpr int64_t kTokens = kLayout.slab_tokens;
  const GemmF32Args& a = args.gemm;
  for_each_output(kLayout, range, a.m, a.n, [&](int64_t m, int64_t n) {
    const float* slab = args.slabs + m / kTokens * x_slab_elements(kLayout, a.k);
    double sum = 0;
    for_each_stored(kLayout, args.w, n, [&](int64_t at, int64_t k) {
      sum += static_cast<double>(static_cast<const float*>(args.w.values)[at]) *
             static_cast<double>(slab[k * kTokens + m % kTokens]);
    });
    finish_ref(a.epilogue, m, n, a.epilogue.alpha * static_cast<float>(sum), a.y + m * a.ldy + n);
  });
}

template <const BsrLayout& kLayout>
constexpr BsrF32Kernel kKernel = {kLayout, 1, 0, run<kLayout>, pack_x<kLayout>};

}  // namespace

extern constinit const BsrF32Kernel bsr_spmm_16x4_f32_ref = kKernel<kBsr16x4F32>;
extern constinit const BsrF32Kernel bsr_spmm_4x1_f32_ref = kKernel<kBsr4x1F32>;
extern constinit const BsrF32Kernel bsr_spmm_1x1_f32_ref = kKernel<kBsr1x1F32>;

}  // namespace sprun::kernels
