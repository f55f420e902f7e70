// Feed-forward layers with rectifiers: each form that exporters write becomes one node with the same result; what only
// looks like one stays.
#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 24, kFf = 40, kOut = 20;

constexpr WeightForm kForms[] = {WeightForm::kMatMul,      WeightForm::kTransposed,  WeightForm::kGemm, WeightForm::kHalf,
                                 WeightForm::kDynamicInt8, WeightForm::kDequantized, WeightForm::kNBits};

float tolerance_of(WeightForm form) { return form == WeightForm::kHalf ? 3e-3F : 1e-5F; }

std::string_view pattern_of(const Node* node) { return node ? node->attrs.get_string("pattern", "") : ""; }

TEST(FuseSparseFfn, ReluInEveryWeightForm) {
  for (WeightForm form : kForms) {
    for (int64_t rows : {1, 3, 20}) {
      FfnGraph g(rows, kIn, form);
      g.finish(g.linear(g.relu(g.linear(g.input(), kIn, kFf)), kFf, kOut));
      EXPECT_EQ(pattern_of(g.fuse(tolerance_of(form))), "ReLU FFN") << static_cast<int>(form) << " rows " << rows;
    }
  }
}

TEST(FuseSparseFfn, RectifiersInOtherSpellings) {
  FfnGraph max(3, kIn);
  max.finish(max.linear(max.add("Max", {max.scalar(0), max.linear(max.x, kIn, kFf)}), kFf, kOut));
  EXPECT_EQ(pattern_of(max.fuse()), "ReLU FFN");
  FfnGraph clip(3, kIn);
  clip.finish(clip.linear(clip.add("Clip", {clip.linear(clip.x, kIn, kFf), clip.scalar(0)}), kFf, kOut));
  EXPECT_EQ(pattern_of(clip.fuse()), "ReLU FFN");
  FfnGraph where(3, kIn);
  const ValueId g = where.linear(where.x, kIn, kFf), zero = where.scalar(0);
  where.finish(where.linear(where.add("Where", {where.add("Greater", {g, zero}), g, zero}), kFf, kOut));
  EXPECT_EQ(pattern_of(where.fuse()), "ReLU FFN");
}

TEST(FuseSparseFfn, SquaredAndGatedRectifiers) {
  for (WeightForm form : kForms) {
    FfnGraph squared(3, kIn, form);
    const ValueId r = squared.relu(squared.linear(squared.input(), kIn, kFf));
    squared.finish(squared.linear(squared.add("Mul", {r, r}), kFf, kOut));
    EXPECT_EQ(pattern_of(squared.fuse(tolerance_of(form))), "squared ReLU FFN") << static_cast<int>(form);
    FfnGraph reglu(3, kIn, form);
    const ValueId gate = reglu.relu(reglu.linear(reglu.input(), kIn, kFf)), up = reglu.linear(reglu.input(), kIn, kFf, 0);
    reglu.finish(reglu.linear(reglu.add("Mul", {up, gate}), kFf, kOut, 0));
    EXPECT_EQ(pattern_of(reglu.fuse(tolerance_of(form))), "ReGLU FFN") << static_cast<int>(form);
    FfnGraph drelu(5, kIn, form);
    const ValueId a = drelu.relu(drelu.linear(drelu.input(), kIn, kFf)), b = drelu.relu(drelu.linear(drelu.input(), kIn, kFf));
    drelu.finish(drelu.linear(drelu.add("Mul", {a, b}), kFf, kOut));
    EXPECT_EQ(pattern_of(drelu.fuse(tolerance_of(form))), "dReLU FFN") << static_cast<int>(form);
  }
  FfnGraph pow(3, kIn);
  const ValueId r = pow.relu(pow.linear(pow.x, kIn, kFf));
  pow.finish(pow.linear(pow.add("Mul", {pow.add("Pow", {r, pow.scalar(2)}), pow.linear(pow.x, kIn, kFf)}), kFf, kOut));
  EXPECT_EQ(pattern_of(pow.fuse()), "squared ReLU GLU FFN");
}

TEST(FuseSparseFfn, GateAndUpInOneLayer) {
  for (bool slices : {false, true}) {
    FfnGraph g(3, kIn);
    const ValueId both = g.linear(g.x, kIn, 2 * kFf);
    ValueId gate = kNoValue, up = kNoValue;
    if (slices) {
      gate = g.add("Slice", {both, g.ints({0}), g.ints({kFf}), g.ints({-1})});
      up = g.add("Slice", {both, g.ints({kFf}), g.ints({int64_t{1} << 62}), g.ints({-1})});
    } else {
      gate = g.add("Split", {both, g.ints({kFf, kFf})}, {{"axis", int64_t{-1}}}, "", 2);
      up = g.output(gate, 1);
    }
    g.finish(g.linear(g.add("Mul", {g.relu(gate), up}), kFf, kOut));
    const Node* node = g.fuse();
    EXPECT_EQ(pattern_of(node), "ReGLU FFN");
    EXPECT_TRUE(node && node->attrs.get_int("fused_up", 0) == 1);
  }
}

