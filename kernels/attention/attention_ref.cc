// Scalar reference of attention: one row of scores at a time.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/attention/attention_rows.h"
#include "runtime/base/half.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

template <class C>
C read(const void* data, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kF64: return static_cast<C>(static_cast<const double*>(data)[i]);
    case DType::kF16: return static_cast<C>(to_float(static_cast<const Float16*>(data)[i]));
    case DType::kBf16: return static_cast<C>(to_float(static_cast<const BFloat16*>(data)[i]));
    case DType::kS8: return static_cast<C>(static_cast<const int8_t*>(data)[i]);
    default: return static_cast<C>(static_cast<const float*>(data)[i]);
  }
}

template <class C>
void write(void* data, DType dtype, int64_t i, C value) {
  switch (dtype) {
    case DType::kF64: static_cast<double*>(data)[i] = static_cast<double>(value); break;
    case DType::kF16: static_cast<Float16*>(data)[i] = to_float16(value); break;
    case DType::kBf16: static_cast<BFloat16*>(data)[i] = to_bfloat16(value); break;
    default: static_cast<float*>(data)[i] = static_cast<float>(value); break;
  }
}

template <class C>
C round_to(DType dtype, C value) {
  switch (dtype) {
    case DType::kF32: return static_cast<C>(static_cast<float>(value));
    case DType::kF16: return static_cast<C>(to_float(to_float16(value)));
    case DType::kBf16: return static_cast<C>(to_float(to_bfloat16(value)));
    default: return value;
  }
}

int64_t at(const AttentionStrides& s, int64_t b, int64_t h, int64_t row) {
  return b * s.batch + h * s.head + row * s.row;
}

// One query row.
template <class C>
class RowRunner {
 public:
  RowRunner(const AttentionArgs& args, std::vector<C>& scores) : a_(args), s_(scores) {}

  void run(int64_t b, int64_t h, int64_t i) {
    b_ = b, h_ = h, i_ = i, g_ = h / (a_.heads / a_.kv_heads);
    dot_products();
    apply_masks();
    softmax();
    weighted_sum();
  }

 private:
  void record(ScoreOutput stage) {
    if (a_.score_output != stage) return;
    const int64_t base = ((b_ * a_.heads + h_) * a_.q_len + i_) * a_.kv_len;
    for (int64_t j = 0; j < a_.kv_len; ++j) write(a_.scores, a_.dtype, base + j, s_[static_cast<size_t>(j)]);
  }

  // What codes of row j are multiplied by.
  C scale_of(const float* scales, DType dtype, int64_t j) const {
    if (dtype != DType::kS8) return C{1};
    return static_cast<C>(scales[b_ * a_.scale_batch + g_ * a_.scale_head + j]);
  }

  void dot_products() {
    const int64_t q = at(a_.q_strides, b_, h_, i_);
    const DType k_dtype = key_dtype(a_);
    for (int64_t j = 0; j < a_.kv_len; ++j) {
      const int64_t k = at(a_.k_strides, b_, g_, j);
      C sum = 0;
      for (int64_t d = 0; d < a_.head_dim; ++d) {
        sum += read<C>(a_.q, a_.dtype, q + d * a_.q_strides.dim) * read<C>(a_.k, k_dtype, k + d * a_.k_strides.dim);
      }
      s_[static_cast<size_t>(j)] = sum * static_cast<C>(a_.scale) * scale_of(a_.k_scale, k_dtype, j);
    }
    record(ScoreOutput::kRaw);
    if (a_.softcap > 0) {
      const C cap = static_cast<C>(a_.softcap);
      for (C& s : s_) s = cap * std::tanh(s / cap);
    }
    record(ScoreOutput::kCapped);
  }

  bool in_band(int64_t j) const {
    const int64_t p = (a_.batch_offset ? a_.batch_offset[b_] : a_.offset) + i_;
    if (a_.causal && j > p) return false;
    if (a_.left_window >= 0 && j < p - a_.left_window) return false;
    return a_.right_window < 0 || j <= p + a_.right_window;
  }

