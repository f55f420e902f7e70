// Argument structs of the convolution kernels. Plain data: ISA files include it.
//
//   v[n, m, o] = sum over c, k of W[m, c, k] * X[n, g(m) + c, o * stride - pad + k * dilation] + bias[m] + R[n, m, o]
//   Y[n, m, o] = scale * act(v) + shift
// n batch, m output channel, c input channel of m's group, o output position, k kernel element; X outside its borders
// is 0. X, Y, R are [N, C, D, H, W] (1-d and 2-d problems have sizes of 1 in front), W is [M, C / groups, KD, KH, KW].
// All dense, f32, any alignment; sizes and strides in elements. Y must not overlap anything else, but R may be Y.
#pragma once

#include <cstdint>

namespace sprun::kernels {

enum class ConvActivation : uint8_t {
  kNone,
  kRelu,         // max(0, v)
  kClip,         // min(max(v, alpha), beta)
  kLeakyRelu,    // v < 0 ? alpha * v : v
  kHardSigmoid,  // min(max(alpha * v + beta, 0), 1)
  kHardSwish,    // v * min(max(alpha * v + beta, 0), 1)
  kSigmoid,
  kSilu,         // v * sigmoid(v)
  kTanh,
  kGelu,         // v/2 (1 + erf(v / sqrt 2))
};

struct ConvEpilogue {
  ConvActivation activation = ConvActivation::kNone;
  float alpha = 0, beta = 0;
  float scale = 1, shift = 0;

  bool operator==(const ConvEpilogue&) const = default;
};

struct ConvAxis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad_begin = 0;
};

struct ConvShape {
  int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;
  ConvAxis axis[3];  // depth, height, width
};

}  // namespace sprun::kernels
