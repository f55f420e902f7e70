// Dynamic quantisation of activations to u8, per tensor or per row (ONNX DynamicQuantizeLinear).
//
//   lo = min(0, min x), hi = max(0, max x)
//   scale = (hi - lo) / 255            (1 when x is all zero)
//   zero_point = round_half_even(clamp(-lo / scale, 0, 255))
//   y = saturate_u8(round_half_even(x / scale) + zero_point)
// Threads and scratch: as in gemm.h. Source: ONNX DynamicQuantizeLinear 11.
#pragma once

#include <cstdint>

#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

struct QuantizeRowsArgs {
  const float* x;  // [rows, k]
  int64_t ldx;
  int64_t rows, k;
  uint8_t* y;  // [rows, k]
  int64_t ldy;
  float* scale;         // [rows], or [1] per tensor
  int32_t* zero_point;  // likewise
  int32_t* sums = nullptr;  // [rows] sum of y[r, :]; may be null
};

struct QuantParams {
  float scale;
  int32_t zero_point;
};

// From the smallest and largest value. Infinite or NaN ranges give finite, meaningless numbers.
QuantParams dynamic_quant_params(float min, float max);

// Each row for itself: rows [begin, end).
void quantize_rows_each(const QuantizeRowsKernel& kernel, const QuantizeRowsArgs& args,
                        int64_t begin, int64_t end);

constexpr int64_t quantize_grain(int64_t k) { return 32 * 1024 / (k + 1) + 1; }

template <class ParallelFor>
void quantize_per_row(const QuantizeRowsKernel& kernel, const QuantizeRowsArgs& args, int workers,
                      const ParallelFor& parallel_for) {
  const int64_t grain = quantize_grain(args.k);
  const auto work = [&](int64_t begin, int64_t end, int) {
    quantize_rows_each(kernel, args, begin, end);
  };
  if (workers == 1 || args.rows <= grain) {
    work(0, args.rows, 0);
  } else {
    parallel_for(args.rows, grain, work);
  }
}

// scratch: quantize_per_tensor_scratch_bytes(workers).
constexpr int64_t quantize_per_tensor_scratch_bytes(int workers) { return 64 * workers; }

// The parameters of all rows together; args.y, scale and zero_point are not used.
template <class ParallelFor>
QuantParams measure_per_tensor(const QuantizeRowsKernel& kernel, const QuantizeRowsArgs& args,
                               int workers, void* scratch, const ParallelFor& parallel_for) {
  struct alignas(64) Range {  // a cache line per worker
    float min, max;
  };
  Range* ranges = static_cast<Range*>(scratch);
  for (int i = 0; i < workers; ++i) ranges[i] = {0.0F, 0.0F};
  const auto measure = [&](int64_t begin, int64_t end, int worker) {
    float lo = 0.0F;
    float hi = 0.0F;
    kernel.min_max(args.x + begin * args.ldx, args.ldx, end - begin, args.k, &lo, &hi);
    Range& r = ranges[worker];
    r.min = lo < r.min ? lo : r.min;
    r.max = hi > r.max ? hi : r.max;
  };
  const int64_t grain = quantize_grain(args.k);
  if (workers == 1 || args.rows <= grain) {
    measure(0, args.rows, 0);
  } else {
    parallel_for(args.rows, grain, measure);
  }
  for (int i = 1; i < workers; ++i) {
    if (ranges[i].min < ranges[0].min) ranges[0].min = ranges[i].min;
    if (ranges[i].max > ranges[0].max) ranges[0].max = ranges[i].max;
  }
  return dynamic_quant_params(ranges[0].min, ranges[0].max);
}

// Codes of all rows with known parameters; args.scale and zero_point are not used.
template <class ParallelFor>
void quantize_all(const QuantizeRowsKernel& kernel, const QuantizeRowsArgs& args, QuantParams params, int workers,
                  const ParallelFor& parallel_for) {
  const int64_t grain = quantize_grain(args.k);
  const auto convert = [&](int64_t begin, int64_t end, int) {
    kernel.quantize(args.x + begin * args.ldx, args.ldx, end - begin, args.k, params.scale,
                    params.zero_point, args.y + begin * args.ldy, args.ldy,
                    args.sums == nullptr ? nullptr : args.sums + begin);
  };
  if (workers == 1 || args.rows <= grain) {
    convert(0, args.rows, 0);
  } else {
    parallel_for(args.rows, grain, convert);
  }
}

template <class ParallelFor>
void quantize_per_tensor(const QuantizeRowsKernel& kernel, const QuantizeRowsArgs& args,
                         int workers, void* scratch, const ParallelFor& parallel_for) {
  const QuantParams params = measure_per_tensor(kernel, args, workers, scratch, parallel_for);
  *args.scale = params.scale;
  *args.zero_point = params.zero_point;
  quantize_all(kernel, args, params, workers, parallel_for);
}

}  // namespace sprun::kernels
