#include "kernels/attention/attention.h"

namespace sprun::kernels {

bool attention_is_fast(const AttentionArgs&) { return false; }

int64_t attention_scratch_bytes(const AttentionArgs&, int) { return 0; }

double attention_flops(const AttentionArgs& a) {
  return 2.0 * static_cast<double>(a.batch * a.heads) * static_cast<double>(a.q_len) * static_cast<double>(a.kv_len) *
         static_cast<double>(a.head_dim + a.v_dim);
}

std::string_view attention_kernel_name(const AttentionArgs&) { return "attention_ref"; }

bool attention_is_decode(const AttentionArgs& a) { return a.q_len * (a.heads / a.kv_heads) <= 8; }

void attention(const AttentionArgs& args, ThreadPool& pool, void*) { attention_reference(args, pool); }

}  // namespace sprun::kernels
