// Bases of the residual stream by principal components, from calibration data.
#pragma once

#include <vector>

#include "sprun/status.h"
#include "tools/compress/matrix.h"
#include "tools/compress/residual_stream.h"
#include "tools/compress/step.h"

namespace sprun::compress {

// Part of a step's progress that is the measuring of bases; the rest is the change of weights.
inline constexpr double kMeasurePart = 0.7;

// Orthonormal columns q[width, kept]; what is left of the energy sum(x^2) of the data in them.
struct StreamBasis {
  Matrix q;
  double energy = 1;
};

// Eigenvectors of `gram` = sum of x^T x, by falling eigenvalue, the first `kept`. For LayerNorm the
// rows x must be free of their mean; the direction of the mean then comes last, however few rows
// there were. kInternal if the eigenvalues cannot be found.
Result<StreamBasis> principal_basis(const Matrix& gram, bool subtracts_mean, int64_t kept);

// The basis for streams of which the mean is needed too: `basis`, free of means, and the direction of
// ones, turned so that x q has the mean of x, times sqrt(width / columns), as its own mean. The norm
// over what is left is then a LayerNorm as before.
StreamBasis with_mean(const StreamBasis& basis);

// The basis of every point that is not last, others are left empty. kept: dimensions that stay, by
// point. Each point is measured with everything before it sliced already: the graph is run with the
// projection q q^T behind every point, which is exactly what the sliced graph computes, in the
// original coordinates. `shared`: one basis for all of them, from the original's values. Rows are x
// itself for pre-norm models, as SliceGPT has it, and x / |x| where the norm's result is what goes
// on: post-norm models and shared bases. kBadInput if a term of the stream turns out not to have
// its width.
Result<std::vector<StreamBasis>> estimate_bases(StepContext& context, const ResidualStream& stream,
                                                const std::vector<int64_t>& kept, bool shared);

}  // namespace sprun::compress
