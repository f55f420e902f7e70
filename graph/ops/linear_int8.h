// The constant weights of a sprun.LinearInt8 node as the packed kernels get them, for the op and for passes that ask
// which kernel it will take.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "graph/ops/int8_product.h"
#include "graph/ops/linear_util.h"

namespace sprun::graph {

struct LinearInt8Weights {
  std::array<std::vector<int32_t>, kMaxSegments> zeros;  // what `weights` point to
  std::vector<Int8Constant> weights;
  std::string refusal;  // why no packed kernel fits; empty when one does
};

// An input of the node: absent, or its constant (null when it is computed).
struct ConstantInput {
  bool present = false;
  const Tensor* constant = nullptr;
};

LinearInt8Weights linear_int8_weights(const LinearAttrs& attrs, int64_t m, int64_t k,
                                      const std::function<ConstantInput(int)>& input);

}  // namespace sprun::graph
