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
    // Before types are known.
    const Node* quantize = graph.producer(node.inputs[0]);
    if (params.dtype == DType::kUndefined && quantize && quantize->is("QuantizeLinear")) {
      const auto from = quantize_params(graph, *quantize);
      if (from) params.dtype = from->dtype;
    }
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

inline float scale_value(const Graph& graph, const QuantizeParams& params) {
  return *graph.constant(params.scale)->as<float>();
}

inline int64_t zero_value(const Graph& graph, const QuantizeParams& params) {
  const Tensor* zero = graph.constant(params.zero);
  if (zero == nullptr) return 0;
  return params.dtype == DType::kS8 ? int64_t{*zero->as<int8_t>()} : int64_t{*zero->as<uint8_t>()};
}

// True if a code stands for the same number in both.
inline bool same_codes(const Graph& graph, const QuantizeParams& a, const QuantizeParams& b) {
  return a.dtype == b.dtype && scale_value(graph, a) == scale_value(graph, b) &&
         zero_value(graph, a) == zero_value(graph, b);
}

}  // namespace sprun::graph
