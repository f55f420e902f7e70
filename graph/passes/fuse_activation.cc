// Activations spelled out as products become one op:
//   GELU (erf)   0.5 * x * (1 + erf(x / sqrt(2)))                       -> Gelu
//   GELU (tanh)  0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))  -> Gelu, approximate = "tanh"
//   quick GELU   x * sigmoid(1.702 x);  SiLU  x * sigmoid(x)            -> com.microsoft.QuickGelu, alpha
//   hard swish   x * clip(x + 3, 0, 6) / 6;  x * HardSigmoid(x, 1/6, 1/2)  -> HardSwish
// The product may be associated in any way, and the argument written in any way: the pass flattens the product into its
// factors and reads the argument as a polynomial in x.
#include <array>
#include <cmath>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

constexpr int kMaxDepth = 8;
constexpr int kDegree = 3;
using Polynomial = std::array<double, kDegree + 1>;  // coefficients of 1, x, x^2, x^3

std::optional<Polynomial> multiply(const Polynomial& a, const Polynomial& b) {
  Polynomial product{};
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      if (a[i] == 0 || b[j] == 0) continue;
      if (i + j > kDegree) return std::nullopt;
      product[i + j] += a[i] * b[j];
    }
  }
  return product;
}

// The value v as a polynomial in x, if Add, Sub, Mul, Div by a constant and Pow by 2 or 3 lead there.
std::optional<Polynomial> polynomial_of(const Graph& graph, ValueId v, ValueId x, int depth = 0) {
  if (v == x) return Polynomial{0, 1, 0, 0};
  if (const auto c = scalar_constant(graph, v)) return Polynomial{*c, 0, 0, 0};
  const Node* node = graph.producer(v);
  if (node == nullptr || !node->domain.empty() || node->inputs.size() != 2 || depth > kMaxDepth) return std::nullopt;
  const auto a = polynomial_of(graph, node->inputs[0], x, depth + 1);
  const auto b = a ? polynomial_of(graph, node->inputs[1], x, depth + 1) : std::nullopt;
  if (!a || !b) return std::nullopt;
  const bool b_constant = (*b)[1] == 0 && (*b)[2] == 0 && (*b)[3] == 0;
  if (node->op_type == "Mul") return multiply(*a, *b);
  if (node->op_type == "Div" && b_constant && (*b)[0] != 0) return multiply(*a, {1 / (*b)[0], 0, 0, 0});
  if (node->op_type == "Pow" && b_constant && ((*b)[0] == 2 || (*b)[0] == 3)) {
    const auto square = multiply(*a, *a);
    return square && (*b)[0] == 3 ? multiply(*square, *a) : square;
  }
  if (node->op_type != "Add" && node->op_type != "Sub") return std::nullopt;
  Polynomial sum = *a;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += node->op_type == "Add" ? (*b)[i] : -(*b)[i];
  return sum;
}

struct Product {
  double constant = 1;
  std::vector<ValueId> factors;
};

// Flattens nested Mul and Div-by-constant. Stops at values that others use too, so that nothing is computed twice.
void collect_factors(const Graph& graph, ValueId v, bool root, Product& product, int depth = 0) {
  if (const auto c = scalar_constant(graph, v)) {
    product.constant *= *c;
    return;
  }
  const Node* node = graph.producer(v);
  const bool open = node && node->domain.empty() && node->inputs.size() == 2 && depth < kMaxDepth &&
                    (root || graph.has_one_use(v));
  if (open && node->op_type == "Mul") {
    collect_factors(graph, node->inputs[0], false, product, depth + 1);
    collect_factors(graph, node->inputs[1], false, product, depth + 1);
    return;
  }
  if (open && node->op_type == "Div") {
    if (const auto c = scalar_constant(graph, node->inputs[1]); c && *c != 0) {
      product.constant /= *c;
      collect_factors(graph, node->inputs[0], false, product, depth + 1);
      return;
    }
  }
  product.factors.push_back(v);
}

struct Activation {
  enum Kind { kGeluErf, kGeluTanh, kSigmoidProduct, kHardSwish } kind;
  ValueId x = kNoValue;
  double alpha = 1;  // of sigmoid(alpha x)
};

bool is_polynomial(const std::optional<Polynomial>& p, const Polynomial& want) {
  if (!p) return false;
  for (size_t i = 0; i < want.size(); ++i) {
    if (want[i] == 0 ? (*p)[i] != 0 : !nearly((*p)[i], want[i])) return false;
  }
  return true;
}

