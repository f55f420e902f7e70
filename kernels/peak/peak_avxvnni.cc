#include <immintrin.h>

#include "kernels/peak/peak_impl.h"

namespace sprun::kernels {
namespace avxvnni_peak {
struct S8 {
  using Reg = __m256i;
  static constexpr int kOps = 64;
  static Reg initial() { return _mm256_setzero_si256(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    asm volatile("%{vex%} vpdpbusd %1, %2, %0" : "+x"(acc) : "x"(x), "x"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "x"(acc)); }
};
}  // namespace avxvnni_peak

double peak_s8_avxvnni(int64_t iterations) { return peak::loop<avxvnni_peak::S8>(iterations); }

}  // namespace sprun::kernels
