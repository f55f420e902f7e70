// Reference of the elementwise family: one element at a time, mathematics in double.
#include <cmath>

#include "kernels/elementwise/elementwise_types.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double clip(double x, double lo, double hi) {
  return x > hi ? hi : x < lo ? (lo > hi ? hi : lo) : x;
}
double gelu_tanh(double x) { return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)); }

template <MapOp kOp>
double reference([[maybe_unused]] double x, [[maybe_unused]] double a, [[maybe_unused]] double b);
#define SPRUN_MAP(enumerator, vector, formula, ulps, absolute)             \
  template <>                                                              \
  double reference<MapOp::enumerator>(double x, [[maybe_unused]] double a, \
                                      [[maybe_unused]] double b) {         \
    return formula;                                                        \
  }
#include "kernels/elementwise/map_ops.def"

template <MapOp kOp>
void map_ref(const float* x, float* y, int64_t n, float a, float b) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(reference<kOp>(x[i], a, b));
}

template <MapOp kOp>
void bias_map_ref(const float* x, const float* bias, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(reference<kOp>(x[i] + bias[i], 0, 0));
}

template <BinaryOp kOp>
void binary_ref(const float* a, int64_t a_step, const float* b, int64_t b_step, float* y,
                int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float l = a[i * a_step];
    const float r = b[i * b_step];
    y[i] = kOp == BinaryOp::kAdd   ? l + r
           : kOp == BinaryOp::kSub ? l - r
           : kOp == BinaryOp::kMul ? l * r
                                   : l / r;
  }
}

template <float (*kConvert)(uint16_t)>
void widen_ref(const uint16_t* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = kConvert(x[i]);
}

template <uint16_t (*kConvert)(float)>
void narrow_ref(const float* x, uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = kConvert(x[i]);
}

float from_f16(uint16_t h) { return simd::f16_to_f32(h); }
float from_bf16(uint16_t h) { return simd::bf16_to_f32(h); }
uint16_t to_f16(float x) { return simd::f32_to_f16(x); }
uint16_t to_bf16(float x) { return simd::f32_to_bf16(x); }

}  // namespace

extern constinit const ElementwiseKernel elementwise_f32_ref = {
    {
#define SPRUN_MAP(enumerator, vector, formula, ulps, absolute) map_ref<MapOp::enumerator>,
#include "kernels/elementwise/map_ops.def"
    },
    {binary_ref<BinaryOp::kAdd>, binary_ref<BinaryOp::kSub>, binary_ref<BinaryOp::kMul>,
     binary_ref<BinaryOp::kDiv>},
    bias_map_ref<MapOp::kGeluErf>,
    bias_map_ref<MapOp::kGeluTanh>,
    widen_ref<from_f16>,
    widen_ref<from_bf16>,
    narrow_ref<to_f16>,
    narrow_ref<to_bf16>};

}  // namespace sprun::kernels
