// Sliding windows of convolution and pooling: attributes -> checked geometry.
//
// Every op here works on [batch, channels, 1 to 3 spatial axes]; the geometry always has three
// axes, with sizes of 1 in front, so that one loop nest serves 1-d, 2-d and 3-d.
#pragma once

#include <array>
#include <span>

#include "graph/ops/op.h"

namespace sprun::graph {

inline constexpr int kMaxSpatial = 3;

struct WindowAxis {
  int64_t in = 1, out = 1;
  int64_t kernel = 1, stride = 1, dilation = 1;
  int64_t pad_begin = 0, pad_end = 0;

  // Input position of kernel element k of output o: o * stride - pad_begin + k * dilation. May lie
  // outside.
  int64_t start(int64_t o) const { return o * stride - pad_begin; }
};

// Kernel elements [begin, end) whose input positions lie inside [0, limit).
struct KernelRange {
  int64_t begin, end;
};
KernelRange kernel_range(const WindowAxis& axis, int64_t start, int64_t limit);

struct Window {
  int spatial = 0;  // 1 to 3; the last `spatial` of the three axes are real
  std::array<WindowAxis, kMaxSpatial> axis;

  int64_t in_size() const { return axis[0].in * axis[1].in * axis[2].in; }
  int64_t out_size() const { return axis[0].out * axis[1].out * axis[2].out; }
  int64_t kernel_size() const { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
  // [batch, channels, out...]
  Shape out_shape(int64_t batch, int64_t channels) const;
};

// Geometry of a convolution or pooling over x [batch, channels, spatial...] with kernel sizes
// `kernel` (one per spatial axis). Reads strides, dilations, pads and auto_pad. A window may lie in
// the padding entirely. kBadModel with the reason for a rank other than 3 to 5, wrong attribute
// lengths, sizes that are not positive, negative or absurd pads, or a kernel larger than the padded
// input.
Result<Window> make_window(const AttrMap& attrs, const Shape& x, std::span<const int64_t> kernel,
                           bool ceil_mode = false);

// Geometry of a transposed convolution: `in` is the size of x, `out` that of y, and pads are those
// of the forward convolution from y to x. Reads also output_padding and output_shape.
Result<Window> make_transposed_window(const AttrMap& attrs, const Shape& x,
                                      std::span<const int64_t> kernel);

// kernel_shape, or the spatial sizes of the weight [out, in, kernel...] when the attribute is
// absent; an error if they disagree.
Result<std::vector<int64_t>> conv_kernel(const AttrMap& attrs, const Shape& weight);

}  // namespace sprun::graph
