// Attention of statically quantised graphs: both products take 8-bit codes and sum in int32.
//
//   AttentionInt8Args args{.shape = {.batch = 1, .heads = 12, .kv_heads = 12, .q_len = s, ...}};
//   args.shape.q = codes;  args.q = {0.02F, 128};  ...
//   attention_int8(args, pool, scratch);      // attention_int8_scratch_bytes(args, pool.num_threads())
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_int8_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

// A code c stands for (c - zero) * scale.
struct CodeParams {
  float scale = 1.0F;
  int32_t zero = 0;
  DType dtype = DType::kU8;  // or kS8
};

// For every batch b, head h, query i, with kv head g = h / (heads / kv_heads):
//   s[j] = shape.scale * q.scale * k.scale * sum_d (Q[i,d] - q.zero) (K[j,d] - k.zero) + mask[b,h,i,j]     sum: int32
//   c[j] = saturate(round_half_even(softmax(s)[j] / p.scale) + p.zero)
//   out[i,:] = p.scale * v.scale * sum_j (c[j] - p.zero) (V[j,:] - v.zero)                                sum: int32
//   and, with requantise, saturate(round_half_even(out / y.scale) + y.zero)
// A row that no key may enter (every s[j] is -inf) has p = 0. Sums that are integers are exact; kernels may round
// quotients by multiplying with reciprocals, so that a code on the boundary between two values may be either.
// Of `shape`, sizes, q, k, v, out, their strides (in elements), scale and the mask (float32 to add, or bytes) count;
// k may have any dim stride, the others 1. head_dim and kv_len are at most kMaxSum. Views may overlap but not `out`.
// Regime:  compute-bound. Threads: blocks of rows run on the pool; several calls may run at once with their own scratch.
struct AttentionInt8Args {
  static constexpr int64_t kMaxSum = 32768;  // longest sum that int32 holds whatever the codes and zero points
  AttentionArgs shape;
  CodeParams q, k, v, p, y;
  bool requantise = false;
  const AttentionInt8Kernel* kernel = nullptr;  // null: the best that this CPU and SPRUN_MAX_ISA allow
};

// Best first.
std::span<const KernelInfo<AttentionInt8Kernel>> attention_int8_kernels();

// Scratch for attention_int8(), 64-byte aligned; depends on sizes only.
int64_t attention_int8_scratch_bytes(const AttentionInt8Args& args, int max_threads);
std::string_view attention_int8_kernel_name(const AttentionInt8Args& args, std::vector<Rejection>* why_not = nullptr);

void attention_int8(const AttentionInt8Args& args, ThreadPool& pool, void* scratch);

// The shortest correct loops; allocates rows of scores. Any length.
void attention_int8_reference(const AttentionInt8Args& args, ThreadPool& pool);

}  // namespace sprun::kernels
