// Scalar references of the compressed GEMV family: expand a chunk, multiply, add.
#include "kernels/bsr_gemv/bsr_gemv_types.h"
#include "kernels/bsr_gemv/decode.h"
#include "kernels/gemm/epilogue_ref.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

// For every row m and every group of the tiles: sums of X[m, :] times the four outputs of the
// group by term(x element, stored weight), then write(m, n, sum).
template <class Stored, class Sum, class X, class Term, class Write>
void for_each_sum(const void* blob, const TileRange& t, const X* x, int64_t ldx, Term term,
                  Write write) {
  GemvReader reader(blob);
  const GemvBlob& b = reader.blob();
  constexpr int64_t kGroups = kGemvPanel / kGemvGroup;
  for (int64_t m = t.m_begin; m < t.m_end; ++m) {
    const int64_t end = t.panel_end * kGroups < gemv_groups(b.n) ? t.panel_end * kGroups
                                                                : gemv_groups(b.n);
    for (int64_t g = t.panel_begin * kGroups; g < end; ++g) {
      if (g % kGroups == 0) reader.seek(g / kGroups);
      Sum sums[kGemvGroup] = {};
      for (int64_t i = 0; i < gemv_chunks(b.k) * kGemvGroup; ++i) {
        Stored w[kGemvChunk];
        reader.read(g, i / kGemvGroup, i % kGemvGroup, w);
        const int64_t k = i / kGemvGroup * kGemvChunk;
        for (int64_t j = 0; j < kGemvChunk && k + j < b.k; ++j) {
          sums[i % kGemvGroup] += term(x[m * ldx + k + j], w[j]);
        }
      }
      for (int64_t row = 0; row < kGemvGroup && g * kGemvGroup + row < b.n; ++row) {
        write(m, g * kGemvGroup + row, sums[row]);
      }
    }
  }
}

void run_u8s8(const GemmU8S8Args& a, const TileRange& t) {
  const GemvReader reader(a.w);
  const int32_t* w_sum = reader.sums();
  const auto write = [&](int64_t m, int64_t n, int32_t sum) {
    const int32_t zx = a.x_zero_point == nullptr ? 0 : a.x_zero_point[m * a.x_zero_point_stride];
    sum -= zx * w_sum[n];
    if (a.w_zero_point != nullptr) {
      const int32_t zw = a.w_zero_point[n * a.w_zero_point_stride];
      sum -= zw * (a.x_sum[m] - static_cast<int32_t>(a.k) * zx);
    }
    finish_u8s8_ref(a, m, n, sum);
  };
  for_each_sum<int8_t, int32_t>(
      a.w, t, a.x, a.ldx, [](uint8_t x, int8_t w) { return x * w; }, write);
}

void run_bf16(const GemmBf16Args& a, const TileRange& t) {
  const auto term = [](uint16_t x, uint16_t w) {
    return static_cast<double>(simd::bf16_to_f32(x)) * static_cast<double>(simd::bf16_to_f32(w));
  };
  for_each_sum<uint16_t, double>(a.w, t, a.x, a.ldx, term, [&](int64_t m, int64_t n, double sum) {
    const float scaled = a.epilogue.alpha * static_cast<float>(sum);
    finish_ref(a.epilogue, m, n, scaled, a.y + m * a.ldy + n);
  });
}

}  // namespace

extern constinit const BsrGemvU8S8Kernel bsr_gemv_u8s8_ref = {run_u8s8};
extern constinit const BsrGemvBf16Kernel bsr_gemv_bf16_ref = {run_bf16};

}  // namespace sprun::kernels
