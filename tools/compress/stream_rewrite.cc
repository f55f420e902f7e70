#include "tools/compress/stream_rewrite.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "tools/compress/constant_values.h"
#include "tools/compress/linear_layers.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;
using Kind = StreamTerm::Kind;

namespace {

// Slice and Reshape with -1 take their numbers as inputs from here on.
constexpr int kMinOpset = 10;
constexpr int kReduceAxesInputOpset = 18;
// Rows of a table in double precision at a time.
constexpr int64_t kTableRows = 4096;
// Smaller diagonals of a scale in a shared basis would blow up the weights behind it.
constexpr double kMinScale = 1e-2;

size_t at(int index) { return static_cast<size_t>(index); }

class StreamRewriter {
 public:
  StreamRewriter(StepContext& context, const ResidualStream& stream,
                 const std::vector<StreamBasis>& bases, bool shared, std::string action)
      : context_(context),
        graph_(context.graph),
        stream_(stream),
        bases_(bases),
        shared_(shared),
        action_(std::move(action)) {}

  Status run();

 private:
  bool is_last(int point) const { return stream_.points[at(point)].is_last; }
  Matrix target(int point) const;
  Vector norm_scale(const StreamNorm& norm) const;
  Status rewrite_point(int point);
  Status rewrite_term(int point, const StreamTerm& term);
  Status rewrite_shortcut(int point, const StreamTerm& term);
  Status rewrite_table(const StreamTerm& term, const Matrix& b);
  Status rewrite_constant(const StreamTerm& term, const Matrix& b);
  Status rewrite_linear(int point, const StreamLinear& linear);
  Status rewrite_norm(int norm);
  Status rewrite_reader(const StreamReader& reader);
  ValueId emit_mean(const std::string& name, ValueId x);
  Result<ValueId> emit_norm(const StreamNorm& norm, ValueId x, const Vector& gamma, double epsilon);
  Status change_bias(const StreamLinear& linear, const Matrix* b, const Vector& extra);
  Status change_bias_at(NodeId node, size_t slot, const Matrix* b, const Vector& extra);
  void fix_reshape(NodeId node, int64_t before, int64_t after);
  void place(int point, const StreamTerm& term, ValueId made);
  void note_layer(const LinearLayer& layer, const std::string& note);
  void note_shortcut(ValueId made, const Matrix& s);
  const Tensor* constant_behind(ValueId v) const;

