// What the attention-like ops share: reading attributes, copying key/value rows into a cache, scratch layout.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "graph/ops/op.h"
#include "kernels/attention/attention.h"
#include "runtime/base/packed_cache.h"

namespace sprun::graph {

// kBadModel "Op 'node name': text".
Status op_error(const Node& node, const std::string& text);

// Attribute `name` that must be there, in [1, 2^20].
Result<int64_t> required_count(const Node& node, std::string_view name);

// hidden / heads, an error if it does not divide.
Result<int64_t> head_size(const Node& node, int64_t hidden, int64_t heads, std::string_view what);

// The attribute `scale`; 0 and absence mean 1 / sqrt(head_dim).
float attention_scale(const Node& node, int64_t head_dim);

// Strides of a [B, S, H*D] or [B, H, S, D] tensor by its rank.
kernels::AttentionStrides strides_by_rank(const Shape& shape, int64_t heads, int64_t rows, int64_t dim);

// Sets mask pointer strides for a tensor that broadcasts to [batch, heads, q_len, keys]; the last axis may be `keys`
// long or 1. An error names the shapes.
Status set_mask(const Node& node, const ConstTensorView& mask, int64_t keys, kernels::AttentionArgs& args);

// Copies rows of `dim` elements: dst(b, h, i) = src(b, h, i) for i < rows. Dim strides are 1.
struct RowCopy {
  int64_t batch, heads, rows, dim;
  DType dtype;
  const void* src;
  kernels::AttentionStrides src_strides;
  void* dst;
  kernels::AttentionStrides dst_strides;
};
void copy_rows(ThreadPool& pool, const RowCopy& copy);

// Makes the cache dst [batch, heads, past + rows, dim]: `past` rows of a dense tensor of the same kind (may be absent,
// then past_rows is 0), then `rows` new ones.
struct CacheAppend {
  int64_t batch, heads, past_rows, rows, dim;
  DType dtype;
  const void* past;
  const void* fresh;
  kernels::AttentionStrides fresh_strides;
  void* dst;
};
void append_to_cache(ThreadPool& pool, const CacheAppend& append);

// Hands out 64-byte aligned pieces: with a null base it only counts.
class ScratchLayout {
 public:
  explicit ScratchLayout(void* base = nullptr) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    char* piece = base_ ? base_ + used_ : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return reinterpret_cast<T*>(piece);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// State of an op whose run() takes scratch: how much prepare() asked for.
struct ScratchState : OpState {
  int64_t scratch_bytes = 0;
};

// The step's scratch, or an allocation of its own when sizes were not known in prepare().
class ScratchHolder {
 public:
  Result<void*> get(const RunContext& ctx, int64_t bytes);

 private:
  PackedBlob own_;
};

// Names the kernel and the work in what `sprun explain` and `sprun profile` print.
void describe_attention(PrepareContext& ctx, const kernels::AttentionArgs& args);

}  // namespace sprun::graph
