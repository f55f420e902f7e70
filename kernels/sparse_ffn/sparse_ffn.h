// Feed-forward layers whose hidden row is mostly zero: only the weights of active neurons are read.
//
//   SparseFfn ffn = make_sparse_ffn(shape, available_isas());
//   blob = allocate(plan_sparse_ffn(&ffn, source));
//   pack_sparse_ffn(ffn, source, pool, blob);                        // once
//   SparseFfnArgs args{.tokens = 1, .weights = blob, .x_gate = {x, r}, .x_up = {x + r, d - r}};
//   args.rule = {.sparsifier = FfnSparsifier::kStatTopK,
//                .activation = FfnActivation::kGeluTanh, .z = stat_top_k_z(k, d_ff)};
//   args.y = y;  args.ldy = d;
//   run_sparse_ffn(ffn, args, pool, scratch);                        // sparse_ffn_scratch_bytes
//
//   g[t, j] = sum_k x_gate[t, k] W_gate[j, k] + b_gate[j]            every neuron j < d_ff
//   s[t, :] = sparsifier(g[t, :])                                    FfnSparsifier, row by row
//   h[t, j] = act(s[t, j]) * up_act(sum_k x_up[t, k] W_up[j, k] + b_up[j])    where s[t, j] != 0
//   y[t, n] = sum_j h[t, j] W_down[n, j] + b_down[n] + residual[t, n]
// Not gated (d_up = 0): h = act(s). Zeros of s never contribute, so a NaN or infinity that the
// dense formula would make from 0 * inf is not made; a NaN gate value counts as 0.
//
// Without a gate layer (d_gate = 0) the rows g are given: a mask that a router made, say.
// Weights: f32; bf16 (x and h are rounded to bf16, sums in f32); int8 with one scale per output of
//   each matrix. int8: x is u8, given or quantised here as ONNX DynamicQuantizeLinear does, per row
//   or with one range for all rows; h likewise (a zero of h stays exactly zero); products are exact
//   int32, so all paths give the same bits.
// Layout:  one copy of each weight in a blob: the gate as the dense GEMM packs it, up and down
//   neuron-major in rows of whole cache lines (sparse_ffn_types.h).
// Static quantisation (kInt8): x_gate and x_up are codes of the graph, h_scale and h_zero_point its
//   constants, and gate_requant and up_requant what it does to gate and up values on the way:
//   g and up(x) above are then those values requantised. Zero is a code, so zeros of s stay zeros.
// Paths:   kSparse reads up and down rows of the neurons that are active for some token (the union
//   for 2 to 8 tokens); kTokenLists gives each of 9 or more tokens its own list, a cache holding
//   the rows that they share; kDense takes all, as one stream, or from 32 tokens on by the dense
//   GEMM on panels packed on the way; kAuto decides after the gate, when the number of active
//   neurons is known: choose_ffn_path(), choose_many_path(). What lists are expected to gain:
//   cost.h.
// Regime:  bandwidth-bound for 1 to 8 tokens, compute-bound for many; any number is right.
// Numeric: int8 exact sums; f32 and bf16 reassociated. Results do not depend on the number of
//   threads; those of f32 and bf16 depend, by rounding, on the path.
// Threads: one parallel region; its phases are handed out in units of fixed size, so any number of
//   workers that arrive finishes it. Calls with different scratch may run at the same time.
// Errors:  none; sparse_ffn_refusal() says what shapes cannot be had. Nothing allocates or locks.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/registry.h"
#include "kernels/sparse_ffn/sparse_ffn_types.h"
#include "kernels/topk/topk.h"

namespace sprun {
class ThreadPool;
}

