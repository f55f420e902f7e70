// Argument structs and kernel table of the f32 convolution family. Plain data: ISA files include
// it.
//
//   v[n, m, o] = sum over c, k of W[m, c, k] * X[n, g(m) + c, o * stride - pad + k * dilation] +
//   bias[m] + R[n, m, o] Y[n, m, o] = scale * act(v) + shift
// n batch, m output channel, c input channel of m's group, o output position, k kernel element; X
// outside its borders is 0. X, Y, R are [N, C, D, H, W] (1-d and 2-d problems have sizes of 1 in
// front), W is [M, C / groups, KD, KH, KW], used as it is: no packed copy. All dense f32, any
// alignment; sizes and strides in elements. scratch is per worker and 64-byte aligned. Y must not
// overlap X, W or bias; R may be Y: each element is read before it is written. Numeric:
// kReassociated. Errors: none; preconditions are the caller's. Threads: a call runs on the calling
// thread.
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
  kSilu,  // v * sigmoid(v)
  kTanh,
  kGelu,  // v/2 (1 + erf(v / sqrt 2))
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

  int64_t group_in() const { return in_channels / groups; }
  int64_t group_out() const { return out_channels / groups; }
  int64_t in_size() const { return axis[0].in * axis[1].in * axis[2].in; }
  int64_t out_size() const { return axis[0].out * axis[1].out * axis[2].out; }
  int64_t kernel_size() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
  // Terms of one sum.
  int64_t depth() const { return group_in() * kernel_size(); }
};

struct ConvArgs {
  ConvShape shape;
  const float* x = nullptr;
  const float* w = nullptr;
  const float* bias = nullptr;      // [M]; null = 0
  const float* residual = nullptr;  // like y; null = 0
  float* y = nullptr;
  ConvEpilogue epilogue;
};

// Three ways to run a convolution, each over a range of units of its own.
enum class ConvMethod : uint8_t {
  kGemm,       // W x im2col(X), in panels of output positions; serves everything
  kDepthwise,  // one input channel per group: vectors along the width
  kDot,        // very few output positions: vectors along the sum
};

// How kGemm cuts the work. A unit is a block of panels of one image and group, and a part of its
// output channels; unit = ((n * groups + g) * blocks + block) * row_parts + part.
struct ConvTiling {
  int64_t block_panels = 1;  // panels that are gathered together
  int64_t blocks = 1;
  int64_t row_parts = 1;
  bool pointwise = false;  // 1x1, stride 1, no padding
  bool in_place = false;   // pointwise only: read X without gathering
};

struct ConvKernel {
  int64_t nr;  // output positions per panel
  // Units [begin, end). scratch: gemm_scratch floats.
  void (*gemm)(const ConvArgs& args, const ConvTiling& tiling, int64_t begin, int64_t end,
               float* scratch);
  int64_t (*gemm_scratch)(const ConvShape& shape, const ConvTiling& tiling);
  // Planes [begin, end) of batch * out_channels. scratch: depthwise_scratch floats.
  void (*depthwise)(const ConvArgs& args, int64_t begin, int64_t end, float* scratch);
  int64_t (*depthwise_scratch)(const ConvShape& shape);
  // Output channels [begin, end) of batch * out_channels. scratch: dot_scratch floats.
  void (*dot)(const ConvArgs& args, int64_t begin, int64_t end, float* scratch);
  int64_t (*dot_scratch)(const ConvShape& shape);
};

}  // namespace sprun::kernels
