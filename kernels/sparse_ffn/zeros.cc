// The zeros of the gate rows, the list of neurons that are active for some token, and the path.
#include <cstring>

#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

int32_t* unit_ids(const Call& c, int64_t unit) {
  return c.mem.ids + unit * (kZeroNeurons + kIndexSlack);
}

}  // namespace

void run_zeros(const Call& c, int64_t unit) {
  const int64_t begin = unit * kZeroNeurons;
  const int64_t n = std::min(kZeroNeurons, c.shape.d_ff - begin);
  const float* thresholds = c.args.rule.thresholds;
  FfnSparsifyArgs args{&c.args.rule, 0.0F, thresholds == nullptr ? nullptr : thresholds + begin,
                       nullptr, n};
  int64_t active = 0;
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    args.theta = c.mem.theta[t];
    args.g = c.mem.g + t * c.sizes.ld_g + begin;
    active += c.ffn.kernel->sparsify(args);
  }
  const int64_t units = ceil_div(c.shape.d_ff, kZeroNeurons);
  c.mem.counts[unit] = c.ffn.topk->select_non_zero(c.mem.g + begin, c.sizes.ld_g, c.args.tokens, n,
                                                   static_cast<int32_t>(begin), unit_ids(c, unit));
  c.mem.counts[units + unit] = active;
}

void finish_zeros(Call& c) {
  const int64_t tokens = c.args.tokens;
  if (c.make_lists) {
    for (int64_t t = 0; t < tokens; ++t) c.active += c.mem.list_active[t];
    c.union_active = std::min(c.active, c.shape.d_ff);
    c.listed = c.shape.d_ff;
    c.path = c.args.path;
    if (c.path == FfnPath::kAuto) c.path = choose_many_path(c.ffn, tokens, c.active);
    c.lists = c.path == FfnPath::kTokenLists;
    c.expand = !c.lists;
  } else {
    const int64_t units = ceil_div(c.shape.d_ff, kZeroNeurons);
    for (int64_t u = 0; u < units; ++u) {
      std::memmove(c.mem.ids + c.union_active, unit_ids(c, u),
                   static_cast<size_t>(c.mem.counts[u]) * 4);
      c.union_active += c.mem.counts[u];
      c.active += c.mem.counts[units + u];
    }
    c.path = c.args.path == FfnPath::kTokenLists ? FfnPath::kSparse : c.args.path;
    if (c.path == FfnPath::kAuto) c.path = choose_ffn_path(c.ffn, tokens, c.union_active);
    c.listed = c.path == FfnPath::kDense ? c.shape.d_ff : c.union_active;
  }
  if (c.path == FfnPath::kDense) {
    for (int64_t j = 0; j < c.shape.d_ff; ++j) c.mem.ids[j] = static_cast<int32_t>(j);
  }
  c.segments = std::min(c.sizes.accs, ceil_div(c.listed, kFfnUnit));
  c.many = c.path == FfnPath::kDense && tokens >= kManyTokens;
}

}  // namespace sprun::kernels::sparse_ffn