namespace sprun::kernels {

struct SparseFfnShape {
  int64_t d_gate = 0;  // inputs of the gate; 0: its values are given, and there is an up layer
  int64_t d_up = 0;    // inputs of up; 0: not gated
  int64_t d_ff = 0;    // neurons
  int64_t d_out = 0;
  FfnWeights weights = FfnWeights::kInt8;
  bool gated() const { return d_up > 0; }
};

// Null, or why this shape is not supported (sizes < 1, more than an exact int32 sum can hold).
const char* sparse_ffn_refusal(const SparseFfnShape& shape);

std::span<const KernelInfo<SparseFfnKernel>> sparse_ffn_kernels(FfnWeights weights);

// The variants that run a layer and where its blob holds what. Plain values; copy freely.
struct SparseFfn {
  SparseFfnShape shape;
  std::string_view name;  // of the kernel, "sparse_ffn_u8s8_avx512vnni"
  const SparseFfnKernel* kernel = nullptr;
  const TopKKernel* topk = nullptr;
  const QuantizeRowsKernel* quantize = nullptr;
  const GemmF32Kernel* gate_f32 = nullptr;  // the one that fits shape.weights
  const GemmBf16Kernel* gate_bf16 = nullptr;
  const GemmU8S8Kernel* gate_u8s8 = nullptr;
  int64_t gate_nr = 0;
  int64_t up_stride = 0, down_stride = 0;  // bytes between rows
  // Byte offsets in the blob; every area is 64-byte aligned. -1: not there.
  struct Offsets {
    int64_t gate, gate_bias, gate_sum, gate_scale, gate_zero;
    int64_t up, up_bias, up_quant, up_zero;
    int64_t down, down_bias, down_scale, down_zero;
    int64_t end;
  } at{};
};

// `why_not` gets the better variants that `isas` does not allow.
SparseFfn make_sparse_ffn(const SparseFfnShape& shape, IsaSet isas,
                          std::vector<Rejection>* why_not = nullptr);
// The same with entry `variant` of sparse_ffn_kernels() and, beside it, kernels of no newer ISA:
// for tests and benches.
SparseFfn make_sparse_ffn_variant(const SparseFfnShape& shape, IsaSet isas, int64_t variant);

// ---- weights ---------------------------------------------------------------------------------
// One matrix W[n outputs, k inputs]. f32 values for kF32 and kBf16 (rounded here), codes for kInt8:
//   W = scale[n] * (code - zero[n])
struct SparseFfnMatrix {
  const float* f32 = nullptr;
  const void* codes = nullptr;  // s8, or u8
  bool codes_unsigned = false;
  int64_t stride_n = 0, stride_k = 0;
  const float* scale = nullptr;
  int64_t scale_stride = 0;             // 0: one for all outputs, 1: per output
  const int32_t* zero_point = nullptr;  // null = 0
  int64_t zero_point_stride = 0;
  const float* bias = nullptr;  // [n]; null = 0
};

struct SparseFfnSource {
  SparseFfnMatrix gate;  // [d_ff, d_gate]
  SparseFfnMatrix up;    // [d_ff, d_up]
  SparseFfnMatrix down;  // [d_out, d_ff]
};

// Sets ffn->at from what the source has (biases, zero points) and returns the bytes of the blob.
int64_t plan_sparse_ffn(SparseFfn* ffn, const SparseFfnSource& source);

// Fills `blob` (64-byte aligned) after plan_sparse_ffn(). The source is not needed any more.
void pack_sparse_ffn(const SparseFfn& ffn, const SparseFfnSource& source, ThreadPool& pool,
                     void* blob);

// ---- running ---------------------------------------------------------------------------------
struct FfnInput {
  const float* x = nullptr;  // [tokens, ld] f32; for kInt8 quantised here
  int64_t ld = 0;
  // kInt8: codes of the graph instead of x.
  const uint8_t* codes = nullptr;  // [tokens, ld]
  const float* scale = nullptr;
  const int32_t* zero_point = nullptr;
  int64_t quant_stride = 0;   // 0: one scale and zero point for all rows, 1: per row
  bool codes_signed = false;  // codes are s8, zero points likewise
};

// How ranges of x and h are taken (kInt8).
enum class FfnRange : uint8_t {
  kPerRow,
  kPerTensor,  // one range for all tokens of a call, as DynamicQuantizeLinear of a graph
};

// kTokenLists: from 9 tokens on; fewer take kSparse.
enum class FfnPath : uint8_t { kAuto, kSparse, kTokenLists, kDense };

struct SparseFfnStats {
  int64_t active = 0;             // sum over tokens of the neurons with s != 0
  int64_t union_active = 0;       // neurons with s != 0 for some token; an upper bound with
                                  //   kTokenLists, which does not join the lists
  FfnPath path = FfnPath::kAuto;  // taken
  int64_t bytes_touched = 0;      // of weights
};

struct SparseFfnArgs {
  int64_t tokens = 0;
  const void* weights = nullptr;  // the blob
  FfnInput x_gate, x_up;          // x_up unused when not gated
  const float* gate_values = nullptr;  // [tokens, ld_gate_values], d_gate = 0
  int64_t ld_gate_values = 0;
  SparseFfnRule rule;
  FfnRange range = FfnRange::kPerRow;
  float h_scale = 0;  // kInt8: > 0 gives h this scale and zero point instead of its own range
  int32_t h_zero_point = 0;                  // of u8 codes
  const FfnRequant* gate_requant = nullptr;  // kInt8; null = nothing happens to the values
  const FfnRequant* up_requant = nullptr;    // kInt8 with h_scale > 0; up_activation identity or relu
  const float* residual = nullptr;  // [tokens, ld_residual]; may be y
  int64_t ld_residual = 0;
  float* y = nullptr;  // [tokens, d_out]; overlaps no other operand
  int64_t ldy = 0;
  FfnPath path = FfnPath::kAuto;
  SparseFfnStats* stats = nullptr;  // set by the call; may be null
};

// Scratch of one call, 64-byte aligned.
int64_t sparse_ffn_scratch_bytes(const SparseFfn& ffn, int64_t tokens, int threads);

void run_sparse_ffn(const SparseFfn& ffn, const SparseFfnArgs& args, ThreadPool& pool,
                    void* scratch);

// ---- choosing --------------------------------------------------------------------------------
// Bytes of weights that `union_active` active neurons make a call read; d_ff for the dense path.
int64_t sparse_ffn_bytes(const SparseFfn& ffn, int64_t union_active);

// kSparse or kDense for a call, when the gate is done.
FfnPath choose_ffn_path(const SparseFfn& ffn, int64_t tokens, int64_t union_active);

// kTokenLists or kDense for a call of 9 or more tokens with `active` active neurons in all of them.
FfnPath choose_many_path(const SparseFfn& ffn, int64_t tokens, int64_t active);

// Part of the neurons active for some of `tokens` tokens, if they were independent.
double expected_union_density(double density, int64_t tokens);

}  // namespace sprun::kernels
