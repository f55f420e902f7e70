// Scalar references of the dense GEMM families: the shortest correct loops, same packed layouts
// with nr = 4. They are what every variant is tested against.
#include <cmath>

#include "kernels/gemm/epilogue_ref.h"
#include "kernels/gemm/gemm_types.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

constexpr int64_t kNr = 4;

// Index of the element of output n, input k: panels of kNr outputs, steps of `step` inputs.
int64_t packed_index(int64_t n, int64_t k, int64_t total_k, int64_t step) {
  const int64_t steps = (total_k + step - 1) / step;
  return ((n / kNr * steps + k / step) * kNr + n % kNr) * step + k % step;
}

template <class Fn>
void for_each_output(const TileRange& t, int64_t n_total, Fn fn) {
  for (int64_t m = t.m_begin; m < t.m_end; ++m) {
    for (int64_t n = t.panel_begin * kNr; n < t.panel_end * kNr && n < n_total; ++n) fn(m, n);
  }
}

void run_f32(const GemmF32Args& a, const TileRange& t, void*) {
  for_each_output(t, a.n, [&](int64_t m, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < a.k; ++k) {
      sum += static_cast<double>(a.x[m * a.ldx + k]) *
             static_cast<double>(a.w[packed_index(n, k, a.k, 1)]);
    }
    const float scaled = a.epilogue.alpha * static_cast<float>(sum);
    finish_ref(a.epilogue, m, n, scaled, a.y + m * a.ldy + n);
  });
}

void pack_f32(const WeightSource<float>& w, int64_t begin, int64_t end, float* packed) {
  for (int64_t n = begin * kNr; n < end * kNr; ++n) {
    for (int64_t k = 0; k < w.k; ++k) {
      packed[packed_index(n, k, w.k, 1)] =
          n < w.n ? w.data[n * w.stride_n + k * w.stride_k] : 0.0F;
    }
  }
}

// value(w, at) is the number that stands at an index of the packed weights.
template <class Value>
void run_narrow(const GemmNarrowArgs& a, const TileRange& t, Value value) {
  const int64_t blocks = a.block_params == nullptr ? 0 : (a.k + a.block_size - 1) / a.block_size;
  for_each_output(t, a.n, [&](int64_t m, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < a.k; ++k) {
      float w = value(a.w, packed_index(n, k, a.k, 1));
      if (a.block_params != nullptr) {
        const int64_t at = ((n / kNr * blocks + k / a.block_size) * 2) * kNr + n % kNr;
        w = std::fma(w, a.block_params[at], a.block_params[at + kNr]);
      }
      sum += static_cast<double>(a.x[m * a.ldx + k]) * static_cast<double>(w);
    }
    const float scale = a.block_params == nullptr && a.scale != nullptr ? a.scale[n] : 1.0F;
    const float scaled = a.epilogue.alpha * scale * static_cast<float>(sum);
    finish_ref(a.epilogue, m, n, scaled, a.y + m * a.ldy + n);
  });
}

void run_f32s8(const GemmNarrowArgs& a, const TileRange& t, void*) {
  run_narrow(a, t, [](const void* w, int64_t at) {
    return static_cast<float>(static_cast<const int8_t*>(w)[at]);
  });
}

void run_f32f16(const GemmNarrowArgs& a, const TileRange& t, void*) {
  run_narrow(a, t, [](const void* w, int64_t at) {
    return simd::f16_to_f32(static_cast<const uint16_t*>(w)[at]);
  });
}

void run_f32bf16(const GemmNarrowArgs& a, const TileRange& t, void*) {
  run_narrow(a, t, [](const void* w, int64_t at) {
    return simd::bf16_to_f32(static_cast<const uint16_t*>(w)[at]);
  });
}

void run_bf16(const GemmBf16Args& a, const TileRange& t, void*) {
  for_each_output(t, a.n, [&](int64_t m, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < a.k; ++k) {
      sum += static_cast<double>(simd::bf16_to_f32(a.x[m * a.ldx + k])) *
             static_cast<double>(simd::bf16_to_f32(a.w[packed_index(n, k, a.k, 2)]));
    }
    const float scaled = a.epilogue.alpha * static_cast<float>(sum);
    finish_ref(a.epilogue, m, n, scaled, a.y + m * a.ldy + n);
  });
}

void pack_bf16(const WeightSource<float>& w, int64_t begin, int64_t end, uint16_t* packed) {
  for (int64_t n = begin * kNr; n < end * kNr; ++n) {
    for (int64_t k = 0; k < (w.k + 1) / 2 * 2; ++k) {
      const bool inside = n < w.n && k < w.k;
      packed[packed_index(n, k, w.k, 2)] =
          inside ? simd::f32_to_bf16(w.data[n * w.stride_n + k * w.stride_k]) : uint16_t{0};
    }
  }
}

void convert_bf16(const float* x, int64_t ldx, int64_t rows, int64_t k, uint16_t* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < ldy; ++i) {
      y[r * ldy + i] = i < k ? simd::f32_to_bf16(x[r * ldx + i]) : uint16_t{0};
    }
  }
}

void run_u8s8(const GemmU8S8Args& a, const TileRange& t, void*) {
  for_each_output(t, a.n, [&](int64_t m, int64_t n) {
    const int32_t zx =
        a.x_zero_point == nullptr ? 0 : a.x_zero_point[m * a.x_zero_point_stride];
    const int32_t zw =
        a.w_zero_point == nullptr ? 0 : a.w_zero_point[n * a.w_zero_point_stride];
    int32_t sum = 0;
    for (int64_t k = 0; k < a.k; ++k) {
      sum += (a.x[m * a.ldx + k] - zx) * (a.w[packed_index(n, k, a.k, 4)] - zw);
    }
    finish_u8s8_ref(a, m, n, sum);
  });
}

void min_max(const float* x, int64_t ldx, int64_t rows, int64_t k, float* min, float* max) {
  *min = INFINITY;
  *max = -INFINITY;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      if (x[r * ldx + i] < *min) *min = x[r * ldx + i];
      if (x[r * ldx + i] > *max) *max = x[r * ldx + i];
    }
  }
}

void quantize(const float* x, int64_t ldx, int64_t rows, int64_t k, float scale,
              int32_t zero_point, uint8_t* y, int64_t ldy, int32_t* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    int32_t sum = 0;
    for (int64_t i = 0; i < k; ++i) {
      const float q =
          std::nearbyint(x[r * ldx + i] / scale) + static_cast<float>(zero_point);
      // Written so that NaN fails the first test and becomes 0.
      const float clamped = !(q > 0.0F) ? 0.0F : q > 255.0F ? 255.0F : q;
      y[r * ldy + i] = static_cast<uint8_t>(clamped);
      sum += y[r * ldy + i];
    }
    if (sums != nullptr) sums[r] = sum;
  }
}

}  // namespace

extern constinit const GemmF32Kernel gemm_f32_ref = {kNr, 0, run_f32, pack_f32};
extern constinit const GemmNarrowKernel gemm_f32s8_ref = {kNr, 0, run_f32s8};
extern constinit const GemmNarrowKernel gemm_f32f16_ref = {kNr, 0, run_f32f16};
extern constinit const GemmNarrowKernel gemm_f32bf16_ref = {kNr, 0, run_f32bf16};
extern constinit const GemmBf16Kernel gemm_bf16_ref = {kNr, 0, run_bf16, pack_bf16, convert_bf16};
extern constinit const GemmU8S8Kernel gemm_u8s8_ref = {kNr, 0, run_u8s8};
extern constinit const QuantizeRowsKernel quantize_rows_ref = {min_max, quantize};

}  // namespace sprun::kernels
