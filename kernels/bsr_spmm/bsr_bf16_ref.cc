// Scalar reference of the bf16 block-sparse products.
#include <cstring>

#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/gemm/epilogue_ref.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

constexpr const BsrLayout& kLayout = kBsr16x4Bf16;
constexpr int64_t kTokens = kLayout.slab_tokens;

int64_t slab_index(int64_t token, int64_t k) { return (k / 2 * kTokens + token) * 2 + k % 2; }

void pack_x(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint16_t* out) {
  std::memset(out, 0, static_cast<size_t>(2 * x_slab_elements(kLayout, k)));
  for (int64_t t = 0; t < kTokens && slab * kTokens + t < m; ++t) {
    const float* row = x + (slab * kTokens + t) * ldx;
    for (int64_t i = 0; i < k; ++i) out[slab_index(t, i)] = simd::f32_to_bf16(row[i]);
  }
}

// A unit is one run of 16 outputs, a group is one block: [16][4] values.
double sum_of(const BsrWeights& w, int64_t n, const uint16_t* slab, int64_t token) {
  const BsrUnit* unit = w.units + n / 16;
  double sum = 0;
  for (int64_t g = unit[0].first_group; g < unit[1].first_group; ++g) {
    const uint16_t* row = static_cast<const uint16_t*>(w.values) + (g * 16 + n % 16) * 4;
    for (int64_t j = 0; j < 4; ++j) {
      const uint16_t x = slab[slab_index(token, w.cols[g] * int64_t{4} + j)];
      sum += static_cast<double>(simd::bf16_to_f32(row[j])) *
             static_cast<double>(simd::bf16_to_f32(x));
    }
  }
  return sum;
}

void run(const BsrBf16Args& args, const BsrRange& range, void*) {
  const GemmBf16Args& a = args.gemm;
  for (int64_t m = range.slab_begin * kTokens; m < range.slab_end * kTokens && m < a.m; ++m) {
    const uint16_t* slab = args.slabs + m / kTokens * x_slab_elements(kLayout, a.k);
    for (int64_t n = range.unit_begin * 16; n < range.unit_end * 16 && n < a.n; ++n) {
      const auto sum = static_cast<float>(sum_of(args.w, n, slab, m % kTokens));
      finish_ref(a.epilogue, m, n, a.epilogue.alpha * sum, a.y + m * a.ldy + n);
    }
  }
}

}  // namespace

extern constinit const BsrBf16Kernel bsr_spmm_16x4_bf16_ref = {kLayout, 1, 0, run, pack_x};

}  // namespace sprun::kernels
