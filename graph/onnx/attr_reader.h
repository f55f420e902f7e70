// Internal to the importer: AttributeProto -> Attr, for everything but graphs.
#pragma once

#include <optional>
#include <string>

#include "graph/ir/attr.h"
#include "graph/onnx/tensor_loader.h"
#include "sprun/status.h"

namespace onnx {
class AttributeProto;
class NodeProto;
}  // namespace onnx

namespace sprun::graph {

// An attribute, or why it cannot be held ("attribute 'x' has type type_proto").
struct ReadAttr {
  std::optional<Attr> attr;
  std::string unsupported;
};

// AttributeProto.type, guessed from the field that is set where old files leave it out.
int attribute_type(const onnx::AttributeProto& proto);
// Precondition: not a graph, no ref_attr_name.
Result<ReadAttr> read_attr(const onnx::AttributeProto& proto, TensorLoader& loader);

// The tensor of a Constant node, from whichever of its attributes is set (after references were resolved).
Result<LoadedTensor> read_constant_attr(const onnx::AttributeProto& proto, TensorLoader& loader);

}  // namespace sprun::graph
