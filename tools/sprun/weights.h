// Weights of linear layers in a graph and how sparse they are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ops/sparse_weight.h"

namespace sprun::tools {

// A constant that a MatMul, Gemm, Conv or a relative of them multiplies with. Tables of Gather,
// biases and scales are not listed: skipping their zeros would save nothing.
struct LinearWeight {
  std::string name, op;  // of the constant; of the first node that uses it
  DType dtype = DType::kUndefined;
  Shape shape;
  int64_t zeros = 0;  // elements equal to the zero point (0 where there is none)

  // By pattern, for weights that are one matrix W[N, K] (N outputs); convolutions as [N, everything else].
  std::optional<graph::WeightZeros> patterns;

  int64_t elements() const { return shape.num_elements(); }
};

// In the order of the nodes; each constant once. Looks through Transpose, Reshape, Cast, Identity
// and DequantizeLinear between the constant and the layer. A per-channel zero point counts per
// channel.
std::vector<LinearWeight> linear_weights(const graph::Graph& graph);

}  // namespace sprun::tools
