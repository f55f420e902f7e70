#include "tools/compress/residual_stream.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "graph/ir/pattern.h"
#include "tools/compress/constant_values.h"
#include "tools/compress/stream_norms.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;
using Kind = StreamTerm::Kind;

namespace {

// Nodes in a row between a product and the stream, or between a Shape and what its elements are
// used for.
constexpr int kMaxChain = 8;

std::string describe(const Node& node) {
  return node.name.empty() ? "a node " + node.op_type
                           : fmt::format("{} '{}'", node.op_type, node.name);
}

bool is_float_constant(const Graph& graph, ValueId v, int rank) {
  const Tensor* t = graph.constant(v);
  return t != nullptr && t->dtype() == DType::kF32 && static_cast<int>(t->shape().rank()) == rank;
}

// The constant weight of a product, through Transpose.
const Tensor* weight_of(const Graph& graph, const Node& node) {
  ValueId v = node.input(1);
  for (int depth = 0; depth < 4; ++depth) {
    if (const Tensor* t = graph.constant(v)) return t;
    const Node* turn = graph::producer_is(graph, v, "Transpose");
    if (turn == nullptr) return nullptr;
    v = turn->input(0);
  }
  return nullptr;
}

// MatMul or Gemm of an activation with a float32 matrix, as it stands in papers: no factors, no
// transposed input.
bool is_plain_product(const Graph& graph, const Node& node) {
  if (!node.is("MatMul") && !node.is("Gemm")) return false;
  const Tensor* weight = weight_of(graph, node);
  if (weight == nullptr || weight->dtype() != DType::kF32 || weight->shape().rank() != 2)
    return false;
  if (graph.constant(node.input(0)) != nullptr || node.attrs.get_int("transA", 0) != 0)
    return false;
  if (node.attrs.get_float("alpha", 1) != 1 || node.attrs.get_float("beta", 1) != 1) return false;
  return node.input(2) == kNoValue || is_float_constant(graph, node.input(2), 1);
}

class StreamFinder {
 public:
  StreamFinder(const Graph& original, const Graph& plain) : original_(original), graph_(plain) {}

  Result<ResidualStream> find() {
    SPRUN_TRY(list_points());
    for (size_t p = 0; p < stream_.points.size(); ++p) list_terms(static_cast<int>(p));
    mark_last();
    if (std::all_of(stream_.points.begin(), stream_.points.end(),
                    [](const StreamPoint& p) { return p.is_last; })) {
      return Status(
          Code::kBadModel,
          "no residual stream: no LayerNorm or RMSNorm reads a sum that later sums are made of");
    }
    for (size_t p = 0; p < stream_.points.size(); ++p) SPRUN_TRY(check_point(static_cast<int>(p)));
    mark_means();
    return std::move(stream_);
  }

 private:
  Status list_points();
  Status add_norm(const FoundNorm& found);
  void list_terms(int point);
  void expand(int point, NodeId add);
  bool is_table(const Node* node) const;
  StreamTerm term_at(ValueId v) const;
  bool find_linear(ValueId v, int64_t width, StreamLinear& linear) const;
  void mark_last();
  void mark_means();
  const Node* raw_reader(const StreamPoint& point) const;
  Status check_point(int point);
  Status check_norm(int norm);
  Status check_constants(const StreamPoint& point) const;
  bool add_reader(int norm, NodeId first);
  bool is_harmless_shape(const Node& shape, const std::set<NodeId>& reshapes) const;
  bool elements_are_harmless(ValueId v, const std::set<NodeId>& reshapes, int depth) const;

