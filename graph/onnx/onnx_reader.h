// ONNX file -> Graph. Reads every opset; model-local functions are inlined, outer values of subgraphs become explicit.
//
//   SPRUN_ASSIGN(OnnxModel model, read_onnx("bert.onnx"));
//   SPRUN_TRY(unsupported_status(model));    // every op and type that cannot run, in one message
//   SPRUN_TRY(missing_data_status(model));   // weights whose external file is absent
//
// Weights are not copied: constants point into the mapped file and may be unaligned (Tensor::is_aligned()).
//
// Body graphs (attributes of If, Loop, Scan) see only their own inputs. Outer values that a body uses are appended to
// the inputs of the node and of every body of the node, in the same order; the attribute "num_captures" has their
// number. Captured constants are not appended: each body has its own value that shares the tensor.
//   If    node [cond, captures...]                           bodies [captures...]
//   Loop  node [M, cond, carried..., captures...]            body [iteration, cond, carried..., captures...]
//         attribute "num_carried"
//   Scan  node [states..., scanned..., captures...]          body the same
//         attributes "num_state", "num_scan_inputs"; opset 8 has sequence_lens before the states in the node
//
// Constant nodes become constants. Initialisers take the place of graph inputs with the same name. The domain
// "ai.onnx" is written "".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"

namespace sprun::graph {

// The newest opset of ai.onnx that the op definitions were written for. Newer models load with a warning.
inline constexpr int kNewestOpset = 28;

struct ReadOptions {
  // Accept symbolic and hard links in the paths of external data. Only for files from a trusted source.
  bool allow_linked_external_data = false;
};

// All nodes of the model with one op that has no OpDef.
struct UnsupportedOp {
  std::string domain, op_type;  // domain "" is ai.onnx
  int version = 0;              // opset of the domain
  bool known_elsewhere = false;  // the op exists for other opsets
  std::string reason;            // not empty: the op is known, but not this use of it
  std::vector<std::string> nodes;
};

// A weight whose external data is not there. Its value has dtype and shape, but neither data nor a producer.
struct MissingData {
  std::string tensor, file, reason;
};

struct OnnxModel {
  std::unique_ptr<Graph> graph;
  int64_t ir_version = 0;
  std::map<std::string, int> opsets;  // domain -> version
  std::string producer_name, producer_version;
  std::vector<std::pair<std::string, std::string>> metadata_props;
  std::vector<UnsupportedOp> unsupported_ops;
  std::vector<std::string> unsupported_values;  // "input 'x' has type sequence"
  std::vector<MissingData> missing_data;
  std::vector<std::string> warnings;
};

// Reads and checks a model file and its external data. The graph is valid as a graph (single assignment, no cycle, no
// undefined value) even if ops are unsupported; shapes and op semantics are not looked at.
// kBadInput if the file cannot be opened, kBadModel or kResourceLimit if it is refused.
Result<OnnxModel> read_onnx(const std::string& path, const ReadOptions& options = {});
// The same for a serialized ModelProto. Tensors are copied, `bytes` is not needed afterwards; external data is missing.
Result<OnnxModel> read_onnx_bytes(std::string_view bytes);

// kBadModel listing all unsupported ops with domain, opset and node names, and all unsupported values; else ok.
Status unsupported_status(const OnnxModel& model);
// kBadModel listing all tensors without data and their files; else ok.
Status missing_data_status(const OnnxModel& model);

}  // namespace sprun::graph
