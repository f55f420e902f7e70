// How a model's zeros are used.
#pragma once

#include <cstdint>
#include <string_view>

#include "sprun/export.h"
#include "sprun/status.h"

namespace sprun {

// kAuto: a linear layer whose constant weight has enough zeros, in a pattern that some kernel can use, runs on sparse
// kernels where these are expected to be faster. kOff: never. kForce: wherever there are zeros and a sparse
// kernel can run (for measuring).
enum class SparseMode : uint8_t { kAuto, kOff, kForce };

SPRUN_API std::string_view sparse_mode_name(SparseMode mode);
SPRUN_API Result<SparseMode> parse_sparse_mode(std::string_view name);  // "auto", "off", "force"; kUsage otherwise

}  // namespace sprun
