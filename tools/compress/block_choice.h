// Choosing blocks by score: what the methods of prune.h share.
#pragma once

#include <cstdint>
#include <vector>

#include "tools/compress/matrix.h"
#include "tools/compress/pattern.h"

namespace sprun::compress {

// Blocks needed to cover `size` elements.
constexpr int64_t block_count(int64_t size, int64_t block) { return (size + block - 1) / block; }

// 1 for each of the `count` smallest scores; equal scores go by position.
std::vector<uint8_t> smallest(const std::vector<double>& scores, int64_t count);

// Sums of element scores per block, row-major over blocks.
std::vector<double> block_scores(const Matrix& scores, const Pattern& pattern);

// Sets w to zero in the `sparsity` part of blocks with the smallest sum of `scores`: over the whole
// matrix, or per row of blocks. For N:M patterns: in each group.
enum class Scope : uint8_t { kMatrix, kBlockRow };
void zero_smallest(const PruneSpec& spec, const Matrix& scores, Scope scope, Matrix& w);

}  // namespace sprun::compress
