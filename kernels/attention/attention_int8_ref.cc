// Scalar reference of integer attention: one row of scores at a time.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attention_int8.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

int32_t code_at(const void* data, const CodeParams& p, int64_t i) {
  if (p.dtype == DType::kS8) return static_cast<const int8_t*>(data)[i];
  return static_cast<const uint8_t*>(data)[i];
}

int32_t quantise(float value, const CodeParams& p) {
  const float low = p.dtype == DType::kS8 ? -128.0F : 0.0F;
  const float code = std::nearbyint(value / p.scale) + static_cast<float>(p.zero);
  return code > low ? static_cast<int32_t>(std::min(code, low + 255.0F)) : static_cast<int32_t>(low);
}

class RowRunner {
 public:
  explicit RowRunner(const AttentionInt8Args& args)
      : args_(args), a_(args.shape), scores_(static_cast<size_t>(a_.kv_len)), codes_(scores_.size()) {}

  void run(int64_t b, int64_t h, int64_t i) {
    const int64_t g = h / (a_.heads / a_.kv_heads);
    const int64_t q = b * a_.q_strides.batch + h * a_.q_strides.head + i * a_.q_strides.row;
    const float scale = a_.scale * (args_.q.scale * args_.k.scale);
    for (int64_t j = 0; j < a_.kv_len; ++j) {
      const int64_t k = b * a_.k_strides.batch + g * a_.k_strides.head + j * a_.k_strides.row;
      int64_t sum = 0;
      for (int64_t d = 0; d < a_.head_dim; ++d) {
        sum += int64_t{code_at(a_.q, args_.q, q + d) - args_.q.zero} *
               (code_at(a_.k, args_.k, k + d * a_.k_strides.dim) - args_.k.zero);
      }
      scores_[static_cast<size_t>(j)] = static_cast<float>(sum) * scale + mask_at(b, h, i, j);
    }
    softmax();
    weighted_sum(b, h, g, i);
  }

 private:
  float mask_at(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t at = b * a_.mask_batch + h * a_.mask_head + i * a_.mask_row + j * a_.mask_key;
    if (a_.mask_kind == MaskKind::kAdd) return static_cast<const float*>(a_.mask)[at];
    const bool blocked = a_.mask_kind == MaskKind::kAllow && static_cast<const uint8_t*>(a_.mask)[at] == 0;
    return blocked ? -std::numeric_limits<float>::infinity() : 0.0F;
  }

  void softmax() {
    float top = -std::numeric_limits<float>::infinity();
    for (float s : scores_) top = std::max(top, s);
    float sum = 0;
    for (float& s : scores_) sum += s = std::isinf(top) && top < 0 ? 0.0F : std::exp(s - top);
    const float inverse = sum == 0 ? 0.0F : 1.0F / sum;
    for (size_t j = 0; j < codes_.size(); ++j) codes_[j] = quantise(scores_[j] * inverse, args_.p) - args_.p.zero;
  }

  void weighted_sum(int64_t b, int64_t h, int64_t g, int64_t i) {
    const int64_t out = b * a_.out_strides.batch + h * a_.out_strides.head + i * a_.out_strides.row;
    for (int64_t d = 0; d < a_.v_dim; ++d) {
      int64_t sum = 0;
      for (int64_t j = 0; j < a_.kv_len; ++j) {
        const int64_t v = b * a_.v_strides.batch + g * a_.v_strides.head + j * a_.v_strides.row + d;
        sum += int64_t{codes_[static_cast<size_t>(j)]} * (code_at(a_.v, args_.v, v) - args_.v.zero);
      }
      const float value = static_cast<float>(sum) * (args_.p.scale * args_.v.scale);
      if (args_.requantise) static_cast<uint8_t*>(a_.out)[out + d] = static_cast<uint8_t>(quantise(value, args_.y));
      else static_cast<float*>(a_.out)[out + d] = value;
    }
  }

  const AttentionInt8Args& args_;
  const AttentionArgs& a_;
  std::vector<float> scores_;
  std::vector<int32_t> codes_;
};

}  // namespace

void attention_int8_reference(const AttentionInt8Args& args, ThreadPool& pool) {
  const AttentionArgs& a = args.shape;
  if (a.v_dim == 0) return;
  pool.parallel_for(a.batch * a.heads * a.q_len, 1, [&](int64_t begin, int64_t end, int) {
    RowRunner runner(args);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t bh = t / a.q_len;
      runner.run(bh / a.heads, bh % a.heads, t % a.q_len);
    }
  });
}

}  // namespace sprun::kernels
