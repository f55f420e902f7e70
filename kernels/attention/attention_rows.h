// Query rows of an attention problem as the blocks that kernels take. Internal to the family.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/attention/attention.h"

namespace sprun::kernels {

inline constexpr int64_t kFarAway = int64_t{1} << 40;  // beyond any position

// The type of K in memory.
inline DType key_dtype(const AttentionArgs& a) { return a.k_dtype == DType::kUndefined ? a.dtype : a.k_dtype; }

// The query rows of one head, or of all heads that share a kv head when one head has too few to fill a block.
struct RowGroups {
  int64_t group;   // query heads that share a kv head
  bool folded;
  int64_t count;   // batch * heads, or batch * kv_heads when folded
  int64_t rows;    // rows of a group

  RowGroups(const AttentionArgs& a, int64_t max_rows) : group(a.heads / a.kv_heads) {
    folded = group > 1 && a.q_len < max_rows;
    count = a.batch * (folded ? a.kv_heads : a.heads);
    rows = a.q_len * (folded ? group : 1);
  }
};

// Row pointers and key ranges of a block, and the block itself.
class BlockBuilder {
 public:
  BlockBuilder(const AttentionArgs& a, const RowGroups& groups)
      : a_(a), groups_(groups), has_scales_(a.v_dtype == DType::kS8), element_bytes_(dtype_size(a.v_dtype)) {
    block_.q = q_.data();
    block_.out = out_.data();
    block_.lo = lo_.data();
    block_.hi = hi_.data();
    block_.k_row = a.k_strides.row, block_.k_dim = a.k_strides.dim, block_.v_row = a.v_strides.row;
    block_.head_dim = a.head_dim, block_.v_dim = a.v_dim;
    block_.scale = a.scale, block_.softcap = a.softcap, block_.fill = a.frontier_fill;
    block_.mask_key = a.mask_key, block_.mask_is_bytes = a.mask_kind == MaskKind::kAllow;
  }

  // Rows [begin, begin + n) of group g.
  AttentionBlock& build(int64_t g, int64_t begin, int64_t n) {
    const int64_t per_batch = groups_.count / a_.batch;
    b_ = g / per_batch;
    const int64_t within = g % per_batch, first_head = groups_.folded ? within * groups_.group : within;
    const int64_t kv_head = first_head / groups_.group;
    block_.rows = n;
    block_.k = head_of(a_.k, a_.k_strides, kv_head);
    block_.v = head_of(a_.v, a_.v_strides, kv_head);
    const int64_t scales = b_ * a_.scale_batch + kv_head * a_.scale_head;
    block_.k_scale = has_scales_ && a_.k_scale ? a_.k_scale + scales : nullptr;
    block_.v_scale = has_scales_ && a_.v_scale ? a_.v_scale + scales : nullptr;
    set_key_end();
    set_biases(first_head);
    block_.band_begin = block_.key_end, block_.band_end = 0;
    int64_t head = first_head + begin / a_.q_len, i = begin % a_.q_len;
    for (int64_t r = 0; r < n; ++r) {
      set_row(r, head, i);
      if (++i == a_.q_len) ++head, i = 0;
    }
    if (block_.band_begin > block_.band_end) block_.band_begin = block_.band_end = 0;
    return block_;
  }

 private:
  const void* head_of(const void* data, const AttentionStrides& strides, int64_t kv_head) const {
    return static_cast<const char*>(data) + (b_ * strides.batch + kv_head * strides.head) * element_bytes_;
  }

  void set_key_end() {
    int64_t end = std::min(a_.kv_len, a_.mask_keys);
    if (a_.batch_kv_len) end = std::min(end, a_.batch_kv_len[b_]);
    block_.key_end = std::max<int64_t>(end, 0);
  }

  // A mask that is the same for all rows is a bias per key.
  void set_biases(int64_t first_head) {
    block_.key_bias[0] = a_.key_bias ? a_.key_bias + b_ * a_.key_bias_stride : nullptr;
    block_.key_bias[1] = nullptr;
    block_.mask = a_.mask_kind == MaskKind::kNone ? nullptr : mask_.data();
    const bool per_key = a_.mask_kind == MaskKind::kAdd && a_.mask_row == 0 && a_.mask_key == 1 &&
                         (a_.mask_head == 0 || !groups_.folded);
    if (!per_key) return;
    block_.mask = nullptr;
    block_.key_bias[1] = static_cast<const float*>(a_.mask) + b_ * a_.mask_batch + first_head * a_.mask_head;
  }

  void set_row(int64_t r, int64_t head, int64_t i) {
    const auto at = static_cast<size_t>(r);
    q_[at] =
        static_cast<const float*>(a_.q) + b_ * a_.q_strides.batch + head * a_.q_strides.head + i * a_.q_strides.row;
    out_[at] = static_cast<float*>(a_.out) + b_ * a_.out_strides.batch + head * a_.out_strides.head +
               i * a_.out_strides.row;
    const int64_t p = (a_.batch_offset ? a_.batch_offset[b_] : a_.offset) + i;
    const int64_t lo = a_.left_window < 0 ? 0 : p - a_.left_window;
    int64_t hi = a_.causal ? p + 1 : kFarAway;
    if (a_.right_window >= 0) hi = std::min(hi, p + a_.right_window + 1);
    lo_[at] = std::clamp<int64_t>(lo, 0, block_.key_end);
    hi_[at] = std::clamp<int64_t>(hi, 0, block_.key_end);
    block_.band_begin = std::min(block_.band_begin, lo_[at]);
    block_.band_end = std::max(block_.band_end, hi_[at]);
    if (block_.mask) {
      const int64_t offset = b_ * a_.mask_batch + head * a_.mask_head + i * a_.mask_row;
      mask_[at] = static_cast<const char*>(a_.mask) + offset * (block_.mask_is_bytes ? 1 : int64_t{sizeof(float)});
    }
    if (a_.sink) {
      sink_[at] = a_.sink[head];
      block_.sink = sink_.data();
    }
  }

  const AttentionArgs& a_;
  const RowGroups& groups_;
  bool has_scales_;
  int64_t element_bytes_;  // of K and V
  AttentionBlock block_{};
  int64_t b_ = 0;
  std::array<const float*, kAttentionMaxRows> q_;
  std::array<float*, kAttentionMaxRows> out_;
  std::array<int64_t, kAttentionMaxRows> lo_, hi_;
  std::array<const void*, kAttentionMaxRows> mask_;
  std::array<float, kAttentionMaxRows> sink_;
};

}  // namespace sprun::kernels
