// Linear and cubic Resize: weighted sums over neighbours, one axis after the other.
#pragma once

#include <span>

#include "graph/ops/op.h"
#include "graph/ops/resize_axis.h"

namespace sprun::graph {

// Output 0 becomes input 0 resized along `axes`, one entry per axis of the input. Sums in float, or in double for
// float64 and integers of 32 bits and more; integers are rounded to nearest even and saturated.
// Preconditions: rank >= 1, input and output have elements, axes match the shapes, style.mode is linear or cubic.
Status resize_smooth(RunContext& ctx, std::span<const ResizeAxis> axes, const ResizeStyle& style);

}  // namespace sprun::graph
