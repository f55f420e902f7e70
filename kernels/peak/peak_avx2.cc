#include <immintrin.h>

#include "kernels/peak/peak_impl.h"

namespace sprun::kernels {
namespace avx2_peak {
struct F32 {
  using Reg = __m256;
  static constexpr int kOps = 16;
  static Reg initial() { return _mm256_setzero_ps(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    asm volatile("vfmadd231ps %1, %2, %0" : "+x"(acc) : "x"(x), "x"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "x"(acc)); }
};

// Without a dot product instruction: bytes to 16-bit pairs, pairs to 32 bits, add.
struct S8 {
  using Reg = __m256i;
  static constexpr int kOps = 64;
  static Reg initial() { return _mm256_setzero_si256(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    Reg t;
    asm volatile("vpmaddubsw %2, %3, %1\n\tvpmaddwd %2, %1, %1\n\tvpaddd %1, %0, %0"
                 : "+x"(acc), "=&x"(t)
                 : "x"(x), "x"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "x"(acc)); }
};
}  // namespace avx2_peak

double peak_f32_avx2(int64_t iterations) { return peak::loop<avx2_peak::F32>(iterations); }
double peak_s8_avx2(int64_t iterations) { return peak::loop<avx2_peak::S8>(iterations); }

}  // namespace sprun::kernels
