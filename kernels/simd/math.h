// Elementary functions on F32<Arch>: exp, tanh, erf, sigmoid and the activations built on them.
//
// Max error against double over the whole float range (measured by tests/kernels/simd_test.cc on
// every ISA): exp 2 ulp (denormal results included), tanh 6 ulp, erf 7 ulp, sigmoid 4 ulp,
// log 2 ulp. gelu_*: 4e-7 * max(1, |x|) absolute; gelu_erf also 1e-5 relative down to x = -5, which
// ONNX Runtime's own results need to compare equal. NaN in gives NaN out.
// The coefficients are our own minimax fits (weighted rational least squares, relative error
// below 6e-8 before rounding).
#pragma once

#include "kernels/simd/gelu_avx512.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

// c[0] + c[1] z + ... by Horner's rule.
template <class V, int kN>
SPRUN_INLINE V polynomial(V z, const float (&c)[kN]) {
  V r = V::broadcast(c[kN - 1]);
#pragma GCC unroll 16
  for (int i = kN - 2; i >= 0; --i) r = V::fma(r, z, V::broadcast(c[i]));
  return r;
}

// e^x; 0 below -103.98, infinity above 88.73.
template <class A>
SPRUN_INLINE F32<A> exp(F32<A> x) {
  using V = F32<A>;
  constexpr float kC[] = {0.4999999403953552F, 0.1666651964187622F, 0.04166839271783829F,
                          0.00836875569075346F, 0.0013814517296850681F};
  // min and max return their second operand on NaN, so NaN survives the clamp.
  x = V::min(V::broadcast(89.0F), V::max(V::broadcast(-104.0F), x));
  const V n = V::round_even(x * V::broadcast(1.44269504088896341F));
  // ln 2 in two parts; the first has few enough bits for n * hi to be exact.
  V r = V::fma(n, V::broadcast(-0.693359375F), x);
  r = V::fma(n, V::broadcast(2.12194440e-4F), r);
  const V p = V::fma(polynomial(r, kC), r * r, r);
  return V::scale_pow2(p + V::broadcast(1.0F), n);
}

// Natural logarithm; -inf at 0, NaN below. Denormals are treated as numbers.
template <class A>
SPRUN_INLINE F32<A> log(F32<A> x) {
  using V = F32<A>;
  using I = I32<A>;
  const V one = V::broadcast(1.0F);
  const auto tiny = x < V::broadcast(1.17549435e-38F);
  const V scaled = V::select(tiny, x * V::broadcast(8388608.0F), x);
  const I bits = I::as_i32(scaled);
  // Split so that the mantissa lies in [sqrt(1/2), sqrt(2)).
  const I shifted = bits - I::broadcast(0x3f3504f3);
  const I exponent = shifted.template shr_arith<23>();
  const V m = (bits - exponent.template shl<23>()).as_f32();
  V n = exponent.to_f32();
  n = V::select(tiny, n - V::broadcast(23.0F), n);
  // log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716
  const V f = m - one;
  const V s = f / (V::broadcast(2.0F) + f);
  const V z = s * s;
  constexpr float kC[] = {0.6666666865348816F, 0.4000000059604645F, 0.2857142984867096F,
                          0.2222222238779068F, 0.1818181872367859F};
  const V half_f2 = V::broadcast(0.5F) * f * f;
  const V r = s * V::fma(polynomial(z, kC), z, half_f2);
  // log m = f - (f^2/2 - r)
  V y = V::fma(n, V::broadcast(2.12194440e-4F) * V::broadcast(-1.0F), r) - half_f2 + f;
  y = V::fma(n, V::broadcast(0.693359375F), y);
  const V inf = V::broadcast(__builtin_inff());
  y = V::select(x == inf, inf, y);
  y = V::select(x == V::zero(), -inf, y);
  return V::select(x >= V::zero(), y, V::broadcast(__builtin_nanf("")));
}

template <class A>
SPRUN_INLINE F32<A> tanh(F32<A> x) {
  using V = F32<A>;
  constexpr float kP[] = {1.0F, 0.13379719853401184F, 0.003494036616757512F,
                          2.058351310552098e-05F, 1.3319113811860461e-08F};
  constexpr float kQ[] = {1.0F, 0.4671303629875183F, 0.02587108127772808F,
                          0.00032830960117280483F, 7.762037625980156e-07F};
  const V c = V::min(V::broadcast(9.02F), V::max(V::broadcast(-9.02F), x));
  const V z = c * c;
  return c * polynomial(z, kP) / polynomial(z, kQ);
}

