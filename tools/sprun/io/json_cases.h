// Operator cases written as commented JSON: one operator, its attributes, and cases of inputs with
// expected outputs.
//
//   [{"name": "...", "operator": "MatMul", "opset": {"domain": "", "version": 13},
//     "attributes": [{"name": "axis", "type": "int", "data": 1}],
//     "cases": [{"name": "...", "inputs": [{"type": "float32", "dims": [2], "data": [1, 2]}],
//     "outputs": [...]}]}]
//
// data null is an absent optional tensor. Opset 17 of ai.onnx when none is given.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/session.h"
#include "sprun/status.h"

namespace sprun::tools {

struct JsonCase {
  std::string name;                     // "operator / test / case"
  Status problem;                       // not ok: the case cannot be read, and the rest is empty
  std::unique_ptr<graph::Graph> graph;  // one node
  std::vector<NamedTensor> inputs, outputs;
};

// kBadInput if the file is not such a list.
Result<std::vector<JsonCase>> read_json_cases(const std::string& path);

}  // namespace sprun::tools
