// Conv and its relatives: the float32 and 16-bit paths against double, fused forms, and attributes
// that make no sense.
#include "tests/graph/ops/product_test_util.h"
#include "runtime/base/half.h"

namespace sprun::graph {
namespace {

using testing_support::as_double;
using testing_support::max_difference;
using testing_support::NodeCall;
using testing_support::output_of;
using testing_support::random_tensor;
using testing_support::run_node;
using testing_support::tensor_of;

using Ints = std::vector<int64_t>;
using Attrs = std::vector<std::pair<std::string, Attr>>;

NodeCall conv_call(const Shape& x, const Shape& w, Attrs attrs, bool bias = true) {
  NodeCall call = {.op = "Conv",
                   .inputs = {random_tensor<float>(x, 1), random_tensor<float>(w, 2)}};
  if (bias) call.inputs.push_back(random_tensor<float>({w[0]}, 3));
  call.attrs = std::move(attrs);
  call.constants = true;
  return call;
}

Tensor in_double(NodeCall call) {
  for (Tensor& input : call.inputs) input = as_double(input);
  return output_of(call);
}

template <class T, class From>
Tensor convert(const Tensor& x, From from) {
  Tensor y = Tensor::allocate(dtype_of<T>(), x.shape()).value();
  for (int64_t i = 0; i < x.num_elements(); ++i)
    y.mutable_view().as<T>()[i] = from(x.as<float>()[i]);
  return y;
}

struct Case {
  Shape x, w;
  Attrs attrs;
};

const Case kCases[] = {
    {{2, 6, 9, 11}, {8, 6, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 1}}}},
    {{1, 8, 10, 40}, {8, 1, 5, 5}, {{"pads", Ints{2, 2, 2, 2}}, {"group", int64_t{8}}}},
    {{1, 3, 32, 32}, {24, 3, 16, 16}, {{"strides", Ints{16, 16}}}},
    {{1, 20, 60}, {12, 20, 3}, {{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{2}}}},
    {{1, 64, 1, 1}, {20, 64, 1, 1}, {}},
    {{1, 2, 4, 5, 6}, {3, 2, 2, 2, 2}, {{"dilations", Ints{1, 2, 1}}}},
};

TEST(Conv, EqualsDouble) {
  for (const Case& c : kCases) {
    for (int threads : {1, 2}) {
      NodeCall call = conv_call(c.x, c.w, c.attrs);
      call.threads = threads;
      EXPECT_LE(max_difference(output_of(call), in_double(call)), 1e-4) << c.x.to_string();
    }
  }
}

TEST(Conv, SixteenBitFloatsComputeInFloat) {
  for (const Case& c : kCases) {
    for (bool constants : {true, false}) {
      NodeCall call = conv_call(c.x, c.w, c.attrs);
      call.constants = constants;
      NodeCall half = call;
      for (size_t i = 0; i < half.inputs.size(); ++i) {
        half.inputs[i] = convert<BFloat16>(call.inputs[i], [](float v) { return to_bfloat16(v); });
        for (int64_t k = 0; k < half.inputs[i].num_elements(); ++k) {
          call.inputs[i].mutable_view().as<float>()[k] = to_float(half.inputs[i].as<BFloat16>()[k]);
        }
      }
      const Tensor want = output_of(call), got = output_of(half);
      ASSERT_EQ(got.dtype(), DType::kBf16);
      ASSERT_EQ(got.shape(), want.shape());
      for (int64_t i = 0; i < want.num_elements(); ++i) {
        const float v = want.as<float>()[i];
        EXPECT_NEAR(to_float(got.as<BFloat16>()[i]), v, 0.005F * std::abs(v) + 1e-4F);
      }
    }
  }
}