template <class A>
SPRUN_INLINE F32<A> erf(F32<A> x) {
  using V = F32<A>;
  constexpr float kP[] = {1.1283791065216064F,  0.19040626287460327F,    0.05274870991706848F,
                          0.003765613306313753F, 0.00028488345560617745F, 2.05009837372927e-06F};
  constexpr float kQ[] = {1.0F,
                          0.5020759105682373F,
                          0.11410903930664062F,
                          0.014969207346439362F,
                          0.001162536209449172F,
                          3.809187182923779e-05F};
  const V c = V::min(V::broadcast(3.92F), V::max(V::broadcast(-3.92F), x));
  const V z = c * c;
  return c * polynomial(z, kP) / polynomial(z, kQ);
}

template <class A>
SPRUN_INLINE F32<A> sigmoid(F32<A> x) {
  const F32<A> one = F32<A>::broadcast(1.0F);
  return one / (one + exp(-x));
}

template <class A>
SPRUN_INLINE F32<A> relu(F32<A> x) {
  return F32<A>::max(F32<A>::zero(), x);
}

// x * sigmoid(x)
template <class A>
SPRUN_INLINE F32<A> silu(F32<A> x) {
  const F32<A> one = F32<A>::broadcast(1.0F);
  return x / (one + exp(-x));
}

// x * sigmoid(1.702 x)
template <class A>
SPRUN_INLINE F32<A> quick_gelu(F32<A> x) {
  const F32<A> one = F32<A>::broadcast(1.0F);
  return x / (one + exp(x * F32<A>::broadcast(-1.702F)));
}

// x/2 * (1 + erf(x / sqrt 2)) = max(x, 0) - t * P(-t), t = |x|, P the normal distribution function.
// P(-t) is the 16th power of nearly a polynomial: this keeps the tail of negative x, where 1 + erf
// would cancel, and needs no division. Beyond kEnd the product is below 1.1e-8 and taken as 0;
// -infinity gives NaN, as the formula does.
template <class A>
SPRUN_INLINE F32<A> gelu_erf(F32<A> x) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (F32<A>::kLanes == 16) {
    F32<A> v[1] = {x};
    gelu_erf_table(v);
    return v[0];
  }
#endif
  using V = F32<A>;
  constexpr float kEnd = 5.9F;
  constexpr float kP[] = {0.9576036334037781F,     -0.0477583073079586F,   -0.017839858308434486F,
                          -0.0012853367952629924F, 0.0006055560661479831F, -9.513880286249332e-06F,
                          -7.6988017099211e-06F,   7.448898031725548e-07F, -2.245902841480074e-08F};
  const V t = V::min(V::broadcast(kEnd), V::abs(x));  // finite, but NaN stays NaN
  V p = polynomial(t, kP);
  p = p * p;
  p = p * p;
  p = p * p;
  p = p * p;
  const V tail = V::select(t < V::broadcast(kEnd), p, V::zero());
  return V::fma(tail, V::min(x, -t), V::max(V::zero(), x));
}

// gelu_erf of several vectors, together where that is faster; the same bits.
template <class A, int kN>
SPRUN_INLINE void gelu_erf_all(F32<A> (&x)[kN]) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (F32<A>::kLanes == 16) return gelu_erf_table(x);
#endif
#pragma GCC unroll 8
  for (int i = 0; i < kN; ++i) x[i] = gelu_erf(x[i]);
}

// gelu_erf with an absolute error below 7e-7, for results that become 8-bit codes: less work on AVX-512, elsewhere the
// bits of gelu_erf.
template <class A, int kN>
SPRUN_INLINE void gelu_erf_codes_all(F32<A> (&x)[kN]) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (F32<A>::kLanes == 16) return gelu_erf_codes_table(x);
#endif
#pragma GCC unroll 8
  for (int i = 0; i < kN; ++i) x[i] = gelu_erf(x[i]);
}

// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) = x * sigmoid(2u): one exp, one division.
template <class A>
SPRUN_INLINE F32<A> gelu_tanh(F32<A> x) {
  using V = F32<A>;
  const V one = V::broadcast(1.0F);
  const V t = V::fma(x * x, V::broadcast(-0.0713548162726F), V::broadcast(-1.5957691216057308F));
  return x / (one + exp(x * t));
}

}  // namespace sprun::kernels::simd
