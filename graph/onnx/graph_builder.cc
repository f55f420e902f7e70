#include "graph/onnx/graph_builder.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <utility>

#include "graph/onnx/attr_reader.h"
#include "graph/onnx/scope.h"
#include "graph/onnx/tensor_proto.h"
#include "graph/ops/op.h"

namespace sprun::graph {

namespace {
using onnx::AttributeProto;
using onnx::FunctionProto;
using onnx::GraphProto;
using onnx::NodeProto;
using onnx::ValueInfoProto;

// Fields that libonnx 1.12 does not know yet.
constexpr int kNodeOverload = 8, kFunctionDefaults = 11, kFunctionOverload = 13;

std::string canonical(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

std::string unknown_string(const google::protobuf::UnknownFieldSet& fields, int number) {
  for (int i = fields.field_count() - 1; i >= 0; --i) {
    const auto& field = fields.field(i);
    if (field.number() == number && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
      return field.length_delimited();
    }
  }
  return "";
}

Status bad(const std::string& text) { return {Code::kBadModel, text}; }

Result<OpsetMap> read_opsets(const google::protobuf::RepeatedPtrField<onnx::OperatorSetIdProto>& imports) {
  OpsetMap opsets;
  for (const auto& import : imports) {
    if (import.version() < 1 || import.version() > 1'000'000) {
      return bad("opset " + std::to_string(import.version()) + " of domain '" + import.domain() + "' is not valid");
    }
    const auto [it, inserted] = opsets.emplace(canonical(import.domain()), static_cast<int>(import.version()));
    if (!inserted && it->second != import.version()) return bad("two opsets for domain '" + import.domain() + "'");
  }
  return opsets;
}

std::vector<DimInfo> read_dims(const onnx::TensorShapeProto& shape) {
  std::vector<DimInfo> dims;
  for (const auto& dim : shape.dim()) {
    DimInfo info;
    if (dim.has_dim_value() && dim.dim_value() >= 0) info.value = dim.dim_value();
    if (dim.has_dim_param()) info.symbol = dim.dim_param();
    dims.push_back(std::move(info));
  }
  return dims;
}

// What a declaration says of a value. A type that is no tensor, or of elements without DType, is named in `unsupported`.
struct ValueType {
  DType dtype = DType::kUndefined;
  std::optional<std::vector<DimInfo>> dims;
  std::string unsupported;
};

ValueType read_type(const onnx::TypeProto& type) {
  ValueType result;
  switch (type.value_case()) {
    case onnx::TypeProto::kTensorType: {
      const auto& tensor = type.tensor_type();
      result.dtype = dtype_of_onnx(tensor.elem_type());
      if (tensor.has_shape()) result.dims = read_dims(tensor.shape());
      if (result.dtype == DType::kUndefined && tensor.elem_type() != 0) {
        result.unsupported = "tensors of " + onnx_type_name(tensor.elem_type());
      }
      break;
    }
    case onnx::TypeProto::kSequenceType: result.unsupported = "a sequence"; break;
    case onnx::TypeProto::kMapType: result.unsupported = "a map"; break;
    case onnx::TypeProto::kOptionalType: result.unsupported = "an optional value"; break;
    case onnx::TypeProto::kSparseTensorType: result.unsupported = "a sparse tensor"; break;
    case onnx::TypeProto::kOpaqueType: result.unsupported = "an opaque type"; break;
    case onnx::TypeProto::VALUE_NOT_SET: break;
  }
  return result;
}

}  // namespace

std::string display_name(const NodeProto& node) {
  const std::string op = node.domain().empty() ? node.op_type() : node.domain() + "." + node.op_type();
  return node.name().empty() ? op + " node" : op + " node '" + node.name() + "'";
}

Status GraphBuilder::build() {
  SPRUN_ASSIGN(model_.opsets, read_opsets(proto_.opset_import()));
  if (model_.opsets.empty() && proto_.ir_version() < 3) model_.opsets[""] = 1;
  if (auto it = model_.opsets.find(""); it != model_.opsets.end() && it->second > kNewestOpset) {
    model_.warnings.push_back("opset " + std::to_string(it->second) + " is newer than " +
                              std::to_string(kNewestOpset) + "; ops are taken as they were then");
  }
  SPRUN_TRY(read_functions());
  model_.graph = std::make_unique<Graph>();
  model_.graph->name = proto_.graph().name();
  GraphState state{model_.graph.get(), {}};
  Scope scope{.state = &state, .opsets = &model_.opsets};
  return build_graph(proto_.graph(), scope);
}

Status GraphBuilder::read_functions() {
  for (const FunctionProto& proto : proto_.functions()) {
    Function function;
    function.proto = &proto;
    const std::string domain = canonical(proto.domain());
    function.name = domain + "." + proto.name();
    function.size_bytes = proto.ByteSizeLong();
    SPRUN_ASSIGN(function.opsets, read_opsets(proto.opset_import()));
    function.opsets.insert(model_.opsets.begin(), model_.opsets.end());
    const auto& unknown = proto.unknown_fields();
    for (int i = 0; i < unknown.field_count(); ++i) {
      const auto& field = unknown.field(i);
      if (field.number() != kFunctionDefaults ||
          field.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
        continue;
      }
      if (!function.defaults.emplace_back().ParseFromString(field.length_delimited())) {
        return bad("function '" + function.name + "' has a malformed default attribute");
      }
    }
    FunctionKey key{domain, proto.name(), unknown_string(unknown, kFunctionOverload)};
    const std::string name = function.name;
    if (!functions_.emplace(std::move(key), std::move(function)).second) return bad("function '" + name + "' twice");
  }
  return {};
}

const Function* GraphBuilder::find_function(const NodeProto& node) const {
  if (functions_.empty()) return nullptr;
  const auto it = functions_.find(
      {canonical(node.domain()), node.op_type(), unknown_string(node.unknown_fields(), kNodeOverload)});
  return it == functions_.end() ? nullptr : &it->second;
}

// --- graphs

// Everything that has a name is declared before nodes are connected, so that nodes may stand in any order.
Status GraphBuilder::build_graph(const GraphProto& proto, Scope& scope) {
  SPRUN_TRY(declare_inputs(proto, scope));
  SPRUN_TRY(declare_initializers(proto, scope));
  for (const NodeProto& node : proto.node()) SPRUN_TRY(declare_outputs(node, scope));
  SPRUN_TRY(build_nodes(proto.node(), scope));
  SPRUN_TRY(bind_outputs(proto, scope));
  return check_cycles(scope);
}

Status GraphBuilder::declare_inputs(const GraphProto& proto, Scope& scope) {
  std::unordered_set<std::string> initializers;
  if (scope.outer == nullptr) {  // bodies get a value for every input, so there the input wins
    for (const auto& tensor : proto.initializer()) initializers.insert(tensor.name());
    for (const auto& tensor : proto.sparse_initializer()) initializers.insert(tensor.values().name());
  }
  for (const ValueInfoProto& input : proto.input()) {
    if (initializers.contains(input.name())) continue;
    ValueId value = kNoValue;
    if (input.name().empty()) return bad("a graph input has no name");
    if (!scope.declare(input.name(), &value)) return bad("graph input '" + input.name() + "' is declared twice");
    ValueType type = read_type(input.type());
    scope.graph().value(value).dtype = type.dtype;
    scope.graph().value(value).declared = std::move(type.dims);
    scope.graph().add_existing_input(value);
    if (!type.unsupported.empty() && scope.outer == nullptr) {
      model_.unsupported_values.push_back("input '" + input.name() + "' is " + type.unsupported);
    }
  }
  return {};
}

Status GraphBuilder::declare_initializers(const GraphProto& proto, Scope& scope) {
  const auto is_body_input = [&](const std::string& name) {
    const auto it = scope.names.find(name);
    return it != scope.names.end() && scope.graph().value(it->second).is_input;
  };
  for (const auto& tensor : proto.initializer()) {
    if (is_body_input(tensor.name())) continue;
    SPRUN_ASSIGN(LoadedTensor loaded, loader_.load(tensor));
    SPRUN_TRY(declare_initializer(tensor.name(), std::move(loaded), scope));
  }
  for (const auto& tensor : proto.sparse_initializer()) {
    if (is_body_input(tensor.values().name())) continue;
    SPRUN_ASSIGN(LoadedTensor loaded, loader_.load_sparse(tensor));
    SPRUN_TRY(declare_initializer(tensor.values().name(), std::move(loaded), scope));
  }
  return {};
}

// Some published models name several constants alike. As in ONNX Runtime the last one counts.
bool GraphBuilder::declare_constant_name(const std::string& name, Scope& scope, ValueId* value) {
  if (scope.declare(name, value)) return true;
  *value = scope.names.at(name);
  if (*value == kNoValue || !scope.graph().value(*value).is_constant()) return false;
  model_.warnings.push_back("constant '" + name + "' is defined more than once; the last definition counts");
  return true;
}

Status GraphBuilder::declare_initializer(const std::string& name, LoadedTensor loaded, Scope& scope) {
  ValueId value = kNoValue;
  if (name.empty()) return bad("an initializer has no name");
  if (!declare_constant_name(name, scope, &value)) return bad("initializer '" + name + "' has the name of a graph input");
  switch (loaded.state) {
    case LoadedTensor::State::kOk: scope.graph().make_constant(value, std::move(loaded.tensor)); return {};
    case LoadedTensor::State::kUnsupported:
      model_.unsupported_values.push_back("initializer '" + name + "': " + loaded.reason);
      return {};
    case LoadedTensor::State::kMissing: break;
  }
  scope.graph().value(value).dtype = loaded.dtype;
  scope.graph().value(value).shape = loaded.shape;
  model_.missing_data.push_back({name, loaded.file, loaded.reason});
  return {};
}

Status GraphBuilder::bind_outputs(const GraphProto& proto, Scope& scope) {
  std::vector<ValueId> outputs;
  for (const ValueInfoProto& output : proto.output()) {
    ValueId value = kNoValue;
    if (!scope.lookup(output.name(), &value) || value == kNoValue) {
      return bad("graph output '" + output.name() + "' is not computed by any node");
    }
    outputs.push_back(value);
    ValueType type = read_type(output.type());
    Value& target = scope.graph().value(value);
    if (target.dtype == DType::kUndefined) target.dtype = type.dtype;
    if (!target.declared && !target.is_constant()) target.declared = std::move(type.dims);
    if (!type.unsupported.empty() && scope.outer == nullptr) {
      model_.unsupported_values.push_back("output '" + output.name() + "' is " + type.unsupported);
    }
  }
  scope.graph().set_outputs(std::move(outputs));
  return {};
}

Status GraphBuilder::check_cycles(Scope& scope) {
  const auto order = scope.graph().topological_order();
  return order.ok() ? Status() : order.status();
}

// --- nodes

Status GraphBuilder::declare_outputs(const NodeProto& node, Scope& scope) {
  for (int i = 0; i < node.output_size(); ++i) {
    const std::string& name = node.output(i);
    if (name.empty()) continue;
    ValueId value = kNoValue;
    const bool is_constant = i == 0 && canonical(node.domain()).empty() && node.op_type() == "Constant" &&
                             find_function(node) == nullptr;
    const bool declared = is_constant ? declare_constant_name(name, scope, &value) : scope.declare(name, &value);
    if (!declared) return bad("value '" + name + "' has two producers; one is " + display_name(node));
    if (is_constant) SPRUN_TRY(declare_constant(node, value, scope));
  }
  return {};
}

Status GraphBuilder::declare_constant(const NodeProto& node, ValueId value, Scope& scope) {
  LoadedTensor loaded;
  loaded.state = LoadedTensor::State::kUnsupported;
  loaded.reason = "no value";
  for (const AttributeProto& attr : node.attribute()) {
    const AttributeProto* resolved = resolve_reference(attr, scope.call);
    if (resolved == nullptr) continue;
    auto constant = read_constant_attr(*resolved, loader_);
    if (!constant.ok()) return constant.status().with_context(display_name(node));
    loaded = std::move(*constant);
    break;
  }
  Value& target = scope.graph().value(value);
  switch (loaded.state) {
    case LoadedTensor::State::kOk: scope.graph().make_constant(value, std::move(loaded.tensor)); break;
    case LoadedTensor::State::kUnsupported:
      model_.unsupported_values.push_back(display_name(node) + ": " + loaded.reason);
      break;
    case LoadedTensor::State::kMissing:
      target.dtype = loaded.dtype;
      target.shape = loaded.shape;
      model_.missing_data.push_back({target.name, loaded.file, loaded.reason});
      break;
  }
  return {};
}

Status GraphBuilder::build_nodes(const Nodes& nodes, Scope& scope) {
  for (int i = 0; i < nodes.size(); ++i) SPRUN_TRY(build_node(nodes[i], i, scope));
  return {};
}

Status GraphBuilder::build_node(const NodeProto& node, int index, Scope& scope) {
  if (node.op_type().empty()) return bad("node '" + node.name() + "' has no op_type");
  if (const Function* function = find_function(node)) return inline_call(node, *function, index, scope);
  const std::string domain = canonical(node.domain());
  if (domain.empty() && node.op_type() == "Constant") return {};

  SPRUN_ASSIGN(const int version, opset_of(node, scope));
  SPRUN_ASSIGN(std::vector<ValueId> inputs, resolve_inputs(node, scope));
  std::vector<ValueId> outputs;
  for (const std::string& name : node.output()) outputs.push_back(name.empty() ? kNoValue : scope.names.at(name));

  AttrMap attrs;
  std::vector<Body> bodies;
  std::string unsupported;
  SPRUN_TRY(read_attrs(node, scope, &attrs, &bodies, &unsupported));
  if (!bodies.empty()) SPRUN_TRY(attach_bodies(node, version, std::move(bodies), scope, &inputs, &attrs));
  Graph& graph = scope.graph();
  const NodeId id = graph.add_node_with_outputs(domain, node.op_type(), version, std::move(inputs), std::move(outputs));
  Node& built = graph.node(id);
  built.name = scope.prefix + (node.name().empty() ? node.op_type() + "_" + std::to_string(index) : node.name());
  built.attrs = std::move(attrs);
  if (unsupported.empty()) built.def = find_op(domain, node.op_type(), version);
  if (built.def == nullptr) note_unsupported(built, unsupported);
  return {};
}

Result<std::vector<ValueId>> GraphBuilder::resolve_inputs(const NodeProto& node, Scope& scope) {
  std::vector<ValueId> inputs;
  for (const std::string& name : node.input()) {
    ValueId value = kNoValue;
    if (!scope.lookup(name, &value)) return bad(display_name(node) + " uses '" + name + "', which is not defined");
    inputs.push_back(value);
  }
  return inputs;
}

Result<int> GraphBuilder::opset_of(const NodeProto& node, const Scope& scope) const {
  const std::string domain = canonical(node.domain());
  if (auto it = scope.opsets->find(domain); it != scope.opsets->end()) return it->second;
  if (domain.empty()) return bad(display_name(node) + ": the model does not import an opset of ai.onnx");
  return 1;  // exporters forget the import of other domains, which have stayed at their first version
}

// The attribute that `attr` stands for: itself, or what the calls around it pass or leave at its default. nullptr: absent.
const AttributeProto* GraphBuilder::resolve_reference(const AttributeProto& attr, const Call* call) const {
  const AttributeProto* current = &attr;
  while (!current->ref_attr_name().empty()) {
    if (call == nullptr) return nullptr;
    const std::string& name = current->ref_attr_name();
    const auto has_name = [&](const AttributeProto& candidate) { return candidate.name() == name; };
    const auto& passed = call->node->attribute();
    const auto& defaults = call->function->defaults;
    if (auto it = std::find_if(passed.begin(), passed.end(), has_name); it != passed.end()) {
      current = &*it;
      call = call->outer;
    } else if (auto def = std::find_if(defaults.begin(), defaults.end(), has_name); def != defaults.end()) {
      return &*def;
    } else {
      return nullptr;
    }
  }
  return current;
}

Status GraphBuilder::read_attrs(const NodeProto& node, Scope& scope, AttrMap* attrs, std::vector<Body>* bodies,
                                std::string* unsupported) {
  std::unordered_set<std::string> seen;
  for (const AttributeProto& attr : node.attribute()) {
    if (!seen.insert(attr.name()).second) return bad(display_name(node) + " has attribute '" + attr.name() + "' twice");
    const AttributeProto* resolved = resolve_reference(attr, scope.call);
    if (resolved == nullptr) continue;
    if (attribute_type(*resolved) == AttributeProto::GRAPH) {
      if (resolved != &attr) {
        *unsupported = "attribute '" + attr.name() + "' is a graph that a function call passes on";
        continue;
      }
      SPRUN_ASSIGN(Body body, build_body(attr, scope));
      bodies->push_back(std::move(body));
      continue;
    }
    auto read = read_attr(*resolved, loader_);
    if (!read.ok()) return read.status().with_context(display_name(node));
    if (read->attr) {
      attrs->set(attr.name(), std::move(*read->attr));
    } else {
      *unsupported = read->unsupported;
    }
  }
  return {};
}

void GraphBuilder::note_unsupported(const Node& node, const std::string& reason) {
  for (UnsupportedOp& op : model_.unsupported_ops) {
    if (op.domain == node.domain && op.op_type == node.op_type && op.version == node.version && op.reason == reason) {
      op.nodes.push_back(node.name);
      return;
    }
  }
  const bool known_elsewhere = reason.empty() && op_known(node.domain, node.op_type);
  model_.unsupported_ops.push_back({node.domain, node.op_type, node.version, known_elsewhere, reason, {node.name}});
}

}  // namespace sprun::graph
