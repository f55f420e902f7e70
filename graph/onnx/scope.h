// Internal to the importer: what a name means at one place of the model.
#pragma once

#include <onnx/onnx_pb.h>

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun::graph {

using OpsetMap = std::map<std::string, int>;

// A model-local function with its default attributes and the opsets of its body.
struct Function {
  const onnx::FunctionProto* proto = nullptr;
  std::string name;  // "domain.name"
  std::vector<onnx::AttributeProto> defaults;
  OpsetMap opsets;
  size_t size_bytes = 0;
};

// A graph under construction and the value names taken in it.
struct GraphState {
  Graph* graph = nullptr;
  std::unordered_set<std::string> taken;

  // `base`, or `base` with a number behind it.
  std::string fresh_name(const std::string& base);
};

// A call that is being inlined; the scopes of the body have it for attribute references.
struct Call {
  const onnx::NodeProto* node = nullptr;
  const Function* function = nullptr;
  const Call* outer = nullptr;  // the call around the node, or nullptr
};

// Names of one graph, one subgraph or one function body. A function body shares the graph of its caller but not its
// names; a subgraph has its own graph and sees the names of `outer`, from where it captures values.
struct Scope {
  struct Capture {
    ValueId outer, inner;
  };

  GraphState* state = nullptr;
  Scope* outer = nullptr;
  const Call* call = nullptr;
  const OpsetMap* opsets = nullptr;
  std::string prefix = {};  // of values and nodes of inlined bodies
  int depth = 0;
  // Values that declare() takes instead of new ones: the outputs of the call whose body this is.
  const std::map<std::string, ValueId>* preset = nullptr;
  std::unordered_map<std::string, ValueId> names = {};
  std::vector<Capture> captures = {};

  Graph& graph() const { return *state->graph; }
  // The value of a name, captured from outside if need be. False if there is none. kNoValue for the empty name and
  // for inputs that a call leaves out.
  bool lookup(const std::string& name, ValueId* value);
  // A new value under `name` in this scope. False if the name is taken.
  bool declare(const std::string& name, ValueId* value);

 private:
  ValueId capture(const std::string& name, ValueId from);
};

}  // namespace sprun::graph
