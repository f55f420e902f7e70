// Normalisation of rows, shared by the LayerNormalization family and the fused skip forms: what to
// normalise, checked, and the plain loop that serves every float type.
#pragma once

#include "graph/ops/op.h"

namespace sprun::graph {

// y[r, c] = (v - mean) * inv_std * gamma + beta, v = x[r, c] + skip[r mod skip_rows, c] + bias[c];
// rms: mean is taken as 0. A view whose dtype is kUndefined is absent.
struct RowNorm {
  ConstTensorView x, skip, bias;  // one float type; bias is [n]
  ConstTensorView gamma, beta;    // one float type, the type of y; broadcast to the shape of x
  TensorView y, sum;              // sum: v, in the type of x
  TensorView mean, inv_std;       // [rows], float types
  int64_t rows = 0, n = 0, skip_rows = 1;
  double epsilon = 0;
  bool rms = false;
};

// prepare() of every op that calls run_row_norm().
Status prepare_row_norm(PrepareContext& ctx);

// Runs with the kernel in ctx.state() when there is one and it applies, else with the plain loop.
Status run_row_norm(RunContext& ctx, const RowNorm& norm);

}  // namespace sprun::graph
