// Scales that make the input of int8 layers easier to round: y = (x / s) (W s)^T is the same for
// any s > 0, but channels with large elements no longer make the steps of all others coarse
// (SmoothQuant, Xiao et al. 2022): s_j = max|x_j|^a / max|w_j|^(1 - a).
#pragma once

#include <span>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/input_sample.h"
#include "tools/compress/int8_spec.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// The rows of all matrices, one below the other.
Matrix stacked(std::span<const Matrix> parts);

// Root of the mean over the rows of the sample of ||y - y'||^2 / ||y||^2, y = x w^T, y' the same
// with (x / s) rounded to int8 and `coded` for w s, rounded or not. Rows count alike: a token with
// few but huge activations would hide all others in a sum over all of them.
double rounding_error(const InputSample& sample, const Matrix& w, const Matrix& coded,
                      const Vector& s, Int8Mode mode, ThreadPool& pool);

struct Smoothing {
  double power = -1;  // negative: none
  Vector scale;       // s
  double error_before = 0, error_after = 0;
};

// fixed_power: negative to choose. w: the stacked weights of all layers that read the input. None
// is chosen where the best power saves less than a tenth of the error.
Smoothing choose_smoothing(const InputSample& sample, const Matrix& w, Int8Mode mode,
                           double fixed_power, ThreadPool& pool);

// x * (1 / s) as a new value. `like`: a node whose opset it is written against.
Result<graph::ValueId> divide_channels(graph::Graph& graph, graph::ValueId x, const Vector& s,
                                       graph::NodeId like);

// Moves the constant of a node of divide_channels() into the constants that make x (the scale and
// shift of a norm, the weights or int8 scales of a linear layer, through ReLU and the other factor
// of a gated network) and removes the node. False, and no change, where something else reads x or
// the way back is another one.
Result<bool> fold_channel_scale(graph::Graph& graph, graph::ValueId divided);

}  // namespace sprun::compress
