// Pooling: values worked out by hand, and attributes that make no sense.
#include "tests/graph/ops/product_test_util.h"

namespace sprun::graph {
namespace {

using testing_support::NodeCall;
using testing_support::output_of;
using testing_support::run_node;
using testing_support::tensor_of;

using Ints = std::vector<int64_t>;
using Attrs = std::vector<std::pair<std::string, Attr>>;

NodeCall pool(const std::string& op, Attrs attrs) {
  return {.op = op,
          .inputs = {tensor_of<float>({1, 1, 3, 4}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})},
          .attrs = std::move(attrs)};
}

std::vector<float> values(const Tensor& t) {
  return {t.as<float>(), t.as<float>() + t.num_elements()};
}

TEST(MaxPool, FoldsRowsWithBordersAndStrides) {
  const Tensor y = output_of(
      pool("MaxPool",
           {{"kernel_shape", Ints{2, 3}}, {"strides", Ints{1, 2}}, {"pads", Ints{1, 1, 0, 1}}}));
  EXPECT_EQ(y.shape(), (Shape{1, 1, 3, 2}));
  EXPECT_EQ(values(y), (std::vector<float>{2, 4, 6, 8, 10, 12}));
}

TEST(MaxPool, IndicesCountRowsOrColumns) {
  NodeCall call = pool("MaxPool", {{"kernel_shape", Ints{2, 2}}});
  call.num_outputs = 2;
  const auto by_row = run_node(call).value();
  EXPECT_EQ(by_row[1].as<int64_t>()[0], 5);
  call.attrs.emplace_back("storage_order", int64_t{1});
  const auto by_column = run_node(call).value();
  EXPECT_EQ(by_column[1].as<int64_t>()[0], 1 + 1 * 3);
  EXPECT_EQ(values(by_row[0]), values(by_column[0]));
}

TEST(MaxPool, KeepsMinusInfinity) {
  NodeCall call = pool("MaxPool", {{"kernel_shape", Ints{1, 2}}});
  call.inputs = {tensor_of<float>({1, 1, 1, 3}, {-INFINITY, -INFINITY, 1})};
  EXPECT_EQ(values(output_of(call)), (std::vector<float>{-INFINITY, 1}));
}

TEST(AveragePool, CountsPaddingOnlyWhenAsked) {
  Attrs attrs = {{"kernel_shape", Ints{1, 3}}, {"pads", Ints{0, 1, 0, 1}}};
  EXPECT_EQ(values(output_of(pool("AveragePool", attrs)))[0], 1.5F);
  attrs.emplace_back("count_include_pad", int64_t{1});
  EXPECT_EQ(values(output_of(pool("AveragePool", attrs)))[0], 1.0F);
}

TEST(AveragePool, CeilModeNeverCountsBeyondThePadding) {
  const Tensor y = output_of(pool("AveragePool", {{"kernel_shape", Ints{1, 3}},
                                                  {"strides", Ints{1, 2}},
                                                  {"ceil_mode", int64_t{1}},
                                                  {"count_include_pad", int64_t{1}}}));
  EXPECT_EQ(y.shape(), (Shape{1, 1, 3, 2}));
  EXPECT_EQ(values(y)[1], 3.5F);  // 3 and 4 only
}

TEST(Pool, RefusesAttributesThatMakeNoSense) {
  const Attrs bad[] = {
      {},
      {{"kernel_shape", Ints{0, 1}}},
      {{"kernel_shape", Ints{1}}},
      {{"kernel_shape", Ints{5, 5}}},
      {{"kernel_shape", Ints{int64_t{1} << 40, 1}}},
      {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{0, 1}}},
      {{"kernel_shape", Ints{2, 2}}, {"pads", Ints{-1, 0, 0, 0}}},
      {{"kernel_shape", Ints{1, 1}}, {"pads", Ints{1 << 30, 1 << 30, 1 << 30, 1 << 30}}}};
  for (const char* op : {"MaxPool", "AveragePool", "LpPool"}) {
    for (const Attrs& attrs : bad) EXPECT_FALSE(run_node(pool(op, attrs)).ok()) << op;
  }
}

TEST(Pool, WindowsOfPaddingOnlyAreHarmless) {
  const Attrs attrs = {{"kernel_shape", Ints{1, 1}}, {"pads", Ints{0, 2, 0, 0}}};
  EXPECT_EQ(values(output_of(pool("AveragePool", attrs)))[0], 0.0F);
  EXPECT_EQ(values(output_of(pool("MaxPool", attrs)))[0], -INFINITY);
}

TEST(MaxUnpool, RefusesIndicesOutside) {
  NodeCall call = {.op = "MaxUnpool",
                   .inputs = {tensor_of<float>({1, 1, 1}, {1}), tensor_of<int64_t>({1, 1, 1}, {2})},
                   .attrs = {{"kernel_shape", Ints{2}}, {"strides", Ints{2}}}};
  EXPECT_FALSE(run_node(call).ok());
  call.inputs[1] = tensor_of<int64_t>({1, 1, 1}, {1});
  EXPECT_EQ(values(output_of(call)), (std::vector<float>{0, 1}));
}

TEST(RoiAlign, RefusesBatchIndicesOutside) {
  NodeCall call = {
      .op = "RoiAlign",
      .inputs = {tensor_of<float>({1, 1, 2, 2}, {1, 2, 3, 4}),
                 tensor_of<float>({1, 4}, {0, 0, 1, 1}), tensor_of<int64_t>({1}, {1})}};
  EXPECT_FALSE(run_node(call).ok());
  call.inputs[2] = tensor_of<int64_t>({1}, {0});
  EXPECT_TRUE(run_node(call).ok());
  call.inputs[1] = tensor_of<float>({1, 4}, {NAN, -INFINITY, INFINITY, 1e30F});
  EXPECT_TRUE(run_node(call).ok());
}

}  // namespace
}  // namespace sprun::graph
