// Graph -> standard ONNX file.
//
//   SPRUN_TRY(write_onnx(*model.graph, "out.onnx", {.metadata_props = model.metadata_props}));
//
// What the reader made explicit is undone: inputs of body graphs that stand for outer values become references to those
// values. Constants become initialisers.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"

namespace sprun::graph {

struct WriteOptions {
  int64_t ir_version = 0;             // 0: the oldest that the opset and the element types allow, at least 8
  std::map<std::string, int> opsets = {};  // domains to import beyond those of the nodes
  std::string producer_name = "sprun";
  std::string producer_version = {};
  std::vector<std::pair<std::string, std::string>> metadata_props = {};
  enum class External { kAuto, kAlways } external = External::kAuto;
  // kAuto: weights go to a second file "<path>.data" when there are more bytes of them than this.
  int64_t max_embedded_bytes = 1'900'000'000;
};

// Writes `path` (and "<path>.data"); existing files are replaced only when everything has been written.
// kBadModel if a value has no data or nodes of one domain have different opsets (one file has one opset per domain),
// kUsage or kResourceLimit if a file cannot be written.
Status write_onnx(const Graph& graph, const std::string& path, const WriteOptions& options = {});

}  // namespace sprun::graph
