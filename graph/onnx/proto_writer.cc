#include "graph/onnx/proto_writer.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "graph/onnx/tensor_proto.h"

namespace sprun::graph {

namespace {
using onnx::AttributeProto;

constexpr int kMaxDepth = 64;

// Attributes that the reader adds to nodes with bodies.
bool is_reader_attr(const Node& node, const std::string& name) {
  if (!node.attrs.has("num_captures")) return false;
  return name == "num_captures" || name == "num_carried" || name == "num_state";
}

void fill_tensor(const Tensor& tensor, onnx::TensorProto* proto) {
  proto->set_data_type(static_cast<int32_t>(tensor.dtype()));
  for (int64_t dim : tensor.shape().dims()) proto->add_dims(dim);
  proto->set_raw_data(raw_bytes_of(tensor.view()));
}

void fill_type(const Value& value, onnx::TypeProto* proto) {
  auto* tensor = proto->mutable_tensor_type();
  tensor->set_elem_type(static_cast<int32_t>(value.dtype));
  if (value.declared) {
    auto* shape = tensor->mutable_shape();
    for (const DimInfo& info : *value.declared) {
      auto* dim = shape->add_dim();
      if (info.value >= 0) dim->set_dim_value(info.value);
      else if (!info.symbol.empty()) dim->set_dim_param(info.symbol);
    }
  } else if (value.shape) {
    for (int64_t size : value.shape->dims()) tensor->mutable_shape()->add_dim()->set_dim_value(size);
  }
}

class ProtoWriter {
 public:
  explicit ProtoWriter(const WriteOptions& options) : opsets_(options.opsets) {}

  // `outer` has the names of values that the first inputs after `num_formal` stand for; nullptr: the main graph.
  Status write_graph(const Graph& graph, size_t num_formal, const std::vector<std::string>* outer, int depth,
                     onnx::GraphProto* proto);
  std::vector<Initializer> take_initializers() { return std::move(initializers_); }
  const std::map<std::string, int>& opsets() const { return opsets_; }
  bool has_4bit() const { return has_4bit_; }

 private:
  using Names = std::vector<std::string>;  // by ValueId

  std::string fresh_name(const std::string& base);
  Status name_values(const Graph& graph, size_t num_formal, const std::vector<std::string>* outer, Names* names);
  Status write_constants(const Graph& graph, const Names& names, bool is_main, onnx::GraphProto* proto);
  Status write_node(const Node& node, const Names& names, int depth, onnx::NodeProto* proto);
  Status write_attr(const Node& node, const std::string& name, const Attr& attr, const std::vector<std::string>& outer,
                    int depth, AttributeProto* proto);
  Status write_outputs(const Graph& graph, const Names& names, bool is_main, onnx::GraphProto* proto);
  Status note_opset(const Node& node);

