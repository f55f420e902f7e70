#include <immintrin.h>

#include "kernels/peak/peak_impl.h"

namespace sprun::kernels {
namespace avx512bf16_peak {
struct Bf16 {
  using Reg = __m512;
  static constexpr int kOps = 64;
  static Reg initial() { return _mm512_setzero_ps(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    asm volatile("vdpbf16ps %1, %2, %0" : "+v"(acc) : "v"(x), "v"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "v"(acc)); }
};
}  // namespace avx512bf16_peak

double peak_bf16_avx512bf16(int64_t iterations) {
  return peak::loop<avx512bf16_peak::Bf16>(iterations);
}

}  // namespace sprun::kernels
