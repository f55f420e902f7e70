// The gate: g = W_gate x for all neurons, and what the sparsifier needs to know of whole rows.
#include "kernels/gemm/pack.h"
#include "kernels/sparse_ffn/requant.h"
#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

GemmU8S8Args gate_args(const Call& c, const Epilogue& epilogue) {
  GemmU8S8Args g;
  g.m = c.args.tokens;
  g.n = c.shape.d_ff;
  g.k = c.shape.d_gate;
  g.x = static_cast<const uint8_t*>(c.gate.x);
  g.ldx = c.gate.ld;
  g.w = c.weights<int8_t>(c.ffn.at.gate);
  g.w_sum = c.weights<int32_t>(c.ffn.at.gate_sum);
  g.x_zero_point = c.gate.zero;
  g.x_zero_point_stride = 1;
  g.w_zero_point = c.weights<int32_t>(c.ffn.at.gate_zero);
  g.w_zero_point_stride = 1;
  g.x_sum = c.gate.sum;
  g.x_scale = c.gate.scale;
  g.x_scale_stride = 1;
  g.w_scale = c.weights<float>(c.ffn.at.gate_scale);
  g.w_scale_stride = 1;
  g.y = c.mem.g;
  g.ldy = c.sizes.ld_g;
  g.epilogue = epilogue;
  return g;
}

// Gate values that the caller has.
void copy_gate(const Call& c, int64_t begin, int64_t n) {
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    std::copy_n(c.args.gate_values + t * c.args.ld_gate_values + begin, n,
                c.mem.g + t * c.sizes.ld_g + begin);
  }
}

}  // namespace

void run_gate(const Call& c, int64_t unit, int worker) {
  const int64_t p0 = unit * c.sizes.gate_unit;
  const int64_t p1 = std::min(p0 + c.sizes.gate_unit, c.sizes.gate_panels);
  const TileRange tiles{0, c.args.tokens, p0, p1};
  void* own = c.mem.gemm + c.mem.gemm_bytes * worker;
  Epilogue epilogue;
  epilogue.bias = c.weights<float>(c.ffn.at.gate_bias);
  const int64_t m = c.args.tokens;
  const int64_t begin = p0 * c.ffn.gate_nr;
  const int64_t n = std::min(p1 * c.ffn.gate_nr, c.shape.d_ff) - begin;
  if (c.shape.d_gate == 0) {
    copy_gate(c, begin, n);
  } else if (c.ffn.gate_f32 != nullptr) {
    c.ffn.gate_f32->run(
        {m, c.shape.d_ff, c.shape.d_gate, static_cast<const float*>(c.gate.x), c.gate.ld,
         c.weights<float>(c.ffn.at.gate), c.mem.g, c.sizes.ld_g, epilogue},
        tiles, own);
  } else if (c.ffn.gate_bf16 != nullptr) {
    c.ffn.gate_bf16->run(
        {m, c.shape.d_ff, c.shape.d_gate, static_cast<const uint16_t*>(c.gate.x), c.gate.ld,
         c.weights<uint16_t>(c.ffn.at.gate), c.mem.g, c.sizes.ld_g, epilogue},
        tiles, own);
  } else {
    c.ffn.gate_u8s8->run(gate_args(c, epilogue), tiles, own);
  }
  for (int64_t t = 0; t < m && c.args.gate_requant != nullptr; ++t) {
    requantize(*c.ffn.quantize, *c.args.gate_requant, begin, nullptr,
               c.mem.g + t * c.sizes.ld_g + begin, n);
  }
  if (c.args.rule.sparsifier != FfnSparsifier::kStatTopK) return;
  for (int64_t t = 0; t < m; ++t) {
    double* out = c.mem.moments + (unit * m + t) * 2;
    c.ffn.topk->moments(c.mem.g + t * c.sizes.ld_g + begin, n, out, out + 1);
  }
}

void set_threshold(const Call& c, int64_t t) {
  const SparseFfnRule& rule = c.args.rule;
  if (rule.sparsifier != FfnSparsifier::kStatTopK) return;
  double sum = 0;
  double squares = 0;
  for (int64_t u = 0; u < c.sizes.gate_units; ++u) {
    sum += c.mem.moments[(u * c.args.tokens + t) * 2];
    squares += c.mem.moments[(u * c.args.tokens + t) * 2 + 1];
  }
  c.mem.theta[t] = stat_threshold(sum, squares, c.shape.d_ff, rule.z, rule.ddof);
}

void finish_gate(const Call& c) {
  if (c.make_lists) return;
  const SparseFfnRule& rule = c.args.rule;
  const bool by_abs = rule.sparsifier == FfnSparsifier::kTopKAbs;
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    float* g = c.mem.g + t * c.sizes.ld_g;
    if (by_abs || rule.sparsifier == FfnSparsifier::kTopK) {
      const TopKCut cut = top_k_cut(g, c.shape.d_ff, rule.k, by_abs, c.mem.topk);
      top_k_keep(g, c.shape.d_ff, by_abs, cut, g);
    }
    set_threshold(c, t);
  }
}

}  // namespace sprun::kernels::sparse_ffn
