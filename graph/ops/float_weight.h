// A constant weight whose elements are floats, however they are stored: f32, f16, bf16, or 8-bit codes with scales and
// zero points as DequantizeLinear has them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/ops/float_elements.h"
#include "graph/ops/linear_segments.h"

namespace sprun::graph {

struct FloatWeight {
  WeightConstant weight;
  // 8-bit only. scale: f32; zero: of the type of the weight or empty. One element, [N], or with block_size > 0
  // [ceil(K / block_size), N], and [N, ..] where the weight is stored [N, K].
  const Tensor* scale = nullptr;
  const Tensor* zero = nullptr;
  int64_t block_size = 0;

  bool dequantised() const { return scale != nullptr; }
  // Bytes of an element as stored.
  int64_t element_bytes() const { return dtype_size(weight.tensor->dtype()); }
  // Names the elements in keys of the cache.
  std::string key() const;
};

// Elements of one weight, read at load. The tensors must outlive the reader.
class FloatWeightReader {
 public:
  static Result<FloatWeightReader> of(const FloatWeight& weight);

  // Scale and zero point of output n, input k, the zero point in the numbers of the file.
  float scale(int64_t n, int64_t k) const { return scale_.data()[parameter(n, k)]; }
  int32_t zero(int64_t n, int64_t k) const {
    if (zero_.empty()) return 0;
    return zero_.size() == 1 ? zero_[0] : zero_[static_cast<size_t>(parameter(n, k))];
  }
  float operator()(int64_t n, int64_t k) const;
  // The zero points as one or one per output; nullopt if they differ from block to block.
  std::optional<std::vector<int32_t>> zero_per_output() const;

 private:
  int64_t parameter(int64_t n, int64_t k) const { return n * per_output_ + (block_ == 0 ? 0 : k / block_ * per_block_); }

  WeightConstant weight_;
  FloatElements elements_, scale_;
  std::vector<int32_t> zero_;  // empty: 0; one, or as many as scales
  int64_t per_output_ = 0, per_block_ = 0, block_ = 0;
  DType dtype_ = DType::kF32;
};

}  // namespace sprun::graph
