// Thresholds in front of linear layers, in the spellings of exporters: the layers gather, results stay.
#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 48, kOut = 40;

ValueId teal(FfnGraph& f, ValueId v, float t) {
  return f.add("Where", {f.add("LessOrEqual", {f.add("Abs", {v}), f.scalar(t, {1, 1, 1})}), f.scalar(0), v});
}

std::string zeros_of(const Node* node) { return node ? std::string(node->attrs.get_string("input_zeros", "")) : "no node"; }

TEST(MarkSparseInput, TealShrinkAndTopK) {
  for (int64_t rows : {1, 3, 8, 20}) {
    for (float t : {0.0F, 0.7F, 100.0F}) {  // about half, and nothing survives
      FfnGraph f(rows, kIn);
      f.finish(f.linear(teal(f, f.x, t), kIn, kOut));
      EXPECT_EQ(zeros_of(f.fuse(1e-5F, "Linear")), "thresholded input (TEAL)") << rows << " " << t;
    }
  }
  FfnGraph shrink(3, kIn);
  shrink.finish(shrink.linear(shrink.add("Shrink", {shrink.x}, {{"lambd", 0.6F}, {"bias", 0.0F}}), kIn, kOut));
  EXPECT_EQ(zeros_of(shrink.fuse(1e-5F, "Linear")), "thresholded input (TEAL)");
  FfnGraph soft(3, kIn);
  soft.finish(soft.linear(soft.add("Shrink", {soft.x}, {{"lambd", 0.6F}, {"bias", 0.6F}}), kIn, kOut));
  EXPECT_EQ(zeros_of(soft.fuse(1e-5F, "Linear")), "shrunk input");
  FfnGraph masked(3, kIn);
  const ValueId kept = masked.add("Cast", {masked.add("Greater", {masked.add("Abs", {masked.x}), masked.scalar(0.7F)})},
                                  {{"to", int64_t{1}}});
  masked.finish(masked.linear(masked.add("Mul", {masked.x, kept}), kIn, kOut));
  EXPECT_EQ(zeros_of(masked.fuse(1e-5F, "Linear")), "thresholded input (TEAL)");
}

TEST(MarkSparseInput, LayersThatShareAThresholdAndOtherForms) {
  FfnGraph f(3, kIn);
  const ValueId x = teal(f, f.x, 0.5F);
  const ValueId q = f.linear(x, kIn, kOut), k = f.linear(x, kIn, kOut), v = f.linear(x, kIn, kOut, 0);
  f.finish(f.add("Mul", {f.add("Add", {f.add("Mul", {q, k}), v}), f.relu(f.linear(x, kIn, kOut))}));
  EXPECT_EQ(zeros_of(f.fuse(2e-5F, "Linear")), "thresholded input (TEAL)");
  FfnGraph transposed(2, kIn, WeightForm::kTransposed);
  transposed.finish(transposed.linear(teal(transposed, transposed.x, 0.5F), kIn, kOut));
  EXPECT_EQ(zeros_of(transposed.fuse(1e-5F, "Linear")), "thresholded input (TEAL)");
  FfnGraph codes(2, kIn, WeightForm::kDequantized);
  codes.finish(codes.linear(teal(codes, codes.x, 0.5F), kIn, kOut));
  EXPECT_EQ(zeros_of(codes.fuse(1e-5F, "LinearDequant")), "thresholded input (TEAL)");
}

TEST(MarkSparseInput, TheInputMayHaveOtherReaders) {
  FfnGraph f(3, kIn);
  const ValueId x = teal(f, f.x, 0.5F);
  f.finish(f.add("Add", {f.linear(x, kIn, kIn), x}));
  EXPECT_EQ(zeros_of(f.fuse(1e-5F, "Linear")), "thresholded input (TEAL)");
}

TEST(MarkSparseInput, MasksByOtherTensors) {
  FfnGraph other(3, kIn);
  const ValueId y = other.add("Tanh", {other.x});
  other.finish(other.linear(
      other.add("Where", {other.add("LessOrEqual", {other.add("Abs", {y}), other.scalar(0.5F)}), other.scalar(0), other.x}),
      kIn, kOut));
  EXPECT_EQ(zeros_of(other.fuse(1e-5F, "Linear")), "masked input");
}