TEST(Conv, FusedFormAddsActivatesAndScales) {
  const Attrs window = {{"pads", Ints{1, 1, 1, 1}}};
  NodeCall call = conv_call({1, 4, 6, 7}, {5, 4, 3, 3}, window);
  const Tensor plain = output_of(call);
  call.domain = "sprun";
  call.inputs.push_back(random_tensor<float>({1, 5, 6, 7}, 9));
  call.attrs.insert(call.attrs.end(), {{"activation", std::string("Clip")},
                                       {"activation_params", std::vector<float>{-0.5F, 0.75F}},
                                       {"out_scale", 2.0F},
                                       {"out_shift", 0.25F}});
  const Tensor fused = output_of(call);
  ASSERT_EQ(fused.shape(), plain.shape());
  for (int64_t i = 0; i < plain.num_elements(); ++i) {
    const float v = plain.as<float>()[i] + call.inputs[3].as<float>()[i];
    EXPECT_NEAR(fused.as<float>()[i], 2.0F * std::min(std::max(v, -0.5F), 0.75F) + 0.25F, 1e-5F);
  }
  call.attrs.back() = {"activation", std::string("Unheard")};
  EXPECT_FALSE(run_node(call).ok());
}

TEST(Conv, EmptyBatchGivesEmptyResult) {
  const Tensor y = output_of(conv_call({0, 3, 8, 8}, {4, 3, 3, 3}, {}));
  EXPECT_EQ(y.shape(), (Shape{0, 4, 6, 6}));
}

TEST(Conv, RefusesAttributesThatMakeNoSense) {
  const Shape x{1, 4, 8, 8}, w{4, 4, 3, 3};
  const int64_t huge = int64_t{1} << 62;
  const Attrs bad[] = {{{"strides", Ints{0, 1}}},
                       {{"strides", Ints{-1, 1}}},
                       {{"strides", Ints{1}}},
                       {{"strides", Ints{huge, huge}}},
                       {{"dilations", Ints{0, 0}}},
                       {{"dilations", Ints{huge, 1}}},
                       {{"dilations", Ints{1 << 30, 1}}},
                       {{"pads", Ints{-1, 0, 0, 0}}},
                       {{"pads", Ints{0, 0, 0}}},
                       {{"pads", Ints{huge, huge, huge, huge}}},
                       {{"pads", Ints{1 << 30, 1 << 30, 1 << 30, 1 << 30}}},
                       {{"kernel_shape", Ints{3}}},
                       {{"kernel_shape", Ints{0, 0}}},
                       {{"kernel_shape", Ints{2, 2}}},
                       {{"group", int64_t{0}}},
                       {{"group", int64_t{-2}}},
                       {{"group", int64_t{3}}},
                       {{"auto_pad", std::string("SOMEHOW")}}};
  for (const Attrs& attrs : bad) {
    EXPECT_FALSE(run_node(conv_call(x, w, attrs)).ok())
        << attrs[0].first << " " << to_string(attrs[0].second);
  }
  EXPECT_FALSE(run_node(conv_call({1, 4, 8}, w, {})).ok());
  EXPECT_FALSE(run_node(conv_call({4, 8}, {4, 8}, {})).ok());
  EXPECT_FALSE(run_node(conv_call({1, 4, 2, 2}, w, {})).ok()) << "kernel larger than the image";
  EXPECT_FALSE(run_node(conv_call(x, {4, 3, 3, 3}, {})).ok()) << "wrong input channels";
  EXPECT_FALSE(run_node(conv_call(x, {4, 4, 0, 3}, {})).ok()) << "empty kernel";
}

TEST(ConvTranspose, RefusesSizesThatOverflow) {
  NodeCall call =
      conv_call({1, 2, 4, 4}, {2, 2, 3, 3}, {{"strides", Ints{1 << 30, 1 << 30}}}, false);
  call.op = "ConvTranspose";
  EXPECT_FALSE(run_node(call).ok());
  call.attrs = {{"output_shape", Ints{int64_t{1} << 50, 4}}};
  EXPECT_FALSE(run_node(call).ok());
  call.attrs = {{"output_shape", Ints{-4, 4}}};
  EXPECT_FALSE(run_node(call).ok());
  call.attrs = {{"pads", Ints{9, 9, 9, 9}}};
  EXPECT_FALSE(run_node(call).ok());
}