// Bounds of a Clip node, from inputs (opset 11) or attributes.
std::optional<std::pair<double, double>> clip_bounds(const Graph& graph, const Node& clip) {
  if (clip.version < 11) return std::pair<double, double>(clip.attrs.get_float("min", -1), clip.attrs.get_float("max", -1));
  const auto low = scalar_constant(graph, clip.input(1)), high = scalar_constant(graph, clip.input(2));
  if (!low || !high) return std::nullopt;
  return std::pair(*low, *high);
}

// Is `gate` times `constant` hard_sigmoid(x) = clip(x / 6 + 1/2, 0, 1)?
bool is_hard_sigmoid(const Graph& graph, ValueId gate, ValueId x, double constant) {
  if (const Node* node = producer_is(graph, gate, "HardSigmoid")) {
    return node->input(0) == x && nearly(constant, 1) && nearly(node->attrs.get_float("alpha", 0.2f), 1.0 / 6) &&
           nearly(node->attrs.get_float("beta", 0.5f), 0.5);
  }
  const Node* clip = producer_is(graph, gate, "Clip");
  if (clip == nullptr || !nearly(constant, 1.0 / 6)) return false;
  const auto bounds = clip_bounds(graph, *clip);
  const auto p = polynomial_of(graph, clip->input(0), x);
  return bounds && bounds->first == 0 && bounds->second == 6 && p && (*p)[0] == 3 && (*p)[1] == 1 && (*p)[2] == 0 &&
         (*p)[3] == 0;
}

// Is `gate` 1 + erf(..), 1 + tanh(..) or sigmoid(..) of x?
std::optional<Activation> match_gate(const Graph& graph, ValueId gate, ValueId x, double constant) {
  if (const Node* sigmoid = producer_is(graph, gate, "Sigmoid"); sigmoid && nearly(constant, 1)) {
    const auto p = polynomial_of(graph, sigmoid->input(0), x);
    if (!p || (*p)[0] != 0 || (*p)[1] == 0 || (*p)[2] != 0 || (*p)[3] != 0) return std::nullopt;
    return Activation{Activation::kSigmoidProduct, x, (*p)[1]};
  }
  if (is_hard_sigmoid(graph, gate, x, constant)) return Activation{Activation::kHardSwish, x};
  const Node* add = producer_is(graph, gate, "Add");
  if (add == nullptr || !nearly(constant, 0.5)) return std::nullopt;
  ValueId inner = kNoValue;
  const ValueId one = pick_input(*add, [&](ValueId v) { return scalar_constant(graph, v) == 1.0; }, &inner);
  if (one == kNoValue) return std::nullopt;
  if (const Node* erf = producer_is(graph, inner, "Erf")) {
    if (!is_polynomial(polynomial_of(graph, erf->input(0), x), {0, M_SQRT1_2, 0, 0})) return std::nullopt;
    return Activation{Activation::kGeluErf, x};
  }
  const Node* tanh = producer_is(graph, inner, "Tanh");
  const double c = std::sqrt(2 / M_PI);
  if (tanh == nullptr || !is_polynomial(polynomial_of(graph, tanh->input(0), x), {0, c, 0, c * 0.044715})) {
    return std::nullopt;
  }
  return Activation{Activation::kGeluTanh, x};
}

std::optional<Activation> match_activation(const Graph& graph, ValueId v) {
  Product product;
  collect_factors(graph, v, true, product);
  if (product.factors.size() != 2) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    const auto match = match_gate(graph, product.factors[i], product.factors[1 - i], product.constant);
    if (match) return match;
  }
  return std::nullopt;
}

void replace(Graph& graph, ValueId v, const Activation& activation) {
  if (activation.kind == Activation::kSigmoidProduct) {
    const NodeId made = take_over(graph, v, "com.microsoft", "QuickGelu", 1, {activation.x});
    graph.node(made).attrs.set("alpha", static_cast<float>(activation.alpha));
    return;
  }
  if (activation.kind == Activation::kHardSwish) {
    take_over(graph, v, "", "HardSwish", 14, {activation.x});
    return;
  }
  const NodeId made = take_over(graph, v, "", "Gelu", 20, {activation.x});
  graph.node(made).attrs.set("approximate", std::string(activation.kind == Activation::kGeluTanh ? "tanh" : "none"));
}

}  // namespace

Result<int> pass_fuse_activation(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  // The last Mul of a product first: inner ones are then gone.
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    if (node.dead || !(node.is("Mul") || node.is("Div"))) continue;
    const ValueId v = node.outputs[0];
    const auto match = match_activation(graph, v);
    if (!match) continue;
    replace(graph, v, *match);
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
