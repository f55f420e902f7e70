// Attention with ALiBi as BLOOM's export spells it: folded heads become four axes, and with a past kept by a session one
// sprun.CachedAttention that adds slope * distance; masks that are no such thing are refused.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "graph/passes/causal_mask.h"
#include "graph/passes/kv_cache.h"
#include "graph/passes/pass.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

Result<int> pass_unfold_heads(Graph& graph, PassContext& ctx);
Result<int> pass_fuse_attention(Graph& graph, PassContext& ctx);
Result<int> pass_fold_constants(Graph& graph, PassContext& ctx);
Result<int> pass_cache_attention(Graph& graph, PassContext& ctx);

namespace {

constexpr int64_t kH = 4, kD = 8, kCapacity = 32;

float slope(int64_t head) { return 0.5F / static_cast<float>(1 << head); }

Tensor filled(const Shape& shape, const std::function<float(int64_t)>& element) {
  Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<float>()[i] = element(i);
  return tensor;
}

// softmax(Q [past_k; k]^T / 3 + slope * key + causality) [past_v; v] of `tokens` new tokens.
class Attention {
 public:
  Attention(int64_t past, int64_t tokens) : past_(past), tokens_(tokens) {
    const int64_t all = past + tokens;
    const Shape three{kH, tokens, all}, four{1, kH, tokens, all};
    const ValueId q = input("q", tokens), k = input("k", tokens), v = input("v", tokens);
    past_k_ = input("past_k", past), past_v_ = input("past_v", past);
    const ValueId keys = add("Concat", {past_k_, k}, {1, kH, all, kD}, {{"axis", int64_t{-2}}});
    const ValueId values = add("Concat", {past_v_, v}, {1, kH, all, kD}, {{"axis", int64_t{-2}}});
    const ValueId turned = add("Transpose", {reshaped(keys, {kH, all, kD})}, {kH, kD, all},
                               {{"perm", std::vector<int64_t>{0, 2, 1}}});
    ValueId s = add("MatMul", {reshaped(q, {kH, tokens, kD}), turned}, three);
    s = add("Mul", {s, constant(filled(Shape{}, [](int64_t) { return 1.0F / 3; }))}, three);
    const Tensor alibi = filled({kH, 1, all}, [&](int64_t i) { return slope(i / all) * static_cast<float>(i % all); });
    s = reshaped(add("Add", {s, constant(alibi)}, three), four);
    const Tensor mask = filled({1, 1, tokens, all}, [&](int64_t i) { return i % all > past + i / all ? -3e38F : 0.0F; });
    s = add("Add", {s, constant(mask)}, four);
    const ValueId p = reshaped(add("Softmax", {s}, four, {{"axis", int64_t{-1}}}), three);
    const ValueId y = add("MatMul", {p, reshaped(values, {kH, all, kD})}, {kH, tokens, kD});
    graph.set_outputs({add("Neg", {reshaped(y, {1, kH, tokens, kD})}, {1, kH, tokens, kD})});
  }

  // What makes the result of attention.
  const Node* last() const { return graph.producer(graph.producer(graph.outputs()[0])->inputs[0]); }

  // The caches that take the place of the past, with its rows in them.
  void set_caches() {
    spec.past = past_;
    for (const ValueId past : {past_k_, past_v_}) {
      const ValueId cache = graph.add_input(graph.value(past).name + "/cache", DType::kF32, {});
      graph.value(cache).shape = Shape{kH, kCapacity, kD};
      const auto* rows = feeds_.at(past).as<float>();
      feeds_[cache] = filled({kH, kCapacity, kD}, [&](int64_t i) {
        const int64_t head = i / (kCapacity * kD), row = i / kD % kCapacity;
        return row < past_ ? rows[(head * past_ + row) * kD + i % kD] : 0.0F;
      });
      spec.slots.push_back({past, -1, cache, kNoValue});
    }
    spec.position = graph.add_input("position", DType::kS64, {});
    graph.value(spec.position).shape = Shape{1};
    Tensor position = Tensor::allocate(DType::kS64, {1}).value();
    position.mutable_view().as<int64_t>()[0] = past_;
    feeds_[spec.position] = position;
  }

  Tensor run() {
    std::map<ValueId, Tensor> values = feeds_;
    ThreadPool pool(1);
    for (NodeId n : graph.topological_order().value()) {
      const Node& node = graph.node(n);
      if (graph.value(node.outputs[0]).users.empty() && !graph.is_output(node.outputs[0])) continue;
      std::vector<ConstTensorView> views;
      for (ValueId v : node.inputs) {
        if (v == kNoValue) views.emplace_back();
        else views.push_back(graph.constant(v) ? graph.constant(v)->view() : values[v].view());
      }
      values[node.outputs[0]] = evaluate(node, views, {.pool = &pool}).value()[0];
    }
    return values[graph.outputs()[0]];
  }

  Graph graph;
  KvCacheSpec spec;