  const Graph& original_;
  const Graph& graph_;
  ResidualStream stream_;
  std::map<ValueId, int> point_of_, norm_of_;  // by the value of the point, the result of the norm
  std::set<NodeId> known_;  // nodes that may read points and norms: norms and sums of the stream
};

Status StreamFinder::add_norm(const FoundNorm& found) {
  const Node& node = graph_.node(found.node);
  const ValueId x = node.input(0);
  const Tensor& gamma = *graph_.constant(node.input(1));
  const Tensor* beta = graph_.constant(node.input(2));
  const int64_t width = gamma.num_elements();
  const bool plain_beta = node.input(2) == kNoValue ||
                          (beta && beta->dtype() == DType::kF32 && beta->num_elements() == width);
  if (gamma.dtype() != DType::kF32 || !plain_beta) {
    return {Code::kBadModel,
            fmt::format("{}: only norms with float32 constants can be rotated", describe(node))};
  }
  const auto [it, fresh] = point_of_.emplace(x, static_cast<int>(stream_.points.size()));
  if (fresh) {
    const Node* producer = graph_.producer(x);
    stream_.points.push_back(
        {producer && !producer->name.empty() ? producer->name : graph_.value(x).name,
         x,
         width,
         found.subtracts_mean,
         false,
         true,
         {},
         {}});
  }
  StreamPoint& point = stream_.points[static_cast<size_t>(it->second)];
  if (point.width != width || point.subtracts_mean != found.subtracts_mean) {
    return {Code::kBadModel,
            fmt::format("{}: two kinds of norms read the same value", describe(node))};
  }
  StreamNorm norm;
  norm.name = node.name.empty() ? graph_.value(node.outputs[0]).name : node.name;
  norm.point = it->second;
  norm.out = node.outputs[0];
  norm.gamma = read_floats(gamma.data(), width, 1).col(0);
  norm.beta =
      beta ? Vector(read_floats(beta->data(), width, 1).col(0)) : Vector(Vector::Zero(width));
  norm.epsilon = double{node.attrs.get_float("epsilon", 1e-5f)};
  norm.subtracts_mean = found.subtracts_mean;
  norm_of_.emplace(norm.out, static_cast<int>(stream_.norms.size()));
  point.norms.push_back(static_cast<int>(stream_.norms.size()));
  stream_.norms.push_back(std::move(norm));
  known_.insert(found.node);
  return {};
}

Status StreamFinder::list_points() {
  SPRUN_ASSIGN(const std::vector<FoundNorm> found, find_norms(graph_));
  for (const FoundNorm& norm : found) SPRUN_TRY(add_norm(norm));
  return {};
}

// The linear layer whose result v is, if the whole way to v is for v alone.
bool StreamFinder::find_linear(ValueId v, int64_t width, StreamLinear& linear) const {
  for (int depth = 0; depth < kMaxChain; ++depth) {
    const NodeId n = graph_.value(v).producer;
    if (n == kNoNode || !graph_.has_one_use(v)) return false;
    const Node& node = graph_.node(n);
    if (is_plain_product(graph_, node)) {
      linear.product = n;
      return true;
    }
    if (node.is("Reshape")) {
      linear.reshapes.push_back(n);
      v = node.input(0);
      continue;
    }
    if (!node.is("Add") || linear.bias_add != kNoNode) return false;
    const size_t slot = graph_.constant(node.input(0)) ? 0 : 1;
    const Tensor* bias = graph_.constant(node.input(slot));
    if (!is_float_constant(graph_, node.input(slot), 1) || bias->num_elements() != width)
      return false;
    linear.bias_add = n;
    linear.bias_slot = slot;
    v = node.input(1 - slot);
  }
  return false;
}

// Rows of a table that is for this node alone; one that the head shares stays as it is.
bool StreamFinder::is_table(const Node* node) const {
  if (node == nullptr || !node->is("Gather") || node->attrs.get_int("axis", 0) != 0) return false;
  const ValueId table = node->input(0);
  return is_float_constant(graph_, table, 2) && graph_.has_one_use(table) &&
         original_.has_one_use(table);
}

StreamTerm StreamFinder::term_at(ValueId v) const {
  StreamTerm term;
  term.value = v;
  if (const auto point = point_of_.find(v); point != point_of_.end()) {
    term.kind = Kind::kPoint;
    term.index = point->second;
  } else if (const auto norm = norm_of_.find(v); norm != norm_of_.end()) {
    term.kind = Kind::kNorm;
    term.index = norm->second;
  } else if (graph_.constant(v) != nullptr) {
    term.kind = Kind::kConstant;
  }
  return term;
}

void StreamFinder::expand(int point, NodeId add) {
  known_.insert(add);
  const int64_t width = stream_.points[static_cast<size_t>(point)].width;
  for (size_t slot = 0; slot < 2; ++slot) {
    const ValueId v = graph_.node(add).input(slot);
    StreamTerm term = term_at(v);
    term.add = add;
    term.slot = slot;
    const Node* producer = graph_.producer(v);
    if (term.kind == Kind::kOther && find_linear(v, width, term.linear)) {
      term.kind = Kind::kLinear;
    } else if (term.kind == Kind::kOther && producer && producer->is("Add") &&
               graph_.has_one_use(v)) {
      expand(point, graph_.value(v).producer);
      continue;
    } else if (term.kind == Kind::kOther && is_table(producer) && graph_.has_one_use(v)) {
      term.kind = Kind::kTable;
    }
    stream_.points[static_cast<size_t>(point)].terms.push_back(std::move(term));
  }
}

void StreamFinder::list_terms(int point) {
  const ValueId v = stream_.points[static_cast<size_t>(point)].value;
  const Node* producer = graph_.producer(v);
  if (producer != nullptr && producer->is("Add")) {
    expand(point, graph_.value(v).producer);
    return;
  }
  StreamTerm term;  // a norm that reads a norm: what it reads counts as any other value
  term.value = v;
  if (is_table(producer)) term.kind = Kind::kTable;
  else if (find_linear(v, stream_.points[static_cast<size_t>(point)].width, term.linear))
    term.kind = Kind::kLinear;
  stream_.points[static_cast<size_t>(point)].terms.push_back(std::move(term));
}

void StreamFinder::mark_last() {
  for (const StreamPoint& point : stream_.points) {
    for (const StreamTerm& term : point.terms) {
      if (term.kind == Kind::kNorm) {
        const int source = stream_.norms[static_cast<size_t>(term.index)].point;
        stream_.points[static_cast<size_t>(source)].is_last = false;
        stream_.is_post_norm = true;
      } else if (term.kind == Kind::kPoint) {
        stream_.points[static_cast<size_t>(term.index)].is_last = false;
      }
    }
  }
}

// A node that reads the point itself: no norm, no sum of the stream, not its shape alone.
const Node* StreamFinder::raw_reader(const StreamPoint& point) const {
  for (NodeId n : graph_.value(point.value).users) {
    const Node& node = graph_.node(n);
    if (!known_.contains(n) && !(node.is("Shape") && is_harmless_shape(node, {}))) return &node;
  }
  return nullptr;
}

// Points go from the last one to the first, so that a point is marked before those it is made of.
void StreamFinder::mark_means() {
  for (size_t p = stream_.points.size(); p-- > 0;) {
    StreamPoint& point = stream_.points[p];
    const bool raw = point.is_last && (graph_.is_output(point.value) || raw_reader(point));
    point.keeps_mean |= raw && point.subtracts_mean;
    for (const StreamTerm& term : point.terms) {
      if (term.kind != Kind::kPoint) continue;
      StreamPoint& source = stream_.points[static_cast<size_t>(term.index)];
      source.keeps_mean |= source.subtracts_mean && point.keeps_mean;
    }
  }
}

// Follows elements of a shape: true if the last one, the width, reaches nothing but the sizes of
// `reshapes`.
bool StreamFinder::elements_are_harmless(ValueId v, const std::set<NodeId>& reshapes,
                                         int depth) const {
  if (depth == 0 || graph_.is_output(v)) return false;
  for (NodeId n : graph_.value(v).users) {
    const Node& node = graph_.node(n);
    if (node.is("Reshape") && node.input(1) == v && reshapes.contains(n)) continue;
    constexpr std::array kMoves = {"Gather", "Slice", "Squeeze", "Unsqueeze", "Concat", "Cast"};
    if (std::none_of(kMoves.begin(), kMoves.end(), [&](const char* op) { return node.is(op); }))
      return false;
    if (!elements_are_harmless(node.output(0), reshapes, depth - 1)) return false;
  }
  return true;
}

// What stands behind the stream are activations with at least one leading dimension, [batch,
// sequence, width] as a rule.
bool StreamFinder::is_harmless_shape(const Node& shape, const std::set<NodeId>& reshapes) const {
  const auto leads = [](int64_t index) {
    return index == 0 || index == 1 || index == -2 || index == -3;
  };
  if (shape.attrs.has("end") && leads(shape.attrs.get_int("end", 0) - 1)) return true;
  if (shape.attrs.has("start") || shape.attrs.has("end")) return false;
  for (NodeId n : graph_.value(shape.output(0)).users) {
    const Node& user = graph_.node(n);
    if (user.is("Gather") && user.input(0) == shape.output(0)) {
      const auto indices = graph::int_constant(graph_, user.input(1));
      if (indices && std::all_of(indices->begin(), indices->end(), leads)) continue;
    } else if (user.is("Slice")) {
      const auto ends = graph::int_constant(graph_, user.input(2));
      if (ends && ends->size() == 1 && ((*ends)[0] == 1 || (*ends)[0] == 2 || (*ends)[0] == -1))
        continue;
    }
    if (!user.outputs.empty() && elements_are_harmless(user.output(0), reshapes, kMaxChain))
      continue;
    return false;
  }
  return !graph_.is_output(shape.output(0));
}

// True if node `first`, which reads the norm, begins a linear layer.
bool StreamFinder::add_reader(int norm, NodeId first) {
  StreamReader reader{norm, {}};
  ValueId v = stream_.norms[static_cast<size_t>(norm)].out;
  NodeId at = first;
  for (int depth = 0; depth < kMaxChain; ++depth) {
    const Node& node = graph_.node(at);
    if (node.input(0) != v) return false;
    if (is_plain_product(graph_, node)) {
      reader.linear.product = at;
      const NodeId add = graph::only_user(graph_, node.outputs[0]);
      if (add != kNoNode && graph_.node(add).is("Add")) {
        const size_t slot = graph_.node(add).input(0) == node.outputs[0] ? 1 : 0;
        if (is_float_constant(graph_, graph_.node(add).input(slot), 1)) {
          reader.linear.bias_add = add;
          reader.linear.bias_slot = slot;
        }
      }
      stream_.readers.push_back(std::move(reader));
      return true;
    }
    if (!node.is("Reshape")) return false;
    reader.linear.reshapes.push_back(at);
    v = node.outputs[0];
    at = graph::only_user(graph_, v);
    if (at == kNoNode) return false;
  }
  return false;
}

Status StreamFinder::check_norm(int norm) {
  const StreamNorm& at = stream_.norms[static_cast<size_t>(norm)];
  const std::string where = fmt::format("norm '{}'", at.name);
  if (graph_.is_output(at.out))
    return {Code::kBadModel, where + " is an output of the model and in the middle of it"};
  std::vector<NodeId> shapes;
  std::set<NodeId> reshapes;
  for (NodeId n : graph_.value(at.out).users) {
    const Node& node = graph_.node(n);
    if (known_.contains(n)) continue;
    if (node.is("Shape")) {
      shapes.push_back(n);
    } else if (add_reader(norm, n)) {
      const auto& passed = stream_.readers.back().linear.reshapes;
      reshapes.insert(passed.begin(), passed.end());
    } else {
      return {Code::kBadModel,
              fmt::format(
                  "{} reads {}: only linear layers with constant float32 weights and residual sums "
                  "may do that",
                  describe(node), where)};
    }
  }
  for (NodeId n : shapes) {
    if (!is_harmless_shape(graph_.node(n), reshapes))
      return {Code::kBadModel,
              fmt::format("{} looks at the width of {}", describe(graph_.node(n)), where)};
  }
  return {};
}

Status StreamFinder::check_constants(const StreamPoint& point) const {
  for (const StreamTerm& term : point.terms) {
    if (term.kind != Kind::kConstant) continue;
    const Tensor& t = *graph_.constant(term.value);
    if (t.dtype() == DType::kF32 && t.shape().rank() > 0 && t.shape().back() == point.width)
      continue;
    return {Code::kBadModel,
            fmt::format("{} adds a constant {} to the residual stream of width {}",
                        describe(graph_.node(term.add)), t.shape().to_string(), point.width)};
  }
  return {};
}

Status StreamFinder::check_point(int index) {
  const StreamPoint& point = stream_.points[static_cast<size_t>(index)];
  if (point.is_last) return {};
  const std::string where = fmt::format("the residual stream at '{}'", point.name);
  if (graph_.is_output(point.value)) return {Code::kBadModel, where + " is an output of the model"};
  if (const Node* reader = raw_reader(point)) {
    return {Code::kBadModel, fmt::format("{} reads {}: only norms and residual sums may do that",
                                         describe(*reader), where)};
  }
  SPRUN_TRY(check_constants(point));
  for (int norm : point.norms) SPRUN_TRY(check_norm(norm));
  for (const StreamPoint& later : stream_.points) {
    for (const StreamTerm& term : later.terms) {
      const bool follows = term.kind == Kind::kPoint && term.index == index;
      if (follows && (later.width != point.width || later.subtracts_mean != point.subtracts_mean))
        return {Code::kBadModel, where + " meets a norm of another kind or width later"};
    }
  }
  return {};
}

}  // namespace

Result<ResidualStream> find_residual_stream(const Graph& graph) {
  SPRUN_ASSIGN(const Graph plain, plain_form(graph));
  return StreamFinder(graph, plain).find();
}

}  // namespace sprun::compress
