#include "tools/sprun/io/npy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace sprun::tools {
namespace {

// A version 1.0 file with this header dictionary and these data bytes.
std::vector<std::byte> file_of(std::string_view dictionary, size_t data_bytes) {
  std::string text = "\x93NUMPY";
  text += '\x01';
  text += '\0';
  text += static_cast<char>(dictionary.size() & 0xff);
  text += static_cast<char>(dictionary.size() >> 8);
  text += dictionary;
  for (size_t i = 0; i < data_bytes; ++i) text += static_cast<char>(i + 1);
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

Code code_of(std::string_view dictionary, size_t data_bytes) {
  return parse_npy(file_of(dictionary, data_bytes), "x.npy").status().code();
}

Tensor iota(DType dtype, const Shape& shape) {
  Tensor tensor = Tensor::zeros(dtype, shape).value();
  auto* bytes = tensor.mutable_view().as<uint8_t>();
  for (int64_t i = 0; i < tensor.size_bytes(); ++i) bytes[i] = static_cast<uint8_t>(i);
  return tensor;
}

TEST(Npy, GivesBackWhatItWroteForEveryType) {
  for (DType dtype : {DType::kF32, DType::kU8, DType::kS8, DType::kU16, DType::kS16, DType::kS32, DType::kS64,
                      DType::kF16, DType::kF64, DType::kU32, DType::kU64}) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 3}, Shape{2, 0, 4}}) {
      const Tensor tensor = iota(dtype, shape);
      const Tensor back = parse_npy(npy_bytes(tensor.view()).value(), "x").value();
      EXPECT_EQ(back.dtype(), dtype);
      EXPECT_EQ(back.shape(), shape);
      EXPECT_EQ(std::memcmp(back.data(), tensor.data(), static_cast<size_t>(tensor.size_bytes())), 0);
    }
  }
}

TEST(Npy, WritesBfloat16AsFloat32) {
  Tensor tensor = Tensor::zeros(DType::kBf16, {2}).value();
  tensor.mutable_view().as<BFloat16>()[1] = {0x3fc0};
  const Tensor back = parse_npy(npy_bytes(tensor.view()).value(), "x").value();
  ASSERT_EQ(back.dtype(), DType::kF32);
  EXPECT_EQ(back.as<float>()[1], 1.5F);
}

TEST(Npy, HeaderIsPaddedTo64Bytes) {
  EXPECT_EQ(npy_bytes(iota(DType::kU8, {0}).view()).value().size() % 64, 0U);
}

TEST(Npy, TransposesFortranOrder) {
  const auto bytes = file_of("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }", 6);
  const Tensor tensor = parse_npy(bytes, "x").value();
  const std::vector<uint8_t> want = {1, 3, 5, 2, 4, 6};
  EXPECT_EQ(std::vector<uint8_t>(tensor.as<uint8_t>(), tensor.as<uint8_t>() + 6), want);
}

TEST(Npy, ReadsTwoByteVoidAsBfloat16) {
  const Tensor tensor =
      parse_npy(file_of("{'descr': '<V2', 'fortran_order': False, 'shape': (3,), }", 6), "x").value();
  EXPECT_EQ(tensor.dtype(), DType::kBf16);
}

TEST(Npy, NormalisesBooleans) {
  const Tensor tensor =
      parse_npy(file_of("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", 3), "x").value();
  EXPECT_EQ(tensor.as<uint8_t>()[2], 1);
}

TEST(Npy, RefusesHeadersThatAreNotExactlyAHeader) {
  EXPECT_EQ(code_of("{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }", 4), Code::kOk);
  for (const char* bad : {
           "", "{", "{}", "[]", "{'descr': '<i4', 'fortran_order': False}",
           "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), 'shape': (1,)}",
           "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
           "{'descr': '<i4', 'fortran_order': 0, 'shape': (1,)}",
           "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,)}",
           "{'descr': '<i4', 'fortran_order': False, 'shape': (1}",
           "{'descr': '<i4', 'fortran_order': False, 'shape': (1,), } trailing",
           "{'descr': '<i4\\', 'fortran_order': False, 'shape': (1,)}",
       }) {
    EXPECT_EQ(code_of(bad, 4), Code::kBadInput) << bad;
  }
}

TEST(Npy, RefusesTypesItCannotHold) {
  for (const char* descr : {"'>i4'", "'<c8'", "'|O'", "'<U3'", "'|S4'", "[('a', '<i4')]"}) {
    const std::string header = std::string("{'descr': ") + descr + ", 'fortran_order': False, 'shape': (1,)}";
    EXPECT_EQ(code_of(header, 4), Code::kBadInput) << descr;
  }
}

TEST(Npy, RefusesSizesThatDoNotFit) {
  EXPECT_EQ(code_of("{'descr': '<i4', 'fortran_order': False, 'shape': (1,)}", 3), Code::kBadInput);
  EXPECT_EQ(code_of("{'descr': '<i4', 'fortran_order': False, 'shape': (1,)}", 5), Code::kBadInput);
  EXPECT_EQ(code_of("{'descr': '<i8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 8), Code::kBadInput);
  EXPECT_EQ(code_of("{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,)}", 8), Code::kBadInput);
  EXPECT_EQ(code_of("{'descr': '<i8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 8), Code::kBadInput);
}

TEST(Npy, SurvivesEveryTruncationAndRandomDamage) {
  const std::vector<std::byte> good = npy_bytes(iota(DType::kF32, {4, 5}).view()).value();
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(parse_npy(std::span(good).first(length), "x").ok()) << length;
  }
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = good;
    for (int k = 0; k < 3; ++k) bytes[random() % 128] = static_cast<std::byte>(random());
    (void)parse_npy(bytes, "x").ok();
  }
}

TEST(Npy, RefusesWhatIsNotARegularFile) {
  EXPECT_EQ(read_npy("/dev/null").status().code(), Code::kBadInput);
  EXPECT_EQ(read_npy("/").status().code(), Code::kBadInput);
  EXPECT_EQ(read_npy("/nowhere/x.npy").status().code(), Code::kBadInput);
}

}  // namespace
}  // namespace sprun::tools
