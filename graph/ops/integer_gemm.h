// The reference of every integer matrix product:
//
//   sums[b, i, j] = sum over k of (A[b, i, k] - za[b, i]) * (B[b, k, j] - zb[b, j])       in wrapping int32
//
// with zero points per tensor, per row of A and per column of B; what becomes of the sums is the caller's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "graph/ops/matmul_util.h"
#include "graph/ops/quant_util.h"

namespace sprun::graph {

// How a parameter per row (of A) or per column (of B) lies over a batched product.
struct VectorParam {
  BatchStrides batch{};
  int64_t stride = 0;  // from one row or column to the next; 0: one value for all

  bool scalar() const { return stride == 0 && batch == BatchStrides{}; }
  // Index of the value for vector `i` of batch entry `entry`.
  int64_t at(const BatchedGemm& g, int64_t entry, int64_t i) const;
};

// param: one element, [size], or batch axes + [size, 1] (rows) or [1, size] (columns). kBadModel otherwise.
Result<VectorParam> vector_param(const Shape& param, const BatchedGemm& g, bool rows);

// Element of a u8 or s8 tensor.
struct ByteReader {
  const uint8_t* data;
  int32_t flip;  // 0 for u8; 0x80 for s8: (v ^ 0x80) - 0x80 sign-extends

  explicit ByteReader(const ConstTensorView& view)
      : data(view.as<uint8_t>()), flip(view.dtype == DType::kS8 ? 0x80 : 0) {}
  int32_t operator[](int64_t i) const { return (data[i] ^ flip) - flip; }
};

// A value for all when the reader has no tensor.
struct ZeroPoints {
  ZeroPointReader values;
  VectorParam param;
};

// For rows [begin, end), counted as entry * m + i, calls finish(entry, i, first_column, count, sums).
// a and b map an element offset to an int32.
template <class A, class B, class Finish>
void integer_gemm_rows(const BatchedGemm& g, const A& a, const ZeroPoints& za, const B& b, const ZeroPoints& zb,
                       int64_t begin, int64_t end, const Finish& finish) {
  constexpr int64_t kColumns = 32;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t entry = r / g.m, i = r % g.m;
    const BatchOffsets at = batch_offsets(g, entry);
    const int32_t a_zero = za.values[za.param.at(g, entry, i)];
    const int64_t zb_base = zb.param.at(g, entry, 0);
    for (int64_t j0 = 0; j0 < g.n; j0 += kColumns) {
      const int64_t count = std::min(kColumns, g.n - j0);
      uint32_t sums[kColumns] = {};
      int32_t b_zero[kColumns];
      for (int64_t j = 0; j < count; ++j) b_zero[j] = zb.values[zb_base + (j0 + j) * zb.param.stride];
      for (int64_t k = 0; k < g.k; ++k) {
        const auto left = static_cast<uint32_t>(a[at.a + i * g.a_row + k * g.a_col] - a_zero);
        const int64_t b_at = at.b + k * g.b_row + j0 * g.b_col;
        for (int64_t j = 0; j < count; ++j) sums[j] += left * static_cast<uint32_t>(b[b_at + j * g.b_col] - b_zero[j]);
      }
      int32_t signed_sums[kColumns];
      for (int64_t j = 0; j < count; ++j) signed_sums[j] = static_cast<int32_t>(sums[j]);
      finish(entry, i, j0, count, signed_sums);
    }
  }
}

template <class A, class B, class Finish>
void integer_gemm(ThreadPool& pool, const BatchedGemm& g, const A& a, const ZeroPoints& za, const B& b,
                  const ZeroPoints& zb, const Finish& finish) {
  if (g.m == 0 || g.n == 0) return;
  const double work = static_cast<double>(g.n) * static_cast<double>(std::max<int64_t>(g.k, 1));
  pool.parallel_for(g.num_batches() * g.m, static_cast<int64_t>(16384.0 / work) + 1,
                    [&](int64_t begin, int64_t end, int) { integer_gemm_rows(g, a, za, b, zb, begin, end, finish); });
}

}  // namespace sprun::graph
