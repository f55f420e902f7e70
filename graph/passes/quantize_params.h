// The constants of a QuantizeLinear or DequantizeLinear with one scale, for passes.
#pragma once

#include <optional>

#include "graph/ir/graph.h"

namespace sprun::graph {

struct QuantizeParams {
  ValueId scale = kNoValue, zero = kNoValue;  // zero: kNoValue means 0
  DType dtype = DType::kU8;                   // of the codes
};

// nullopt unless the scale is one constant float32, the zero point, if any, one constant byte, and float32 is what is
// quantised or made.
inline std::optional<QuantizeParams> quantize_params(const Graph& graph, const Node& node) {
  const Tensor *scale = graph.constant(node.input(1)), *zero = graph.constant(node.input(2));
  if (!scale || scale->dtype() != DType::kF32 || scale->num_elements() != 1) return std::nullopt;
  if (node.attrs.get_int("block_size", 0) != 0 || node.attrs.get_int("precision", 0) > 1) return std::nullopt;
  QuantizeParams params = {node.input(1), node.input(2)};
  const int64_t type = node.attrs.get_int("output_dtype", 0);
  if (node.is("DequantizeLinear")) {
    if (type > 1) return std::nullopt;
    if (params.zero == kNoValue) params.dtype = graph.value(node.inputs[0]).dtype;
  } else if (params.zero == kNoValue && type != 0) {
    params.dtype = static_cast<DType>(type);
  }
  if (params.zero != kNoValue) {
    if (!zero || zero->num_elements() != 1) return std::nullopt;
    params.dtype = zero->dtype();
  }
  const bool byte = params.dtype == DType::kU8 || params.dtype == DType::kS8;
  return byte ? std::optional(params) : std::nullopt;
}

}  // namespace sprun::graph
