#include "graph/ir/graph.h"

#include <algorithm>
#include <unordered_set>

namespace sprun::graph {

int Graph::num_live_nodes() const {
  return static_cast<int>(std::count_if(nodes_.begin(), nodes_.end(), [](const Node& n) { return !n.dead; }));
}

const Node* Graph::producer(ValueId v) const {
  if (v == kNoValue || value(v).producer == kNoNode) return nullptr;
  return &node(value(v).producer);
}

bool Graph::is_output(ValueId v) const { return std::find(outputs_.begin(), outputs_.end(), v) != outputs_.end(); }

bool Graph::has_one_use(ValueId v) const {
  return v != kNoValue && value(v).users.size() == 1 && !is_output(v);
}

const Tensor* Graph::constant(ValueId v) const {
  return v != kNoValue && value(v).is_constant() ? &value(v).constant : nullptr;
}

ValueId Graph::find_value(std::string_view value_name) const {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].name == value_name) return static_cast<ValueId>(i);
  }
  return kNoValue;
}

Result<std::vector<NodeId>> Graph::topological_order() const {
  std::vector<int> waiting(nodes_.size(), 0);
  std::vector<NodeId> ready, order;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (nodes_[n].dead) continue;
    for (ValueId v : nodes_[n].inputs) waiting[n] += v != kNoValue && value(v).producer != kNoNode;
    if (waiting[n] == 0) ready.push_back(static_cast<NodeId>(n));
  }
  // The smallest ready node first keeps the file's own order wherever it is valid.
  std::make_heap(ready.begin(), ready.end(), std::greater<>());
  while (!ready.empty()) {
    std::pop_heap(ready.begin(), ready.end(), std::greater<>());
    const NodeId n = ready.back();
    ready.pop_back();
    order.push_back(n);
    for (ValueId v : node(n).outputs) {
      if (v == kNoValue) continue;
      for (NodeId user : value(v).users) {
        if (--waiting[static_cast<size_t>(user)] > 0) continue;
        ready.push_back(user);
        std::push_heap(ready.begin(), ready.end(), std::greater<>());
      }
    }
  }
  if (static_cast<int>(order.size()) == num_live_nodes()) return order;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (nodes_[n].dead || waiting[n] == 0) continue;
    return Status(Code::kBadModel, "graph '" + name + "' has a cycle through node '" + nodes_[n].name + "' (" +
                                       nodes_[n].op_type + ")");
  }
  return Status(Code::kInternal, "topological order is incomplete");
}

ValueId Graph::add_value(std::string value_name) {
  Value value;
  value.name = std::move(value_name);
  values_.push_back(std::move(value));
  return static_cast<ValueId>(values_.size() - 1);
}

ValueId Graph::add_input(std::string input_name, DType dtype, std::optional<std::vector<DimInfo>> declared) {
  const ValueId v = add_value(std::move(input_name));
  value(v).dtype = dtype;
  value(v).declared = std::move(declared);
  add_existing_input(v);
  return v;
}

void Graph::add_existing_input(ValueId v) {
  value(v).is_input = true;
  inputs_.push_back(v);
}

ValueId Graph::add_constant(std::string constant_name, Tensor tensor) {
  const ValueId v = add_value(std::move(constant_name));
  make_constant(v, std::move(tensor));
  return v;
}

NodeId Graph::add_node(std::string domain, std::string op_type, int version, std::vector<ValueId> inputs,
                       const std::vector<std::string>& output_names) {
  std::vector<ValueId> outputs;
  outputs.reserve(output_names.size());
  for (const std::string& output : output_names) outputs.push_back(output.empty() ? kNoValue : add_value(output));
  return add_node_with_outputs(std::move(domain), std::move(op_type), version, std::move(inputs), std::move(outputs));
}

NodeId Graph::add_node_with_outputs(std::string domain, std::string op_type, int version, std::vector<ValueId> inputs,
                                    std::vector<ValueId> outputs) {
  const auto n = static_cast<NodeId>(nodes_.size());
  Node node;
  node.domain = std::move(domain);
  node.op_type = std::move(op_type);
  node.version = version;
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
  for (ValueId v : node.inputs) {
    if (v != kNoValue) value(v).users.push_back(n);
  }
  for (ValueId v : node.outputs) {
    if (v != kNoValue) value(v).producer = n;
  }
  nodes_.push_back(std::move(node));
  return n;
}

namespace {
void drop_use(std::vector<NodeId>& users, NodeId n) {
  if (auto it = std::find(users.begin(), users.end(), n); it != users.end()) users.erase(it);
}
}  // namespace

void Graph::set_input(NodeId n, size_t i, ValueId v) {
  Node& target = node(n);
  if (i >= target.inputs.size()) target.inputs.resize(i + 1, kNoValue);
  if (target.inputs[i] != kNoValue) drop_use(value(target.inputs[i]).users, n);
  target.inputs[i] = v;
  if (v != kNoValue) value(v).users.push_back(n);
}

void Graph::replace_uses(ValueId from, ValueId to) {
  const std::vector<NodeId> users = value(from).users;
  for (NodeId n : users) {
    std::replace(node(n).inputs.begin(), node(n).inputs.end(), from, to);
    value(to).users.push_back(n);
  }
  value(from).users.clear();
  std::replace(outputs_.begin(), outputs_.end(), from, to);
}

void Graph::make_constant(ValueId v, Tensor tensor) {
  Value& target = value(v);
  if (target.producer != kNoNode) {
    std::replace(node(target.producer).outputs.begin(), node(target.producer).outputs.end(), v, kNoValue);
    target.producer = kNoNode;
  }
  target.dtype = tensor.dtype();
  target.shape = tensor.shape();
  target.constant = std::move(tensor);
}

void Graph::remove_node(NodeId n) {
  Node& target = node(n);
  for (ValueId v : target.inputs) {
    if (v != kNoValue) drop_use(value(v).users, n);
  }
  for (ValueId v : target.outputs) {
    if (v != kNoValue && value(v).producer == n) value(v).producer = kNoNode;
  }
  target.inputs.clear();
  target.outputs.clear();
  target.dead = true;
}

void Graph::move_output(NodeId from, size_t i, NodeId to, size_t j) {
  const ValueId v = node(from).outputs[i];
  node(from).outputs[i] = kNoValue;
  auto& outputs = node(to).outputs;
  if (j >= outputs.size()) outputs.resize(j + 1, kNoValue);
  outputs[j] = v;
  if (v != kNoValue) value(v).producer = to;
}

std::string Graph::unique_name(std::string_view base) const {
  std::unordered_set<std::string_view> names;
  for (const Value& v : values_) names.insert(v.name);
  std::string candidate(base);
  for (int i = 1; names.contains(candidate); ++i) candidate = std::string(base) + "_" + std::to_string(i);
  return candidate;
}

}  // namespace sprun::graph
