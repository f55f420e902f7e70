// Sparse feed-forward layers whose weights stay codes while X is float: MatMulNBits of every width, zero points of every
// kind, 8-bit codes behind DequantizeLinear with and without blocks. Gathering gives what the dense layers give.
#include <functional>

#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 48, kFf = 112, kOut = 70;

enum class Zeros { kNone, kCodes, kFloats };

// A layer of a form, x [.., k] -> [.., n].
using Layer = std::function<ValueId(FfnGraph&, ValueId, int64_t, int64_t)>;

Tensor bytes(const Shape& shape, DType dtype, unsigned seed, unsigned levels) {
  std::mt19937 engine(seed);
  Tensor tensor = Tensor::allocate(dtype, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<uint8_t>()[i] = static_cast<uint8_t>(engine() % levels);
  return tensor;
}

Layer nbits(int64_t bits, int64_t block, Zeros zeros) {
  return [=](FfnGraph& f, ValueId x, int64_t k, int64_t n) {
    const int64_t blocks = (k + block - 1) / block;
    const float scale = 0.3F / static_cast<float>(1 << bits);
    std::vector<ValueId> inputs = {x, f.constant(bytes({n, blocks, block * bits / 8}, DType::kU8, 3, 256)),
                                   f.random_row(n * blocks, scale, 2 * scale), kNoValue, kNoValue, f.random_row(n, -0.2F, 0.2F)};
    if (zeros == Zeros::kCodes) inputs[3] = f.constant(bytes({n * ((blocks * bits + 7) / 8)}, DType::kU8, 4, 256));
    if (zeros == Zeros::kFloats) inputs[3] = f.random_row(n * blocks, 0.5F, 1.5F);
    return f.add("MatMulNBits", inputs, {{"K", k}, {"N", n}, {"bits", bits}, {"block_size", block}}, "com.microsoft");
  };
}

Layer dequant(DType dtype, int64_t block, bool zeros, bool transposed) {
  return [=](FfnGraph& f, ValueId x, int64_t k, int64_t n) {
    const auto turned = [&](int64_t a, int64_t b) { return transposed ? Shape{b, a} : Shape{a, b}; };
    const int64_t blocks = block > 0 ? (k + block - 1) / block : 1;
    const ValueId codes = f.constant(bytes(turned(k, n), dtype, 5, 256));
    ValueId scale = f.random_row(n * blocks, 0.001F, 0.003F);
    if (block > 0) scale = f.add("Reshape", {scale, f.ints({turned(blocks, n)[0], turned(blocks, n)[1]})});
    std::vector<ValueId> inputs = {codes, scale};
    if (zeros) inputs.push_back(f.constant(bytes(block > 0 ? turned(blocks, n) : Shape{n}, dtype, 6, 200)));
    FfnGraph::Attrs attrs = {{"axis", int64_t{(block > 0) != transposed ? 0 : 1}}};
    if (block > 0) attrs.push_back({"block_size", block});
    ValueId w = f.add("DequantizeLinear", inputs, attrs);
    if (transposed) w = f.add("Transpose", {w}, {{"perm", std::vector<int64_t>{1, 0}}});
    return f.add("Add", {f.add("MatMul", {x, w}), f.random_row(n, -0.2F, 0.2F)});
  };
}

std::vector<std::pair<std::string, Layer>> forms() {
  std::vector<std::pair<std::string, Layer>> all;
  for (int64_t bits : {2, 4, 8}) {
    for (int64_t block : {16, 32}) {
      for (Zeros zeros : {Zeros::kNone, Zeros::kCodes, Zeros::kFloats}) {
        all.emplace_back("nbits " + std::to_string(bits) + " block " + std::to_string(block), nbits(bits, block, zeros));
      }
    }
  }
  for (DType dtype : {DType::kS8, DType::kU8}) {
    for (bool zeros : {false, true}) {
      for (bool transposed : {false, true}) {
        all.emplace_back("dequant", dequant(dtype, 0, zeros, transposed));
        all.emplace_back("dequant blocks", dequant(dtype, 16, zeros, transposed));
      }
    }
  }
  return all;
}

std::string pattern(const Node* node) { return node ? std::string(node->attrs.get_string("pattern", "")) : ""; }

TEST(FfnCodes, GatheredRowsEqualTheDenseLayers) {
  for (const auto& [name, layer] : forms()) {
    for (int64_t rows : {1, 3, 8}) {
      FfnGraph relu(rows, kIn);
      relu.finish(layer(relu, relu.relu(layer(relu, relu.x, kIn, kFf)), kFf, kOut));
      EXPECT_EQ(pattern(relu.fuse(2e-5F)), "ReLU FFN") << name << " rows " << rows;
      FfnGraph reglu(rows, kIn);
      const ValueId gate = reglu.relu(layer(reglu, reglu.x, kIn, kFf)), up = layer(reglu, reglu.x, kIn, kFf);
      reglu.finish(layer(reglu, reglu.add("Mul", {gate, up}), kFf, kOut));
      EXPECT_EQ(pattern(reglu.fuse(2e-5F)), "ReGLU FFN") << name << " rows " << rows;
      FfnGraph drelu(rows, kIn);
      const ValueId a = drelu.relu(layer(drelu, drelu.x, kIn, kFf)), b = drelu.relu(layer(drelu, drelu.x, kIn, kFf));
      drelu.finish(layer(drelu, drelu.add("Mul", {a, b}), kFf, kOut));
      EXPECT_EQ(pattern(drelu.fuse(2e-5F)), "dReLU FFN") << name << " rows " << rows;
    }
  }
}

enum class Parts { kSplit, kSplitInTwo, kSlices };

// Two parts of one layer's result, as exporters write them.
std::pair<ValueId, ValueId> halves(FfnGraph& f, ValueId both, Parts parts, int64_t axis) {
  if (parts == Parts::kSlices) {
    return {f.add("Slice", {both, f.ints({0}), f.ints({kFf}), f.ints({axis})}),
            f.add("Slice", {both, f.ints({kFf}), f.ints({int64_t{1} << 62}), f.ints({axis})})};
  }
  std::vector<ValueId> inputs = {both};
  FfnGraph::Attrs attrs = {{"axis", axis}};
  if (parts == Parts::kSplit) inputs.push_back(f.ints({kFf, kFf}));
  else attrs.push_back({"num_outputs", int64_t{2}});
  const ValueId first = f.add("Split", inputs, attrs, "", 2);
  return {first, f.output(first, 1)};
}

int64_t flag(const Node* node, const char* name) { return node ? node->attrs.get_int(name, 0) : -1; }

TEST(FfnCodes, GateAndUpOfOneWeightAreGathered) {
  for (const auto& [name, layer] : forms()) {
    for (Parts parts : {Parts::kSplit, Parts::kSplitInTwo, Parts::kSlices}) {
      for (int64_t axis : {-1, 2}) {
        const bool up_first = parts == Parts::kSplitInTwo;
        FfnGraph f(axis == 2 ? 1 : 3, kIn);
        auto [gate, up] = halves(f, layer(f, f.x, kIn, 2 * kFf), parts, axis);
        if (up_first) std::swap(gate, up);
        f.finish(layer(f, f.add("Mul", {f.relu(gate), up}), kFf, kOut));
        const Node* node = f.fuse(2e-5F);
        EXPECT_EQ(pattern(node), "ReGLU FFN") << name << " axis " << axis;
        EXPECT_EQ(flag(node, "was_one_weight"), 1) << name;
        EXPECT_EQ(flag(node, "fused_up"), 0) << name;
      }
    }
  }
}

TEST(FfnCodes, GateAndUpOfOneWeightWithThresholds) {
  for (const auto& [name, layer] : forms()) {
    FfnGraph f(2, kIn);
    const auto [gate, up] = halves(f, layer(f, f.x, kIn, 2 * kFf), Parts::kSplit, -1);
    const ValueId silu = f.add("Mul", {gate, f.add("Sigmoid", {gate})});
    const ValueId kept = f.add("Where", {f.add("Greater", {f.add("Abs", {silu}), f.scalar(0.05F)}), silu, f.scalar(0)});
    f.finish(layer(f, f.add("Mul", {kept, up}), kFf, kOut));
    EXPECT_EQ(pattern(f.fuse(2e-5F)), "thresholded gate FFN (CATS)") << name;
  }
}

// The same as two layers: the activation before the threshold must not be lost.
TEST(FfnCodes, ThresholdsBehindAnActivation) {
  for (const auto& [name, layer] : forms()) {
    FfnGraph f(2, kIn);
    const ValueId gate = layer(f, f.x, kIn, kFf), up = layer(f, f.x, kIn, kFf);
    const ValueId silu = f.add("Mul", {gate, f.add("Sigmoid", {gate})});
    const ValueId kept = f.add("Where", {f.add("Greater", {f.add("Abs", {silu}), f.scalar(0.05F)}), silu, f.scalar(0)});
    f.finish(layer(f, f.add("Mul", {kept, up}), kFf, kOut));
    EXPECT_EQ(pattern(f.fuse(2e-5F)), "thresholded gate FFN (CATS)") << name;
  }
}

// Parts that overlap or are no halves are still what the dense layer computes; what else reads the whole result keeps it.
TEST(FfnCodes, PartsThatAreNoHalves) {
  const Layer layer = dequant(DType::kU8, 0, true, false);
  FfnGraph overlap(2, kIn);
  const ValueId both = layer(overlap, overlap.x, kIn, 2 * kFf);
  const ValueId gate = overlap.add("Slice", {both, overlap.ints({8}), overlap.ints({8 + kFf}), overlap.ints({-1})});
  const ValueId up = overlap.add("Slice", {both, overlap.ints({40}), overlap.ints({40 + kFf}), overlap.ints({-1})});
  overlap.finish(layer(overlap, overlap.add("Mul", {overlap.relu(gate), up}), kFf, kOut));
  EXPECT_EQ(pattern(overlap.fuse(2e-5F)), "ReGLU FFN");

  FfnGraph gelu(2, kIn);  // no zeros
  const auto [a, b] = halves(gelu, layer(gelu, gelu.x, kIn, 2 * kFf), Parts::kSplit, -1);
  gelu.finish(layer(gelu, gelu.add("Mul", {gelu.gelu_tanh(a), b}), kFf, kOut));
  EXPECT_EQ(gelu.fuse(2e-5F), nullptr);

  FfnGraph read(2, kIn);  // up is read by others
  const auto [c, d] = halves(read, layer(read, read.x, kIn, 2 * kFf), Parts::kSplit, -1);
  const ValueId y = layer(read, read.add("Mul", {read.relu(c), d}), kFf, kOut);
  read.finish(read.add("Add", {y, read.add("ReduceMax", {d, read.ints({-1})})}));
  EXPECT_EQ(read.fuse(2e-5F), nullptr);
  EXPECT_TRUE(read.noted("other readers"));
}

}  // namespace
}  // namespace sprun::graph
