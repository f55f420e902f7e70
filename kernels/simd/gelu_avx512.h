// gelu_erf on AVX-512 by a table in registers: 0.8 of the time of the polynomial that serves every width (Zen 5).
//
// P(-t), the normal distribution function, is the fourth power of q; near t = n / 5.2 q is the cubic kQ[..][n] in
// f = 5.2 t - n, |f| <= 1/2, of the least relative error (below 8.1e-7, 2.6e-7 up to t = 5). The last entry is zero: beyond
// t = 5.87 the product is below 1.4e-8 and taken as 0, see math.h.
#pragma once

#include "kernels/simd/vec.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)

namespace sprun::kernels::simd {

struct GeluErfTable {
  // clang-format off
  alignas(64) static constexpr float kQ[4][32] = {
    {0.8408964F, 0.8068217F, 0.769304F, 0.7287199F, 0.6855485F, 0.64035124F, 0.59374744F, 0.5463886F, 0.4989324F,
      0.4520172F, 0.40623996F, 0.3621373F, 0.32017055F, 0.28071594F, 0.24405916F, 0.21039441F, 0.17982772F,
      0.15238346F, 0.1280135F, 0.10660828F, 0.088008694F, 0.07201848F, 0.058416005F, 0.04696522F, 0.03742535F,
      0.029559001F, 0.023138674F, 0.017951602F, 0.013803081F, 0.010518396F, 0.007943594F, 0.0F},
    {-0.03225648F, -0.035849527F, -0.03912284F, -0.04196522F, -0.04428357F, -0.04600734F, -0.047091242F, -0.0475163F,
      -0.047289375F, -0.04644124F, -0.04502352F, -0.043104757F, -0.04076591F, -0.038095634F, -0.035185616F,
      -0.0321263F, -0.029003136F, -0.025893563F, -0.022864787F, -0.019972382F, -0.017259682F, -0.014757856F,
      -0.0124865975F, -0.010455238F, -0.008664181F, -0.007106516F, -0.0057696616F, -0.0046369736F, -0.0036892116F,
      -0.0029058233F, -0.0022660089F, 0.0F},
    {-0.0018577012F, -0.0017252144F, -0.0015364505F, -0.0012962002F, -0.0010147807F, -0.00070426485F, -0.0003776657F,
      -4.8126516e-05F, 0.00027181994F, 0.0005709059F, 0.0008396371F, 0.0010706527F, 0.0012589204F, 0.0014017723F,
      0.0014987948F, 0.0015515967F, 0.0015634845F, 0.0015390794F, 0.0014839058F, 0.0014039881F, 0.0013054739F,
      0.0011943113F, 0.0010759885F, 0.0009553437F, 0.0008364465F, 0.0007225426F, 0.0006160576F, 0.0005186447F,
      0.000431266F, 0.00035429484F, 0.0002876281F, 0.0F},
    {3.8016453e-05F, 5.342459e-05F, 7.2047296e-05F, 8.760856e-05F, 9.9390345e-05F, 0.000106942556F, 0.0001100894F,
      0.00010891467F, 0.00010374024F, 9.508067e-05F, 8.3597166e-05F, 7.004335e-05F, 5.521075e-05F, 3.9877184e-05F,
      2.4761772e-05F, 1.04888595e-05F, -2.437333e-06F, -1.3646887e-05F, -2.2907529e-05F, -3.011839e-05F,
      -3.5296016e-05F, -3.855483e-05F, -4.008438e-05F, -4.0125422e-05F, -3.894714e-05F, -3.6826652e-05F,
      -3.4031716e-05F, -3.0807758e-05F, -2.7368847e-05F, -2.3892639e-05F, -2.051868e-05F, 0.0F}};
  // clang-format on

  // The row's entry for n in the low bits of `n`.
  SPRUN_INLINE static __m512 at(const float (&row)[32], __m512 n) {
    return _mm512_permutex2var_ps(_mm512_load_ps(row), _mm512_castps_si512(n), _mm512_load_ps(row + 16));
  }
};

// Several vectors take each step together, so that their chains of dependent instructions overlap; four
// take 0.92 of the time of one after the other.
#define SPRUN_EACH_ _Pragma("GCC unroll 8") for (int i = 0; i < kN; ++i)

// x becomes x P(x): P(x) is 1 - P(-t) for positive x. Infinity times 0 and NaN give NaN.
template <int kN>
SPRUN_INLINE void gelu_erf_table(F32<Avx512> (&x)[kN]) {
  using Table = GeluErfTable;
  constexpr int kLeastMagnitude = 0b1010;  // a number before NaN
  const __m512 steps = _mm512_set1_ps(5.2F), one = _mm512_set1_ps(1.0F);
  const __m512 round = _mm512_set1_ps(12582912.0F);  // 1.5 * 2^23: a sum with it ends in the nearest integer
  __m512 n[kN], f[kN], q[kN];
  SPRUN_EACH_ f[i] = _mm512_range_ps(x[i].v, _mm512_set1_ps(31.0F / 5.2F), kLeastMagnitude);
  SPRUN_EACH_ n[i] = _mm512_fmadd_ps(f[i], steps, round);
  SPRUN_EACH_ f[i] = _mm512_fmsub_ps(f[i], steps, _mm512_sub_ps(n[i], round));
  SPRUN_EACH_ q[i] = _mm512_fmadd_ps(Table::at(Table::kQ[3], n[i]), f[i], Table::at(Table::kQ[2], n[i]));
  SPRUN_EACH_ q[i] = _mm512_fmadd_ps(q[i], f[i], Table::at(Table::kQ[1], n[i]));
  SPRUN_EACH_ q[i] = _mm512_fmadd_ps(q[i], f[i], Table::at(Table::kQ[0], n[i]));
  SPRUN_EACH_ q[i] = _mm512_mul_ps(q[i], q[i]);
  SPRUN_EACH_ q[i] = _mm512_mul_ps(q[i], q[i]);
  SPRUN_EACH_ q[i] = _mm512_mask_sub_ps(q[i], _mm512_cmp_ps_mask(x[i].v, _mm512_setzero_ps(), _CMP_GT_OQ), one, q[i]);
  SPRUN_EACH_ x[i].v = _mm512_mul_ps(q[i], x[i].v);
}

#undef SPRUN_EACH_

}  // namespace sprun::kernels::simd

#endif
