// Statistical top-k spelled out by exporters becomes one sprun.StatTopK:
//   y = relu(g - (mean(g) + z * std(g)))
// mean and variance over the whole last axis of the tensor that is thresholded, variance over n or n - 1. The sum may be
// written in any order, the square as Mul or Pow, the variance as mean of squares of differences or as difference of
// means, the rectifier as Relu, Max or Clip; statistics may be computed in float32 between casts.
#include <cmath>
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

constexpr int kMaxDepth = 8;

struct Term {
  ValueId value = kNoValue;
  double factor = 1;  // of value
};

// v as a sum of terms, each with a constant factor. Stops at g.
void flatten(const Graph& graph, ValueId v, double factor, ValueId g, std::vector<Term>& terms, int depth = 0) {
  const Node* node = graph.producer(v);
  const bool open = depth < kMaxDepth && node && node->domain.empty() && skip_casts(graph, v) != g;
  if (open && (node->op_type == "Add" || node->op_type == "Sub")) {
    flatten(graph, node->inputs[0], factor, g, terms, depth + 1);
    flatten(graph, node->inputs[1], node->op_type == "Sub" ? -factor : factor, g, terms, depth + 1);
    return;
  }
  if (open && node->op_type == "Neg") return flatten(graph, node->inputs[0], -factor, g, terms, depth + 1);
  if (open && node->inputs.size() == 2 && (node->op_type == "Mul" || node->op_type == "Div")) {
    const auto right = scalar_constant(graph, node->inputs[1]), left = scalar_constant(graph, node->inputs[0]);
    if (right && (node->op_type == "Mul" || *right != 0)) {
      const double by = node->op_type == "Mul" ? *right : 1 / *right;
      return flatten(graph, node->inputs[0], factor * by, g, terms, depth + 1);
    }
    if (left && node->op_type == "Mul") return flatten(graph, node->inputs[1], factor * *left, g, terms, depth + 1);
  }
  // Casts between the parts of the sum.
  if (const ValueId inner = skip_casts(graph, v); open && depth > 0 && inner != v) {
    return flatten(graph, inner, factor, g, terms, depth + 1);
  }
  terms.push_back({v, factor});
}

class Matcher {
 public:
  Matcher(const Graph& graph, ValueId g) : graph_(graph), g_(g) {}

  struct Found {
    ValueId x = kNoValue;  // g in the type of the sum
    double z = 0;
    int64_t ddof = 0;
  };
  // d = g - mean - z * std; else nullopt with `why`.
  std::optional<Found> match(ValueId d, std::string* why) const {
    std::vector<Term> terms;
    flatten(graph_, d, 1, g_, terms);
    Found found;
    bool mean = false;
    ValueId deviation = kNoValue;
    for (const Term& term : terms) {
      if (is_g(term.value) && term.factor == 1 && found.x == kNoValue) {
        found.x = term.value;
      } else if (is_mean(term.value) && term.factor == -1 && !mean) {
        mean = true;
      } else if (deviation == kNoValue) {
        deviation = term.value;
        found.z = -term.factor;
      } else {
        return refuse(why, "is not a tensor less its mean and a multiple of its deviation");
      }
    }
    if (!mean || found.x == kNoValue) {
      return refuse(why, "thresholds another tensor than its statistics are of, or its mean is not over the whole last axis");
    }
    if (deviation == kNoValue || !std::isfinite(found.z)) return refuse(why, "has no deviation");
    const auto ddof = deviation_of(deviation, why);
    if (!ddof) return std::nullopt;
    found.ddof = *ddof;
    return found;
  }

 private:
  static std::nullopt_t refuse(std::string* why, const std::string& text) {
    *why = text;
    return std::nullopt;
  }
  bool is_g(ValueId v) const { return skip_casts(graph_, v) == g_; }
  bool is_mean(ValueId v) const {
    const Node* mean = producer_is(graph_, skip_casts(graph_, v), "ReduceMean");
    return mean && is_g(mean->inputs[0]) && reduces_last_axis(graph_, *mean);
  }
  bool is_centred(ValueId v) const {
    std::vector<Term> terms;
    flatten(graph_, v, 1, g_, terms);
    if (terms.size() != 2) return false;
    const bool first = terms[0].factor == 1;
    const Term &plus = terms[first ? 0 : 1], &minus = terms[first ? 1 : 0];
    return plus.factor == 1 && minus.factor == -1 && is_g(plus.value) && is_mean(minus.value);
  }
  // r if v = r^2.
  ValueId square_of(ValueId v) const {
    const Node* node = graph_.producer(skip_casts(graph_, v));
    if (node == nullptr) return kNoValue;
    if (node->is("Pow")) return scalar_constant(graph_, node->inputs[1]) == 2.0 ? node->inputs[0] : kNoValue;
    return node->is("Mul") && node->inputs[0] == node->inputs[1] ? node->inputs[0] : kNoValue;
  }