// CATS by boolean indexing: s[|s| < t] = 0.
TEST(MarkSparseInput, ScatterNdOfZeros) {
  FfnGraph f(3, kIn);
  const ValueId g = f.linear(f.x, kIn, kIn), s = f.add("Mul", {g, f.add("Sigmoid", {g})});
  const ValueId small = f.add("Less", {f.add("Abs", {s}), f.scalar(0.3F)});
  const ValueId at = f.add("Transpose", {f.add("NonZero", {small})}, {{"perm", std::vector<int64_t>{1, 0}}});
  const ValueId count = f.add("Slice", {f.add("Shape", {at}), f.ints({0}), f.ints({1}), f.ints({0})});
  const ValueId zeros = f.add("Expand", {f.scalar(0), count});
  const ValueId kept = f.add("ScatterND", {s, at, zeros});
  f.finish(f.linear(f.add("Mul", {kept, f.linear(f.x, kIn, kIn, 0)}), kIn, kOut));
  const Node* node = f.fuse(1e-5F, "Linear");
  ASSERT_NE(node, nullptr);
  int marked = 0;
  for (NodeId n = 0; n < f.graph.num_nodes(); ++n) marked += !f.graph.node(n).dead && zeros_of(&f.graph.node(n)) == "masked input";
  EXPECT_EQ(marked, 1);
}

// A router scores blocks of hidden values, the best few stay: mask by OneHot, or by scattering ones.
TEST(MarkSparseInput, RoutedBlocks) {
  constexpr int64_t kBlocks = 6, kSize = 8, kTop = 2;
  for (bool one_hot : {false, true}) {
    FfnGraph f(3, kIn);
    const ValueId scores = f.linear(f.x, kIn, kBlocks, 0);
    const ValueId top = f.add("TopK", {scores, f.ints({kTop})}, {{"axis", int64_t{-1}}}, "", 2);
    const ValueId index = f.output(top, 1);
    ValueId mask = kNoValue;
    if (one_hot) {
      Tensor values = Tensor::allocate(DType::kF32, {2}).value();
      values.mutable_view().as<float>()[0] = 0, values.mutable_view().as<float>()[1] = 1;
      const ValueId hot = f.add("OneHot", {index, f.ints({kBlocks}), f.constant(std::move(values))}, {{"axis", int64_t{-1}}});
      mask = f.add("ReduceSum", {hot, f.ints({-2})}, {{"keepdims", int64_t{0}}});
    } else {
      const ValueId zeros = f.add("Mul", {scores, f.scalar(0)}), ones = f.add("Add", {f.add("Mul", {top, f.scalar(0)}), f.scalar(1)});
      mask = f.add("ScatterElements", {zeros, index, ones}, {{"axis", int64_t{-1}}});
    }
    mask = f.add("Expand", {f.add("Unsqueeze", {mask, f.ints({-1})}), f.ints({1, 3, kBlocks, kSize})});
    mask = f.add("Reshape", {mask, f.ints({1, 3, kBlocks * kSize})});
    const ValueId h = f.gelu_tanh(f.linear(f.x, kIn, kBlocks * kSize));
    f.finish(f.linear(f.add("Mul", {h, mask}), kBlocks * kSize, kOut));
    f.fuse(1e-5F, "Linear");
    int marked = 0;
    for (NodeId n = 0; n < f.graph.num_nodes(); ++n) {
      if (f.graph.node(n).dead || zeros_of(&f.graph.node(n)) != "routed blocks") continue;
      ++marked;
      EXPECT_NEAR(f.graph.node(n).attrs.get_float("input_density", -1), 1.0F / 3, 1e-6F);
    }
    EXPECT_EQ(marked, 1) << one_hot;
  }
}

// One row, or several of few blocks: up is gathered too. mask: OneHot of the best blocks, each kSize wide.
constexpr int64_t kRouted = 24, kSize = 8;

ValueId routed(FfnGraph& f, int64_t rows, ValueId hidden, int64_t top) {
  const ValueId scores = f.linear(f.x, kIn, kRouted, 0);
  const ValueId best = f.add("TopK", {scores, f.ints({top})}, {{"axis", int64_t{-1}}}, "", 2);
  Tensor values = Tensor::allocate(DType::kF32, {2}).value();
  values.mutable_view().as<float>()[0] = 0, values.mutable_view().as<float>()[1] = 1;
  const ValueId hot = f.add("OneHot", {f.output(best, 1), f.ints({kRouted}), f.constant(std::move(values))}, {{"axis", int64_t{-1}}});
  ValueId mask = f.add("ReduceSum", {hot, f.ints({-2})}, {{"keepdims", int64_t{0}}});
  mask = f.add("Expand", {f.add("Unsqueeze", {mask, f.ints({-1})}), f.ints({1, rows, kRouted, kSize})});
  return f.add("Mul", {hidden, f.add("Reshape", {mask, f.ints({1, rows, kRouted * kSize})})});
}

