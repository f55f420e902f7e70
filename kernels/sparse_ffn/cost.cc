#include "kernels/sparse_ffn/cost.h"

namespace sprun::kernels {
namespace {

struct Cost {
  double up, down;    // of a gathered multiply-add
  double weight;      // of a weight of up and down, read, copied, once a call
  double gate_value;  // of a gate value: statistics and compaction
  double active;      // of an active neuron of a token: activation, quantisation
};

constexpr Cost kInt8 = {.up = 4.0, .down = 2.8, .weight = 30, .gate_value = 200, .active = 2900};
constexpr Cost kF32 = {.up = 4.0, .down = 2.9, .weight = 16, .gate_value = 60, .active = 300};

}  // namespace

double token_list_speedup(const SparseFfnShape& shape, int64_t tokens, double density) {
  if (shape.weights == FfnWeights::kBf16 || tokens < kFfnListTokens) return 0;
  const Cost& cost = shape.weights == FfnWeights::kInt8 ? kInt8 : kF32;
  const double t = static_cast<double>(tokens);
  const double gate = static_cast<double>(shape.d_gate);
  const double up = static_cast<double>(shape.d_up);
  const double out = static_cast<double>(shape.d_out);
  // Of one neuron.
  const double lists =
      t * (gate + cost.gate_value + density * (cost.up * up + cost.down * out + cost.active)) +
      cost.weight * (up + out);
  return t * (gate + up + out) / lists;
}

}  // namespace sprun::kernels
