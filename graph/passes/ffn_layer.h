// A linear layer with constant weights, in any form that exporters and earlier passes give it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/passes/quantize_params.h"

namespace sprun::graph {

struct FfnLayerMatch {
  std::string form = "float";  // "float", "int8", "dequant", "nbits": as sprun.SparseFfn has them
  ValueId x = kNoValue;
  ValueId weight = kNoValue, scale = kNoValue, zero = kNoValue, bias = kNoValue, residual = kNoValue;
  bool trans = false;
  std::string x_quant, precision;
  int64_t n = 0, k = 0, bits = 0, block_size = 0;
  std::string activation = "none";
  int64_t column = 0, width = 0;  // the outputs that v is; width n unless the layer's result is split

  // Of statically quantised layers, which read codes (x_quant "static").
  ValueId x_scale = kNoValue, x_zero = kNoValue;
  // What happens to the result, in order: rounding to codes and back, or, where there is a row, adding it.
  struct Stage {
    QuantizeParams codes;
    ValueId offset = kNoValue;
  };
  std::vector<Stage> stages;
  bool rectified = false;  // the last codes have none below that of zero
};

// The layer whose result is v: the product, a bias in it or added to it, perhaps one part of a Split or Slice of the
// last axis. Everything between the product and v has no other use; v itself may have.
std::optional<FfnLayerMatch> match_ffn_layer(const Graph& graph, ValueId v);

// The layer of which `codes` are the result, rounded: its last stage. An activation before that is none or relu, which may
// as well come after the rounding, because zero is a code.
std::optional<FfnLayerMatch> match_ffn_codes(const Graph& graph, ValueId codes);

// The number that a Slice or Split makes of the last axis of its input: v = source[.., offset : offset + size]. size -1:
// not known. nullopt if v is no such part.
struct ColumnRange {
  ValueId source = kNoValue;
  int64_t offset = 0, size = -1;
};
std::optional<ColumnRange> column_range(const Graph& graph, ValueId v);

}  // namespace sprun::graph
