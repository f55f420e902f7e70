// What tests of kernels draw their problems from.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <limits>

namespace sprun::testing_support {

// In the gaps of outputs, to be found unchanged, and in those of inputs, where a kernel that reads
// them computes NaN.
inline constexpr float kCanary = -12345.5F;
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInf = std::numeric_limits<float>::infinity();

// Of Y[m, n] = X[m, k] W[n, k]^T.
struct Size {
  int64_t m, n, k;
};

// The seed that SPRUN_TEST_SEED asks for, or the test's own.
inline unsigned seed_or(unsigned own) {
  const char* env = std::getenv("SPRUN_TEST_SEED");
  return env == nullptr ? own : static_cast<unsigned>(std::strtoul(env, nullptr, 10));
}

}  // namespace sprun::testing_support