TEST(ConvTranspose, IsTheGradientOfConv) {
  // <conv(x), y> = <x, conv_transpose(y)> with the same weights, whatever the geometry.
  const Attrs attrs = {
      {"strides", Ints{2, 1}}, {"pads", Ints{1, 0, 0, 1}}, {"dilations", Ints{1, 2}}};
  const NodeCall forward = conv_call({1, 3, 8, 9}, {4, 3, 3, 2}, attrs, false);
  const Tensor fx = output_of(forward);
  NodeCall backward = {.op = "ConvTranspose",
                       .inputs = {random_tensor<float>(fx.shape(), 7), forward.inputs[1]}};
  backward.attrs = attrs;
  backward.attrs.emplace_back("output_padding", Ints{8 - ((fx.shape()[2] - 1) * 2 + 3 - 1), 0});
  const Tensor by = output_of(backward);
  ASSERT_EQ(by.shape(), forward.inputs[0].shape());
  double left = 0, right = 0;
  for (int64_t i = 0; i < fx.num_elements(); ++i)
    left += static_cast<double>(fx.as<float>()[i]) *
            static_cast<double>(backward.inputs[0].as<float>()[i]);
  for (int64_t i = 0; i < by.num_elements(); ++i)
    right += static_cast<double>(by.as<float>()[i]) *
             static_cast<double>(forward.inputs[0].as<float>()[i]);
  EXPECT_NEAR(left, right, 1e-3);
}

TEST(ConvInteger, SubtractsZeroPointsPerChannel) {
  NodeCall call = {.op = "ConvInteger",
                   .inputs = {tensor_of<uint8_t>({1, 1, 3}, {1, 2, 255}),
                              tensor_of<int8_t>({2, 1, 2}, {1, -1, 2, 3}),
                              tensor_of<uint8_t>({}, {1}), tensor_of<int8_t>({2}, {0, 1})}};
  const Tensor y = output_of(call);
  ASSERT_EQ(y.shape(), (Shape{1, 2, 2}));
  const int32_t want[] = {-1, 1 - 254, 2, 1 + 2 * 254};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(y.as<int32_t>()[i], want[i]);
}

// Constant weights run on the packed kernels, others on the plain loop.
template <class X, class W>
void expect_same_integer_conv(bool per_channel) {
  for (const Shape& x : {Shape{2, 5, 9, 11}, Shape{1, 5, 1, 1}, Shape{1, 5, 40, 3}}) {
    NodeCall call = {
        .op = "ConvInteger",
        .inputs = {random_tensor<X>(x, 1), random_tensor<W>({19, 5, 3, 3}, 2),
                   random_tensor<X>({}, 3), random_tensor<W>(per_channel ? Shape{19} : Shape{}, 4)},
        .attrs = {{"pads", Ints{1, 1, 2, 1}}, {"strides", Ints{2, 1}}}};
    const Tensor plain = output_of(call);
    call.constants = true;
    for (int threads : {1, 2}) {
      call.threads = threads;
      EXPECT_EQ(max_difference(output_of(call), plain), 0.0) << x.to_string();
    }
  }
}

TEST(ConvInteger, PackedKernelsAreExact) {
  for (bool per_channel : {false, true}) {
    expect_same_integer_conv<uint8_t, int8_t>(per_channel);
    expect_same_integer_conv<uint8_t, uint8_t>(per_channel);
    expect_same_integer_conv<int8_t, int8_t>(per_channel);
    expect_same_integer_conv<int8_t, uint8_t>(per_channel);
  }
}

TEST(QLinearConv, PackedKernelsGiveTheSameCodes) {
  NodeCall call = {
      .op = "QLinearConv",
      .inputs = {random_tensor<uint8_t>({1, 6, 12, 10}, 1), tensor_of<float>({}, {0.02F}),
                 tensor_of<uint8_t>({}, {120}), random_tensor<int8_t>({8, 6, 3, 3}, 2),
                 tensor_of<float>({8}, {0.01F, 0.02F, 0.03F, 0.01F, 0.02F, 0.005F, 0.01F, 0.04F}),
                 tensor_of<int8_t>({8}, {0, 0, 0, 0, 0, 0, 0, 0}), tensor_of<float>({}, {0.3F}),
                 tensor_of<uint8_t>({}, {128}), random_tensor<int32_t>({8}, 5)}};
  for (int i = 0; i < 8; ++i) call.inputs[8].mutable_view().as<int32_t>()[i] %= 1000;
  const Tensor plain = output_of(call);
  call.constants = true;
  EXPECT_EQ(max_difference(output_of(call), plain), 0.0);
}

}  // namespace
}  // namespace sprun::graph
