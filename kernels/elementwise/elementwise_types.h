// Function types and the kernel table of the elementwise family. Plain data: included by ISA files.
#pragma once

#include <cstdint>

namespace sprun::kernels {

enum class MapOp : uint8_t {
#define SPRUN_MAP(enumerator, vector, reference, ulps, absolute) enumerator,
#include "kernels/elementwise/map_ops.def"
  kCount,
};

enum class BinaryOp : uint8_t { kAdd, kSub, kMul, kDiv, kCount };

// y[i] = f(x[i], a, b), 0 <= i < n. Any alignment; y may be x but may not overlap it otherwise. a
// and b are what the operation says (slope, bounds), else ignored.
using MapF32Fn = void(const float* x, float* y, int64_t n, float a, float b);

// y[i] = a[i * a_step] op b[i * b_step], steps 0 (one value for all) or 1. y may be a or b where
// its step is 1.
using BinaryF32Fn = void(const float* a, int64_t a_step, const float* b, int64_t b_step, float* y,
                         int64_t n);

// y[i] = f(x[i] + bias[i]); y may be x.
using BiasMapF32Fn = void(const float* x, const float* bias, float* y, int64_t n);

// IEEE half or bfloat16 bits to float (exact) and back (nearest even). No overlap.
using WidenFn = void(const uint16_t* x, float* y, int64_t n);
using NarrowFn = void(const float* x, uint16_t* y, int64_t n);

struct ElementwiseKernel {
  MapF32Fn* map[static_cast<int>(MapOp::kCount)];
  BinaryF32Fn* binary[static_cast<int>(BinaryOp::kCount)];
  BiasMapF32Fn* bias_gelu_erf;
  BiasMapF32Fn* bias_gelu_tanh;
  WidenFn* f16_to_f32;
  WidenFn* bf16_to_f32;
  NarrowFn* f32_to_f16;
  NarrowFn* f32_to_bf16;
};

}  // namespace sprun::kernels
