// Exact f32 attention of a block of query rows, online softmax over tiles of keys. Query rows are the vector lanes:
//   S^T[key, row] = K[key, :] Q^T      broadcasts elements of K as it lies in memory, any strides
//   P^T = exp(S^T - max)               maxima and sums over keys are plain vector operations
//   O^T[dim, row] += V^T P^T           broadcasts elements of V as it lies in memory
// so nothing but Q (once) and O (once) is ever transposed, and K and V are never copied.
#pragma once

#include "kernels/attention/attention_frame.h"

namespace sprun::kernels::attn {

// acc[r][v] += sum over i < depth of a[r][i * a_step] * b[i][v], b dense rows of kNv vectors.
template <class V, int kR, int kNv>
SPRUN_INLINE void multiply(const float* const (&a)[kR], int64_t a_step, const float* b, int64_t depth,
                           V (&acc)[kR][kNv]) {
  int64_t at = 0;
  for (int64_t i = 0; i < depth; ++i) {
    V row[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) row[v] = V::load(b + v * V::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      const V x = V::broadcast(a[r][at]);
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::fma(x, row[v], acc[r][v]);
    }
    at += a_step;
    b += kNv * V::kLanes;
  }
}

template <class A, int kNv>
class BlockRunner : public BlockFrame<A, kNv, BlockRunner<A, kNv>> {
  using Frame = BlockFrame<A, kNv, BlockRunner<A, kNv>>;
  using V = typename Frame::V;
  using Frame::kL, Frame::kR, Frame::kW;

 public:
  static constexpr int64_t kKeyGroup = 1;

  BlockRunner(const AttentionBlock& block, float* scratch) : Frame(block, scratch) {
    q_ = scratch + frame_floats<A>(block.v_dim);
  }

  void load_queries() {
    const V scale = V::broadcast(this->b_.scale);
    for (int64_t r0 = 0; r0 < kW; r0 += kL) {
      for (int64_t d0 = 0; d0 < this->b_.head_dim; d0 += kL) {
        const int64_t n = this->b_.head_dim - d0 < kL ? this->b_.head_dim - d0 : kL;
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (r0 + i >= this->b_.rows) t[i] = V::zero();
          else t[i] = n == kL ? V::load(this->b_.q[r0 + i] + d0) : V::load_partial(this->b_.q[r0 + i] + d0, n);
        }
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (i < n) (t[i] * scale).store(q_ + (d0 + i) * kW + r0);
        }
      }
    }
  }

  SPRUN_INLINE void multiply_keys(int64_t j, int64_t i, int64_t n, V (&acc)[kR][kNv]) {
    // Past the last key the last one is computed again and dropped.
    const float* k[kR];
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) k[r] = this->b_.k + (j + (i + r < n ? i + r : n - 1)) * this->b_.k_row;
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::zero();
    }
    multiply(k, this->b_.k_dim, q_, this->b_.head_dim, acc);
  }

  void exponentials(int64_t n) {
    V low[kNv], sum[kNv];
    this->raise_maxima(low, sum);
    float* p = this->p_;
    for (int64_t i = 0; i < n; ++i, p += kW) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        const V e = exp_score<A>(V::load(p + v * kL) - low[v]);
        sum[v] = sum[v] + e;
        e.store(p + v * kL);
      }
    }
    this->store_sums(sum);
  }

  template <int kDims>
  SPRUN_INLINE void accumulate_dims(const float* value, int64_t d, int64_t n) {
    const float* a[kDims];
    V acc[kDims][kNv];
    float* o = this->o_ + d * kW;
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
      a[r] = value + d + r;
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::zero();
    }
    if (!this->first_) {
#pragma GCC unroll 8
      for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) acc[r][v] = V::load(o + r * kW + v * kL) * V::load(this->factor_ + v * kL);
      }
    }
    multiply(a, this->b_.v_row, this->p_, n, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v].store(o + r * kW + v * kL);
    }
  }

  void accumulate(int64_t j, int64_t n) {
    const float* value = this->b_.v + j * this->b_.v_row;
    int64_t d = 0;
    for (; d + kR <= this->b_.v_dim; d += kR) accumulate_dims<kR>(value, d, n);
    for (; d < this->b_.v_dim; ++d) accumulate_dims<1>(value, d, n);
  }

 private:
  float* q_;  // [head_dim, kW]
};

template <class A>
void run_block(const AttentionBlock& block, float* scratch) {
  run_with_vectors<A, BlockRunner>(block, scratch);
}

template <class A>
int64_t block_scratch_floats(int64_t head_dim, int64_t v_dim, int64_t /*keys*/) {
  return frame_floats<A>(v_dim) + head_dim * Tile<A>::kVecs * F32<A>::kLanes;
}

}  // namespace sprun::kernels::attn
