#include "graph/onnx/external_data.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "graph/onnx/onnx_reader.h"
#include "tests/graph/onnx/onnx_text.h"

namespace sprun::graph {
namespace {

// A model whose only weight "w" of two floats is external.
std::string external_model(const std::string& entries) {
  return model_bytes("input " + float_value("x") + "output " + float_value("y") +
                     "node { op_type: 'Add' input: 'x' input: 'w' output: 'y' } "
                     "initializer { name: 'w' dims: 2 data_type: 1 data_location: EXTERNAL " +
                     entries + "}");
}

std::string entry(const std::string& key, const std::string& value) {
  return "external_data { key: '" + key + "' value: '" + value + "' } ";
}

std::string floats(std::initializer_list<float> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(float)};
}

class ExternalData : public testing::Test {
 protected:
  Result<OnnxModel> read(const std::string& entries, const ReadOptions& options = {}) {
    return read_onnx(folder_.write("model.onnx", external_model(entries)), options);
  }
  void expect_refused(const std::string& entries, const std::string& words) {
    const auto model = read(entries);
    ASSERT_FALSE(model.ok()) << entries;
    EXPECT_EQ(model.status().code(), Code::kBadModel);
    EXPECT_NE(model.status().message().find(words), std::string::npos) << model.status().message();
    EXPECT_NE(model.status().message().find("'w'"), std::string::npos) << model.status().message();
  }

  TempFolder folder_{"external"};
};

TEST_F(ExternalData, ReadsOffsetAndLengthAndIgnoresOtherKeys) {
  folder_.write("w.bin", floats({9, 1, 2}));
  const auto model = read(entry("location", "w.bin") + entry("offset", "4") + entry("length", "8") +
                          entry("checksum", "whatever"));
  ASSERT_TRUE(model.ok()) << model.status().message();
  const Tensor* w = model->graph->constant(model->graph->find_value("w"));
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->as<float>()[0], 1.0f);
  EXPECT_EQ(w->as<float>()[1], 2.0f);
}

TEST_F(ExternalData, ReadsFilesInSubfolders) {
  std::filesystem::create_directories(folder_.file("a/b"));
  folder_.write("a/b/w.bin", floats({1, 2}));
  EXPECT_TRUE(read(entry("location", "a//./b/w.bin")).ok());
}

TEST_F(ExternalData, MissingFileIsNoErrorUntilTheWeightsAreNeeded) {
  const auto model = read(entry("location", "gone.bin"));
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_EQ(model->missing_data.size(), 1u);
  EXPECT_EQ(model->missing_data[0].tensor, "w");
  EXPECT_EQ(model->missing_data[0].file, "gone.bin");
  const Value& w = model->graph->value(model->graph->find_value("w"));
  EXPECT_EQ(w.dtype, DType::kF32);
  EXPECT_EQ(w.shape, Shape({2}));
  EXPECT_FALSE(w.is_constant());
  const Status status = missing_data_status(*model);
  EXPECT_EQ(status.code(), Code::kBadModel);
  EXPECT_NE(status.message().find("gone.bin"), std::string::npos);
  EXPECT_NE(status.message().find("'w'"), std::string::npos);
}

TEST_F(ExternalData, ModelsInMemoryHaveNone) {
  const auto model = read_onnx_bytes(external_model(entry("location", "w.bin")));
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->missing_data.size(), 1u);
}

TEST_F(ExternalData, RefusesPathsOutOfTheFolder) {
  const TempFolder outside("outside");
  const std::string secret = outside.write("secret", floats({1, 2}));
  expect_refused(entry("location", secret), "not relative");
  expect_refused(entry("location", "../x"), "leaves the model");
  expect_refused(entry("location", "a/../../x"), "leaves the model");
  expect_refused(entry("location", "a/.."), "leaves the model");
  expect_refused(entry("location", ""), "empty");
  expect_refused(entry("location", "."), "names no file");
  expect_refused("", "empty");
}

TEST_F(ExternalData, RefusesSymbolicAndHardLinksUnlessTrusted) {
  const TempFolder outside("outside");
  const std::string secret = outside.write("secret", floats({1, 2}));
  std::filesystem::create_symlink(secret, folder_.file("link.bin"));
  expect_refused(entry("location", "link.bin"), "symbolic link");
  std::filesystem::create_directory_symlink(outside.file("."), folder_.file("dir"));
  expect_refused(entry("location", "dir/secret"), "symbolic link");
  std::filesystem::create_symlink(folder_.file("nowhere"), folder_.file("dangling.bin"));
  expect_refused(entry("location", "dangling.bin"), "symbolic link");
  std::filesystem::create_hard_link(secret, folder_.file("hard.bin"));
  expect_refused(entry("location", "hard.bin"), "hard links");

  EXPECT_TRUE(read(entry("location", "link.bin"), {.allow_linked_external_data = true}).ok());
  EXPECT_TRUE(read(entry("location", "hard.bin"), {.allow_linked_external_data = true}).ok());
}

TEST_F(ExternalData, RefusesWhatIsNoRegularFile) {
  std::filesystem::create_directory(folder_.file("folder"));
  expect_refused(entry("location", "folder"), "not a regular file");
  ASSERT_EQ(mkfifo(folder_.file("pipe").c_str(), 0600), 0);
  expect_refused(entry("location", "pipe"), "not a regular file");
}

TEST_F(ExternalData, ChecksOffsetAndLength) {
  folder_.write("w.bin", floats({1, 2, 3}));
  const std::string location = entry("location", "w.bin");
  EXPECT_TRUE(read(location + entry("offset", "4")).ok());
  expect_refused(location + entry("offset", "5"), "ends behind");
  expect_refused(location + entry("offset", "9223372036854775800"), "ends behind");
  expect_refused(location + entry("offset", "99999999999999999999"), "offset");
  expect_refused(location + entry("offset", "-4"), "offset");
  expect_refused(location + entry("offset", "4x"), "offset");
  expect_refused(location + entry("length", "12"), "needs 8");
  expect_refused(location + entry("length", "-1"), "length");
  expect_refused(location + entry("offset", "0") + entry("offset", "4"), "twice");
}

}  // namespace
}  // namespace sprun::graph