  void apply_masks() {
    const C kNegInf = -std::numeric_limits<C>::infinity();
    const int64_t valid = a_.batch_kv_len ? std::clamp<int64_t>(a_.batch_kv_len[b_], 0, a_.kv_len) : a_.kv_len;
    const int64_t mask = b_ * a_.mask_batch + h_ * a_.mask_head + i_ * a_.mask_row;
    blocked_ = true;
    for (int64_t j = 0; j < a_.kv_len; ++j) {
      C bias = 0;
      if (j >= valid || j >= a_.mask_keys) bias = kNegInf;
      else if (a_.mask_kind == MaskKind::kAdd) bias = read<C>(a_.mask, a_.mask_dtype, mask + j * a_.mask_key);
      else if (a_.mask_kind == MaskKind::kAllow && !static_cast<const uint8_t*>(a_.mask)[mask + j * a_.mask_key]) {
        bias = kNegInf;
      }
      if (a_.key_bias) bias += static_cast<C>(a_.key_bias[b_ * a_.key_bias_stride + j]);
      C& s = s_[static_cast<size_t>(j)];
      s += bias;
      if (bias > kNegInf && !in_band(j)) s = bias = static_cast<C>(a_.frontier_fill);
      blocked_ = blocked_ && bias == kNegInf;
    }
    record(ScoreOutput::kBiased);
  }

  // A row that no key may enter is 0, whatever its scores are (a masked score may be NaN).
  void softmax() {
    if (blocked_) {
      std::fill(s_.begin(), s_.end(), C{0});
      record(ScoreOutput::kProbabilities);
      return;
    }
    const DType type = a_.softmax_dtype;
    C top = a_.sink ? static_cast<C>(a_.sink[h_]) : -std::numeric_limits<C>::infinity();
    for (C& s : s_) {
      s = round_to(type, s);
      top = std::max(top, s);
    }
    C sum = a_.sink ? std::exp(static_cast<C>(a_.sink[h_]) - top) : C{0};
    for (C& s : s_) sum += s = round_to(type, std::exp(s - top));
    sum = round_to(type, sum);
    for (C& s : s_) s = round_to(type, s / sum);
    record(ScoreOutput::kProbabilities);
  }

  void weighted_sum() {
    const int64_t out = at(a_.out_strides, b_, h_, i_);
    for (int64_t d = 0; d < a_.v_dim; ++d) {
      C sum = 0;
      for (int64_t j = 0; j < a_.kv_len; ++j) {
        const C p = s_[static_cast<size_t>(j)] * scale_of(a_.v_scale, a_.v_dtype, j);
        if (p == 0) continue;
        sum += p * read<C>(a_.v, a_.v_dtype, at(a_.v_strides, b_, g_, j) + d * a_.v_strides.dim);
      }
      write(a_.out, a_.dtype, out + d * a_.out_strides.dim, sum);
    }
  }

  const AttentionArgs& a_;
  std::vector<C>& s_;
  int64_t b_ = 0, h_ = 0, i_ = 0, g_ = 0;
  bool blocked_ = false;
};

template <class C>
void run_all(const AttentionArgs& args, ThreadPool& pool) {
  pool.parallel_for(args.batch * args.heads * args.q_len, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<C> scores(static_cast<size_t>(args.kv_len));
    RowRunner<C> runner(args, scores);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t bh = t / args.q_len;
      runner.run(bh / args.heads, bh % args.heads, t % args.q_len);
    }
  });
}

}  // namespace

void attention_reference(const AttentionArgs& given, ThreadPool& pool) {
  const AttentionArgs args = with_bounded_positions(given);
  const bool wide = args.dtype == DType::kF64 || args.v_dtype == DType::kF64 || args.softmax_dtype == DType::kF64;
  if (wide) run_all<double>(args, pool);
  else run_all<float>(args, pool);
}

}  // namespace sprun::kernels
