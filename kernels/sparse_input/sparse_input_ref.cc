// The reference of the sparse-input family: the formula, one output at a time.
#include <type_traits>

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

struct Nibbles {
  uint8_t bits;
};

// Weight of input k, output c of a panel.
template <class T>
float weight(const T* panel, int64_t width, int64_t k, int64_t c) {
  return value(panel + k * width + c);
}
float weight(const Nibbles* panel, int64_t width, int64_t k, int64_t c) {
  constexpr int64_t kHalf = kSparseInputLine / 2;
  const int64_t in_line = c % kSparseInputLine;
  const uint8_t byte = panel[(k * width + c - in_line) / 2 + in_line % kHalf].bits;
  return static_cast<float>((in_line < kHalf ? byte & 15 : byte >> 4) - 8);
}

template <class T>
void run(const SparseInputArgs& a, int64_t begin, int64_t end, float*) {
  constexpr int64_t kPer = std::is_same_v<T, Nibbles> ? 2 : 1;
  for (int64_t m = 0; m < a.m; ++m) {
    for (int64_t n = begin * a.width; n < end * a.width && n < a.n; ++n) {
      const int64_t p = n / a.width, c = n % a.width;
      const T* panel = static_cast<const T*>(a.w) + p * a.width * a.k / kPer;
      double sum = 0;
      for (int64_t i = 0; i < a.listed; ++i) {
        double w = static_cast<double>(weight(panel, a.width, a.ids[i], c));
        if (a.block_params != nullptr) {
          const int64_t rows = a.shifts ? 2 : 1;
          const float* params = a.block_params + (p * a.blocks + a.ids[i] / a.block_size) * rows * a.width + c;
          w = w * static_cast<double>(params[0]) + (a.shifts ? static_cast<double>(params[a.width]) : 0.0);
        }
        sum += static_cast<double>(a.x[m * a.ldx + i]) * w;
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
extern constinit const SparseInputKernel sparse_input_s4_ref = {run<Nibbles>};

}  // namespace sprun::kernels
