// Which zeros a weight W[N outputs, K inputs] may get.
//
//   parse_pattern("16x4")  blocks of 16 consecutive outputs by 4 consecutive inputs
//   parse_pattern("2:4")   2 of each 4 consecutive inputs of an output are kept
//   parse_pattern("unstructured")  single elements, the same as "1x1"
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sprun/status.h"

namespace sprun::compress {

struct Pattern {
  int64_t rows = 1, cols = 1;  // outputs x inputs of a block
  int64_t kept = 0, of = 0;    // N:M when `of` is not 0; blocks are 1x1 then

  bool is_n_of_m() const { return of != 0; }
  std::string name() const;
  bool operator==(const Pattern&) const = default;
};

// kUsage. Sizes are at most 64.
Result<Pattern> parse_pattern(std::string_view text);

// What one --prune asks of a layer: "4x1:0.9@sparsegpt", "2:4@wanda", "unstructured:0.5".
struct PruneSpec {
  Pattern pattern;
  double sparsity = 0;  // part of the blocks that become zero; follows from N:M
  std::string method = "sparsegpt";

  std::string text() const;
};

// kUsage: unknown pattern or method, sparsity not in [0, 1).
Result<PruneSpec> parse_prune_spec(std::string_view text);

// Shell-like match of a whole name: * stands for any characters, '/' and '.' among them, ? for one.
bool matches(std::string_view pattern, std::string_view name);

}  // namespace sprun::compress
