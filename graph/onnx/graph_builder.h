// Internal to the importer: a parsed ModelProto -> Graph. graph_builder.cc has graphs and nodes, body_builder.cc
// subgraphs and functions.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "graph/onnx/onnx_reader.h"
#include "graph/onnx/scope.h"
#include "graph/onnx/tensor_loader.h"

namespace sprun::graph {

// Used once: build() fills graph, opsets, unsupported_*, missing_data and warnings of *model.
class GraphBuilder {
 public:
  GraphBuilder(const onnx::ModelProto& proto, TensorLoader& loader, OnnxModel* model)
      : proto_(proto), loader_(loader), model_(*model) {}

  Status build();

 private:
  using FunctionKey = std::tuple<std::string, std::string, std::string>;  // domain, name, overload

  // A body of a node while it is built: its captures decide the inputs of all bodies of the node.
  struct Body {
    std::string attr_name;
    std::unique_ptr<Graph> graph;
    std::vector<Scope::Capture> captures;
  };

  Status read_functions();
  const Function* find_function(const onnx::NodeProto& node) const;

  // --- graphs
  Status build_graph(const onnx::GraphProto& proto, Scope& scope);
  Status declare_inputs(const onnx::GraphProto& proto, Scope& scope);
  Status declare_initializers(const onnx::GraphProto& proto, Scope& scope);
  bool declare_constant_name(const std::string& name, Scope& scope, ValueId* value);
  Status declare_initializer(const std::string& name, LoadedTensor loaded, Scope& scope);
  Status bind_outputs(const onnx::GraphProto& proto, Scope& scope);
  Status check_cycles(Scope& scope);

  // --- nodes
  using Nodes = google::protobuf::RepeatedPtrField<onnx::NodeProto>;
  Status declare_outputs(const onnx::NodeProto& node, Scope& scope);
  Status declare_constant(const onnx::NodeProto& node, ValueId value, Scope& scope);
  Status build_nodes(const Nodes& nodes, Scope& scope);
  Status build_node(const onnx::NodeProto& node, int index, Scope& scope);
  Result<std::vector<ValueId>> resolve_inputs(const onnx::NodeProto& node, Scope& scope);
  Result<int> opset_of(const onnx::NodeProto& node, const Scope& scope) const;
  Status read_attrs(const onnx::NodeProto& node, Scope& scope, AttrMap* attrs, std::vector<Body>* bodies,
                    std::string* unsupported);
  const onnx::AttributeProto* resolve_reference(const onnx::AttributeProto& attr, const Call* call) const;
  void note_unsupported(const Node& node, const std::string& reason);

  // --- subgraphs
  Result<Body> build_body(const onnx::AttributeProto& attr, Scope& scope);
  Status attach_bodies(const onnx::NodeProto& node, int version, std::vector<Body> bodies, Scope& scope,
                       std::vector<ValueId>* inputs, AttrMap* attrs);
  Status check_body_outputs(const onnx::NodeProto& node, const Body& body, const AttrMap& attrs) const;
  Result<size_t> formal_inputs(const onnx::NodeProto& node, int version, const std::vector<Body>& bodies,
                               std::vector<ValueId>* inputs, AttrMap* attrs) const;


  // --- functions
  Status inline_call(const onnx::NodeProto& node, const Function& function, int index, Scope& scope);
  Status inline_body(const onnx::NodeProto& node, const Function& function, Scope& scope, Scope& body);
  Status build_function_nodes(const onnx::FunctionProto& proto, Scope& body);
  Status add_identity(ValueId from, ValueId to, Scope& scope);

  const onnx::ModelProto& proto_;
  TensorLoader& loader_;
  OnnxModel& model_;
  std::map<FunctionKey, Function> functions_;
  size_t inlined_bytes_ = 0;
};

// "Relu node 'name'", for messages.
std::string display_name(const onnx::NodeProto& node);

}  // namespace sprun::graph
