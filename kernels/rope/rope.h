// Rotary position embedding over strided heads.
//
//   RopeArgs args{.batch = 1, .heads = 8, .rows = s, .dim = 64, .rotary_dim = 64, ...};
//   rope(args, pool);
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"
#include "sprun/dtype.h"

namespace sprun::kernels {

// For row s of head h in batch b, table row r and half = rotary_dim / 2, for i < half:
//   y[lo] = x[lo] * cos[r, i] - x[hi] * sin[r, i]        y[hi] = x[hi] * cos[r, i] + x[lo] * sin[r, i]
// lo = i, hi = i + half, or when interleaved lo = 2i, hi = 2i + 1. Elements from rotary_dim on are copied.
//   x, y      element (b, h, s, d) as in AttentionStrides with dim stride 1; y may be x with the same strides
//   cos, sin  [table rows, half], dense, of the type of x
//   positions [batch, rows]: r; null: r = b * rows + s. The caller has checked that every r is a table row.
// f32, f16, bf16 (computed in float) and f64. rotary_dim is even and <= dim.
// Regime: bandwidth-bound. Threads: rows are split over the pool. Source: arXiv 2104.09864, ONNX RotaryEmbedding-23.
struct RopeArgs {
  int64_t batch = 1, heads = 1, rows = 0, dim = 0, rotary_dim = 0;
  bool interleaved = false;
  DType dtype = DType::kF32;
  const void* x = nullptr;
  AttentionStrides x_strides = {};
  void* y = nullptr;
  AttentionStrides y_strides = {};
  const void* cos = nullptr;
  const void* sin = nullptr;
  const int64_t* positions = nullptr;
};

void rope(const RopeArgs& args, ThreadPool& pool);

}  // namespace sprun::kernels
