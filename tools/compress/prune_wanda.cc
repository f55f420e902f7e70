// Wanda (arXiv 2306.11695): the score of a weight is its size times the norm of its input,
// |w_ij| ||x_j||, compared within one output. Blocks add up squared scores, which is the error of
// the output that their removal causes if inputs are uncorrelated, and are compared within one row
// of blocks. The other weights stay as they are.
#include "tools/compress/block_choice.h"
#include "tools/compress/prune.h"

namespace sprun::compress {

Status prune_wanda(const PruneProblem& problem, Matrix& w, PruneOutcome&) {
  const Matrix scores = w.cwiseAbs2() * problem.inputs->squares().asDiagonal();
  zero_smallest(problem.spec, scores, Scope::kBlockRow, w);
  return {};
}

}  // namespace sprun::compress
