// The intermediate representation: a graph of nodes over single-assignment values.
//
//   Graph g;
//   ValueId x = g.add_input("x", DType::kF32, {});
//   NodeId n = g.add_node("", "Relu", 14, {x}, {"y"});
//   g.set_outputs({g.node(n).outputs[0]});
//
// A value is a graph input, a constant, or the output of one node. Uses are kept up to date by the mutation
// functions, so that passes can ask for them at any time. Deleted nodes stay in place, marked dead.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/attr.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun::graph {

struct OpDef;  // graph/ops/op.h

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr ValueId kNoValue = -1;
inline constexpr NodeId kNoNode = -1;

// A size as the file declares it: a number, or a symbol ("batch"), or unknown (-1 and empty symbol).
struct DimInfo {
  int64_t value = -1;
  std::string symbol;
};

struct Value {
  std::string name;
  DType dtype = DType::kUndefined;           // kUndefined: not known yet
  std::optional<Shape> shape;                // concrete, once known
  std::optional<std::vector<DimInfo>> declared;  // what the file says; graph inputs and outputs
  Tensor constant;                           // not empty: this value is a constant
  NodeId producer = kNoNode;                 // kNoNode for inputs and constants
  std::vector<NodeId> users;                 // one entry per use by a live node
  bool is_input = false;

  bool is_constant() const { return !constant.empty(); }
};

struct Node {
  std::string domain;      // "" is ai.onnx, "com.microsoft", "sprun" for fused ops
  std::string op_type;
  int version = 0;         // opset of the domain that the node was written against
  std::string name;
  std::vector<ValueId> inputs;   // kNoValue for an absent optional input
  std::vector<ValueId> outputs;  // kNoValue for an absent optional output
  AttrMap attrs;
  const OpDef* def = nullptr;    // resolved by resolve_ops(); nullptr: unsupported or not resolved
  bool dead = false;

  bool is(std::string_view type) const { return domain.empty() && op_type == type; }
  bool is(std::string_view domain_, std::string_view type) const { return domain == domain_ && op_type == type; }
  ValueId input(size_t i) const { return i < inputs.size() ? inputs[i] : kNoValue; }
  ValueId output(size_t i) const { return i < outputs.size() ? outputs[i] : kNoValue; }
};

class Graph {
 public:
  // --- reading
  std::span<const ValueId> inputs() const { return inputs_; }    // excludes initialisers
  std::span<const ValueId> outputs() const { return outputs_; }
  const Value& value(ValueId v) const { return values_[static_cast<size_t>(v)]; }
  Value& value(ValueId v) { return values_[static_cast<size_t>(v)]; }
  const Node& node(NodeId n) const { return nodes_[static_cast<size_t>(n)]; }
  Node& node(NodeId n) { return nodes_[static_cast<size_t>(n)]; }
  int num_values() const { return static_cast<int>(values_.size()); }
  int num_nodes() const { return static_cast<int>(nodes_.size()); }  // dead ones too
  int num_live_nodes() const;
  // The node that computes v, or nullptr for inputs, constants and kNoValue.
  const Node* producer(ValueId v) const;
  // True if exactly one node uses v, once, and it is no graph output.
  bool has_one_use(ValueId v) const;
  bool is_output(ValueId v) const;
  bool is_input_or_constant(ValueId v) const { return value(v).is_input || value(v).is_constant(); }
  // The constant tensor of v, or nullptr (also for kNoValue).
  const Tensor* constant(ValueId v) const;
  // kNoValue if there is no such name.
  ValueId find_value(std::string_view name) const;
  // Live nodes, producers before users. kBadModel naming a node if the graph has a cycle.
  Result<std::vector<NodeId>> topological_order() const;

  // --- building and changing
  ValueId add_value(std::string name);
  ValueId add_input(std::string name, DType dtype, std::optional<std::vector<DimInfo>> declared);
  ValueId add_constant(std::string name, Tensor tensor);
  // Creates the node and new values for its outputs ("" makes kNoValue).
  NodeId add_node(std::string domain, std::string op_type, int version, std::vector<ValueId> inputs,
                  const std::vector<std::string>& output_names);
  // Creates the node for outputs that exist already and have no producer (importer, rewrites).
  NodeId add_node_with_outputs(std::string domain, std::string op_type, int version, std::vector<ValueId> inputs,
                               std::vector<ValueId> outputs);
  void set_outputs(std::vector<ValueId> outputs) { outputs_ = std::move(outputs); }
  void set_input(NodeId n, size_t i, ValueId v);  // grows the input list when needed
  // Every use of `from` (nodes and graph outputs) becomes a use of `to`.
  void replace_uses(ValueId from, ValueId to);
  // Makes v a constant: its producer, if any, no longer produces it.
  void make_constant(ValueId v, Tensor tensor);
  // Detaches and marks dead. The outputs keep existing as values without a producer.
  void remove_node(NodeId n);
  // Moves output `i` of `from` to be output `j` of `to`; for replacing nodes while value ids stay the same.
  void move_output(NodeId from, size_t i, NodeId to, size_t j);
  // Removes inputs by position (used to bind outer values of subgraphs).
  void add_existing_input(ValueId v);
  // A name not used by any value yet, starting with `base`.
  std::string unique_name(std::string_view base) const;

  std::string name;

 private:
  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<ValueId> inputs_, outputs_;
};

}  // namespace sprun::graph
