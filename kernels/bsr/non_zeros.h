// NonZeros: which elements of a weight W[N, K] are not zero, one bit each, and how many blocks of a
// pattern hold any of them. Made once per weight at load; detection and packing read it.
//
//   const NonZeros bits = NonZeros::of(source);                     // zero is 0
//   double density = bits.density(kBlock4x1);                       // stored blocks / all blocks
//
// A weight may have a zero point: elements equal to it count as zero. NaN counts as non-zero.
// Thread safety: const functions may run at once. Memory: N * ceil(K / 64) * 8 bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/bsr/block_shape.h"
#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

class NonZeros {
 public:
  // zero_point: null (0), or the value that means 0 for output n at zero_point[n * zero_stride].
  // T is float, uint16_t (f16 and bf16 bits: the sign is ignored), int8_t or uint8_t.
  template <class T>
  static NonZeros of(const WeightSource<T>& w, const int32_t* zero_point = nullptr,
                     int64_t zero_stride = 0);

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  // Bits of output n, input k at bit k % 64 of word k / 64; bits past K are 0.
  std::span<const uint64_t> row(int64_t n) const {
    return {words_.data() + n * row_words_, static_cast<size_t>(row_words_)};
  }
  int64_t row_words() const { return row_words_; }

  // The union of the rows of block row `block_row`, one bit per block column.
  // out: row_words() words; block columns are block.cols (1, 2, 4, 8, 16, 32) inputs wide.
  void block_bits(BlockShape block, int64_t block_row, std::span<uint64_t> out) const;
  // Blocks with any non-zero element; blocks at the edges count like whole ones.
  int64_t count(BlockShape block) const;
  // count / number of blocks; 0 for an empty weight.
  double density(BlockShape block) const;
  // True when each group of m consecutive inputs (m 4 or 8, counted from 0) holds at most n_kept.
  bool is_n_of_m(int n_kept, int m) const;

 private:
  int64_t n_ = 0, k_ = 0, row_words_ = 0;
  std::vector<uint64_t> words_;
};

extern template NonZeros NonZeros::of(const WeightSource<float>&, const int32_t*, int64_t);
extern template NonZeros NonZeros::of(const WeightSource<uint16_t>&, const int32_t*, int64_t);
extern template NonZeros NonZeros::of(const WeightSource<int8_t>&, const int32_t*, int64_t);
extern template NonZeros NonZeros::of(const WeightSource<uint8_t>&, const int32_t*, int64_t);

}  // namespace sprun::kernels
