// The reference of the sparse-input family: the formula, one output at a time.
#include "kernels/gemm/epilogue_ref.h"
#include "kernels/simd/half.h"
#include "kernels/sparse_input/sparse_input_types.h"

namespace sprun::kernels {
namespace {

float value(const float* w) { return *w; }
float value(const int8_t* w) { return static_cast<float>(*w); }
struct Half {
  uint16_t bits;
};
struct Bf16 {
  uint16_t bits;
};
float value(const Half* w) { return simd::f16_to_f32(w->bits); }
float value(const Bf16* w) { return simd::bf16_to_f32(w->bits); }

template <class T>
void run(const SparseInputArgs& a, int64_t begin, int64_t end, float*) {
  const T* w = static_cast<const T*>(a.w);
  for (int64_t m = 0; m < a.m; ++m) {
    for (int64_t n = begin * a.width; n < end * a.width && n < a.n; ++n) {
      const T* panel = w + n / a.width * a.width * a.k;
      double sum = 0;
      for (int64_t i = 0; i < a.listed; ++i) {
        sum += static_cast<double>(a.x[m * a.ldx + i]) *
               static_cast<double>(value(panel + a.ids[i] * a.width + n % a.width));
      }
      const float scale = a.epilogue.alpha * (a.scale == nullptr ? 1.0F : a.scale[n]);
      finish_ref(a.epilogue, m, n, scale * static_cast<float>(sum), a.y + m * a.ldy + n);
    }
  }
}

}  // namespace

extern constinit const SparseInputKernel sparse_input_f32_ref = {run<float>};
extern constinit const SparseInputKernel sparse_input_f16_ref = {run<Half>};
extern constinit const SparseInputKernel sparse_input_bf16_ref = {run<Bf16>};
extern constinit const SparseInputKernel sparse_input_s8_ref = {run<int8_t>};

}  // namespace sprun::kernels
