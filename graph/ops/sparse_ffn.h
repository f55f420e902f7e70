// sprun.SparseFfn: a feed-forward layer whose hidden values are mostly exact zeros. Contract in sparse_ffn.cc.
#pragma once

#include <string>

#include "graph/ops/ffn_density.h"
#include "graph/ops/linear_util.h"
#include "graph/ops/op.h"
#include "graph/ops/select_rows.h"
#include "kernels/sparse_ffn/sparse_ffn_types.h"

namespace sprun::graph {

// Positions of the inputs. A layer has weight, scale, zero point and bias from its first position on.
struct FfnInput {
  static constexpr int kXGate = 0, kXUp = 1, kGate = 2, kUp = 6, kDown = 10, kThreshold = 14, kResidual = 15;
  static constexpr int kGateOffset = 16, kUpOffset = 17, kMask = 18, kCount = 19;
};

// One of the three linear layers.
struct FfnLayer {
  enum class Form : uint8_t { kFloat, kInt8, kDequant, kNBits } form = Form::kFloat;
  int input = 0;            // of its weight
  bool trans = false;       // weight stored [N, K]
  std::string x_quant;      // kInt8, as sprun.LinearInt8
  std::string precision;    // kFloat, as sprun.Linear
  int64_t bits = 0, block_size = 0;  // kNBits; block_size also of kDequant
  int64_t n = 0, k = 0;     // of the whole weight
  int64_t offset = 0;       // first column of X that it reads
  int64_t column = 0;       // first column of its result that counts (weights of gate and up in one)
  // x_quant "static": of the codes that it reads (down: as u8), and what happens to its result; the row of `stages` is
  // input offset_row.
  float x_scale = 0;
  int32_t x_zero = 0;
  kernels::FfnRequant stages;
  int offset_row = 0;

  int weight() const { return input; }
  int scale() const { return input + 1; }
  int zero() const { return input + 2; }
  int bias() const { return input + 3; }
  bool is_static() const { return x_quant == "static"; }
  // Stages with the row in place, for a run.
  kernels::FfnRequant stages_of(const RunContext& ctx) const;
};

struct FfnProblem {
  FfnLayer gate, up, down;
  bool gated = false;    // there is an up layer
  bool fused_up = false;  // its weight is part of the gate's
  bool was_one_weight = false;  // it was in the file, but each has its own now
  Selection select;
  kernels::Activation before = kernels::Activation::kNone;  // of the gate, before the selection
  kernels::Activation after = kernels::Activation::kNone;   // of what survives; maps 0 to 0
  bool square = false;                                      // of what survives, after the activation
  bool up_relu = false;
  // There is no gate layer: the mask is what hidden values are multiplied with, h = mask * up_activation(up(x)).
  bool masked = false;
  double mask_density = -1;
  kernels::Activation up_activation = kernels::Activation::kNone;
  std::string pattern;
  int64_t m = 0, d_in = 0, d_up_in = 0, d_ff = 0, d_out = 0;  // d_up_in: columns of the X of up

  bool is_static() const { return down.is_static(); }
  double expected() const { return masked ? mask_density : expected_density(select, d_ff); }
};

// Reads attributes and checks shapes. kBadModel with the reason.
template <class Ctx>
Result<FfnProblem> ffn_problem(const Ctx& ctx);

// x = activation(x) of n values; none with sigmoid, which is refused before.
void activate_all(kernels::Activation activation, float* x, int64_t n);

// How hidden rows are made from those of gate and up, wherever these were computed.
struct FfnRow {
  const FfnProblem* problem = nullptr;
  Thresholds<float> thresholds;

  // h[i] = after(select(before'd g))[i] * u[i]; u is null when there is no up layer. h may be g. keys: d_ff floats.
  // Returns how many are not zero.
  int64_t finish(const float* g, const float* u, float* h, float* keys) const;
};

}  // namespace sprun::graph
