// Magnitude pruning: the blocks with the smallest sum of squares of the whole layer become zero.
#include "tools/compress/block_choice.h"
#include "tools/compress/prune.h"

namespace sprun::compress {

Status prune_magnitude(const PruneProblem& problem, Matrix& w, PruneOutcome&) {
  zero_smallest(problem.spec, w.cwiseAbs2(), Scope::kMatrix, w);
  return {};
}

}  // namespace sprun::compress
