// Real models and data that are not part of the repository: the folder `shared` beside the checkout.
#pragma once

#include <filesystem>
#include <string>

namespace sprun {

inline std::string shared_file(const std::string& relative) { return std::string(SPRUN_SHARED) + "/" + relative; }

}  // namespace sprun

// Ends the test with a message where the file is absent.
#define SPRUN_NEED_SHARED(relative)                                        \
  if (!std::filesystem::exists(::sprun::shared_file(relative))) {          \
    GTEST_SKIP() << ::sprun::shared_file(relative) << " is not there";     \
  }                                                                        \
  static_assert(true)
