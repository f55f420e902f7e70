// ONNX messages from protobuf text, for tests that need a model of their own.
#pragma once

#ifndef ONNX_ML
#define ONNX_ML 1
#define ONNX_NAMESPACE onnx
#endif
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace sprun::graph {

template <class Message>
Message message_of(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

// The model with this graph, opset 17 and IR version 8 unless the header says otherwise.
inline std::string model_bytes(const std::string& graph, const std::string& rest = "",
                               const std::string& header = "ir_version: 8 opset_import { version: 17 }") {
  return message_of<onnx::ModelProto>(header + rest + " graph { name: 'test' " + graph + " }").SerializeAsString();
}

// "name: 'x' type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } }"
inline std::string float_value(const std::string& name) {
  return "{ name: '" + name + "' type { tensor_type { elem_type: 1 shape { dim { dim_value: 2 } } } } } ";
}

// A folder that is removed at the end of the test.
class TempFolder {
 public:
  explicit TempFolder(const std::string& name) : path_(testing::TempDir() + "sprun_" + name + std::to_string(getpid())) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(file(name), std::ios::binary) << bytes;
    return file(name);
  }

 private:
  std::string path_;
};

inline std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace sprun::graph
