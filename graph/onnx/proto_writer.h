// Internal to the writer: Graph -> ONNX messages, with the weights of the main graph left out.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/onnx/onnx_writer.h"

namespace onnx {
class GraphProto;
class ModelProto;
}  // namespace onnx

namespace sprun::graph {

// A constant of the main graph under the name it has in the file. The tensor belongs to the graph.
struct Initializer {
  std::string name;
  const Tensor* tensor = nullptr;
};

// *model gets everything but its graph, *proto the main graph without initializers.
Status build_protos(const Graph& graph, const WriteOptions& options, onnx::ModelProto* model, onnx::GraphProto* proto,
                    std::vector<Initializer>* initializers);

}  // namespace sprun::graph
