#include <immintrin.h>

#include "kernels/peak/peak_impl.h"

namespace sprun::kernels {
namespace sse2_peak {
struct F32 {
  using Reg = __m128;
  static constexpr int kOps = 8;
  static Reg initial() { return _mm_setzero_ps(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    Reg t = x;
    asm volatile("mulps %2, %1\n\taddps %1, %0" : "+x"(acc), "+x"(t) : "x"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "x"(acc)); }
};

// 16-bit products of widened bytes, added to 32 bits.
struct S8 {
  using Reg = __m128i;
  static constexpr int kOps = 16;
  static Reg initial() { return _mm_setzero_si128(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    Reg t = x;
    asm volatile("pmaddwd %2, %1\n\tpaddd %1, %0" : "+x"(acc), "+x"(t) : "x"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "x"(acc)); }
};
}  // namespace sse2_peak

double peak_f32_sse2(int64_t iterations) { return peak::loop<sse2_peak::F32>(iterations); }
double peak_s8_sse2(int64_t iterations) { return peak::loop<sse2_peak::S8>(iterations); }

}  // namespace sprun::kernels
