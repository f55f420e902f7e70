// Scalar references of the u8 x s8 block-sparse products: the shortest loops over the packed form.
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

template <const BsrLayout& kLayout>
void run(const BsrU8S8Args& args, const BsrRange& range, void*) {
  const GemmU8S8Args& a = args.gemm;
  for_each_output(kLayout, range, a.m, a.n, [&](int64_t m, int64_t n) {
    const uint8_t* slab = args.slabs + m / kLayout.slab_tokens * x_slab_elements(kLayout, a.k);
    const int32_t zero = a.x_zero_point == nullptr ? 0 : a.x_zero_point[m * a.x_zero_point_stride];
    int32_t sum = -zero * (zero == 0 ? 0 : a.w_sum[n]);
    for_each_stored(kLayout, args.w, n, [&](int64_t at, int64_t k) {
      sum += static_cast<const int8_t*>(args.w.values)[at] *
             slab[slab_index(kLayout, m % kLayout.slab_tokens, k)];
    });
    finish_u8s8_ref(a, m, n, sum);
  });
}

template <const BsrLayout& kLayout>
constexpr BsrU8S8Kernel kKernel = {kLayout, 1, 0, run<kLayout>, pack_x<kLayout>};

}  // namespace

extern constinit const BsrU8S8Kernel bsr_spmm_16x4_u8s8_ref = kKernel<kBsr16x4U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_4x4_u8s8_ref = kKernel<kBsr4x4U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_4x1_u8s8_ref = kKernel<kBsr4x1U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_1x4_u8s8_ref = kKernel<kBsr1x4U8S8>;

}  // namespace sprun::kernels
