// A generated model in a temporary file, and inputs for it.
#pragma once

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "graph/onnx/onnx_writer.h"
#include "sprun/sprun.h"
#include "tools/modelgen/modelgen.h"

namespace sprun {

class GeneratedModel {
 public:
  explicit GeneratedModel(const std::string& preset, bool int8 = false) : GeneratedModel(config_of(preset, int8)) {}
  explicit GeneratedModel(const modelgen::Config& config) : GeneratedModel(modelgen::generate(config).value()) {}
  explicit GeneratedModel(const graph::Graph& graph) {
    static int counter = 0;
    path_ = (std::filesystem::temp_directory_path() /
             ("sprun_" + std::to_string(getpid()) + "_" + std::to_string(counter++) + ".onnx")).string();
    graph::write_onnx(graph, path_).value();
  }
  ~GeneratedModel() { std::filesystem::remove(path_); }
  GeneratedModel(const GeneratedModel&) = delete;
  GeneratedModel& operator=(const GeneratedModel&) = delete;
  const std::string& path() const { return path_; }

 private:
  static modelgen::Config config_of(const std::string& preset, bool int8) {
    auto config = modelgen::preset(preset).value();
    if (int8) config.quantization = modelgen::Quantization::kS8;
    return config;
  }

  std::string path_;
};

// Token ids 1, 2, 3, ..., masks of ones, token types of zeros for a BERT.
inline std::vector<NamedTensor> bert_inputs(int64_t batch, int64_t seq) {
  std::vector<NamedTensor> inputs;
  for (const char* name : {"input_ids", "attention_mask", "token_type_ids"}) {
    Tensor tensor = Tensor::zeros(DType::kS64, {batch, seq}).value();
    auto* data = tensor.mutable_view().as<int64_t>();
    for (int64_t i = 0; i < batch * seq; ++i) {
      if (std::string(name) == "input_ids") data[i] = 1 + i % 50;
      if (std::string(name) == "attention_mask") data[i] = 1;
    }
    inputs.push_back({name, std::move(tensor)});
  }
  return inputs;
}

inline void bind_all(Session& session, const std::vector<NamedTensor>& inputs) {
  for (const NamedTensor& input : inputs) session.bind_input(input.name, input.tensor.view()).value();
}

}  // namespace sprun
