#include "graph/onnx/tensor_proto.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/graph/onnx/onnx_text.h"

namespace sprun::graph {
namespace {

Result<NamedTensor> decode(const std::string& text) {
  return decode_tensor_proto(message_of<onnx::TensorProto>(text).SerializeAsString());
}

template <class T>
std::vector<T> elements(const Tensor& tensor) {
  return std::vector<T>(tensor.as<T>(), tensor.as<T>() + tensor.num_elements());
}

TEST(TensorProto, ReadsEveryTypedField) {
  EXPECT_EQ(elements<float>(decode("dims: 2 data_type: 1 float_data: [1.5, -2]")->tensor),
            (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(elements<double>(decode("dims: 1 data_type: 11 double_data: 0.1")->tensor), std::vector<double>{0.1});
  EXPECT_EQ(elements<int64_t>(decode("dims: 2 data_type: 7 int64_data: [-1, 9223372036854775807]")->tensor),
            (std::vector<int64_t>{-1, INT64_MAX}));
  EXPECT_EQ(elements<uint64_t>(decode("dims: 1 data_type: 13 uint64_data: 18446744073709551615")->tensor),
            std::vector<uint64_t>{UINT64_MAX});
  EXPECT_EQ(elements<uint32_t>(decode("dims: 1 data_type: 12 uint64_data: 4294967295")->tensor),
            std::vector<uint32_t>{UINT32_MAX});
  EXPECT_EQ(elements<int32_t>(decode("dims: 1 data_type: 6 int32_data: -5")->tensor), std::vector<int32_t>{-5});
  EXPECT_EQ(elements<int16_t>(decode("dims: 1 data_type: 5 int32_data: -5")->tensor), std::vector<int16_t>{-5});
  EXPECT_EQ(elements<uint16_t>(decode("dims: 1 data_type: 4 int32_data: 65535")->tensor), std::vector<uint16_t>{65535});
  EXPECT_EQ(elements<int8_t>(decode("dims: 1 data_type: 3 int32_data: -128")->tensor), std::vector<int8_t>{-128});
  EXPECT_EQ(elements<uint8_t>(decode("dims: 1 data_type: 2 int32_data: 255")->tensor), std::vector<uint8_t>{255});
  EXPECT_EQ(elements<bool>(decode("dims: 3 data_type: 9 int32_data: [1, 0, 256]")->tensor),
            (std::vector<bool>{true, false, true}));
}

TEST(TensorProto, ReadsSixteenBitFloatsFromInt32Data) {
  const auto half = decode("dims: 2 data_type: 10 int32_data: [15360, 49152]");
  ASSERT_TRUE(half.ok()) << half.status().message();
  EXPECT_EQ(half->tensor.dtype(), DType::kF16);
  EXPECT_EQ(elements<uint16_t>(half->tensor), (std::vector<uint16_t>{0x3c00, 0xc000}));
  const auto brain = decode("data_type: 16 int32_data: 16256");
  ASSERT_TRUE(brain.ok());
  EXPECT_EQ(brain->tensor.dtype(), DType::kBf16);
  EXPECT_EQ(brain->tensor.shape().rank(), 0);
}

TEST(TensorProto, UnpacksFourBitElements) {
  const auto raw = decode("dims: 3 data_type: 22 raw_data: '\\x7f\\x08'");
  ASSERT_TRUE(raw.ok()) << raw.status().message();
  EXPECT_EQ(elements<int8_t>(raw->tensor), (std::vector<int8_t>{-1, 7, -8}));
  const auto field = decode("dims: 3 data_type: 21 int32_data: [127, 8]");
  ASSERT_TRUE(field.ok()) << field.status().message();
  EXPECT_EQ(elements<uint8_t>(field->tensor), (std::vector<uint8_t>{15, 7, 8}));
}

TEST(TensorProto, ReadsRawDataAndNormalisesBools) {
  const auto floats = decode("dims: [1, 2] data_type: 1 name: 'x' raw_data: '\\0\\0\\x80\\x3f\\0\\0\\0\\x40'");
  ASSERT_TRUE(floats.ok());
  EXPECT_EQ(floats->name, "x");
  EXPECT_EQ(floats->tensor.shape(), Shape({1, 2}));
  EXPECT_EQ(elements<float>(floats->tensor), (std::vector<float>{1.0f, 2.0f}));
  const auto bools = decode("dims: 2 data_type: 9 raw_data: '\\x02\\0'");
  ASSERT_TRUE(bools.ok());
  EXPECT_EQ(bools->tensor.as<uint8_t>()[0], 1);
}

TEST(TensorProto, ReadsEmptyTensors) {
  const auto empty = decode("dims: [0, 3] data_type: 1");
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->tensor.num_elements(), 0);
  EXPECT_FALSE(empty->tensor.empty());
}

TEST(TensorProto, RefusesDataThatDoesNotFitTheShape) {
  for (const char* text : {
           "dims: 3 data_type: 1 float_data: [1, 2]",
           "dims: 1 data_type: 1 float_data: [1, 2]",
           "dims: 2 data_type: 1",
           "data_type: 1",
           "dims: 2 data_type: 1 int32_data: [1, 2]",
           "dims: 2 data_type: 1 raw_data: '1234567'",
           "dims: 3 data_type: 22 raw_data: '123'",
           "dims: -1 data_type: 1",
           "dims: [4611686018427387904, 4] data_type: 1",
           "dims: [1099511627776, 1099511627776] data_type: 2 raw_data: 'x'",
           "dims: [1, 1, 1, 1, 1, 1, 1, 1, 1] data_type: 1 float_data: 1",
       }) {
    EXPECT_FALSE(decode(text).ok()) << text;
  }
}

TEST(TensorProto, NamesUnsupportedTypes) {
  for (int type : {8, 14, 15, 17, 18, 19, 20, 23, 24, 25, 26, 27, 28, 0, 99, -1}) {
    const auto result = decode("dims: 0 data_type: " + std::to_string(type));
    ASSERT_FALSE(result.ok()) << type;
    EXPECT_EQ(result.status().code(), Code::kBadModel);
    EXPECT_EQ(result.status().message().rfind("unsupported", 0), 0u) << result.status().message();
  }
  EXPECT_NE(decode("data_type: 17").status().message().find("float8e4m3fn"), std::string::npos);
}

TEST(TensorProto, RefusesExternalDataOutsideOfAModel) {
  const auto result = decode("dims: 1 data_type: 1 data_location: EXTERNAL external_data { key: 'location' value: 'x' }");
  EXPECT_EQ(result.status().code(), Code::kBadModel);
}

TEST(TensorProto, EncodesWhatItDecodes) {
  for (DType dtype : {DType::kF32, DType::kU8, DType::kS8, DType::kU16, DType::kS16, DType::kS32, DType::kS64,
                      DType::kBool, DType::kF16, DType::kF64, DType::kU32, DType::kU64, DType::kBf16, DType::kU4,
                      DType::kS4}) {
    auto tensor = Tensor::zeros(dtype, Shape({3, 1}));
    ASSERT_TRUE(tensor.ok());
    tensor->mutable_view().as<uint8_t>()[0] = 1;
    const auto decoded = decode_tensor_proto(encode_tensor_proto("t", tensor->view()));
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(decoded->name, "t");
    EXPECT_EQ(decoded->tensor.dtype(), dtype);
    EXPECT_EQ(decoded->tensor.shape(), tensor->shape());
    EXPECT_EQ(elements<uint8_t>(decoded->tensor.reshaped({3}))[0], 1);
    EXPECT_EQ(raw_bytes_of(decoded->tensor.view()), raw_bytes_of(tensor->view()));
  }
}

TEST(TensorProto, ReadsFiles) {
  const TempFolder folder("tensor_proto");
  const auto tensor = Tensor::zeros(DType::kF32, Shape({2}));
  const std::string path = folder.write("x.pb", encode_tensor_proto("x", tensor->view()));
  EXPECT_TRUE(read_tensor_proto_file(path).ok());
  EXPECT_FALSE(read_tensor_proto_file(folder.file("absent.pb")).ok());
  EXPECT_FALSE(read_tensor_proto_file(folder.write("garbage.pb", "\xff\xff\xff")).ok());
}

}  // namespace
}  // namespace sprun::graph
