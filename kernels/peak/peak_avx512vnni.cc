#include <immintrin.h>

#include "kernels/peak/peak_impl.h"

namespace sprun::kernels {
namespace avx512vnni_peak {
struct S8 {
  using Reg = __m512i;
  static constexpr int kOps = 128;
  static Reg initial() { return _mm512_setzero_si512(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    asm volatile("vpdpbusd %1, %2, %0" : "+v"(acc) : "v"(x), "v"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "v"(acc)); }
};
}  // namespace avx512vnni_peak

double peak_s8_avx512vnni(int64_t iterations) {
  return peak::loop<avx512vnni_peak::S8>(iterations);
}

}  // namespace sprun::kernels
