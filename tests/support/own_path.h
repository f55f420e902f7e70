// Paths for what a test writes: tests of other processes, shards of one CTest run among them, use others.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace sprun::testing_support {

// name may have an extension.
inline std::string own_path(const std::string& name) {
  return testing::TempDir() + "sprun_" + std::to_string(getpid()) + "_" + name;
}

}  // namespace sprun::testing_support