  StepContext& context_;
  Graph& graph_;
  const ResidualStream& stream_;
  const std::vector<StreamBasis>& bases_;
  bool shared_;
  std::string action_;
  int version_ = 0;
  std::map<NodeId, LinearLayer> layers_;
  std::vector<ValueId> stored_;       // what stands for the points now
  std::vector<ValueId> norm_values_;  // results of the new norms
  std::vector<Vector> scales_;        // that these still have in them
  Vector pending_;                    // shift that the sum of the current point is owed
};

const Tensor* StreamRewriter::constant_behind(ValueId v) const {
  for (int depth = 0; depth < 4 && v != kNoValue; ++depth) {
    if (const Tensor* t = graph_.constant(v)) return t;
    const Node* identity = graph::producer_is(graph_, v, "Identity");
    v = identity ? identity->input(0) : kNoValue;
  }
  return nullptr;
}

// What a row of a term is multiplied by: the basis of the point, without the mean where its norms
// do not see that.
Matrix StreamRewriter::target(int point) const {
  const StreamPoint& p = stream_.points[at(point)];
  if (p.is_last) return Matrix::Identity(p.width, p.width);
  Matrix b = bases_[at(point)].q;
  if (p.subtracts_mean && !p.keeps_mean) {
    const Eigen::RowVectorXd mean = b.colwise().mean();
    b.rowwise() -= mean;
  }
  return b;
}

Vector StreamRewriter::norm_scale(const StreamNorm& norm) const {
  const Matrix& q = bases_[at(norm.point)].q;
  Vector scale = Vector::Ones(q.cols());
  const int index = static_cast<int>(&norm - stream_.norms.data());
  const bool goes_on =
      std::any_of(stream_.points.begin(), stream_.points.end(), [&](const StreamPoint& point) {
        return !point.is_last &&
               std::any_of(point.terms.begin(), point.terms.end(), [&](const StreamTerm& term) {
                 return term.kind == Kind::kNorm && term.index == index;
               });
      });
  if (!shared_ || !goes_on) return scale;
  const Matrix b = target(norm.point);
  for (int64_t j = 0; j < q.cols(); ++j)
    scale(j) = (q.col(j).array() * norm.gamma.array() * b.col(j).array()).sum();
  const double mean = std::max(scale.cwiseAbs().mean(), kMinScale);
  for (double& s : scale) {
    if (std::abs(s) < kMinScale * mean) s = mean;
  }
  return scale;
}

// `made`, computed from the term, takes its place.
void StreamRewriter::place(int point, const StreamTerm& term, ValueId made) {
  if (term.add != kNoNode) {
    graph_.set_input(term.add, term.slot, made);
    return;
  }
  const NodeId node = graph_.value(made).producer;
  graph_.replace_uses(term.value, made);
  graph_.set_input(node, 0, term.value);
  stored_[at(point)] = made;
}

void StreamRewriter::note_layer(const LinearLayer& layer, const std::string& note) {
  LayerReport* entry = context_.report.find(layer.name);
  if (entry == nullptr) return;
  const Tensor& weight = *graph_.constant(layer.weight);
  entry->after.outputs = weight.shape()[layer.outputs_first ? 0 : 1];
  entry->after.inputs = weight.shape()[layer.outputs_first ? 1 : 0];
  entry->after.zeros = (read_weight(graph_, layer).array() == 0).count();
  entry->after.bytes = weight.size_bytes();
  if (entry->action.find(action_) == std::string::npos)
    entry->action += (entry->action.empty() ? "" : "; ") + action_;
  if (!note.empty()) entry->note = note;
}

void StreamRewriter::note_shortcut(ValueId made, const Matrix& s) {
  const Node& node = *graph_.producer(made);
  LayerReport entry;
  entry.name = node.name;
  entry.weight = graph_.value(node.input(1)).name;
  entry.op = "MatMul";
  entry.after = {s.cols(), s.rows(), 0, s.size() * static_cast<int64_t>(sizeof(float))};
  entry.action = action_ + ", shortcut";
  context_.report.layers.push_back(std::move(entry));
}

// The last size of a Reshape becomes `after`.
void StreamRewriter::fix_reshape(NodeId node, int64_t before, int64_t after) {
  if (before == after) return;
  const ValueId shape = graph_.node(node).input(1);
  const std::string name = graph_.value(graph_.node(node).outputs[0]).name + "/shape";
  if (const Tensor* t = constant_behind(shape)) {
    std::vector<int64_t> sizes(t->as<int64_t>(), t->as<int64_t>() + t->num_elements());
    if (sizes.empty() || sizes.back() <= 0) return;
    sizes.back() = after;
    graph_.set_input(node, 1, add_ints(graph_, name, sizes));
    return;
  }
  const ValueId last = add_ints(graph_, name + "/width", {after});
  const Node* concat = graph::producer_is(graph_, shape, "Concat");
  std::vector<ValueId> parts;
  if (concat != nullptr) {
    const Tensor* end = constant_behind(concat->inputs.back());
    if (end != nullptr && end->num_elements() == 1)
      parts.assign(concat->inputs.begin(), concat->inputs.end() - 1);
  }
  if (parts.empty()) {
    const ValueId first = add_ints(graph_, name + "/first", {0}),
                  stop = add_ints(graph_, name + "/end", {-1});
    parts = {
        add_operation(graph_, name + "/leading", "Slice", version_, {shape, first, stop, first})};
  }
  parts.push_back(last);
  const ValueId made = add_operation(graph_, name, "Concat", version_, std::move(parts));
  graph_.node(graph_.value(made).producer).attrs.set("axis", int64_t{0});
  graph_.set_input(node, 1, made);
}

Status StreamRewriter::change_bias_at(NodeId node, size_t slot, const Matrix* b,
                                      const Vector& extra) {
  const ValueId old = graph_.node(node).input(slot);
  const Tensor* t = constant_behind(old);
  Vector bias = read_floats(t->data(), t->num_elements(), 1).col(0) + extra;
  if (b != nullptr) bias = b->transpose() * bias;
  SPRUN_ASSIGN(const ValueId made, add_vector(graph_, graph_.value(old).name, bias));
  graph_.set_input(node, slot, made);
  return {};
}

// The bias v of a layer becomes (v + extra), times b if there is one; layers without one get it
// when they need it.
Status StreamRewriter::change_bias(const StreamLinear& linear, const Matrix* b,
                                   const Vector& extra) {
  const Vector none = Vector::Zero(extra.size());
  const bool in_product =
      graph_.node(linear.product).is("Gemm") && graph_.node(linear.product).input(2) != kNoValue;
  if (in_product) SPRUN_TRY(change_bias_at(linear.product, 2, b, extra));
  if (linear.bias_add != kNoNode)
    SPRUN_TRY(change_bias_at(linear.bias_add, linear.bias_slot, b, in_product ? none : extra));
  if (in_product || linear.bias_add != kNoNode || extra.isZero(0)) return {};
  const Vector bias = b ? Vector(b->transpose() * extra) : extra;
  const ValueId out = graph_.node(linear.product).outputs[0];
  const std::string name = graph_.value(out).name;
  SPRUN_ASSIGN(const ValueId made, add_vector(graph_, name + "/bias", bias));
  if (graph_.node(linear.product).is("Gemm")) {
    graph_.set_input(linear.product, 2, made);
    return {};
  }
  const ValueId sum = add_operation(graph_, name + "/biased", "Add", version_, {out, made});
  graph_.replace_uses(out, sum);
  graph_.set_input(graph_.value(sum).producer, 0, out);
  return {};
}

Status StreamRewriter::rewrite_linear(int point, const StreamLinear& linear) {
  const Vector extra = pending_;
  pending_.setZero();
  if (is_last(point)) return extra.isZero(0) ? Status() : change_bias(linear, nullptr, extra);
  const Matrix b = target(point);
  LinearLayer& layer = layers_.at(linear.product);
  SPRUN_TRY(write_weight(graph_, layer, b.transpose() * read_weight(graph_, layer)));
  SPRUN_TRY(change_bias(linear, &b, extra));
  for (NodeId n : linear.reshapes) fix_reshape(n, b.rows(), b.cols());
  note_layer(layer, fmt::format("{:.2f}% of the energy of '{}' is left",
                                100 * bases_[at(point)].energy, stream_.points[at(point)].name));
  return {};
}

Status StreamRewriter::rewrite_table(const StreamTerm& term, const Matrix& b) {
  ValueId v = graph_.producer(term.value)->input(0);
  while (graph_.constant(v) == nullptr) v = graph_.producer(v)->input(0);
  const Tensor table = *graph_.constant(v);
  const int64_t rows = table.shape()[0];
  SPRUN_ASSIGN(Tensor made, Tensor::allocate(DType::kF32, Shape{rows, b.cols()}));
  for (int64_t first = 0; first < rows; first += kTableRows) {
    const int64_t count = std::min(kTableRows, rows - first);
    const auto* part = static_cast<const char*>(table.data()) +
                       first * b.rows() * static_cast<int64_t>(sizeof(float));
    const Matrix product = read_floats(part, count, b.rows()) * b;
    std::transform(product.data(), product.data() + product.size(),
                   made.mutable_view().as<float>() + first * b.cols(),
                   [](double x) { return static_cast<float>(x); });
  }
  graph_.make_constant(v, std::move(made));
  return {};
}

Status StreamRewriter::rewrite_constant(const StreamTerm& term, const Matrix& b) {
  const Tensor t = *constant_behind(term.value);
  std::vector<int64_t> dims(t.shape().dims().begin(), t.shape().dims().end());
  dims.back() = b.cols();
  const Matrix product = read_floats(t.data(), t.num_elements() / b.rows(), b.rows()) * b;
  SPRUN_ASSIGN(Tensor made, float_tensor(product, Shape(std::span<const int64_t>(dims))));
  graph_.set_input(
      term.add, term.slot,
      graph_.add_constant(graph_.unique_name(graph_.value(term.value).name), std::move(made)));
  return {};
}

// A point or norm in its own basis, brought into that of `point`.
Status StreamRewriter::rewrite_shortcut(int point, const StreamTerm& term) {
  const bool from_norm = term.kind == Kind::kNorm;
  const int source = from_norm ? stream_.norms[at(term.index)].point : term.index;
  const ValueId value = from_norm ? norm_values_[at(term.index)] : stored_[at(source)];
  if (shared_ && !is_last(point)) {
    if (from_norm) graph_.set_input(term.add, term.slot, value);
    return {};
  }
  Matrix left = bases_[at(source)].q;
  if (from_norm) {
    left = stream_.norms[at(term.index)].gamma.asDiagonal() * left;
    left = left * scales_[at(term.index)].cwiseInverse().asDiagonal();
  }
  const Matrix s = left.transpose() * target(point);
  const std::string name = graph_.node(term.add).name.empty() ? stream_.points[at(point)].name
                                                              : graph_.node(term.add).name;
  SPRUN_ASSIGN(const ValueId weight, add_matrix(graph_, name + "/shortcut.weight", s));
  const ValueId made =
      add_operation(graph_, name + "/shortcut", "MatMul", version_, {value, weight});
  graph_.set_input(term.add, term.slot, made);
  note_shortcut(made, s);
  return {};
}

Status StreamRewriter::rewrite_term(int point, const StreamTerm& term) {
  if (term.kind == Kind::kLinear) return rewrite_linear(point, term.linear);
  if (term.kind == Kind::kPoint || term.kind == Kind::kNorm) return rewrite_shortcut(point, term);
  if (is_last(point)) return {};
  const Matrix b = target(point);
  if (term.kind == Kind::kTable) return rewrite_table(term, b);
  if (term.kind == Kind::kConstant) return rewrite_constant(term, b);
  const std::string name = graph_.value(term.value).name;
  SPRUN_ASSIGN(const ValueId weight, add_matrix(graph_, name + "/rotation.weight", b));
  const ValueId made =
      add_operation(graph_, name + "/rotation", "MatMul", version_, {term.value, weight});
  place(point, term, made);
  note_shortcut(made, b);
  return {};
}

Status StreamRewriter::rewrite_point(int index) {
  const StreamPoint& point = stream_.points[at(index)];
  pending_ = Vector::Zero(point.width);
  for (const StreamTerm& term : point.terms) {
    if (term.kind == Kind::kNorm) pending_ += stream_.norms[at(term.index)].beta;
  }
  for (const StreamTerm& term : point.terms) SPRUN_TRY(rewrite_term(index, term));
  if (pending_.isZero(0)) return {};
  const StreamTerm& term = point.terms.front();  // no layer to take the shift: part of the sum
  const ValueId value = graph_.node(term.add).input(term.slot);
  SPRUN_ASSIGN(const ValueId shift,
               add_vector(graph_, point.name + "/shift", target(index).transpose() * pending_));
  graph_.set_input(term.add, term.slot,
                   add_operation(graph_, point.name + "/shifted", "Add", version_, {value, shift}));
  return {};
}

// The mean over the last axis, which stays as an axis of one.
ValueId StreamRewriter::emit_mean(const std::string& name, ValueId x) {
  std::vector<ValueId> inputs = {x};
  if (version_ >= kReduceAxesInputOpset) inputs.push_back(add_ints(graph_, name + "/axes", {-1}));
  const ValueId mean = add_operation(graph_, name, "ReduceMean", version_, std::move(inputs));
  Node& reduce = graph_.node(graph_.value(mean).producer);
  if (version_ < kReduceAxesInputOpset) reduce.attrs.set("axes", std::vector<int64_t>{-1});
  reduce.attrs.set("keepdims", int64_t{1});
  return mean;
}

Result<ValueId> StreamRewriter::emit_norm(const StreamNorm& norm, ValueId x, const Vector& gamma,
                                          double epsilon) {
  SPRUN_ASSIGN(const ValueId scale, add_vector(graph_, norm.name + "/scale", gamma));
  const Node& old = *graph_.producer(norm.out);
  const bool keeps_mean = stream_.points[at(norm.point)].keeps_mean;
  if (old.op_type == "RMSNormalization" || old.op_type == "SimplifiedLayerNormalization" ||
      (keeps_mean && old.op_type == "LayerNormalization")) {
    const NodeId made = graph_.add_node(old.domain, old.op_type, old.version, {x, scale},
                                        {graph_.unique_name(graph_.value(norm.out).name)});
    Node& node = graph_.node(made);
    node.name = norm.name;
    node.def = graph_.producer(norm.out)->def;
    node.attrs = graph_.producer(norm.out)->attrs;
    node.attrs.set("epsilon", static_cast<float>(epsilon));
    return node.outputs[0];
  }
  const auto scalar = [&](const char* what, double value) -> Result<ValueId> {
    SPRUN_ASSIGN(Tensor tensor, float_tensor(Matrix::Constant(1, 1, value), Shape{}));
    return graph_.add_constant(graph_.unique_name(norm.name + what), std::move(tensor));
  };
  SPRUN_ASSIGN(const ValueId two, scalar("/two", 2));
  SPRUN_ASSIGN(const ValueId eps, scalar("/epsilon", epsilon));
  if (keeps_mean) {
    const ValueId mean = emit_mean(norm.name + "/centre", x);
    x = add_operation(graph_, norm.name + "/centred", "Sub", version_, {x, mean});
  }
  const ValueId square = add_operation(graph_, norm.name + "/square", "Pow", version_, {x, two});
  const ValueId mean = emit_mean(norm.name + "/mean", square);
  const ValueId sum = add_operation(graph_, norm.name + "/sum", "Add", version_, {mean, eps});
  const ValueId root = add_operation(graph_, norm.name + "/root", "Sqrt", version_, {sum});
  const ValueId normed = add_operation(graph_, norm.name + "/normed", "Div", version_, {x, root});
  return add_operation(graph_, norm.name + "/scaled", "Mul", version_, {normed, scale});
}

Status StreamRewriter::rewrite_norm(int index) {
  const StreamNorm& norm = stream_.norms[at(index)];
  const Matrix& q = bases_[at(norm.point)].q;
  const double widening = static_cast<double>(q.rows()) / static_cast<double>(q.cols());
  scales_[at(index)] = norm_scale(norm);
  SPRUN_ASSIGN(norm_values_[at(index)],
               emit_norm(norm, stored_[at(norm.point)], std::sqrt(widening) * scales_[at(index)],
                         norm.epsilon * widening));
  graph_.replace_uses(norm.out, norm_values_[at(index)]);
  return {};
}

Status StreamRewriter::rewrite_reader(const StreamReader& reader) {
  const StreamNorm& norm = stream_.norms[at(reader.norm)];
  const Matrix& q = bases_[at(norm.point)].q;
  LinearLayer& layer = layers_.at(reader.linear.product);
  const Matrix w = read_weight(graph_, layer);
  Matrix rotation = norm.gamma.asDiagonal() * q;
  rotation = rotation * scales_[at(reader.norm)].cwiseInverse().asDiagonal();
  SPRUN_TRY(write_weight(graph_, layer, w * rotation));
  SPRUN_TRY(change_bias(reader.linear, nullptr, w * norm.beta));
  for (NodeId n : reader.linear.reshapes) {
    const bool flattens = graph_.node(layer.node).is("Gemm") && n == reader.linear.reshapes.back();
    if (flattens) {
      const std::string name = graph_.value(graph_.node(n).outputs[0]).name + "/shape";
      graph_.set_input(n, 1, add_ints(graph_, name, {-1, q.cols()}));
    } else {
      fix_reshape(n, q.rows(), q.cols());
    }
  }
  note_layer(layer, "");
  return {};
}

Status StreamRewriter::run() {
  SPRUN_ASSIGN(const std::vector<LinearLayer> layers, find_linear_layers(graph_));
  for (const LinearLayer& layer : layers) layers_.emplace(layer.node, layer);
  for (NodeId n = 0; n < graph_.num_nodes(); ++n) {
    if (!graph_.node(n).dead && graph_.node(n).domain.empty())
      version_ = std::max(version_, graph_.node(n).version);
  }
  if (version_ < kMinOpset)
    return {Code::kBadModel, fmt::format("slicing needs opset {} or later", kMinOpset)};
  norm_values_.assign(stream_.norms.size(), kNoValue);
  for (const StreamPoint& point : stream_.points) stored_.push_back(point.value);
  scales_.resize(stream_.norms.size());
  for (size_t p = 0; p < stream_.points.size(); ++p) {
    const int point = static_cast<int>(p);
    if (context_.stop.stop_requested()) return {Code::kCancelled, "interrupted"};
    context_.progress(kMeasurePart + (1 - kMeasurePart) * static_cast<double>(p) /
                                         static_cast<double>(stream_.points.size()),
                      stream_.points[p].name);
    SPRUN_TRY(rewrite_point(point).with_context(stream_.points[p].name));
    if (is_last(point)) continue;
    for (int norm : stream_.points[p].norms) SPRUN_TRY(rewrite_norm(norm));
    for (const StreamReader& reader : stream_.readers) {
      if (stream_.norms[at(reader.norm)].point == point) SPRUN_TRY(rewrite_reader(reader));
    }
  }
  for (NodeId n = 0; n < graph_.num_nodes(); ++n) graph::remove_if_unused(graph_, n);
  return {};
}

}  // namespace

Status rewrite_stream(StepContext& context, const ResidualStream& stream,
                      const std::vector<StreamBasis>& bases, bool shared,
                      const std::string& action) {
  return StreamRewriter(context, stream, bases, shared, action).run();
}

}  // namespace sprun::compress
