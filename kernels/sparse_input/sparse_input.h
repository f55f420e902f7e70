// Linear layers whose input is mostly zero: only the weights of inputs that are not zero are read.
//
//   ids, values:  list_inputs(x, ldx, m, k, ids, values, ld)             once per X
//   kernel.run(args, panel_begin, panel_end, acc)                        for the panels of each worker
//
// Weights lie input-major, [panels, K, width]: an input is one contiguous row of each panel. f32, f16, bf16, s8 (less 128
// where they were u8) or 4 bits (less 8), widened in registers, with one scale per output or per block of inputs and output.
// Where x is 0 the weight does not matter: leaving it out is exact. Only what a dense run makes of 0 * infinity and
// 0 * NaN is not made. Several rows of X share one list: the inputs that are not zero in some row.
// Regime:  bandwidth-bound, 1 to 8 rows.   Numeric: reassociated; results depend on the list, not on the workers.
// Threads: none; panels are independent.   Errors: none; preconditions are the caller's.
#pragma once

#include <span>

#include "kernels/registry.h"
#include "kernels/sparse_input/sparse_input_types.h"

namespace sprun::kernels {

enum class SparseInputWeights : uint8_t { kF32, kF16, kBf16, kS8, kS4 };

std::span<const KernelInfo<SparseInputKernel>> sparse_input_kernels(SparseInputWeights weights);

// Entries that `ids` and a row of `values` must hold.
constexpr int64_t listed_capacity(int64_t k) { return k + kSparseInputGroup; }

// Writes the inputs i that are not 0 in some row of x[m, k], and values[r, j] = x[r, ids[j]]; pads both to a whole group.
// Returns how many are listed, with padding. *active: entries of x that are not 0.
int64_t list_inputs(const float* x, int64_t ldx, int64_t m, int64_t k, int32_t* ids, float* values, int64_t ld_values,
                    int64_t* active);

// A list of list_inputs() again, with each block of block_size inputs padded to whole groups: `to_ids` and rows of
// `to_values` hold up to block_capacity() entries. Returns how many there are.
constexpr int64_t block_capacity(int64_t k, int64_t blocks) { return k + kSparseInputGroup * (blocks + 1); }
int64_t list_by_block(const int32_t* ids, const float* values, int64_t ld_values, int64_t listed, int64_t m, int64_t block_size,
                      int32_t* to_ids, float* to_values, int64_t ld_to);

// Part of the inputs up to which gathering m rows is faster than the dense product of kernels/gemm over weights of the same
// type. Measured on Zen 5, one thread, 2048 x 2048 out of cache, gather against dense: f32, one row 7.1, 1.55, 1.15 and
// 0.74 times the speed at 10, 50, 70 and 100 % of the inputs, 8 rows 1.2 at 57 %; s8, one row 4.9, 1.34 and 0.82 at 10, 50
// and 100 %, 4 rows 1.3 at 36 % and 0.7 at 76 %, 8 rows 0.7 at 57 %; s8 weights that a cache holds, one row 0.9 at 50 %.
// Those are on 2 MiB pages; where there are none, s8, one row: 2.8, 1.35 and 0.77 times at 10, 25 and 50 %.
double sparse_input_limit(SparseInputWeights weights, int64_t m);

// Outputs of a panel for N outputs shared by `workers`: short enough for two panels a worker, else up to 1024.
int64_t sparse_input_width(int64_t n, int workers);
constexpr int64_t sparse_input_panels(int64_t n, int64_t width) { return (n + width - 1) / width; }

// Packs W[n, k], seen as unsigned integers of its size, to [panels, K, width]; stores W ^ flip, as pack_narrow().
template <class T>
void pack_sparse_input(const WeightSource<T>& w, int64_t width, T flip, T* packed) {
  for (int64_t p = 0; p < sparse_input_panels(w.n, width); ++p) {
    const int64_t n0 = p * width, cols = w.n - n0 < width ? w.n - n0 : width;
    T* out = packed + n0 * w.k;
    for (int64_t k = 0; k < w.k; ++k, out += width) {
      const T* in = w.data + n0 * w.stride_n + k * w.stride_k;
      for (int64_t c = 0; c < cols; ++c) out[c] = static_cast<T>(in[c * w.stride_n] ^ flip);
      for (int64_t c = cols; c < width; ++c) out[c] = 0;
    }
  }
}

// Packs 4-bit codes code(n, k) to [panels, K, width / 2]: of 64 outputs the first 32 are the low halves of 32 bytes.
template <class Code>
void pack_sparse_input_s4(int64_t n, int64_t k, int64_t width, const Code& code, int64_t panel_begin, int64_t panel_end,
                          uint8_t* packed) {
  constexpr int64_t kHalf = kSparseInputLine / 2;
  for (int64_t p = panel_begin; p < panel_end; ++p) {
    uint8_t* out = packed + p * width * k / 2;
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t line = p * width; line < (p + 1) * width; line += kSparseInputLine) {
        for (int64_t c = line; c < line + kHalf; ++c) {
          const int low = c < n ? code(c, i) : 8, high = c + kHalf < n ? code(c + kHalf, i) : 8;
          *out++ = static_cast<uint8_t>(low | high << 4);
        }
      }
    }
  }
}

}  // namespace sprun::kernels
