#include "graph/ops/float_weight.h"

#include <algorithm>
#include <optional>

#include "graph/ops/int8_product.h"

namespace sprun::graph {

std::string FloatWeight::key() const {
  std::string key = std::to_string(weight.tensor->id());
  for (int64_t part : {weight.n, weight.k, weight.stride_n, weight.stride_k}) key += ":" + std::to_string(part);
  if (scale != nullptr) key += ":s" + std::to_string(scale->id()) + ":" + std::to_string(block_size);
  if (zero != nullptr) key += ":z" + std::to_string(zero->id());
  return key;
}

Result<FloatWeightReader> FloatWeightReader::of(const FloatWeight& weight) {
  FloatWeightReader reader;
  reader.weight_ = weight.weight;
  reader.dtype_ = weight.weight.tensor->dtype();
  if (!weight.dequantised()) {
    SPRUN_ASSIGN(reader.elements_, FloatElements::of(*weight.weight.tensor));
    return reader;
  }
  SPRUN_ASSIGN(reader.scale_, FloatElements::of(*weight.scale));
  if (weight.zero != nullptr) reader.zero_ = zero_point_values(weight.zero->view());
  if (weight.scale->num_elements() == 1) return reader;
  reader.per_output_ = 1;
  if (weight.block_size == 0) return reader;
  reader.block_ = weight.block_size;
  const bool rows_are_outputs = weight.weight.stride_n != 1;
  if (rows_are_outputs) reader.per_output_ = (weight.weight.k + weight.block_size - 1) / weight.block_size;
  reader.per_block_ = rows_are_outputs ? 1 : weight.weight.n;
  return reader;
}

float FloatWeightReader::operator()(int64_t n, int64_t k) const {
  const int64_t at = n * weight_.stride_n + k * weight_.stride_k;
  if (dtype_ == DType::kU8 || dtype_ == DType::kS8) {
    const int32_t code = dtype_ == DType::kU8 ? int32_t{weight_.tensor->as<uint8_t>()[at]}
                                              : int32_t{weight_.tensor->as<int8_t>()[at]};
    return static_cast<float>(code - zero(n, k)) * scale(n, k);
  }
  return elements_.data()[at];
}

std::optional<std::vector<int32_t>> FloatWeightReader::zero_per_output() const {
  if (zero_.size() <= 1) return zero_;
  if (block_ == 0) return zero_;
  const bool same = std::all_of(zero_.begin(), zero_.end(), [&](int32_t z) { return z == zero_[0]; });
  return same ? std::optional(std::vector<int32_t>{zero_[0]}) : std::nullopt;
}

}  // namespace sprun::graph
