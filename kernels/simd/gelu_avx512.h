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
  alignas(64) static constexpr float kTail[4][32] = {
    {-4.41498678e-08F, -6.47719644e-05F, -0.00107388163F, -0.00402229931F, -0.0069185379F, -0.00263025309F,
      0.0199130382F, 0.071134232F, 0.154943585F, 0.26488471F, 0.384532094F, 0.492162138F, 0.567583799F,
      0.598173916F, 0.581731975F, 0.525855601F, 0.44423309F, 0.352210104F, 0.262974173F, 0.185414419F, 0.123732276F,
      0.0782996416F, 0.0470624529F, 0.0269045644F, 0.0146463653F, 0.00760035962F, 0.00376296742F, 0.00177894812F,
      0.000803595234F, 0.000347075227F, 0.000143404934F, 0.0F},
    {0.500014722F, 0.501565099F, 0.511835456F, 0.530346155F, 0.543701291F, 0.529494822F, 0.466232389F, 0.343808442F,
      0.169697851F, -0.0321824551F, -0.229016706F, -0.389422655F, -0.492245495F, -0.530849695F, -0.512145102F,
      -0.452185243F, -0.370076329F, -0.283036232F, -0.203413486F, -0.137926981F, -0.0885048881F, -0.0538716502F,
      -0.0311637241F, -0.0171595085F, -0.00900499243F, -0.00450872583F, -0.00215583667F, -0.000985175371F,
      -0.000430571934F, -0.000180083574F, -7.21156102e-05F, 0.0F},
    {-0.399707735F, -0.412438512F, -0.447920501F, -0.486917347F, -0.507493973F, -0.491809368F, -0.432559133F,
      -0.334930509F, -0.214272842F, -0.0906338468F, 0.0173541903F, 0.0970704108F, 0.14381054F, 0.160052404F,
      0.152959809F, 0.131508559F, 0.103971124F, 0.0765246078F, 0.052839689F, 0.0344065949F, 0.0212055445F,
      0.0124043999F, 0.00690139458F, 0.00365810236F, 0.0018497631F, 0.000893298769F, 0.000412379741F,
      0.000182119067F, 7.69944527e-05F, 3.1178708e-05F, 1.20995128e-05F, 0.0F},
    {0.0127545195F, 0.0495923162F, 0.0912170857F, 0.118780553F, 0.129371107F, 0.123600051F, 0.105079122F,
      0.0791023225F, 0.0512101687F, 0.0259553567F, 0.00619807933F, -0.00701216981F, -0.0140964417F, -0.0163745899F,
      -0.0154781519F, -0.0129195377F, -0.00984053686F, -0.00695517799F, -0.00460638991F, -0.0028766708F,
      -0.00170117454F, -0.000955574214F, -0.00051100523F, -0.000260609726F, -0.000126928062F, -5.91025746e-05F,
      -2.63347556e-05F, -1.12370417e-05F, -4.59460625e-06F, -1.80115399e-06F, -6.77266144e-07F, 0.0F}};
  // clang-format on

  // The row's entry for n in the low bits of `n`.
  SPRUN_INLINE static __m512 at(const float (&row)[32], __m512 n) {
    return _mm512_permutex2var_ps(_mm512_load_ps(row), _mm512_castps_si512(n), _mm512_load_ps(row + 16));
  }
};

// Both functions: several vectors take each step together, so that their chains of dependent instructions overlap; four
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

// The same for results that become 8-bit codes: absolute error below 7e-7, relative errors grow towards -6. As
// max(0, x) - t P(-t) it takes 0.78 of the time. NaN gives NaN, -infinity 0.
template <int kN>
SPRUN_INLINE void gelu_erf_codes_table(F32<Avx512> (&x)[kN]) {
  using Table = GeluErfTable;
  constexpr int kLeastMagnitude = 0b1010;
  const __m512 steps = _mm512_set1_ps(5.2F), round = _mm512_set1_ps(12582912.0F);
  __m512 n[kN], t[kN], g[kN];
  SPRUN_EACH_ t[i] = _mm512_range_ps(x[i].v, _mm512_set1_ps(31.0F / 5.2F), kLeastMagnitude);
  SPRUN_EACH_ n[i] = _mm512_fmadd_ps(t[i], steps, round);
  SPRUN_EACH_ g[i] = _mm512_fmadd_ps(Table::at(Table::kTail[3], n[i]), t[i], Table::at(Table::kTail[2], n[i]));
  SPRUN_EACH_ g[i] = _mm512_fmadd_ps(g[i], t[i], Table::at(Table::kTail[1], n[i]));
  SPRUN_EACH_ g[i] = _mm512_fmadd_ps(g[i], t[i], Table::at(Table::kTail[0], n[i]));
  SPRUN_EACH_ x[i].v = _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), x[i].v), g[i]);
}

#undef SPRUN_EACH_

}  // namespace sprun::kernels::simd

#endif