  std::map<std::string, int> opsets_;
  std::unordered_set<std::string> taken_;  // in the whole file: a body must not hide a name that it refers to
  std::vector<Initializer> initializers_;
  bool has_4bit_ = false;
};

std::string ProtoWriter::fresh_name(const std::string& base) {
  std::string name = base.empty() ? "value" : base;
  for (int i = 1; !taken_.insert(name).second; ++i) name = base + "_" + std::to_string(i);
  return name;
}

Status ProtoWriter::note_opset(const Node& node) {
  const auto [it, inserted] = opsets_.emplace(node.domain, node.version);
  if (it->second == node.version) return {};
  return {Code::kBadModel, "node '" + node.name + "' is of opset " + std::to_string(node.version) + " of domain '" +
                               node.domain + "', others of " + std::to_string(it->second) +
                               "; a file has one opset per domain"};
}

// Inputs and outputs of the main graph keep their names; all others give way.
Status ProtoWriter::name_values(const Graph& graph, size_t num_formal, const std::vector<std::string>* outer,
                                Names* names) {
  names->resize(static_cast<size_t>(graph.num_values()));
  const auto name_of = [&](ValueId v) -> std::string& { return (*names)[static_cast<size_t>(v)]; };
  if (outer == nullptr) {
    for (std::span<const ValueId> interface : {graph.inputs(), graph.outputs()}) {
      for (ValueId v : interface) {
        if (!name_of(v).empty()) continue;
        name_of(v) = graph.value(v).name;
        if (name_of(v).empty() || !taken_.insert(name_of(v)).second) {
          return {Code::kBadModel, "two graph inputs or outputs have the name '" + graph.value(v).name + "', or none"};
        }
      }
    }
  } else {
    for (size_t i = num_formal; i < graph.inputs().size(); ++i) name_of(graph.inputs()[i]) = (*outer)[i - num_formal];
  }
  for (ValueId v = 0; v < graph.num_values(); ++v) {
    const Value& value = graph.value(v);
    const bool used = !value.users.empty() || value.producer != kNoNode || value.is_input || graph.is_output(v);
    if (used && name_of(v).empty()) name_of(v) = fresh_name(value.name);
  }
  return {};
}

Status ProtoWriter::write_constants(const Graph& graph, const Names& names, bool is_main, onnx::GraphProto* proto) {
  for (ValueId v = 0; v < graph.num_values(); ++v) {
    const Value& value = graph.value(v);
    const std::string& name = names[static_cast<size_t>(v)];
    if (name.empty() || value.is_input || value.producer != kNoNode) continue;
    if (!value.is_constant()) return {Code::kBadModel, "value '" + value.name + "' has no data"};
    has_4bit_ = has_4bit_ || value.dtype == DType::kU4 || value.dtype == DType::kS4;
    if (is_main) {
      initializers_.push_back({name, &value.constant});
    } else {
      fill_tensor(value.constant, proto->add_initializer());
      proto->mutable_initializer(proto->initializer_size() - 1)->set_name(name);
    }
  }
  return {};
}

Status ProtoWriter::write_graph(const Graph& graph, size_t num_formal, const std::vector<std::string>* outer,
                                int depth, onnx::GraphProto* proto) {
  if (depth > kMaxDepth) return {Code::kBadModel, "subgraphs are nested too deeply"};
  Names names;
  SPRUN_TRY(name_values(graph, num_formal, outer, &names));
  proto->set_name(graph.name.empty() ? "graph" : graph.name);
  for (size_t i = 0; i < std::min(num_formal, graph.inputs().size()); ++i) {
    const ValueId v = graph.inputs()[i];
    auto* input = proto->add_input();
    input->set_name(names[static_cast<size_t>(v)]);
    if (graph.value(v).dtype != DType::kUndefined) fill_type(graph.value(v), input->mutable_type());
  }
  SPRUN_TRY(write_constants(graph, names, outer == nullptr, proto));
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  for (NodeId n : order) SPRUN_TRY(write_node(graph.node(n), names, depth, proto->add_node()));
  return write_outputs(graph, names, outer == nullptr, proto);
}

Status ProtoWriter::write_outputs(const Graph& graph, const Names& names, bool is_main, onnx::GraphProto* proto) {
  std::unordered_set<std::string> listed;
  for (ValueId v : graph.outputs()) {
    std::string name = names[static_cast<size_t>(v)];
    // Bodies must compute their outputs themselves, and each output needs a name of its own.
    if (!listed.insert(name).second || (!is_main && graph.value(v).is_input)) {
      auto* copy = proto->add_node();
      copy->set_op_type("Identity");
      copy->add_input(name);
      name = fresh_name(name);
      copy->add_output(name);
      opsets_.emplace("", 17);
    }
    auto* output = proto->add_output();
    output->set_name(name);
    if (graph.value(v).dtype != DType::kUndefined) fill_type(graph.value(v), output->mutable_type());
  }
  return {};
}

Status ProtoWriter::write_node(const Node& node, const Names& names, int depth, onnx::NodeProto* proto) {
  SPRUN_TRY(note_opset(node));
  proto->set_op_type(node.op_type);
  if (!node.domain.empty()) proto->set_domain(node.domain);
  proto->set_name(node.name);
  const auto name_of = [&](ValueId v) { return v == kNoValue ? std::string() : names[static_cast<size_t>(v)]; };
  const auto captures = static_cast<size_t>(
      std::clamp<int64_t>(node.attrs.get_int("num_captures", 0), 0, static_cast<int64_t>(node.inputs.size())));
  std::vector<std::string> inputs, outer;
  for (ValueId v : node.inputs) inputs.push_back(name_of(v));
  outer.assign(inputs.end() - static_cast<std::ptrdiff_t>(captures), inputs.end());
  inputs.resize(inputs.size() - captures);
  while (!inputs.empty() && inputs.back().empty()) inputs.pop_back();
  for (const std::string& name : inputs) proto->add_input(name);
  for (ValueId v : node.outputs) proto->add_output(name_of(v));
  for (const auto& [name, attr] : node.attrs.items()) {
    if (!is_reader_attr(node, name)) SPRUN_TRY(write_attr(node, name, attr, outer, depth, proto->add_attribute()));
  }
  return {};
}

Status ProtoWriter::write_attr(const Node& node, const std::string& name, const Attr& attr,
                               const std::vector<std::string>& outer, int depth, AttributeProto* proto) {
  proto->set_name(name);
  if (const auto* body = std::get_if<std::shared_ptr<const Graph>>(&attr)) {
    proto->set_type(AttributeProto::GRAPH);
    if (!*body || (*body)->inputs().size() < outer.size()) {
      return {Code::kBadModel, "node '" + node.name + "': subgraph '" + name + "' has fewer inputs than captures"};
    }
    return write_graph(**body, (*body)->inputs().size() - outer.size(), &outer, depth + 1, proto->mutable_g());
  }
  struct Writer {
    AttributeProto* proto;
    void operator()(int64_t v) const { proto->set_type(AttributeProto::INT), proto->set_i(v); }
    void operator()(float v) const { proto->set_type(AttributeProto::FLOAT), proto->set_f(v); }
    void operator()(const std::string& v) const { proto->set_type(AttributeProto::STRING), proto->set_s(v); }
    void operator()(const std::vector<int64_t>& list) const {
      proto->set_type(AttributeProto::INTS);
      for (int64_t v : list) proto->add_ints(v);
    }
    void operator()(const std::vector<float>& list) const {
      proto->set_type(AttributeProto::FLOATS);
      for (float v : list) proto->add_floats(v);
    }
    void operator()(const std::vector<std::string>& list) const {
      proto->set_type(AttributeProto::STRINGS);
      for (const std::string& v : list) proto->add_strings(v);
    }
    void operator()(const Tensor& v) const { proto->set_type(AttributeProto::TENSOR), fill_tensor(v, proto->mutable_t()); }
    void operator()(const std::shared_ptr<const Graph>&) const {}
  };
  std::visit(Writer{proto}, attr);
  return {};
}

// The IR version that came with an opset of ai.onnx; 8 for older ones.
int64_t ir_version_for(int opset) {
  constexpr std::array<std::pair<int, int64_t>, 7> kFirstOpset = {
      {{28, 14}, {25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9}, {0, 8}}};
  for (const auto& [first, ir_version] : kFirstOpset) {
    if (opset >= first) return ir_version;
  }
  return 8;
}
}  // namespace

Status build_protos(const Graph& graph, const WriteOptions& options, onnx::ModelProto* model, onnx::GraphProto* proto,
                    std::vector<Initializer>* initializers) {
  ProtoWriter writer(options);
  SPRUN_TRY(writer.write_graph(graph, graph.inputs().size(), nullptr, 0, proto));
  *initializers = writer.take_initializers();

  std::map<std::string, int> opsets = writer.opsets();
  opsets.emplace("", 17);  // a model without nodes
  int64_t ir_version = options.ir_version;
  if (ir_version == 0) ir_version = ir_version_for(opsets.at(""));
  if (writer.has_4bit()) ir_version = std::max<int64_t>(ir_version, 10);
  model->set_ir_version(ir_version);
  model->set_producer_name(options.producer_name);
  if (!options.producer_version.empty()) model->set_producer_version(options.producer_version);
  for (const auto& [domain, version] : opsets) {
    auto* import = model->add_opset_import();
    import->set_domain(domain);
    import->set_version(version);
  }
  for (const auto& [key, value] : options.metadata_props) {
    auto* entry = model->add_metadata_props();
    entry->set_key(key);
    entry->set_value(value);
  }
  return {};
}

}  // namespace sprun::graph
