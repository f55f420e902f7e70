// Thresholds and exact top-k in the spellings of exporters, alone and as gates of feed-forward layers.
#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 24, kFf = 40, kOut = 20;

std::string_view pattern_of(const Node* node) { return node ? node->attrs.get_string("pattern", "") : ""; }

// down(gate * up(x)) around a gate made by fn of the gate's linear layer.
template <class Fn>
std::string_view glu_pattern(const Fn& fn, FfnGraph& f) {
  const ValueId gate = fn(f.linear(f.x, kIn, kFf));
  f.finish(f.linear(f.add("Mul", {gate, f.linear(f.x, kIn, kFf, 0)}), kFf, kOut));
  return pattern_of(f.fuse());
}

TEST(FuseThreshold, FatRelu) {
  for (const char* compare : {"Greater", "GreaterOrEqual"}) {
    FfnGraph where(3, kIn);
    EXPECT_EQ(glu_pattern([&](ValueId g) {
      const ValueId t = where.scalar(0.3F);
      return where.add("Where", {where.add(compare, {g, t}), g, where.scalar(0)});
    }, where), "thresholded ReLU FFN (FATReLU)");
    FfnGraph flipped(3, kIn);
    EXPECT_EQ(glu_pattern([&](ValueId g) {
      const ValueId t = flipped.scalar(0.3F);
      return flipped.add("Where", {flipped.add(compare, {t, g}), flipped.scalar(0), g});
    }, flipped), "thresholded ReLU FFN (FATReLU)");
    FfnGraph masked(3, kIn);
    EXPECT_EQ(glu_pattern([&](ValueId g) {
      return masked.add("Mul", {masked.add("Cast", {masked.add(compare, {g, masked.scalar(0.3F)})}, {{"to", int64_t{1}}}), g});
    }, masked), "thresholded ReLU FFN (FATReLU)");
  }
  FfnGraph op(3, kIn);
  EXPECT_EQ(glu_pattern([&](ValueId g) { return op.add("ThresholdedRelu", {g}, {{"alpha", 0.3F}}); }, op),
            "thresholded ReLU FFN (FATReLU)");
}

TEST(FuseThreshold, CatsAndChess) {
  for (bool channels : {false, true}) {
    for (bool negated : {false, true}) {
      FfnGraph f(3, kIn);
      EXPECT_EQ(glu_pattern([&](ValueId g) {
        const ValueId s = f.add("Mul", {g, f.add("Sigmoid", {g})});
        const ValueId t = channels ? f.random_row(kFf, 0.05F, 0.3F) : f.scalar(0.15F), zero = f.scalar(0);
        ValueId small = f.add("Less", {f.add("Abs", {s}), t});
        if (!negated) return f.add("Where", {small, zero, s});
        small = f.add("Not", {small});
        return f.add("Where", {small, s, zero});
      }, f), "thresholded gate FFN (CATS)") << channels << negated;
      EXPECT_EQ(f.live_nodes(), 1);
    }
  }
}

TEST(FuseThreshold, ShrinkAndTealAreOneNode) {
  for (float bias : {0.0F, 0.4F}) {
    FfnGraph f(3, kIn);
    f.finish(f.add("Shrink", {f.x}, {{"lambd", 0.4F}, {"bias", bias}}));
    EXPECT_NE(f.fuse(1e-6F, "Threshold"), nullptr);
  }
  FfnGraph f(3, kIn);
  f.finish(f.add("Where", {f.add("LessOrEqual", {f.add("Abs", {f.x}), f.scalar(0.5F, {1, 1, 1})}), f.scalar(0), f.x}));
  EXPECT_NE(f.fuse(1e-6F, "Threshold"), nullptr);
  EXPECT_EQ(f.live_nodes(), 1);
}

TEST(FuseThreshold, NearMissesStay) {
  FfnGraph other(3, kIn);
  EXPECT_EQ(glu_pattern([&](ValueId g) {
    const ValueId u = other.linear(other.x, kIn, kFf);
    return other.add("Where", {other.add("Greater", {u, other.scalar(0.3F)}), g, other.scalar(0)});
  }, other), "");
  EXPECT_TRUE(other.noted("another tensor"));
  FfnGraph fill(3, kIn);
  EXPECT_EQ(glu_pattern([&](ValueId g) {
    return fill.add("Where", {fill.add("Greater", {g, fill.scalar(0.3F)}), g, fill.scalar(0.01F)});
  }, fill), "");
  FfnGraph below(3, kIn);  // keeps what is small
  EXPECT_EQ(glu_pattern([&](ValueId g) {
    return below.add("Where", {below.add("Less", {below.add("Abs", {g}), below.scalar(0.3F)}), g, below.scalar(0)});
  }, below), "");
  FfnGraph read(3, kIn);
  const ValueId g = read.linear(read.x, kIn, kFf);
  const ValueId s = read.add("Where", {read.add("Greater", {g, read.scalar(0.3F)}), g, read.scalar(0)});
  const ValueId y = read.linear(read.add("Mul", {s, read.linear(read.x, kIn, kFf)}), kFf, kOut);
  read.finish(read.add("Add", {y, read.add("ReduceMax", {s, read.ints({-1})})}));
  EXPECT_EQ(read.fuse(), nullptr);
  EXPECT_TRUE(read.noted("other readers"));
}

