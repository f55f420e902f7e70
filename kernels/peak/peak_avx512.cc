#include <immintrin.h>

#include "kernels/peak/peak_impl.h"

namespace sprun::kernels {
namespace avx512_peak {
struct F32 {
  using Reg = __m512;
  static constexpr int kOps = 32;
  static Reg initial() { return _mm512_setzero_ps(); }
  static void apply(Reg& acc, Reg x, Reg y) {
    asm volatile("vfmadd231ps %1, %2, %0" : "+v"(acc) : "v"(x), "v"(y));
  }
  static void keep(Reg acc) { asm volatile("" : : "v"(acc)); }
};
}  // namespace avx512_peak

double peak_f32_avx512(int64_t iterations) { return peak::loop<avx512_peak::F32>(iterations); }

}  // namespace sprun::kernels
