#include <algorithm>

#include "graph/ops/sparse_ffn.h"
#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
using kernels::Activation;
using kernels::MapOp;

void activate_all(Activation activation, float* x, int64_t n) {
  switch (activation) {
    case Activation::kNone:
    case Activation::kSigmoid:  // not 0 at 0: refused before
      return;
    case Activation::kRelu:
      return kernels::map_f32(MapOp::kRelu)(x, x, n, 0, 0);
    case Activation::kGeluErf:
    case Activation::kGeluErfCodes:
      return kernels::map_f32(MapOp::kGeluErf)(x, x, n, 0, 0);
    case Activation::kGeluTanh:
      return kernels::map_f32(MapOp::kGeluTanh)(x, x, n, 0, 0);
    case Activation::kTanh:
      return kernels::map_f32(MapOp::kTanh)(x, x, n, 0, 0);
    case Activation::kSilu:
      return kernels::map_f32(MapOp::kSwish)(x, x, n, 1.0F, 0);
    case Activation::kQuickGelu:
      return kernels::map_f32(MapOp::kSwish)(x, x, n, 1.702F, 0);
  }
}

int64_t FfnRow::finish(const float* g, const float* u, float* h, float* keys) const {
  constexpr int64_t kBlock = 256;
  const FfnProblem& p = *problem;
  const int64_t n = p.d_ff;
  select_row(p.select, thresholds, g, n, h, keys);
  int64_t active = 0;
  int32_t index[kBlock];
  float value[kBlock];
  for (int64_t base = 0; base < n; base += kBlock) {
    const int64_t end = std::min(base + kBlock, n);
    int64_t count = 0;
    for (int64_t i = base; i < end; ++i) {
      index[count] = static_cast<int32_t>(i);
      count += h[i] != 0;
    }
    active += count;
    for (int64_t j = 0; j < count; ++j) value[j] = h[index[j]];
    activate_all(p.after, value, count);
    for (int64_t j = 0; j < count; ++j) {
      float v = p.square ? value[j] * value[j] : value[j];
      if (u != nullptr) v *= p.up_relu ? std::max(u[index[j]], 0.0F) : u[index[j]];
      h[index[j]] = v;
    }
    if (p.up_relu) active -= std::count_if(index, index + count, [h](int32_t i) { return h[i] == 0; });
  }
  return active;
}

}  // namespace sprun::graph
