// MatMul, FusedMatMul, Gemm and Einsum in float32 (kernels) against double (plain loop), and integer products with a
// constant B (kernels) against a computed one (plain loop).
#include "graph/ops/op_util.h"
#include "tests/graph/ops/product_test_util.h"

namespace sprun::graph {
namespace {

using testing_support::as_double;
using testing_support::max_difference;
using testing_support::NodeCall;
using testing_support::output_of;
using testing_support::random_tensor;
using testing_support::run_node;
using testing_support::tensor_of;

// Float32 against double for one and two threads, with computed and constant operands.
void expect_equal_to_double(NodeCall call, double tolerance = 1e-4) {
  NodeCall exact = call;
  for (Tensor& input : exact.inputs) input = as_double(input);
  const Tensor want = output_of(exact);
  for (int threads : {1, 2}) {
    for (bool constants : {false, true}) {
      call.threads = threads;
      call.constants = constants;
      EXPECT_LT(max_difference(output_of(call), want), tolerance) << threads << " threads, constant B: " << constants;
    }
  }
}

TEST(MatMul, EqualsDoubleForBatchesAndVectors) {
  const std::pair<Shape, Shape> shapes[] = {
      {{3, 5}, {5, 7}},
      {{2, 3, 5}, {5, 7}},
      {{2, 3, 5}, {2, 5, 7}},
      {{3, 5}, {4, 5, 7}},
      {{2, 1, 3, 5}, {4, 5, 7}},
      {{5}, {5}},
      {{5}, {5, 7}},
      {{5}, {2, 5, 7}},
      {{3, 5}, {5}},
      {{2, 3, 5}, {5}},
      {{12, 40, 64}, {12, 64, 50}},
      {{2, 8, 1, 64}, {2, 8, 64, 33}},
      {{64, 130}, {130, 200}},
      {{1, 300}, {300, 500}},
      {{6, 20, 30}, {1, 30, 40}},
      {{0, 5}, {5, 7}},
      {{3, 0}, {0, 7}},
      {{1, 3, 5}, {0, 5, 7}},
  };
  for (const auto& [a, b] : shapes) {
    SCOPED_TRACE(a.to_string() + b.to_string());
    expect_equal_to_double(
        {.domain = "", .op = "MatMul", .inputs = {random_tensor<float>(a, 1), random_tensor<float>(b, 2)}});
  }
}

TEST(MatMul, RefusesShapesThatDoNotFit) {
  for (const auto& [a, b] : {std::pair<Shape, Shape>{{3, 5}, {4, 7}}, {{}, {4}}, {{2, 3, 5}, {3, 5, 7}}}) {
    EXPECT_FALSE(
        run_node({.domain = "", .op = "MatMul", .inputs = {random_tensor<float>(a, 1), random_tensor<float>(b, 2)}})
            .ok());
  }
}

TEST(FusedMatMul, TransposesMatricesAndBatches) {
  for (int64_t flags = 0; flags < 16; ++flags) {
    const int64_t ta = flags & 1, tb = flags >> 1 & 1, tba = flags >> 2 & 1, tbb = flags >> 3 & 1;
    // [batch, M, K] in memory order of the flags: trans swaps the last two axes after transBatch moved the first.
    const int64_t rows_a = ta ? 30 : 20, cols_a = ta ? 20 : 30, rows_b = tb ? 40 : 30, cols_b = tb ? 30 : 40;
    const Shape a = tba ? Shape{rows_a, 3, cols_a} : Shape{3, rows_a, cols_a};
    const Shape b = tbb ? Shape{rows_b, 3, cols_b} : Shape{3, rows_b, cols_b};
    SCOPED_TRACE(flags);
    expect_equal_to_double(
        {.domain = "com.microsoft",
         .op = "FusedMatMul",
         .inputs = {random_tensor<float>(a, 1), random_tensor<float>(b, 2)},
         .attrs = {{"transA", ta}, {"transB", tb}, {"transBatchA", tba}, {"transBatchB", tbb}, {"alpha", 0.5f}}});
  }
}

TEST(FusedMatMul, TransposedBatchEqualsATransposedInput) {
  // A [M, batch, K] with transBatchA is A' [batch, M, K].
  const Tensor a = random_tensor<float>({4, 3, 5}, 1), b = random_tensor<float>({3, 5, 6}, 2);
  Tensor moved = Tensor::allocate(DType::kF32, {3, 4, 5}).value();
  for (int64_t i = 0; i < 60; ++i) {
    moved.mutable_view().as<float>()[i] = a.as<float>()[i / 5 % 4 * 15 + i / 20 * 5 + i % 5];
  }
  const Tensor want = output_of({.domain = "", .op = "MatMul", .inputs = {moved, b}});
  const Tensor got = output_of(
      {.domain = "com.microsoft", .op = "FusedMatMul", .inputs = {a, b}, .attrs = {{"transBatchA", int64_t{1}}}});
  EXPECT_LT(max_difference(got, want), 1e-6);
}

// The elements of x rounded to a 16-bit type.
template <class T>
Tensor narrow(const Tensor& x) {
  if (x.empty()) return x;
  Tensor y = Tensor::allocate(dtype_of<T>(), x.shape()).value();
  for (int64_t i = 0; i < x.num_elements(); ++i) y.mutable_view().as<T>()[i] = store<T>(x.as<float>()[i]);
  return y;
}

template <class T>
Tensor widen(const Tensor& x) {
  Tensor y = Tensor::allocate(DType::kF32, x.shape()).value();
  for (int64_t i = 0; i < x.num_elements(); ++i) y.mutable_view().as<float>()[i] = load(x.as<T>()[i]);
  return y;
}

// 16-bit products are those of the widened operands, rounded; `error` is relative to results below 10.
template <class T>
void expect_rounded_products(double error) {
  for (const auto& [a, b] :
       {std::pair<Shape, Shape>{{3, 20}, {20, 7}}, {{2, 30, 20}, {2, 20, 40}}, {{2, 5, 20}, {20, 33}}}) {
    const Tensor x = narrow<T>(random_tensor<float>(a, 1)), w = narrow<T>(random_tensor<float>(b, 2));
    const Tensor want = output_of({.domain = "", .op = "MatMul", .inputs = {widen<T>(x), widen<T>(w)}});
    for (int threads : {1, 2}) {
      for (bool constants : {false, true}) {
        NodeCall call = {.domain = "", .op = "MatMul", .inputs = {x, w}, .constants = constants, .threads = threads};
        const Tensor y = output_of(call);
        ASSERT_EQ(y.dtype(), dtype_of<T>());
        EXPECT_LT(max_difference(widen<T>(y), want), error);
        if (a.rank() > 2) continue;
        call.op = "Gemm";
        call.inputs.push_back(narrow<T>(random_tensor<float>({7}, 3)));
        NodeCall exact = call;
        for (Tensor& input : exact.inputs) input = widen<T>(input);
        EXPECT_LT(max_difference(widen<T>(output_of(call)), output_of(exact)), error);
      }
    }
  }
}

TEST(MatMul, WidensSixteenBitFloats) {
  expect_rounded_products<Float16>(10.0 / 2048);
  expect_rounded_products<BFloat16>(10.0 / 256);
}

TEST(Gemm, EqualsDoubleForEveryC) {
  for (int64_t flags = 0; flags < 4; ++flags) {
    const int64_t ta = flags & 1, tb = flags >> 1;
    const Tensor a = random_tensor<float>(ta ? Shape{50, 9} : Shape{9, 50}, 1);
    const Tensor b = random_tensor<float>(tb ? Shape{35, 50} : Shape{50, 35}, 2);
    for (const Shape& c : {Shape{35}, Shape{1, 35}, Shape{9, 35}, Shape{9, 1}, Shape{1}, Shape{}}) {
      for (float beta : {1.0f, 0.25f}) {
        for (const char* activation : {"", "Relu", "LeakyRelu", "Sigmoid"}) {
          SCOPED_TRACE(c.to_string() + activation);
          expect_equal_to_double({.domain = "com.microsoft",
                                  .op = "FusedGemm",
                                  .inputs = {a, b, random_tensor<float>(c, 3)},
                                  .attrs = {{"transA", ta},
                                            {"transB", tb},
                                            {"alpha", 0.5f},
                                            {"beta", beta},
                                            {"activation", std::string(activation)}}});
        }
      }
    }
    expect_equal_to_double({.domain = "", .op = "Gemm", .inputs = {a, b}, .attrs = {{"transA", ta}, {"transB", tb}}});
  }
}

TEST(Gemm, SaturatesScaledIntegers) {
  const Tensor a = tensor_of<int32_t>({1, 1}, {2000000000}), b = tensor_of<int32_t>({1, 1}, {1});
  const Tensor y = output_of({.domain = "", .op = "Gemm", .inputs = {a, b}, .attrs = {{"alpha", 3.0f}}});
  EXPECT_EQ(*y.as<int32_t>(), std::numeric_limits<int32_t>::max());
}

TEST(Einsum, EqualsDoubleForProducts) {
  struct Product {
    const char* equation;
    Shape a, b;
  };
  const Product products[] = {
      {"bhqd,bhkd->bhqk", {2, 3, 9, 16}, {2, 3, 11, 16}},
      {"bqhd,bkhd->bhqk", {2, 9, 3, 16}, {2, 11, 3, 16}},
      {"bhqk,bkhd->bqhd", {2, 3, 9, 11}, {2, 11, 3, 16}},
      {"abc,cd->abd", {2, 3, 5}, {5, 40}},
      {"abc,dc->abd", {2, 3, 5}, {40, 5}},
      {"ij,jk->ki", {7, 8}, {8, 9}},
      {"i,j->ij", {5}, {40}},
      {"i,i->", {50}, {50}},
      {"...ij,...jk", {2, 3, 4}, {4, 5}},
      {"...ij,jk->...ik", {2, 1, 3, 4}, {4, 5}},
      {"ii,i->i", {6, 6}, {6}},
      {"abc,abd->d", {2, 3, 4}, {2, 3, 5}},
      {"ab,cd->dbca", {2, 3}, {4, 5}},
      {"abc,bd->ad", {3, 4, 5}, {4, 6}},
      {"bqd,dhk->bqhk", {2, 5, 12}, {12, 3, 8}},
      {"ab, b -> a", {3, 1}, {4}},
      {"ab,ab->ab", {30, 40}, {30, 40}},
      {"Aa,aB->AB", {3, 4}, {4, 5}},
  };
  for (const Product& p : products) {
    SCOPED_TRACE(p.equation);
    expect_equal_to_double({.domain = "",
                            .op = "Einsum",
                            .inputs = {random_tensor<float>(p.a, 1), random_tensor<float>(p.b, 2)},
                            .attrs = {{"equation", std::string(p.equation)}}});
  }
}

TEST(Einsum, MultipliesThreeOperands) {
  const Tensor a = random_tensor<float>({2, 3}, 1), b = random_tensor<float>({3, 4}, 2),
               c = random_tensor<float>({4, 5}, 3);
  const Tensor ab = output_of({.domain = "", .op = "MatMul", .inputs = {a, b}});
  const Tensor want = output_of({.domain = "", .op = "MatMul", .inputs = {ab, c}});
  const Tensor got = output_of(
      {.domain = "", .op = "Einsum", .inputs = {a, b, c}, .attrs = {{"equation", std::string("ij,jk,kl->il")}}});
  EXPECT_LT(max_difference(got, want), 1e-5);
}

TEST(Einsum, RefusesBrokenEquations) {
  for (const char* equation :
       {"", "ij", "ij,jk,kl", "ij,jk->ikz", "ij,jk->ii", "i.j,jk", "ij,jk->i-k", "ijk,jk", "ij,kj,", "i1,1k"}) {
    EXPECT_FALSE(run_node({.domain = "",
                           .op = "Einsum",
                           .inputs = {random_tensor<float>({2, 3}, 1), random_tensor<float>({3, 4}, 2)},
                           .attrs = {{"equation", std::string(equation)}}})
                     .ok())
        << equation;
  }
}

// --- integer products

Tensor bytes(const Shape& shape, bool is_signed, uint32_t seed) {
  return is_signed ? random_tensor<int8_t>(shape, seed) : random_tensor<uint8_t>(shape, seed);
}

void expect_same_with_constant_weight(NodeCall call, double tolerance) {
  const Tensor want = output_of(call);
  call.constants = true;
  for (int threads : {1, 2}) {
    call.threads = threads;
    EXPECT_LE(max_difference(output_of(call), want), tolerance);
  }
}

TEST(IntegerProducts, AreTheSameWithPackedWeights) {
  for (int64_t flags = 0; flags < 8; ++flags) {
    SCOPED_TRACE(flags);
    const bool a_signed = flags & 1, b_signed = flags & 2, per_column = flags & 4;
    const Tensor a = bytes({2, 9, 50}, a_signed, 1), b = bytes({50, 37}, b_signed, 2), a_zero = bytes({}, a_signed, 3);
    const Tensor b_zero = bytes(per_column ? Shape{37} : Shape{}, b_signed, 4);
    Tensor b_scale = random_tensor<float>(per_column ? Shape{37} : Shape{}, 5);
    const Tensor a_scale = tensor_of<float>({}, {0.01f}), bias = random_tensor<float>({37}, 6);
    expect_same_with_constant_weight({.domain = "", .op = "MatMulInteger", .inputs = {a, b, a_zero, b_zero}}, 0);
    expect_same_with_constant_weight({.domain = "", .op = "MatMulInteger", .inputs = {a, b}}, 0);
    expect_same_with_constant_weight({.domain = "com.microsoft",
                                      .op = "MatMulIntegerToFloat",
                                      .inputs = {a, b, a_scale, b_scale, a_zero, b_zero, bias}},
                                     0.02);
    expect_same_with_constant_weight({.domain = "com.microsoft",
                                      .op = "DynamicQuantizeMatMul",
                                      .inputs = {random_tensor<float>({3, 4, 50}, 7), b, b_scale, b_zero, bias}},
                                     0.02);
    expect_same_with_constant_weight(
        {.domain = "",
         .op = "QLinearMatMul",
         .inputs = {a, a_scale, a_zero, b, b_scale, b_zero, tensor_of<float>({}, {50.0f}), a_zero}},
        0);
  }
}

TEST(IntegerProducts, TakeZeroPointsPerRow) {
  const Tensor a = bytes({4, 3}, false, 1), b = bytes({3, 5}, false, 2), zero = bytes({4}, false, 3);
  const Tensor y = output_of({.domain = "", .op = "MatMulInteger", .inputs = {a, b, zero}});
  for (int64_t i = 0; i < 4; ++i) {
    int32_t sum = 0;
    for (int64_t k = 0; k < 3; ++k)
      sum += (a.as<uint8_t>()[i * 3 + k] - zero.as<uint8_t>()[i]) * b.as<uint8_t>()[k * 5 + 2];
    EXPECT_EQ(y.as<int32_t>()[i * 5 + 2], sum);
  }
  EXPECT_FALSE(run_node({.domain = "", .op = "MatMulInteger", .inputs = {a, b, bytes({3}, false, 3)}}).ok());
}

}  // namespace
}  // namespace sprun::graph
