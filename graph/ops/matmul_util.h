// Batched matrix products as strides: one description for MatMul, FusedMatMul, Gemm, Einsum and the integer products.
//
//   C[b, i, j] = alpha * sum over k of A[b, i, k] * B[b, k, j]
//
// plan_matmul() turns two shapes into a BatchedGemm; gemm_ref() is the plain loop for every element type.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "graph/ops/op_util.h"
#include "sprun/shape.h"
#include "sprun/status.h"

namespace sprun::graph {

// Nearest-below conversion of a double to an integer type that saturates; NaN becomes the smallest value.
template <class T>
T saturate_cast(double value) {
  constexpr auto kMin = static_cast<double>(std::numeric_limits<T>::min());
  constexpr auto kMax = static_cast<double>(std::numeric_limits<T>::max());
  if (!(value > kMin)) return std::numeric_limits<T>::min();
  return value >= kMax ? std::numeric_limits<T>::max() : static_cast<T>(value);
}

// Element strides of the axes of `BatchedGemm::batch`.
using BatchStrides = std::array<int64_t, kMaxRank>;

struct BatchedGemm {
  int64_t m = 1, n = 1, k = 1;
  Shape batch;  // broadcast batch axes; rank 0 for a single product
  BatchStrides a_batch{}, b_batch{}, c_batch{};
  int64_t a_row = 0, a_col = 0;  // stride of i and of k in A
  int64_t b_row = 0, b_col = 0;  // stride of k and of j in B
  int64_t c_row = 0, c_col = 1;  // stride of i and of j in C

  int64_t num_batches() const { return batch.num_elements(); }
};

struct MatMulFlags {
  bool trans_a = false, trans_b = false;              // last two axes
  bool trans_batch_a = false, trans_batch_b = false;  // first axis moves behind the batch axes (FusedMatMul)
};

struct MatMulShapes {
  BatchedGemm gemm;
  Shape out;
};

// NumPy matmul rules (vectors are promoted, batch axes broadcast). kBadModel naming both shapes when they do not fit.
// Transposition flags need matrices; they are ignored for vectors.
Result<MatMulShapes> plan_matmul(const Shape& a, const Shape& b, const MatMulFlags& flags = {});

// Offsets of one batch entry in elements.
struct BatchOffsets {
  int64_t a = 0, b = 0, c = 0;
};
BatchOffsets batch_offsets(const BatchedGemm& gemm, int64_t index);

// Folds the batch axes into the rows where A and C are contiguous over them and B does not change, which makes
// [B, T, K] x [K, N] one product. Leaves the problem as it is otherwise.
void fold_batch_into_rows(BatchedGemm& gemm);

// Integer sums wrap (as two's complement) instead of overflowing; 16-bit floats sum in float.
template <class T>
using SumType =
    std::conditional_t<std::is_integral_v<T>, std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>, ComputeType<T>>;

// alpha * sum as T; integers are scaled in double and saturate.
template <class T>
T scale_sum(SumType<T> sum, float alpha) {
  if (alpha == 1.0f) return store<T>(sum);
  if constexpr (std::is_integral_v<T>) {
    using Signed = std::make_signed_t<SumType<T>>;
    const double value =
        static_cast<double>(alpha) *
        (std::is_signed_v<T> ? static_cast<double>(static_cast<Signed>(sum)) : static_cast<double>(sum));
    return saturate_cast<T>(value);
  } else {
    return store<T>(static_cast<SumType<T>>(alpha) * sum);
  }
}

// For rows [begin, end) of all batch entries, counted as entry * m + i, calls finish(offset, count, sums): `count`
// neighbouring outputs from element `offset` of C, c_col apart. The reference: any strides, any type.
template <class T, class Finish>
void gemm_ref_rows(const BatchedGemm& g, const T* a, const T* b, int64_t begin, int64_t end, const Finish& finish) {
  constexpr int64_t kColumns = 32;  // sums kept at a time, so that B is read along its rows
  using Sum = SumType<T>;
  for (int64_t r = begin; r < end; ++r) {
    const BatchOffsets at = batch_offsets(g, r / g.m);
    const T* a_row = a + at.a + r % g.m * g.a_row;
    for (int64_t j0 = 0; j0 < g.n; j0 += kColumns) {
      const int64_t columns = std::min(kColumns, g.n - j0);
      Sum sums[kColumns] = {};
      for (int64_t k = 0; k < g.k; ++k) {
        const Sum left = static_cast<Sum>(load(a_row[k * g.a_col]));
        const T* b_row = b + at.b + k * g.b_row + j0 * g.b_col;
        for (int64_t j = 0; j < columns; ++j) sums[j] += left * static_cast<Sum>(load(b_row[j * g.b_col]));
      }
      finish(at.c + r % g.m * g.c_row + j0 * g.c_col, columns, sums);
    }
  }
}

// The whole product, in parallel over rows.
template <class T, class Finish>
void gemm_ref(ThreadPool& pool, const BatchedGemm& g, const T* a, const T* b, const Finish& finish) {
  if (g.n == 0 || g.m == 0) return;
  const double work = static_cast<double>(g.n) * static_cast<double>(std::max<int64_t>(g.k, 1));
  const auto grain = static_cast<int64_t>(16384.0 / work) + 1;
  pool.parallel_for(g.num_batches() * g.m, grain,
                    [&](int64_t begin, int64_t end, int) { gemm_ref_rows(g, a, b, begin, end, finish); });
}

// C = alpha * A B.
template <class T>
void gemm_ref(ThreadPool& pool, const BatchedGemm& g, const T* a, const T* b, T* c, float alpha = 1.0f) {
  gemm_ref(pool, g, a, b, [&g, c, alpha](int64_t offset, int64_t count, const SumType<T>* sums) {
    for (int64_t j = 0; j < count; ++j) c[offset + j * g.c_col] = scale_sum<T>(sums[j], alpha);
  });
}

}  // namespace sprun::graph