 private:
  ValueId input(const std::string& name, int64_t rows) {
    const ValueId v = graph.add_input(name, DType::kF32, {});
    graph.value(v).dtype = DType::kF32;
    graph.value(v).shape = Shape{1, kH, rows, kD};
    feeds_[v] = filled({1, kH, rows, kD}, [&](int64_t) { return normal_(rng_); });
    return v;
  }
  ValueId constant(Tensor tensor) {
    const Shape shape = tensor.shape();
    const DType dtype = tensor.dtype();
    const ValueId v = graph.add_constant(graph.unique_name("c"), std::move(tensor));
    graph.value(v).dtype = dtype;
    graph.value(v).shape = shape;
    return v;
  }
  ValueId add(const std::string& op, std::vector<ValueId> inputs, const Shape& shape,
              const std::vector<std::pair<std::string, Attr>>& attrs = {}) {
    const NodeId n = graph.add_node("", op, 17, std::move(inputs), {graph.unique_name("v")});
    graph.node(n).name = op + std::to_string(n);
    graph.node(n).def = find_op("", op, 17);
    for (const auto& [key, value] : attrs) graph.node(n).attrs.set(key, value);
    graph.value(graph.node(n).outputs[0]).dtype = DType::kF32;
    graph.value(graph.node(n).outputs[0]).shape = shape;
    return graph.node(n).outputs[0];
  }
  ValueId reshaped(ValueId x, const Shape& to) {
    Tensor sizes = Tensor::allocate(DType::kS64, {to.rank()}).value();
    for (int i = 0; i < to.rank(); ++i) sizes.mutable_view().as<int64_t>()[i] = to[i];
    return add("Reshape", {x, constant(sizes)}, to);
  }

  int64_t past_, tokens_;
  ValueId past_k_ = kNoValue, past_v_ = kNoValue;
  std::map<ValueId, Tensor> feeds_;
  std::mt19937 rng_{7};
  std::normal_distribution<float> normal_;
};

void expect_near(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(got.shape(), want.shape());
  for (int64_t i = 0; i < got.num_elements(); ++i) EXPECT_NEAR(got.as<float>()[i], want.as<float>()[i], 1e-5F) << i;
}

TEST(Alibi, BecomesOneNodeOverTheCacheOfASession) {
  for (const auto& [past, tokens] : {std::pair{9, 1}, std::pair{5, 4}, std::pair{1, 20}, std::pair{31, 1}}) {
    SCOPED_TRACE(tokens);
    Attention attention(past, tokens);
    const Tensor before = attention.run();
    attention.set_caches();
    PassContext ctx;
    ThreadPool pool(1);
    ctx.stage = PassStage::kPlan, ctx.pool = &pool, ctx.kv_cache = &attention.spec;
    for (const auto pass : {pass_unfold_heads, pass_fuse_attention, pass_fold_constants, pass_cache_attention}) {
      ASSERT_TRUE(pass(attention.graph, ctx).ok());
    }
    const Node* node = attention.last();
    ASSERT_TRUE(node->is("sprun", "CachedAttention")) << node->op_type << (ctx.notes.empty() ? "" : ctx.notes[0]);
    const Tensor* bias = attention.graph.constant(node->input(8));
    ASSERT_NE(bias, nullptr);
    EXPECT_EQ(bias->shape(), (Shape{kH, kCapacity + tokens - 1}));
    EXPECT_EQ(bias->as<float>()[kCapacity - 3], -2 * slope(0));
    expect_near(attention.run(), before);
  }
}

TEST(Alibi, FoldedHeadsFuseWithoutACacheToo) {
  Attention attention(0, 9);
  const Tensor before = attention.run();
  PassContext ctx;
  ctx.stage = PassStage::kPlan;
  ASSERT_TRUE(pass_unfold_heads(attention.graph, ctx).ok());
  ASSERT_TRUE(pass_fuse_attention(attention.graph, ctx).ok());
  EXPECT_TRUE(attention.last()->is("sprun", "Attention"));
  expect_near(attention.run(), before);
}

std::optional<CausalMask> read(const Shape& shape, int64_t past, const std::function<float(int64_t)>& element) {
  Graph graph;
  const ValueId v = graph.add_constant("mask", filled(shape, element));
  return read_causal_mask(graph, v, past, shape.rank() > 1 ? shape[shape.rank() - 2] : 1, kH);
}

// Element of a [1, kH, 3, 8] mask of three tokens after five; slopes relative to the last key as MPT has them.
float relative(int64_t i) {
  const int64_t key = i % 8, query = i / 8 % 3, head = i / 24;
  return key > 5 + query ? -3e38F : slope(head) * static_cast<float>(key - 7);
}

TEST(CausalMask, ReadsSlopesWindowsAndCausality) {
  const auto alibi = read({1, kH, 3, 8}, 5, relative);
  ASSERT_TRUE(alibi);
  EXPECT_TRUE(alibi->causal);
  EXPECT_EQ(alibi->slopes, (std::vector<float>{slope(0), slope(1), slope(2), slope(3)}));
  const auto window = read({1, 1, 3, 8}, 5, [](int64_t i) {
    const int64_t key = i % 8, token = 5 + i / 8;
    return key > token || key < token - 2 ? -1e9F : 0.0F;
  });
  ASSERT_TRUE(window);
  EXPECT_EQ(window->window, 2);
  EXPECT_TRUE(window->slopes.empty());
  EXPECT_FALSE(read({kH, 1, 8}, 7, [](int64_t i) { return slope(i / 8) * static_cast<float>(i % 8); })->causal);
}

TEST(CausalMask, RefusesWhatIsNotLinearOrHidesAKeyInBetween) {
  EXPECT_FALSE(read({1, kH, 3, 8}, 5, [](int64_t i) { return relative(i) + (i == 26 ? 0.01F : 0.0F); }));
  EXPECT_FALSE(read({1, kH, 3, 8}, 5, [](int64_t i) { return i == 27 ? -1e9F : relative(i); }));
  EXPECT_FALSE(read({1, kH, 3, 8}, 5, [](int64_t i) { return i % 8 == 7 && i / 8 % 3 == 1 ? 0.0F : relative(i); }));
  EXPECT_FALSE(read({1, 1, 3, 8}, 5, [](int64_t i) { return static_cast<float>(i % 8 * (i % 8)); }));
}

}  // namespace
}  // namespace sprun::graph
