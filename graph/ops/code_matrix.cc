#include "graph/ops/code_matrix.h"

#include <cmath>

#include "graph/ops/int8_product.h"
#include "graph/ops/linear_segments.h"

namespace sprun::graph {

Status CodeMatrix::read_nbits(const PrepareContext& ctx, const FfnLayer& layer) {
  n = layer.n, k = layer.k, bits = static_cast<int>(layer.bits);
  block_size = layer.block_size;
  blocks = (k + block_size - 1) / block_size;
  data_ = ctx.constant(layer.weight()).as<uint8_t>();
  stride_n_ = row_bytes(), stride_k_ = 1;
  scale_n_ = blocks, scale_block_ = 1;
  if (!ctx.has_input(layer.zero())) return {};
  const Tensor& zero = ctx.constant(layer.zero());
  if (zero.dtype() != DType::kU8) {
    SPRUN_ASSIGN(const FloatElements floats, FloatElements::of(zero));
    zero_.assign(floats.data(), floats.data() + n * blocks);
    return {};
  }
  const int64_t zero_row_bytes = (blocks * bits + 7) / 8;
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t bit = 0; bit < blocks * bits; bit += bits) {
      const int byte = zero.as<uint8_t>()[row * zero_row_bytes + bit / 8];
      zero_.push_back(static_cast<float>((byte >> (bit % 8)) & ((1 << bits) - 1)));
    }
  }
  return {};
}

Status CodeMatrix::read_dequant(const PrepareContext& ctx, const FfnLayer& layer) {
  const Tensor& codes = ctx.constant(layer.weight());
  const WeightConstant at = WeightConstant::matrix(codes, layer.trans);
  n = at.n, k = at.k;
  block_size = layer.block_size > 0 ? layer.block_size : k;
  blocks = (k + block_size - 1) / block_size;
  data_ = codes.as<uint8_t>();
  stride_n_ = at.stride_n, stride_k_ = at.stride_k;
  const bool is_signed = codes.dtype() == DType::kS8;
  flip_ = is_signed ? 0x80 : 0;
  const bool one = ctx.constant(layer.scale()).num_elements() == 1 && layer.block_size == 0;
  scale_n_ = one ? 0 : layer.trans ? blocks : 1;
  scale_block_ = one ? 0 : layer.trans ? 1 : n;
  const std::vector<int32_t> zeros =
      ctx.has_input(layer.zero()) ? zero_point_values(ctx.constant(layer.zero()).view()) : std::vector<int32_t>();
  if (zeros.empty()) zero_ = {is_signed ? 128.0F : 0.0F};
  for (int32_t zero : zeros) zero_.push_back(static_cast<float>(zero + (is_signed ? 128 : 0)));
  return {};
}

Result<CodeMatrix> CodeMatrix::of(const PrepareContext& ctx, const FfnLayer& layer) {
  CodeMatrix made;
  SPRUN_ASSIGN(made.scale_, FloatElements::of(ctx.constant(layer.scale())));
  SPRUN_TRY(layer.form == FfnLayer::Form::kNBits ? made.read_nbits(ctx, layer) : made.read_dequant(ctx, layer));
  return made;
}

bool CodeMatrix::centred() const {
  for (float zero : zero_) {
    if (zero != middle()) return false;
  }
  return true;
}

bool CodeMatrix::whole_zeros() const {
  for (float zero : zero_) {
    if (zero != std::floor(zero) || zero < 0 || zero > 255) return false;
  }
  return true;
}

}  // namespace sprun::graph
