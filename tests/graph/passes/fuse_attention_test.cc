// Attention in Q/DQ form becomes one node of integers, or stays as it is; the numbers stay.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "graph/ir/graph.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

Result<int> pass_fuse_attention(Graph& graph, PassContext& ctx);

namespace {

constexpr int64_t kB = 2, kH = 2, kS = 9, kD = 8;
constexpr float kScale = 0.02F;

struct Case {
  bool q_codes = true, p_codes = true, requantise = true, scaled_q = false, two_transposes = false, mask = false;
  bool torch_export = false;  // K turned around in three axes, Q and K scaled, NaN after the softmax becomes 0
  float guard_value = 0;
  DType dtype = DType::kU8;
};

// softmax(Q K^T / 4 + mask) V of codes [B, S, H, D], merged to [B, S, H * D], with shapes on every value.
class Attention {
 public:
  explicit Attention(const Case& c) : c_(c) {
    ValueId q = transposed(input("q", 1), {0, 2, 1, 3}), v = transposed(input("v", 3), {0, 2, 1, 3});
    q = c.q_codes ? dequantised(q, kScale) : add("Cast", {q}, DType::kF32, shape(q), {{"to", int64_t{1}}});
    if (c.scaled_q) q = add("Mul", {q, constant(0.5F)}, DType::kF32, shape(q));
    ValueId k = input("k", 2);
    if (c.torch_export) k = transposed(k, {0, 2, 1, 3});
    else k = c.two_transposes ? transposed(transposed(k, {0, 2, 1, 3}), {0, 1, 3, 2}) : transposed(k, {0, 2, 3, 1});
    k = dequantised(k, kScale);
    if (c.torch_export) k = turned_in_three_axes(k);
    const Shape scores{kB, kH, kS, kS};
    ValueId s = add("MatMul", {q, k}, DType::kF32, scores);
    s = add("Div", {s, constant(4.0F)}, DType::kF32, scores);
    if (c.mask) s = add("Add", {s, mask_row()}, DType::kF32, scores);
    ValueId p = add("Softmax", {s}, DType::kF32, scores, {{"axis", int64_t{-1}}});
    if (c.torch_export) {
      const ValueId is_nan = add("IsNaN", {p}, DType::kBool, scores);
      p = add("Where", {is_nan, constant(c.guard_value), p}, DType::kF32, scores);
    }
    if (c.p_codes) p = dequantised(quantised(p, 1.0F / 255, 0), 1.0F / 255, 0);
    ValueId y = add("MatMul", {p, dequantised(v, kScale)}, DType::kF32, {kB, kH, kS, kD});
    if (c.requantise) y = quantised(y, 0.01F, zero());
    y = transposed(y, {0, 2, 1, 3});
    graph.set_outputs({reshaped(y, {kB, kS, kH * kD})});
  }

  // Runs the pass, compares the results and returns the type of the node that is left, or "" when several are.
  std::string fuse(std::vector<std::string>* notes = nullptr) {
    const Tensor before = run();
    PassContext ctx;
    ctx.stage = PassStage::kPlan;
    EXPECT_TRUE(pass_fuse_attention(graph, ctx).ok());
    if (notes) *notes = ctx.notes;
    const Tensor after = run();
    EXPECT_EQ(before.shape(), after.shape());
    EXPECT_EQ(before.dtype(), after.dtype());
    for (int64_t i = 0; i < before.num_elements(); ++i) EXPECT_NEAR(at(before, i), at(after, i), tolerance()) << i;
    const Node* node = graph.producer(graph.outputs()[0]);
    return node->domain == "sprun" ? node->op_type : "";
  }

  Graph graph;

 private:
  int zero() const { return c_.dtype == DType::kS8 ? 3 : 131; }
  // One code of the softmax, then perhaps one of the result.
  float tolerance() const { return c_.requantise ? 3.0F : 128 * kScale / 255 * 1.1F; }
  static float at(const Tensor& t, int64_t i) {
    if (t.dtype() == DType::kF32) return t.as<float>()[i];
    return t.dtype() == DType::kS8 ? static_cast<float>(t.as<int8_t>()[i]) : static_cast<float>(t.as<uint8_t>()[i]);
  }
  std::string name() { return "v" + std::to_string(count_++); }
  Shape shape(ValueId v) { return *graph.value(v).shape; }  // a copy: adding values moves them
  DType dtype(ValueId v) { return graph.value(v).dtype; }

