// What happens to an input that int8 layers read before it is rounded.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/input_sample.h"
#include "tools/compress/int8_spec.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/quantize.h"

namespace sprun::compress {

struct Int8Input {
  std::optional<Vector> scale;               // of its channels, which the weights take
  double power = 0;                          // that the scale comes from
  graph::ValueId divided = graph::kNoValue;  // what the layers read then
  ValueRange range = {};                     // of that
  bool residual = false;
  std::string note;  // for the report: rounding errors

  // "int8 static smooth0.8 residual": what was chosen of what the spec allows.
  std::string text(const Int8Spec& spec) const;
};

// Measures, chooses, and makes the layers read the divided input. layers: all read one value and
// get this form. The sample may be empty for a spec that needs no data.
Result<Int8Input> prepare_int8_input(graph::Graph& graph, std::span<LinearLayer* const> layers,
                                     const Int8Spec& spec, const InputSample& sample,
                                     ThreadPool& pool);

}  // namespace sprun::compress
