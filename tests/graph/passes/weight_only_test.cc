// Layers of which only the weights are 8- or 16-bit keep them so: DequantizeLinear and Cast in front of MatMul and Gemm.
#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 64, kOut = 48;

Tensor bytes(const Shape& shape, DType dtype, int add) {
  Tensor tensor = Tensor::allocate(dtype, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    tensor.mutable_view().as<uint8_t>()[i] = static_cast<uint8_t>(static_cast<int>(i * 37 % 251) + add);
  }
  return tensor;
}

Tensor scales(const Shape& shape) {
  Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    tensor.mutable_view().as<float>()[i] = 0.001F + 0.0001F * static_cast<float>(i % 7);
  }
  return tensor;
}

struct Spelling {
  bool trans = false, gemm = false;
  DType dtype = DType::kS8;
  bool zero = false, per_tensor = false;
  int64_t block = 0, axis = -100;  // -100: that of the outputs, or of the inputs with blocks
};

// The result of a layer with a dequantised weight.
ValueId layer(FfnGraph& f, const Spelling& s) {
  const Shape shape = s.trans ? Shape{kOut, kIn} : Shape{kIn, kOut};
  const int in = s.trans ? 1 : 0, out = 1 - in;
  Shape params = s.per_tensor ? Shape{} : Shape{shape[out]};
  int64_t axis = s.block > 0 ? in : out;
  if (s.block > 0) {
    params = shape;
    params[in] = (kIn + s.block - 1) / s.block;
  }
  if (s.axis != -100) {
    axis = s.axis;
    params = Shape{shape[static_cast<int>(axis)]};
  }
  std::vector<ValueId> inputs = {f.constant(bytes(shape, s.dtype, 0)), f.constant(scales(params))};
  if (s.zero) inputs.push_back(f.constant(bytes(params, s.dtype, 100)));
  FfnGraph::Attrs attrs = {{"axis", axis}};
  if (s.block > 0) attrs.emplace_back("block_size", s.block);
  const ValueId w = f.add("DequantizeLinear", inputs, attrs);
  if (s.gemm) return f.add("Gemm", {f.x, w, f.random_row(kOut, -1, 1)}, {{"transB", int64_t{s.trans}}});
  return f.add("MatMul", {f.x, s.trans ? f.add("Transpose", {w}, {{"perm", std::vector<int64_t>{1, 0}}}) : w});
}

TEST(WeightOnly, EverySpellingOfADequantisedWeightStays8Bit) {
  for (bool trans : {false, true}) {
    for (bool zero : {false, true}) {
      for (DType dtype : {DType::kS8, DType::kU8}) {
        for (int64_t block : {0, 16, 48}) {
          FfnGraph f(3, kIn);
          f.finish(layer(f, {.trans = trans, .dtype = dtype, .zero = zero, .block = block}));
          const Node* node = f.fuse(1e-5F, "LinearDequant");
          ASSERT_NE(node, nullptr) << trans << zero << block;
          EXPECT_EQ(node->attrs.get_int("block_size", 0), block);
          EXPECT_EQ(f.live_nodes(), 1);
        }
      }
    }
  }
  FfnGraph one(3, kIn);
  one.finish(layer(one, {.zero = true, .per_tensor = true}));
  EXPECT_NE(one.fuse(1e-5F, "LinearDequant"), nullptr);
  FfnGraph gemm(3, kIn, WeightForm::kGemm);
  gemm.finish(layer(gemm, {.trans = true, .gemm = true}));
  EXPECT_NE(gemm.fuse(1e-5F, "LinearDequant"), nullptr);
}

TEST(WeightOnly, BiasActivationAndResidualAreTakenIn) {
  FfnGraph f(3, kIn);
  const ValueId y = f.relu(f.add("Add", {layer(f, {}), f.random_row(kOut, -1, 1)}));
  f.finish(y);
  const Node* node = f.fuse(1e-5F, "LinearDequant");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->attrs.get_string("activation", ""), "relu");
  EXPECT_EQ(f.live_nodes(), 1);
}

TEST(WeightOnly, LayersOfOneInputBecomeOneNode) {
  FfnGraph f(3, kIn);
  f.finish(f.add("Mul", {f.add("Tanh", {layer(f, {})}), layer(f, {.dtype = DType::kU8, .zero = true})}));
  const Node* node = f.fuse(1e-5F, "LinearDequant");
  ASSERT_NE(node, nullptr);
  FfnGraph g(3, kIn);
  g.finish(g.add("Mul", {layer(g, {}), layer(g, {.dtype = DType::kU8, .zero = true})}));
  node = g.fuse(1e-5F, "LinearDequant");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->attrs.get_int("num_weights", 1), 2);
}

TEST(WeightOnly, ScalesOfInputsAreFolded) {
  FfnGraph f(3, kIn);
  f.finish(layer(f, {.axis = 0}));
  EXPECT_EQ(f.fuse(1e-5F, "LinearDequant"), nullptr);
}

TEST(WeightOnly, A16BitWeightBehindACastStays16Bit) {
  for (bool trans : {false, true}) {
    for (bool cast_first : {false, true}) {
      FfnGraph f(3, kIn);
      Tensor half = Tensor::allocate(DType::kF16, trans ? Shape{kOut, kIn} : Shape{kIn, kOut}).value();
      for (int64_t i = 0; i < half.num_elements(); ++i) {
        half.mutable_view().as<Float16>()[i] = to_float16(0.01F * static_cast<float>(i * 31 % 101 - 50));
      }
      ValueId w = f.constant(std::move(half));
      const auto cast = [&] { w = f.add("Cast", {w}, {{"to", int64_t{1}}}); };
      if (cast_first) cast();
      if (trans) w = f.add("Transpose", {w}, {{"perm", std::vector<int64_t>{1, 0}}});
      if (!cast_first) cast();
      f.finish(f.add("MatMul", {f.x, w}));
      const Node* node = f.fuse(1e-5F, "Linear");
      ASSERT_NE(node, nullptr);
      EXPECT_EQ(f.graph.value(node->inputs[1]).dtype, DType::kF16);
      EXPECT_EQ(f.live_nodes(), 1);
    }
  }
}

}  // namespace
}  // namespace sprun::graph