  // std(g) as Sqrt or Pow 1/2 of the variance: the divisor's n - ddof.
  std::optional<int64_t> deviation_of(ValueId v, std::string* why) const {
    const Node* root = graph_.producer(skip_casts(graph_, v));
    const bool power = root && root->is("Pow") && scalar_constant(graph_, root->inputs[1]) == 0.5;
    if (root == nullptr || !(root->is("Sqrt") || power)) return refuse(why, "has no deviation, or its scale is not a constant");
    double factor = 1;
    ValueId variance = root->inputs[0];
    for (const Node* node = graph_.producer(variance); node && (node->is("Mul") || node->is("Div"));
         node = graph_.producer(variance)) {
      const auto c = scalar_constant(graph_, node->inputs[1]);
      if (!c || *c == 0) break;
      factor *= node->is("Mul") ? *c : 1 / *c;
      variance = node->inputs[0];
    }
    const auto sums = mean_of_squares(skip_casts(graph_, variance));
    if (!sums) return refuse(why, "has a variance of another tensor or another axis");
    const int64_t n = last_size(graph_, g_);
    if (*sums && n < 0) return refuse(why, "has an unknown size");
    if (*sums) factor *= static_cast<double>(n);
    constexpr double kClose = 5e-7;
    if (std::abs(factor - 1) < kClose) return 0;
    if (n < 2) return refuse(why, "has an unknown size");
    const double corrected = factor * static_cast<double>(n - 1) / static_cast<double>(n);
    if (std::abs(corrected - 1) < kClose) return 1;
    return refuse(why, "divides its variance by neither n nor n - 1");
  }

  // Variance spelled as a mean (false) or as a sum (true) of squares of g - mean(g); nullopt if it is neither.
  std::optional<bool> mean_of_squares(ValueId v) const {
    const Node* node = graph_.producer(v);
    if (node == nullptr) return std::nullopt;
    const bool sum = node->is("ReduceSum"), of_squares = node->is("ReduceSumSquare");
    if (node->is("ReduceMean") || sum || of_squares) {
      if (!reduces_last_axis(graph_, *node)) return std::nullopt;
      const ValueId centred = of_squares ? node->inputs[0] : square_of(node->inputs[0]);
      if (centred == kNoValue || !is_centred(centred)) return std::nullopt;
      return sum || of_squares;
    }
    // mean(g^2) - mean(g)^2, perhaps under Abs or a rectifier.
    if (node->is("Abs")) return mean_of_squares(node->inputs[0]);
    if (const ValueId inner = relu_input(graph_, v); inner != kNoValue) return mean_of_squares(inner);
    if (!node->is("Sub")) return std::nullopt;
    const Node* squares = producer_is(graph_, skip_casts(graph_, node->inputs[0]), "ReduceMean");
    const ValueId mean = square_of(node->inputs[1]);
    const bool fits = squares && reduces_last_axis(graph_, *squares) && mean != kNoValue && is_mean(mean);
    const ValueId of = fits ? square_of(squares->inputs[0]) : kNoValue;
    return of != kNoValue && is_g(of) ? std::optional(false) : std::nullopt;
  }

  const Graph& graph_;
  ValueId g_;
};

// The tensor whose mean is taken off somewhere in the sum d.
ValueId subtracted_mean(const Graph& graph, ValueId d) {
  std::vector<Term> terms;
  flatten(graph, d, 1, kNoValue, terms);
  for (const Term& term : terms) {
    const Node* mean = producer_is(graph, skip_casts(graph, term.value), "ReduceMean");
    if (mean && term.factor < 0) return skip_casts(graph, mean->inputs[0]);
  }
  return kNoValue;
}

bool fuse_at(Graph& graph, NodeId n, PassContext& ctx) {
  const ValueId y = graph.node(n).outputs[0], d = relu_input(graph, y);
  const ValueId g = d == kNoValue ? kNoValue : subtracted_mean(graph, d);
  if (g == kNoValue) return false;
  std::string why;
  const auto found = Matcher(graph, g).match(d, &why);
  if (!found) {
    note_miss(ctx, graph.node(n), "fuse_stat_top_k", why);
    return false;
  }
  const NodeId made = take_over(graph, y, "sprun", "StatTopK", 1, {found->x});
  graph.node(made).attrs.set("z", static_cast<float>(found->z));
  graph.node(made).attrs.set("ddof", found->ddof);
  return true;
}

}  // namespace

Result<int> pass_fuse_stat_top_k(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    const Node& node = graph.node(n);
    if (!node.dead && (node.is("Relu") || node.is("Max") || node.is("Clip")) && fuse_at(graph, n, ctx)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