TEST(FuseRoutedFfn, UpAndDownOfTheChosenBlocks) {
  for (WeightForm form : {WeightForm::kMatMul, WeightForm::kTransposed, WeightForm::kDynamicInt8}) {
    for (int64_t rows : {1, 4}) {
      for (const char* activation : {"Relu", "Gelu", "Sigmoid"}) {
        FfnGraph f(rows, kIn, form);
        const ValueId up = f.add(activation, {f.linear(f.x, kIn, kRouted * kSize)});
        f.finish(f.linear(routed(f, rows, up, 2), kRouted * kSize, kOut));
        const Node* node = f.fuse(form == WeightForm::kDynamicInt8 ? 3e-2F : 1e-5F);
        EXPECT_EQ(node != nullptr, std::string(activation) != "Sigmoid") << activation << rows;
        if (node == nullptr) continue;
        EXPECT_EQ(node->attrs.get_string("pattern", ""), "routed blocks FFN");
        EXPECT_NEAR(node->attrs.get_float("density", -1), 2.0F / 24, 1e-6F);
      }
    }
  }
}

TEST(FuseRoutedFfn, NearMissesKeepTheirFirstLayer) {
  FfnGraph many(4, kIn);  // half of the blocks, for some of four rows nearly all
  many.finish(many.linear(routed(many, 4, many.relu(many.linear(many.x, kIn, kRouted * kSize)), 12), kRouted * kSize, kOut));
  EXPECT_EQ(many.fuse(), nullptr);
  EXPECT_TRUE(many.noted("routed blocks whose first stays dense"));
  FfnGraph read(1, kIn);  // somebody else reads all hidden values
  const ValueId h = read.relu(read.linear(read.x, kIn, kRouted * kSize));
  const ValueId y = read.linear(routed(read, 1, h, 2), kRouted * kSize, kOut);
  read.finish(read.add("Add", {y, read.add("ReduceMax", {h, read.ints({-1})})}));
  EXPECT_EQ(read.fuse(), nullptr);
  FfnGraph other(1, kIn);  // a mask that no router made
  const ValueId gate = other.add("Sigmoid", {other.linear(other.x, kIn, kRouted * kSize)});
  other.finish(other.linear(other.add("Mul", {gate, other.linear(other.x, kIn, kRouted * kSize)}), kRouted * kSize, kOut));
  EXPECT_EQ(other.fuse(), nullptr);
}

// Hidden values that somebody else reads too: the second layer still gathers.
TEST(MarkSparseInput, ARectifierWithASecondReader) {
  FfnGraph f(3, kIn);
  const ValueId h = f.relu(f.linear(f.x, kIn, kOut));
  f.finish(f.add("Add", {f.linear(h, kOut, kOut), h}));
  f.fuse(1e-5F, "Linear");
  int marked = 0;
  for (NodeId n = 0; n < f.graph.num_nodes(); ++n) marked += !f.graph.node(n).dead && zeros_of(&f.graph.node(n)) == "rectified input";
  EXPECT_EQ(marked, 1);
}

TEST(MarkSparseInput, NearMissesStayDense) {
  FfnGraph fill(3, kIn);  // survivors are replaced by another number than 0
  fill.finish(fill.linear(
      fill.add("Where", {fill.add("LessOrEqual", {fill.add("Abs", {fill.x}), fill.scalar(0.5F)}), fill.scalar(0.1F), fill.x}),
      kIn, kOut));
  EXPECT_EQ(zeros_of(fill.fuse(1e-5F, "Linear")), "");
  FfnGraph behind(3, kIn);  // no longer zero where the layer reads it
  behind.finish(behind.linear(behind.add("Sigmoid", {teal(behind, behind.x, 0.5F)}), kIn, kOut));
  EXPECT_EQ(zeros_of(behind.fuse(1e-5F, "Linear")), "");
  FfnGraph scaled(3, kIn);  // the best scores only scale
  const ValueId best = scaled.add("TopK", {scaled.x, scaled.ints({1})}, {{"axis", int64_t{-1}}}, "", 2);
  scaled.finish(scaled.linear(scaled.add("Mul", {scaled.x, best}), kIn, kOut));
  EXPECT_EQ(zeros_of(scaled.fuse(1e-5F, "Linear")), "");
  FfnGraph gate(3, kIn);  // a gate, but none that a router chose
  gate.finish(gate.linear(gate.add("Mul", {gate.x, gate.add("Sigmoid", {gate.linear(gate.x, kIn, kIn)})}), kIn, kOut));
  gate.fuse(1e-5F, "Linear");
  for (NodeId n = 0; n < gate.graph.num_nodes(); ++n) EXPECT_EQ(zeros_of(&gate.graph.node(n)), "");
}

}  // namespace
}  // namespace sprun::graph
