// The weight of a layer that keeps codes while X is float (sprun.LinearDequant, MatMulNBits), read one code at a time to
// lay it out anew: W(n, k) = (code(n, k) - zero(n, k)) * scale(n, k). Codes are unsigned.
#pragma once

#include <vector>

#include "graph/ops/float_elements.h"
#include "graph/ops/sparse_ffn.h"

namespace sprun::graph {

class CodeMatrix {
 public:
  // Precondition: the layer's form is kDequant or kNBits and its inputs are constants. They must outlive the result.
  static Result<CodeMatrix> of(const PrepareContext& ctx, const FfnLayer& layer);

  int64_t n = 0, k = 0;
  int64_t block_size = 0, blocks = 1;  // inputs of one scale; all of them without blocks
  int bits = 8;

  int code(int64_t row, int64_t column) const {
    if (bits == 8) return data_[row * stride_n_ + column * stride_k_] ^ flip_;
    const int64_t bit = column * bits;
    return (data_[row * stride_n_ + bit / 8] >> (bit % 8)) & ((1 << bits) - 1);
  }
  float scale(int64_t row, int64_t block) const { return scale_.data()[row * scale_n_ + block * scale_block_]; }
  float zero(int64_t row, int64_t block) const {
    return zero_.empty() ? middle() : zero_[static_cast<size_t>(zero_.size() == 1 ? 0 : row * scale_n_ + block * scale_block_)];
  }
  float middle() const { return static_cast<float>(1 << (bits - 1)); }
  // All zero points are the middle code.
  bool centred() const;
  bool whole_zeros() const;  // all zero points are codes
  // Of one row, as stored.
  int64_t row_bytes() const { return blocks * block_size * bits / 8; }

 private:
  Status read_nbits(const PrepareContext& ctx, const FfnLayer& layer);
  Status read_dequant(const PrepareContext& ctx, const FfnLayer& layer);

  const uint8_t* data_ = nullptr;
  int64_t stride_n_ = 0, stride_k_ = 0;
  uint8_t flip_ = 0;  // s8 codes
  FloatElements scale_;
  int64_t scale_n_ = 0, scale_block_ = 0;
  std::vector<float> zero_;  // empty: the middle; one, or as many as scales
};

}  // namespace sprun::graph
