// Where the tests of runtime/text find their files, and reading of JSON lines.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sprun {

using Json = nlohmann::json;

inline std::string golden_path(const std::string& name) {
  return std::string(SPRUN_TEST_DATA) + "/text/" + name;
}

// The folder of models and data beside the repository, which is not part of it.
inline std::string shared_path(const std::string& name) {
  return (std::filesystem::path(SPRUN_TEST_DATA) / "../../../shared" / name)
      .lexically_normal()
      .string();
}

inline std::vector<Json> read_json_lines(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::vector<Json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  EXPECT_FALSE(lines.empty()) << path;
  return lines;
}

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Skips the test where the shared file is not there.
#define SPRUN_NEEDS_SHARED(path)                                                             \
  if (!std::filesystem::exists(path)) {                                                      \
    GTEST_SKIP() << path << " is not here: the shared models are no part of the repository"; \
  }

}  // namespace sprun
