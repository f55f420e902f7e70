// Attention over strided views: one description of the problem for every op, an exact tiled f32 path whose keys and
// values may be stored as bf16 or 8-bit codes (kv_cache.h), and a reference for the other types.
//
//   AttentionArgs args{.batch = 1, .heads = 12, .kv_heads = 12, .q_len = s, .kv_len = s, .head_dim = 64, .v_dim = 64};
//   args.q = packed;  args.q_strides = {s * 2304, 64, 2304};     // columns of a packed [B, S, 3*H*D] row: no
//   transposes
//   ...
//   attention(args, pool, scratch);                              // attention_scratch_bytes(args, pool.num_threads())
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "kernels/attention/attention_types.h"
#include "kernels/registry.h"
#include "sprun/dtype.h"

namespace sprun {
class ThreadPool;
}

namespace sprun::kernels {

// Element (b, h, s, d) of a view lies at b * batch + h * head + s * row + d * dim elements.
struct AttentionStrides {
  int64_t batch = 0, head = 0, row = 0, dim = 1;
};

// The strides of a dense [B, heads, rows, dim] ("bhsd") or [B, rows, heads, dim] ("bshd") tensor.
constexpr AttentionStrides bhsd_strides(int64_t heads, int64_t rows, int64_t dim) {
  return {heads * rows * dim, rows * dim, dim, 1};
}
constexpr AttentionStrides bshd_strides(int64_t heads, int64_t rows, int64_t dim) {
  return {heads * rows * dim, dim, heads * dim, 1};
}

enum class MaskKind : uint8_t {
  kNone,
  kAdd,    // elements of mask_dtype (a float type) are added to the scores
  kAllow,  // bytes; a key whose byte is 0 gets -inf
};

enum class ScoreOutput : uint8_t { kNone, kRaw, kCapped, kBiased, kProbabilities };

// For every batch b, query head h and query i, with kv head g = h / (heads / kv_heads):
//   s[j] = cap(scale * sum_d q[b,h,i,d] * k[b,g,j,d]) + mask[b,h,i,j] + key_bias[b,j]     cap(x) = c tanh(x / c)
//   s[j] = frontier_fill       when key j lies outside the band of query i (below)
//   out[b,h,i,:] = sum_j softmax(s)[j] * v[b,g,j,:],   0 when no key is left (every s[j] is -inf)
// Band: with p = offset(b) + i the position of the query, j <= p if causal, j >= p - left_window and
// j <= p + right_window when those are >= 0. Keys at or after kv_len(b) and mask_keys do not exist.
// Keys and values of 8-bit codes are codes times the scale of their row.
// Sizes are >= 0 and heads is a multiple of kv_heads. Views may overlap each other but not `out`. k may have any dim
// stride (1: rows; kv_len: transposed), the others have dim stride 1. Aligned to the element size.
// Regime:  compute-bound; bandwidth-bound when few query rows share a kv head (decode).
// Numeric: f32 is exact attention up to rounding order, unless bf16_products; f16 and bf16 compute in float, f64 in
//          double.
// Threads: tiles run on the pool; several calls may run at once with their own scratch. The result does not depend on
//          the number of threads.
// Source:  ONNX Attention-23..25, com.microsoft MultiHeadAttention; online softmax as in arXiv 2205.14135.
struct AttentionArgs {
  int64_t batch = 1, heads = 1, kv_heads = 1;
  int64_t q_len = 0, kv_len = 0, head_dim = 0, v_dim = 0;
  DType dtype = DType::kF32;    // q, out, scores
  DType v_dtype = DType::kF32;
  DType k_dtype = DType::kUndefined;  // kUndefined: dtype. The fast path takes f32, bf16 or s8 for both k and v.
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* out = nullptr;
  AttentionStrides q_strides, k_strides, v_strides, out_strides;
  // Of s8 keys and values: row j of kv head g is scaled by the element at b * scale_batch + g * scale_head + j.
  const float *k_scale = nullptr, *v_scale = nullptr;
  int64_t scale_batch = 0, scale_head = 0;
  float scale = 1.0F;
  float softcap = 0.0F;  // c; <= 0: cap(x) = x

  bool causal = false;
  int64_t left_window = -1, right_window = -1;
  int64_t offset = 0;
  const int64_t* batch_offset = nullptr;  // [batch]; replaces offset
  const int64_t* batch_kv_len = nullptr;  // [batch]; values are clamped to [0, kv_len]
  // -inf, or a finite value: then a row whose every allowed key is masked still spreads over the others, as the ops
  // of com.microsoft do.
  float frontier_fill = -std::numeric_limits<float>::infinity();

  const float* key_bias = nullptr;  // [batch, kv_len], batch stride below
  int64_t key_bias_stride = 0;
  MaskKind mask_kind = MaskKind::kNone;
  DType mask_dtype = DType::kF32;
  const void* mask = nullptr;
  int64_t mask_batch = 0, mask_head = 0, mask_row = 0, mask_key = 1;  // strides in elements; 0 broadcasts
  int64_t mask_keys = std::numeric_limits<int64_t>::max();

  // [heads]: one more score per row that takes part in the softmax and has no value (attention sink).
  const float* sink = nullptr;

  // Both products may round their inputs to bf16 (8 bits of mantissa); sums, scores and softmax stay f32.
  bool bf16_products = false;

  // Reference only: scores [batch, heads, q_len, kv_len] at a chosen stage, and the type softmax is computed in
  // (kUndefined: that of the computation).
  ScoreOutput score_output = ScoreOutput::kNone;
  void* scores = nullptr;
  DType softmax_dtype = DType::kUndefined;

  const AttentionKernel* kernel = nullptr;  // null: the best that this CPU and SPRUN_MAX_ISA allow
};

// The f32 kernels over keys and values of a type (f32, bf16 or s8), best first.
std::span<const KernelInfo<AttentionKernel>> attention_kernels(DType kv = DType::kF32);
// Those with bf16 inputs of both products, best first; none where they are not built.
std::span<const KernelInfo<AttentionKernel>> attention_bf16_kernels();

// True if the tiled f32 path takes the problem; otherwise attention() runs the reference.
bool attention_is_fast(const AttentionArgs& args);

// Scratch for attention(), 64-byte aligned; depends on sizes, dtypes, mask kind and key strides only, and is enough for
// any smaller kv_len.
int64_t attention_scratch_bytes(const AttentionArgs& args, int max_threads);

// Multiply-adds times two, ignoring masks.
double attention_flops(const AttentionArgs& args);

// The name of the kernel attention() takes for these sizes ("attention_f32_avx512"); adds why not a bf16 one, if asked.
std::string_view attention_kernel_name(const AttentionArgs& args, std::vector<Rejection>* why_not = nullptr);
// True if it is the split-KV path for few query rows.
bool attention_is_decode(const AttentionArgs& args);

void attention(const AttentionArgs& args, ThreadPool& pool, void* scratch);

// Positions far outside of any cache behave like ones just outside: brought near, so that sums cannot overflow.
AttentionArgs with_bounded_positions(AttentionArgs args);

// The shortest correct loops; allocates a row of scores. Every dtype and option.
void attention_reference(const AttentionArgs& args, ThreadPool& pool);

}  // namespace sprun::kernels
