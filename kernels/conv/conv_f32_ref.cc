// Scalar reference of the f32 convolution: one sum at a time, in double. Every method is the same
// loop.
#include <algorithm>
#include <cmath>

#include "kernels/conv/conv.h"

namespace sprun::kernels {

double conv_activate(const ConvEpilogue& e, double v) {
  const double alpha = static_cast<double>(e.alpha);
  const double beta = static_cast<double>(e.beta);
  switch (e.activation) {
    case ConvActivation::kNone:
      return v;
    case ConvActivation::kRelu:
      return std::max(v, 0.0);
    case ConvActivation::kClip:
      return std::min(std::max(v, alpha), beta);
    case ConvActivation::kLeakyRelu:
      return v < 0 ? alpha * v : v;
    case ConvActivation::kHardSigmoid:
      return std::clamp(alpha * v + beta, 0.0, 1.0);
    case ConvActivation::kHardSwish:
      return v * std::clamp(alpha * v + beta, 0.0, 1.0);
    case ConvActivation::kSigmoid:
      return 1.0 / (1.0 + std::exp(-v));
    case ConvActivation::kSilu:
      return v / (1.0 + std::exp(-v));
    case ConvActivation::kTanh:
      return std::tanh(v);
    case ConvActivation::kGelu:
      return 0.5 * v * (1.0 + std::erf(v * 0.70710678118654752));
  }
  return v;
}

namespace {

// Sum of channel m of image n at output position o.
double sum_at(const ConvArgs& args, int64_t n, int64_t m, int64_t o) {
  const ConvShape& s = args.shape;
  const auto& [ad, ah, aw] = s.axis;
  double sum = 0;
  for (int64_t c = 0; c < s.group_in(); ++c) {
    const float* x =
        args.x + (n * s.in_channels + m / s.group_out() * s.group_in() + c) * s.in_size();
    const float* w = args.w + (m * s.group_in() + c) * s.kernel_size();
    for (int64_t k = 0; k < s.kernel_size(); ++k) {
      const int64_t d = o / (ah.out * aw.out) * ad.stride - ad.pad_begin +
                        k / (ah.kernel * aw.kernel) * ad.dilation;
      const int64_t h =
          o / aw.out % ah.out * ah.stride - ah.pad_begin + k / aw.kernel % ah.kernel * ah.dilation;
      const int64_t i = o % aw.out * aw.stride - aw.pad_begin + k % aw.kernel * aw.dilation;
      if (d < 0 || d >= ad.in || h < 0 || h >= ah.in || i < 0 || i >= aw.in) continue;
      sum += static_cast<double>(x[(d * ah.in + h) * aw.in + i]) * static_cast<double>(w[k]);
    }
  }
  return sum;
}

// Output channels [begin, end) of batch * out_channels.
void run_channels(const ConvArgs& args, int64_t begin, int64_t end, float*) {
  const ConvShape& s = args.shape;
  for (int64_t at = begin; at < end; ++at) {
    const int64_t m = at % s.out_channels;
    for (int64_t o = 0; o < s.out_size(); ++o) {
      const int64_t i = at * s.out_size() + o;
      double v = sum_at(args, at / s.out_channels, m, o);
      if (args.bias != nullptr) v += static_cast<double>(args.bias[m]);
      if (args.residual != nullptr) v += static_cast<double>(args.residual[i]);
      v = static_cast<double>(args.epilogue.scale) * conv_activate(args.epilogue, v);
      args.y[i] = static_cast<float>(v + static_cast<double>(args.epilogue.shift));
    }
  }
}

constexpr int64_t kPanel = 16;

void run_gemm(const ConvArgs& args, const ConvTiling& t, int64_t begin, int64_t end,
              float* scratch) {
  // Every unit of the grid is one part of the channels of a group; the first block computes all
  // positions.
  const int64_t rows = args.shape.group_out();
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t part = unit % t.row_parts;
    const int64_t first = unit / t.row_parts / t.blocks * rows;
    if (unit / t.row_parts % t.blocks != 0) continue;
    run_channels(args, first + rows * part / t.row_parts, first + rows * (part + 1) / t.row_parts,
                 scratch);
  }
}

int64_t no_gemm_scratch(const ConvShape&, const ConvTiling&) { return 0; }
int64_t no_scratch(const ConvShape&) { return 0; }

}  // namespace

extern constinit const ConvKernel conv_f32_ref = {
    kPanel, run_gemm, no_gemm_scratch, run_channels, no_scratch, run_channels, no_scratch};

}  // namespace sprun::kernels
