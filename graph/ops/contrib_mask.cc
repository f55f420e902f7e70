#include "graph/ops/contrib_mask.h"

#include <algorithm>

#include "graph/ops/op_util.h"
#include "runtime/base/half.h"

namespace sprun::graph {

using kernels::AttentionArgs;
using kernels::MaskKind;

namespace {

float read_float(const ConstTensorView& view, int64_t i) {
  switch (view.dtype) {
    case DType::kF64: return static_cast<float>(view.as<double>()[i]);
    case DType::kF16: return to_float(view.as<Float16>()[i]);
    case DType::kBf16: return to_float(view.as<BFloat16>()[i]);
    default: return view.as<float>()[i];
  }
}

}  // namespace

Status PaddingMask::classify(const Node& node, const ConstTensorView& mask, int64_t past, AttentionArgs& args) {
  mask_ = mask;
  batch_ = args.batch, rows_ = args.q_len, keys_ = args.kv_len, past_ = past;
  if (mask.dtype != DType::kS32) {
    return op_error(node, "mask is " + std::string(dtype_name(mask.dtype)) + ", expected int32");
  }
  const Shape& s = mask.shape;
  const bool lengths = s.rank() == 1 && (s[0] == batch_ || s[0] == 2 * batch_ || s[0] == 3 * batch_ + 2);
  per_key_ = lengths || s == Shape{batch_, keys_};
  per_row_ = s == Shape{batch_, rows_, keys_} ||
             (s.rank() == 4 && s[0] == batch_ && s[1] == 1 && s[2] >= past_ + rows_ && s[3] >= keys_);
  if (!per_key_ && !per_row_) {
    return op_error(node, "mask of shape " + s.to_string() + " does not fit batch " + std::to_string(batch_) + ", " +
                              std::to_string(rows_) + " queries and " + std::to_string(keys_) + " keys");
  }
  return {};
}

Status PaddingMask::add_bias(const Node& node, const ConstTensorView& bias, AttentionArgs& args) {
  if (bias.dtype != args.dtype) return op_error(node, "the bias of the scores must have the type of the query");
  SPRUN_TRY(set_mask(node, bias, args.kv_len, args));
  if (args.mask_head != 0) mask_heads_ = args.heads;
  return {};
}

// Kinds other than key lengths. 0 and below is masked.
bool PaddingMask::masked(int64_t b, int64_t row, int64_t key) const {
  const Shape& s = mask_.shape;
  const auto* m = mask_.as<int32_t>();
  if (s.rank() == 2) return m[b * keys_ + key] <= 0;
  if (s.rank() == 3) return m[(b * rows_ + row) * keys_ + key] <= 0;
  return m[(b * s[2] + past_ + row) * s[3] + key] <= 0;
}

void PaddingMask::fill_keys(float* out) const {
  const auto* m = mask_.as<int32_t>();
  const bool has_start = mask_.shape.rank() == 1 && mask_.shape[0] == 2 * batch_;
  for (int64_t b = 0; b < batch_; ++b) {
    for (int64_t j = 0; j < keys_; ++j) {
      const bool is_masked =
          mask_.shape.rank() == 1 ? j >= m[b] || (has_start && j < m[batch_ + b]) : masked(b, 0, j);
      out[b * keys_ + j] = is_masked ? filter_ : 0.0F;
    }
  }
}

void PaddingMask::fill_rows(float* out, const AttentionArgs& args) const {
  const ConstTensorView bias{args.mask, args.mask_dtype, Shape{}};
  for (int64_t b = 0; b < batch_; ++b) {
    for (int64_t h = 0; h < mask_heads_; ++h) {
      for (int64_t i = 0; i < rows_; ++i) {
        const int64_t base = b * args.mask_batch + h * args.mask_head + i * args.mask_row;
        for (int64_t j = 0; j < keys_; ++j) {
          const float extra = args.mask_kind == MaskKind::kAdd ? read_float(bias, base + j * args.mask_key) : 0.0F;
          *out++ = (masked(b, i, j) ? filter_ : 0.0F) + extra;
        }
      }
    }
  }
}

void PaddingMask::apply(float* scratch, AttentionArgs& args) const {
  if (per_key_) {
    fill_keys(scratch);
    args.key_bias = scratch;
    args.key_bias_stride = keys_;
  }
  if (per_row_) {
    fill_rows(scratch, args);
    args.mask_kind = MaskKind::kAdd;
    args.mask_dtype = DType::kF32;
    args.mask = scratch;
    args.mask_batch = mask_heads_ * rows_ * keys_;
    args.mask_head = mask_heads_ == 1 ? 0 : rows_ * keys_;
    args.mask_row = keys_;
    args.mask_key = 1;
  }
}

}  // namespace sprun::graph
