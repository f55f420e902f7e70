// Puts the residual stream of a graph into other bases, with fewer dimensions where these have
// fewer columns.
#pragma once

#include <string>
#include <vector>

#include "sprun/status.h"
#include "tools/compress/residual_stream.h"
#include "tools/compress/step.h"
#include "tools/compress/stream_basis.h"

namespace sprun::compress {

// Point p holds x q instead of its value x; last points keep theirs. Weights, biases and tables
// that write to the stream are multiplied by q, those that read it by q^T; scale and shift of a
// norm move into the layers that read it, and the norm becomes an RMSNorm over the dimensions that
// are left, with epsilon * width / kept and the scale sqrt(width / kept): the same as dividing by
// the original width. Points without keeps_mean lose their mean, which no norm sees; those with it
// have bases by with_mean(), whose norm is a LayerNorm with the same scale. Where the basis changes
// from point p to r, a shortcut q_p^T q_r is put before the sum.
//
// shared: all bases are the same one. Pre-norm models then need no shortcut but to the last point.
// In post-norm models the scale of the norm does not commute with a rotation: its diagonal in the
// new basis is kept in the norm, the rest is lost.
//
// Updates the entries of the report, with `action`, and adds those of the shortcuts. kBadModel
// before opset 10, kCancelled.
Status rewrite_stream(StepContext& context, const ResidualStream& stream,
                      const std::vector<StreamBasis>& bases, bool shared,
                      const std::string& action);

}  // namespace sprun::compress
