// Made-up values for the inputs a user did not give.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"

namespace sprun::tools {

enum class Fill { kRandom, kZeros, kOnes };

// "random", "zeros", "ones"; kUsage otherwise.
Result<Fill> parse_fill(std::string_view name);

// For each integer input that is used as an index into a constant table (Gather on axis 0, an
// embedding layer), the number of rows of the smallest such table. Looks through casts and
// reshapes.
std::map<std::string, int64_t> index_limits(const graph::Graph& graph);

struct FillOptions {
  Fill fill = Fill::kRandom;
  uint64_t seed = 0;
  std::map<std::string, int64_t> limits = {};  // index_limits()
  int64_t total_length = 1;                    // past + sequence, for inputs that state lengths
};

// A tensor for `spec`. kZeros and kOnes are literal; kRandom is sensible for what the input seems
// to be, the first rule that fits:
//   name contains "mask"                      1
//   floats                                    normal, mean 0, deviation 1
//   name contains "position"                  0, 1, 2, ... along the last axis, below the limit
//   name contains "token_type" or "segment"   0
//   a limit is known                          uniform in [0, limit)
//   name contains "seqlens" or "total_seq"    total_length - 1 or total_length
//   integer, name contains "id" or "token"    uniform in [0, 100)
//   other integers                            uniform in [0, 2); bool: false
// The same seed gives the same values on every machine. kNotSupported for strings; kResourceLimit.
Result<Tensor> fill_tensor(const TensorSpec& spec, const Shape& shape, const FillOptions& options);

}  // namespace sprun::tools
