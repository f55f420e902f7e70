// The factor of an inverse that column-wise elimination needs.
#pragma once

#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// U upper triangular with U^T U = (H + d I)^{-1}. Columns of H that are zero count as columns of I.
struct InverseFactor {
  Matrix u;
  double damping =
      0;  // d / mean(diag(H)): what was asked for, or ten times as much as often as needed
};

// kBadInput if H, symmetric, is not positive definite even with damping 1: it holds NaN or
// infinity.
Result<InverseFactor> inverse_factor(const Matrix& h, double damping, ThreadPool& pool);

}  // namespace sprun::compress