// x with all but its k largest values set to 0, spelled in one of five ways.
ValueId select(FfnGraph& f, ValueId v, int64_t k, int spelling) {
  const bool absolute = spelling == 1 || spelling == 4;
  const ValueId from = absolute ? f.add("Abs", {v}) : v;
  const ValueId values = f.add("TopK", {from, f.ints({k})}, {{"axis", int64_t{-1}}}, "", 2), indices = f.output(values, 1);
  const ValueId zeros = f.add("ConstantOfShape", {f.add("Shape", {v})});
  const auto scatter = [&](ValueId what) { return f.add("ScatterElements", {zeros, indices, what}, {{"axis", int64_t{-1}}}); };
  switch (spelling) {
    case 0:
      return scatter(values);
    case 1:
      return scatter(f.add("GatherElements", {v, indices}, {{"axis", int64_t{-1}}}));
    case 2:
      return scatter(f.relu(values));
    case 3:
      return f.add("Where", {f.add("GreaterOrEqual", {v, f.add("ReduceMin", {values, f.ints({-1})})}), v, f.scalar(0)});
    default:
      const ValueId kth = f.add("Gather", {values, f.ints({-1})}, {{"axis", int64_t{-1}}});
      return f.add("Mul", {v, f.add("Cast", {f.add("GreaterOrEqual", {from, kth})}, {{"to", int64_t{1}}})});
  }
}

TEST(FuseTopK, EverySpellingAloneAndAsGate) {
  for (int spelling = 0; spelling < 5; ++spelling) {
    FfnGraph alone(3, kIn);
    alone.finish(select(alone, alone.x, 5, spelling));
    EXPECT_NE(alone.fuse(1e-6F, "TopKSelect"), nullptr) << spelling;
    FfnGraph f(3, kIn);
    f.finish(f.linear(select(f, f.linear(f.x, kIn, kFf), 6, spelling), kFf, kOut));
    const Node* node = f.fuse();
    EXPECT_EQ(pattern_of(node), "exact top-k FFN") << spelling;
    EXPECT_TRUE(node && node->attrs.get_int("k", 0) == 6) << spelling;
  }
}

TEST(FuseTopK, NearMissesStay) {
  FfnGraph axis(3, kIn);
  const ValueId values = axis.add("TopK", {axis.x, axis.ints({2})}, {{"axis", int64_t{1}}}, "", 2);
  const ValueId kth = axis.add("ReduceMin", {values, axis.ints({1})});
  axis.finish(axis.add("Where", {axis.add("GreaterOrEqual", {axis.x, kth}), axis.x, axis.scalar(0)}));
  EXPECT_EQ(axis.fuse(1e-6F, "TopKSelect"), nullptr);
  FfnGraph strict(3, kIn);
  const ValueId top = strict.add("TopK", {strict.x, strict.ints({4})}, {{"axis", int64_t{-1}}}, "", 2);
  const ValueId least = strict.add("ReduceMin", {top, strict.ints({-1})});
  strict.finish(strict.add("Where", {strict.add("Greater", {strict.x, least}), strict.x, strict.scalar(0)}));
  EXPECT_EQ(strict.fuse(1e-6F, "TopKSelect"), nullptr);
  FfnGraph smallest(3, kIn);
  const ValueId low = smallest.add("TopK", {smallest.x, smallest.ints({4})}, {{"axis", int64_t{-1}}, {"largest", int64_t{0}}}, "", 2);
  const ValueId zeros = smallest.add("ConstantOfShape", {smallest.add("Shape", {smallest.x})});
  smallest.finish(smallest.add("ScatterElements", {zeros, smallest.output(low, 1), low}, {{"axis", int64_t{-1}}}));
  EXPECT_EQ(smallest.fuse(1e-6F, "TopKSelect"), nullptr);
}

}  // namespace
}  // namespace sprun::graph