  void describe(ValueId v, DType dtype, const Shape& shape) {
    graph.value(v).dtype = dtype;
    graph.value(v).shape = shape;
  }
  ValueId input(const std::string& input_name, uint32_t seed) {
    const ValueId v = graph.add_input(input_name, c_.dtype, {});
    describe(v, c_.dtype, {kB, kS, kH, kD});
    Tensor codes = Tensor::allocate(c_.dtype, shape(v)).value();
    for (int64_t i = 0; i < codes.num_elements(); ++i) {
      seed = seed * 1664525U + 1013904223U;
      codes.mutable_view().as<uint8_t>()[i] = static_cast<uint8_t>(seed >> 24);
    }
    feeds_[v] = codes;
    return v;
  }
  ValueId constant(float value) {
    Tensor tensor = Tensor::allocate(DType::kF32, {}).value();
    tensor.mutable_view().as<float>()[0] = value;
    return graph.add_constant(name(), tensor);
  }
  ValueId code_constant(int value, DType type) {
    Tensor tensor = Tensor::allocate(type, {}).value();
    tensor.mutable_view().as<uint8_t>()[0] = static_cast<uint8_t>(value);
    return graph.add_constant(name(), tensor);
  }
  ValueId mask_row() {
    Tensor tensor = Tensor::zeros(DType::kF32, {kB, 1, 1, kS}).value();
    for (int64_t i = 0; i < kB * kS; i += 4) tensor.mutable_view().as<float>()[i] = -1e9F;
    if (c_.torch_export) {  // the last sample has no key at all
      for (int64_t i = (kB - 1) * kS; i < kB * kS; ++i)
        tensor.mutable_view().as<float>()[i] = -std::numeric_limits<float>::infinity();
    }
    const ValueId v = graph.add_constant(name(), tensor);
    describe(v, DType::kF32, {kB, 1, 1, kS});
    return v;
  }
  ValueId add(const std::string& op, std::vector<ValueId> inputs, DType type, const Shape& shape,
              const std::vector<std::pair<std::string, Attr>>& attrs = {}) {
    const NodeId n = graph.add_node("", op, 17, std::move(inputs), {name()});
    graph.node(n).name = op + std::to_string(n);
    graph.node(n).def = find_op("", op, 17);
    for (const auto& [key, value] : attrs) graph.node(n).attrs.set(key, value);
    describe(graph.node(n).outputs[0], type, shape);
    return graph.node(n).outputs[0];
  }
  ValueId transposed(ValueId x, const std::vector<int64_t>& perm) {
    const Shape from = shape(x);
    Shape to = from;
    for (int i = 0; i < 4; ++i) to[i] = from[static_cast<int>(perm[static_cast<size_t>(i)])];
    return add("Transpose", {x}, dtype(x), to, {{"perm", perm}});
  }
  ValueId reshaped(ValueId x, const Shape& to) {
    Tensor sizes = Tensor::allocate(DType::kS64, {to.rank()}).value();
    for (int i = 0; i < to.rank(); ++i) sizes.mutable_view().as<int64_t>()[i] = to[i];
    return add("Reshape", {x, graph.add_constant(name(), sizes)}, dtype(x), to);
  }
  // [B,H,T,D] -> [B,H,D,T], scaled.
  ValueId turned_in_three_axes(ValueId k) {
    const ValueId three = reshaped(k, {kB * kH, kS, kD});
    const ValueId turned = add("Transpose", {three}, DType::kF32, {kB * kH, kD, kS}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
    const ValueId four = reshaped(turned, {kB, kH, kD, kS});
    return add("Mul", {four, constant(0.6F)}, DType::kF32, {kB, kH, kD, kS});
  }
  ValueId dequantised(ValueId x, float scale, std::optional<int> zero_point = {}) {
    const DType type = dtype(x);
    return add("DequantizeLinear", {x, scale_of(scale), code_constant(zero_point.value_or(zero()), type)}, DType::kF32,
               shape(x));
  }
  ValueId quantised(ValueId x, float scale, int zero_point) {
    const DType type = zero_point == 0 ? DType::kU8 : c_.dtype;
    const ValueId zero_value = code_constant(zero_point, type);
    return add("QuantizeLinear", {x, scale_of(scale), zero_value}, type, shape(x));
  }
  ValueId scale_of(float scale) {
    const auto found = scales_.find(scale);
    return found != scales_.end() ? found->second : scales_[scale] = constant(scale);
  }

  Tensor run() {
    std::map<ValueId, Tensor> values = feeds_;
    ThreadPool pool(1);
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) {
      const Node& node = graph.node(n);
      std::vector<ConstTensorView> views;
      for (ValueId v : node.inputs) views.push_back(graph.constant(v) ? graph.constant(v)->view() : values[v].view());
      values[node.outputs[0]] = evaluate(node, views, {.pool = &pool}).value()[0];
    }
    return values[graph.outputs()[0]];
  }

  Case c_;
  std::map<ValueId, Tensor> feeds_;
  std::map<float, ValueId> scales_;
  int count_ = 0;
};

TEST(FuseAttention, CodesBecomeOneNode) {
  for (const DType dtype : {DType::kU8, DType::kS8}) {
    for (const bool requantise : {false, true}) {
      for (const bool other : {false, true}) {
        Attention attention({.requantise = requantise, .scaled_q = other, .two_transposes = other, .mask = other,
                             .dtype = dtype});
        EXPECT_EQ(attention.fuse(), "AttentionInt8");
        EXPECT_EQ(attention.graph.num_live_nodes(), 1);
      }
    }
  }
}

TEST(FuseAttention, AFloatSoftmaxKeepsFloatProducts) {
  Attention attention({.p_codes = false, .requantise = false});
  EXPECT_EQ(attention.fuse(), "Attention");
}

TEST(FuseAttention, TheSpellingOfTorchExport) {
  Attention attention({.p_codes = false, .requantise = false, .scaled_q = true, .mask = true, .torch_export = true});
  EXPECT_EQ(attention.fuse(), "Attention");
  EXPECT_EQ(attention.graph.producer(attention.graph.outputs()[0])->attrs.get_string("k_layout", ""), "bhsd");
}

TEST(FuseAttention, RowsWithoutAKeyThatAreNotZeroStayAsTheyAre) {
  Attention attention({.p_codes = false, .requantise = false, .mask = true, .torch_export = true, .guard_value = 0.25F});
  EXPECT_EQ(attention.fuse(), "");
}

TEST(FuseAttention, SaysWhyCodesStayApart) {
  Attention attention({.q_codes = false});
  std::vector<std::string> notes;
  EXPECT_EQ(attention.fuse(&notes), "");
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("quantises the softmax"), std::string::npos);
}

}  // namespace
}  // namespace sprun::graph
