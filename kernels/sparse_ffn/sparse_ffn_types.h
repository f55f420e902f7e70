// Argument structs and kernel table of the sparse feed-forward family. Plain data: ISA files
// include it. Formulas: sparse_ffn.h.
//
// Up and down weights are neuron-major: row j of up is W_up[j, :], row j of down is W_down[:, j].
// Rows start at multiples of 64 bytes and are padded with zeros to whole lines. A kernel call works
// on a short list of neurons; `listed` ids may be read for prefetching, `count` are computed.
#pragma once

#include <cstdint>

namespace sprun::kernels {

enum class FfnWeights : uint8_t { kF32, kBf16, kInt8 };

// What makes zeros of a row of gate values g, before `activation`.
enum class FfnSparsifier : uint8_t {
  kRelu,           // s = max(g, 0)
  kStatTopK,       // s = max(g - theta, 0), theta = mean(g) + z std(g)
  kGateThreshold,  // s = g where g >= t (strict: g > t), else 0                 FATReLU
  kActThreshold,   // s = a(g) where |a(g)| >= t (strict: > t), else 0, a = `activation`, which is
                   //   not applied again                                        CATS, CHESS
  kTopK,           // s = g for the k largest, else 0; equal ones by lower index
  kTopKAbs,        // the same by |g|
};

// Every one maps 0 to 0.
enum class FfnActivation : uint8_t { kIdentity, kGeluTanh, kGeluErf, kSilu, kRelu, kReluSquared };

struct SparseFfnRule {
  FfnSparsifier sparsifier = FfnSparsifier::kRelu;
  FfnActivation activation = FfnActivation::kIdentity;
  FfnActivation up_activation = FfnActivation::kIdentity;  // of up(x); kRelu: dReLU
  bool strict = false;                // thresholds: keep what is above, not what equals
  int ddof = 0;                       // kStatTopK: 0 divides the variance by d_ff, 1 by d_ff - 1
  double z = 0;                       // kStatTopK: stat_top_k_z(k, d_ff) of kernels/topk
  float threshold = 0;                // kGateThreshold, kActThreshold
  const float* thresholds = nullptr;  // [d_ff] instead of `threshold`
  int64_t k = 0;                      // kTopK, kTopKAbs
};

// What a statically quantised graph does to the result of a layer before anything else reads it, in
// order: rounding to 8-bit codes and back, and adding a row.
struct FfnRequant {
  struct Stage {
    // > 0: v = (code - zero_point) * scale,
    //      code = saturate_u8(round_half_even(v / scale) + zero_point);  NaN is code 0
    float scale = 0;
    int32_t zero_point = 0;
    const float* offset = nullptr;  // [d_ff], scale 0: v = v + offset[neuron]
  };
  static constexpr int kMostStages = 4;
  Stage stages[kMostStages];
  int count = 0;
};

inline constexpr int64_t kFfnGroup = 4;   // neurons whose down rows are interleaved
inline constexpr int64_t kFfnUnit = 64;   // neurons of one kernel call at most
inline constexpr int64_t kFfnAhead = 32;  // ids past the unit that may be listed

// sums[t * ld_sums + i] = sum over k of x[t * ldx + k] * row[ids[i]][k]
struct FfnDotArgs {
  const char* rows;      // row of neuron 0
  int64_t stride_bytes;  // between rows
  int64_t k;             // elements, whole lines; x is padded with zeros to this
  const int32_t* ids;    // [listed]
  int64_t count, listed;
  int64_t tokens;
  const void* x;  // u8, bf16 or f32 like the weights (int8: u8), 64-byte aligned
  int64_t ldx;
  void* sums;  // int32 (int8 weights) or float
  int64_t ld_sums;
  bool cached;  // rows lie in a cache already: nothing is fetched ahead
};

// Scale of a neuron's up row, and the sum of its codes.
struct FfnRowQuant {
  float scale;
  int32_t sum;
};

// s[t, j] in place from g[t, j], j < n: the zeros of the rule for one row.
struct FfnSparsifyArgs {
  const SparseFfnRule* rule;
  float theta;              // kStatTopK
  const float* thresholds;  // of the first of the n neurons; null = rule->threshold
  float* g;
  int64_t n;
};

// h[t, i] = activation(s[t, ids[i]]) * up_activation(u[t, i]), u from the sums of the dot:
//   f32, bf16: u = sum + bias       int8: u = x_scale[t] * row.scale * A + bias,
//   A = sum - x_zero[t] row.sum - w_zero (x_sum[t] - k x_zero[t])
// Not gated: h = activation(s). min and max [tokens] are widened to hold every h.
struct FfnHiddenArgs {
  const SparseFfnRule* rule;
  bool gated;
  const int32_t* ids;
  int64_t count, tokens;
  const float* s;  // [tokens, ld_s]
  int64_t ld_s;
  bool s_listed;     // s[t, i] instead of s[t, ids[i]]; h may then be s
  const void* sums;  // [tokens, ld_sums]
  int64_t ld_sums;
  const float* bias;         // [d_ff]; null = 0
  const FfnRowQuant* quant;  // [d_ff], int8 only
  const int32_t* w_zero;     // [d_ff]; null = 0
  int64_t k;
  const float* x_scale;  // [tokens]
  const int32_t* x_zero;
  const int32_t* x_sum;
  float* h;  // [tokens, ld_h]
  int64_t ld_h;
  float* min;
  float* max;
};

// acc[t, n] += sum over i < count of h[t, i] * row[ids[i]][n]
struct FfnDownArgs {
  const char* rows;
  int64_t stride_bytes;
  int64_t n;           // outputs, whole lines of weights; acc rows hold as many
  const int32_t* ids;  // [listed]
  int64_t count;       // a multiple of kFfnGroup, padded with zeros in h and repeated ids
  int64_t listed;
  int64_t rows_of_h;  // tokens; int8 may have one more for the sums of the weights
  const void* h;      // u8 (int8 weights), bf16 or f32
  int64_t ld_h;
  void* acc;  // int32 or float
  int64_t ld_acc;
};

// One token and its own list:
//   acc[n] = sum over negative <= i < count of h[i] * row[ids[i]][n]  -  the same over i < negative
// plus acc[n] with `add`. Unsigned codes of int8 layers are magnitudes: those of negative hidden
// values come first, so that no zero point remains.
struct FfnListArgs {
  const char* rows;  // at the first output
  int64_t stride_bytes;
  int64_t n;                // outputs, whole lines of weights; acc holds as many
  const int32_t* ids;       // [count]
  int64_t negative, count;  // multiples of kFfnGroup, padded with zeros in h and any ids
  const void* h;            // u8 (int8 weights), bf16 or f32; these have negative = 0
  void* acc;                // int32 or float
  bool add;
};

// y[i] = sum[i] * (scale * w_scale[i]) + bias[i] + residual[i], i < n: the last step of the dense
// GEMM, rounded like it. w_scale null: sums are float and taken as they are, else int32.
struct FfnOutArgs {
  int64_t n;
  const void* sum;
  float scale;
  const float* w_scale;
  const float* bias;      // null = 0
  const float* residual;  // null = 0
  float* y;
};

struct SparseFfnKernel {
  // Elements of x: y[0, k) = x, as the dot wants it (f32 copied, bf16 rounded), zero up to
  // `padded`. Null for int8, whose codes come from the quantiser.
  void (*convert)(const float* x, int64_t k, int64_t padded, void* y);
  int64_t (*sparsify)(const FfnSparsifyArgs& args);  // returns how many are not 0
  void (*dot)(const FfnDotArgs& args);
  void (*hidden)(const FfnHiddenArgs& args);
  void (*down)(const FfnDownArgs& args);
  void (*down_list)(const FfnListArgs& args);
  void (*out)(const FfnOutArgs& args);
};

}  // namespace sprun::kernels
