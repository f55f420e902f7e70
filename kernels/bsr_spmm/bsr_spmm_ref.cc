// Scalar references of the block-sparse products: the shortest loops over the packed form.
#include <cstring>

#include "kernels/bsr_spmm/bsr_layouts.h"
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

// sum_k X[token, k] * W[n, k] over the groups of the run that holds output `row` of the unit.
int32_t sum_of(const BsrLayout& layout, const BsrU8S8Args& args, const BsrUnit& unit,
               const BsrUnit& next, int64_t row, const uint8_t* slab, int64_t token) {
  const int64_t wide = int64_t{layout.group_blocks} * layout.block.cols;
  int64_t group = unit.first_group;
  int32_t sum = 0;
  for (int32_t i = unit.first_run; i < next.first_run; ++i) {
    const BsrRun run = args.w.runs[i];
    const int64_t r = row - run.row;
    for (int64_t g = group; g < group + run.groups && r >= 0 && r < layout.block.rows; ++g) {
      const int8_t* w = static_cast<const int8_t*>(args.w.values) + (g * layout.block.rows + r) * wide;
      for (int64_t j = 0; j < wide; ++j) {
        const int64_t col = args.w.cols[g * layout.group_blocks + j / layout.block.cols];
        const int64_t k = col * layout.block.cols + j % layout.block.cols;
        sum += w[j] * slab[slab_index(layout, token, k)];
      }
    }
    group += run.groups;
  }
  return sum;
}

template <const BsrLayout& kLayout>
void run(const BsrU8S8Args& args, const BsrRange& range, void*) {
  const GemmU8S8Args& a = args.gemm;
  const int64_t tokens = kLayout.slab_tokens;
  const int64_t m_end = range.slab_end * tokens < a.m ? range.slab_end * tokens : a.m;
  for (int64_t m = range.slab_begin * tokens; m < m_end; ++m) {
    const uint8_t* slab = args.slabs + m / tokens * x_slab_elements(kLayout, a.k);
    const int64_t end = range.unit_end * kLayout.unit_rows;
    for (int64_t n = range.unit_begin * kLayout.unit_rows; n < end && n < a.n; ++n) {
      const BsrUnit* unit = args.w.units + n / kLayout.unit_rows;
      const int32_t sum =
          sum_of(kLayout, args, unit[0], unit[1], n % kLayout.unit_rows, slab, m % tokens);
      const int32_t zero =
          a.x_zero_point == nullptr ? 0 : a.x_zero_point[m * a.x_zero_point_stride];
      finish_u8s8_ref(a, m, n, sum - zero * (zero == 0 ? 0 : a.w_sum[n]));
    }
  }
}

template <const BsrLayout& kLayout>
constexpr BsrU8S8Kernel kKernel = {kLayout, 1, 0, run<kLayout>, pack_x<kLayout>};

}  // namespace

extern constinit const BsrU8S8Kernel bsr_spmm_16x4_u8s8_ref = kKernel<kBsr16x4U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_4x4_u8s8_ref = kKernel<kBsr4x4U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_4x1_u8s8_ref = kKernel<kBsr4x1U8S8>;
extern constinit const BsrU8S8Kernel bsr_spmm_1x4_u8s8_ref = kKernel<kBsr1x4U8S8>;

}  // namespace sprun::kernels