// Only the gate has an activation before its threshold: each half gets a weight of its own, in every form.
TEST(FuseSparseFfn, ThresholdedGateAndUpInOneLayer) {
  for (WeightForm form : {WeightForm::kMatMul, WeightForm::kTransposed, WeightForm::kDynamicInt8, WeightForm::kHalf}) {
    FfnGraph g(3, kIn, form);
    const ValueId gate = g.add("Split", {g.linear(g.input(), kIn, 2 * kFf), g.ints({kFf, kFf})}, {{"axis", int64_t{-1}}}, "", 2);
    const ValueId silu = g.add("Mul", {gate, g.add("Sigmoid", {gate})});
    const ValueId kept = g.add("Where", {g.add("Greater", {g.add("Abs", {silu}), g.scalar(0.05F)}), silu, g.scalar(0)});
    g.finish(g.linear(g.add("Mul", {kept, g.output(gate, 1)}), kFf, kOut));
    EXPECT_EQ(pattern_of(g.fuse(tolerance_of(form))), "thresholded gate FFN (CATS)") << static_cast<int>(form);
  }
}

TEST(FuseSparseFfn, TakesTheResidual) {
  for (WeightForm form : {WeightForm::kMatMul, WeightForm::kDynamicInt8, WeightForm::kHalf}) {
    FfnGraph g(3, kIn, form);
    g.finish(g.add("Add", {g.input(), g.linear(g.relu(g.linear(g.input(), kIn, kFf)), kFf, kIn)}));
    ASSERT_NE(g.fuse(tolerance_of(form)), nullptr);
    EXPECT_EQ(g.live_nodes(), form == WeightForm::kHalf ? 3 : 1);
  }
}

TEST(FuseSparseFfn, ChainsOfLayersAreNoFfnButTheirLastPair) {
  FfnGraph g(3, kIn);
  g.finish(g.linear(g.relu(g.linear(g.relu(g.linear(g.x, kIn, kFf)), kFf, kFf)), kFf, kOut));
  EXPECT_EQ(pattern_of(g.fuse()), "ReLU FFN");
  EXPECT_EQ(g.live_nodes(), 2);
  FfnGraph two(3, kIn);
  two.finish(two.relu(two.linear(two.relu(two.linear(two.x, kIn, kFf)), kFf, kOut)));
  EXPECT_EQ(two.fuse(), nullptr);
}

TEST(FuseSparseFfn, HiddenValuesWithOtherReadersStay) {
  FfnGraph g(3, kIn);
  const ValueId h = g.relu(g.linear(g.x, kIn, kFf));
  g.finish(g.add("Add", {g.linear(h, kFf, kOut), g.add("ReduceMax", {h, g.ints({-1})})}));
  EXPECT_EQ(g.fuse(), nullptr);
  EXPECT_TRUE(g.noted("other readers"));
  FfnGraph gate(3, kIn);
  const ValueId a = gate.linear(gate.x, kIn, kFf);
  gate.finish(gate.linear(gate.add("Mul", {gate.relu(a), a}), kFf, kOut));
  EXPECT_EQ(gate.fuse(), nullptr);
  FfnGraph up(3, kIn);
  const ValueId u = up.linear(up.x, kIn, kOut);
  up.finish(up.add("Mul", {u, up.linear(up.add("Mul", {up.relu(up.linear(up.x, kIn, kOut)), u}), kOut, kOut)}));
  EXPECT_EQ(up.fuse(), nullptr);
}

TEST(FuseSparseFfn, OtherActivationsStay) {
  FfnGraph gelu(3, kIn);
  gelu.finish(gelu.linear(gelu.add("Mul", {gelu.gelu_tanh(gelu.linear(gelu.x, kIn, kFf)), gelu.linear(gelu.x, kIn, kFf)}), kFf, kOut));
  EXPECT_EQ(gelu.fuse(), nullptr);
  FfnGraph leaky(3, kIn);
  leaky.finish(leaky.linear(leaky.add("LeakyRelu", {leaky.linear(leaky.x, kIn, kFf)}), kFf, kOut));
  EXPECT_EQ(leaky.fuse(), nullptr);
  FfnGraph clip(3, kIn);
  clip.finish(clip.linear(clip.add("Clip", {clip.linear(clip.x, kIn, kFf), clip.scalar(0), clip.scalar(0.5F)}), kFf, kOut));
  EXPECT_EQ(clip.fuse(), nullptr);
  FfnGraph one(3, kIn);
  one.finish(one.linear(one.add("Max", {one.linear(one.x, kIn, kFf), one.scalar(0.1F)}), kFf, kOut));
  EXPECT_EQ(one.fuse(), nullptr);
}

TEST(FuseSparseFfn, WeightsThatAreComputedStay) {
  FfnGraph g(3, kIn);
  const ValueId w = g.add("Mul", {g.random_row(kFf * kOut, -1, 1), g.add("ReduceMax", {g.x}, {{"keepdims", int64_t{0}}})});
  const ValueId matrix = g.add("Reshape", {w, g.ints({kFf, kOut})});
  g.finish(g.add("MatMul", {g.relu(g.linear(g.x, kIn, kFf)), matrix}));
  EXPECT_EQ(g.fuse(), nullptr);
}

}  // namespace
}  // namespace sprun::graph
