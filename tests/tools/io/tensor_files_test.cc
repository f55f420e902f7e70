#include "tools/sprun/io/tensor_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "graph/onnx/tensor_proto.h"
#include "tools/sprun/io/npy.h"
#include "tools/sprun/io/npz.h"

namespace sprun::tools {
namespace {

namespace fs = std::filesystem;

// A folder of its own for each test, removed afterwards.
class TensorFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sprun_test_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return dir_ + "/" + name; }
  static Tensor vector_of(const std::vector<float>& values) {
    Tensor t = Tensor::zeros(DType::kF32, {static_cast<int64_t>(values.size())}).value();
    std::copy(values.begin(), values.end(), t.mutable_view().as<float>());
    return t;
  }
  void write_pb(const std::string& file, const std::string& name, const Tensor& t) const {
    std::ofstream(path(file), std::ios::binary) << graph::encode_tensor_proto(name, t.view());
  }

  std::string dir_;
  std::vector<TensorSpec> specs_ = {{.name = "a", .dtype = DType::kF32, .has_shape = false, .dims = {}},
                                    {.name = "b/c", .dtype = DType::kF32, .has_shape = false, .dims = {}}};
};

TEST_F(TensorFiles, NpzGivesBackWhatItWrote) {
  const std::vector<NamedTensor> tensors = {{"a", vector_of({1, 2, 3})}, {"b/c", vector_of({})}};
  ASSERT_TRUE(write_npz(path("x.npz"), tensors).ok());
  const auto back = read_npz(path("x.npz")).value();
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(back[0].name, "a");
  EXPECT_EQ(back[0].tensor.as<float>()[2], 3);
  EXPECT_EQ(back[1].name, "b/c");
  EXPECT_EQ(back[1].tensor.shape(), (Shape{0}));
}

TEST_F(TensorFiles, NpzReplacesAnExistingFile) {
  ASSERT_TRUE(write_npz(path("x.npz"), {{"a", vector_of({1})}, {"b", vector_of({1})}}).ok());
  ASSERT_TRUE(write_npz(path("x.npz"), {{"c", vector_of({1})}}).ok());
  EXPECT_EQ(read_npz(path("x.npz")).value().size(), 1U);
}

TEST_F(TensorFiles, DamagedNpzIsRefusedOrReadButNeverMore) {
  ASSERT_TRUE(write_npz(path("x.npz"), {{"a", vector_of({1, 2, 3})}}).ok());
  const std::vector<std::byte> good = read_file(path("x.npz"), 1 << 20).value();
  std::mt19937 random(2);
  for (size_t length = 0; length < good.size(); length += 7) {
    ASSERT_TRUE(write_file(path("y.npz"), std::span(good).first(length)).ok());
    EXPECT_EQ(read_npz(path("y.npz")).status().code(), Code::kBadInput) << length;
  }
  for (int i = 0; i < 300; ++i) {
    std::vector<std::byte> bytes = good;
    bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    ASSERT_TRUE(write_file(path("y.npz"), bytes).ok());
    (void)read_npz(path("y.npz")).ok();
  }
}

TEST_F(TensorFiles, TestDataSetMatchesByNameThenByPosition) {
  write_pb("input_0.pb", "b/c", vector_of({1}));
  write_pb("input_1.pb", "unknown", vector_of({2}));
  const auto tensors = read_tensors(dir_, TensorRole::kInput, specs_).value();
  ASSERT_EQ(tensors.size(), 2U);
  EXPECT_EQ(tensors[0].name, "b/c");
  EXPECT_EQ(tensors[1].name, "b/c");  // position 1
  write_pb("input_2.pb", "unknown", vector_of({3}));
  EXPECT_EQ(read_tensors(dir_, TensorRole::kInput, specs_).status().code(), Code::kBadInput);
}

TEST_F(TensorFiles, FoldersOfNpyFilesGoByFileName) {
  ASSERT_TRUE(write_tensors(path("out"), {{"a", vector_of({1})}, {"b/c", vector_of({2})}}).ok());
  EXPECT_TRUE(fs::exists(path("out/b_c.npy")));
  const auto tensors = read_tensors(path("out"), TensorRole::kOutput, specs_).value();
  ASSERT_EQ(tensors.size(), 2U);
  EXPECT_EQ(tensors[1].name, "b/c");
}

TEST_F(TensorFiles, NamesCannotLeaveTheFolder) {
  ASSERT_TRUE(write_tensors(path("out"), {{"../up", vector_of({1})}, {"..", vector_of({2})}}).ok());
  EXPECT_FALSE(fs::exists(path("up.npy")));
  EXPECT_TRUE(fs::exists(path("out/_.._up.npy")));
}

TEST_F(TensorFiles, InputArgumentIsAPathOrNameEqualsFile) {
  ASSERT_TRUE(write_npy(path("x.npy"), vector_of({1, 2}).view()).ok());
  const auto named = read_input_argument("a=" + path("x.npy"), specs_).value();
  ASSERT_EQ(named.size(), 1U);
  EXPECT_EQ(named[0].name, "a");
  EXPECT_EQ(read_input_argument(path("x.npy"), specs_).status().code(), Code::kBadInput);
  EXPECT_EQ(read_input_argument(path("none"), specs_).status().code(), Code::kBadInput);
}

}  // namespace
}  // namespace sprun::tools
