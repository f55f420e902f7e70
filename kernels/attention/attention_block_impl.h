// Exact f32 attention of a block of query rows, online softmax over tiles of keys. Query rows are the vector lanes:
//   S^T[key, row] = K[key, :] Q^T      broadcasts elements of K as it lies in memory, any strides
//   P^T = exp(S^T - max)               maxima and sums over keys are plain vector operations
//   O^T[dim, row] += V^T P^T           broadcasts elements of V as it lies in memory
// so nothing but Q (once) and O (once) is ever transposed, and float K and V are never copied. Narrower ones are
// widened a tile at a time: one pass over the tile for the 16 to 48 rows that read it.
#pragma once

#include <type_traits>

#include "kernels/attention/attention_frame.h"
#include "kernels/attention/attention_stored_impl.h"

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

// T: the type of K and V in memory.
template <class A, class T, int kNv>
class BlockRunner : public BlockFrame<A, kNv, BlockRunner<A, T, kNv>> {
  using Frame = BlockFrame<A, kNv, BlockRunner<A, T, kNv>>;
  using V = typename Frame::V;
  using Frame::kL, Frame::kR, Frame::kW;
  static constexpr bool kWidens = !std::is_same_v<T, float>;

 public:
  static constexpr int64_t kKeyGroup = 1;

  BlockRunner(const AttentionBlock& block, float* scratch) : Frame(block, scratch) {
    q_ = scratch + frame_floats<A>(block.v_dim);
    wide_ = q_ + block.head_dim * kW;
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

  SPRUN_INLINE void begin_keys(int64_t j, int64_t n) {
    const T* k = static_cast<const T*>(this->b_.k) + j * this->b_.k_row;
    if constexpr (kWidens) {
      widen_rows<A>(k, this->b_.k_row, n, this->b_.head_dim, scales(this->b_.k_scale, j), wide_);
      k_ = wide_, k_row_ = widened_pitch<A>(this->b_.head_dim), k_dim_ = 1;
    } else {
      k_ = k, k_row_ = this->b_.k_row, k_dim_ = this->b_.k_dim;
    }
  }

  SPRUN_INLINE void multiply_keys(int64_t /*j*/, int64_t i, int64_t n, V (&acc)[kR][kNv]) {
    // Past the last key the last one is computed again and dropped.
    const float* k[kR];
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) k[r] = k_ + (i + r < n ? i + r : n - 1) * k_row_;
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::zero();
    }
    multiply(k, k_dim_, q_, this->b_.head_dim, acc);
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
  SPRUN_INLINE void accumulate_dims(const float* value, int64_t v_row, int64_t d, int64_t n) {
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
    multiply(a, v_row, this->p_, n, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v].store(o + r * kW + v * kL);
    }
  }

  void accumulate(int64_t j, int64_t n) {
    const T* v = static_cast<const T*>(this->b_.v) + j * this->b_.v_row;
    if constexpr (kWidens) {  // over the keys, which are used up
      widen_rows<A>(v, this->b_.v_row, n, this->b_.v_dim, scales(this->b_.v_scale, j), wide_);
      accumulate_values(wide_, widened_pitch<A>(this->b_.v_dim), n);
    } else {
      accumulate_values(v, this->b_.v_row, n);
    }
  }

 private:
  void accumulate_values(const float* value, int64_t v_row, int64_t n) {
    int64_t d = 0;
    for (; d + kR <= this->b_.v_dim; d += kR) accumulate_dims<kR>(value, v_row, d, n);
    for (; d < this->b_.v_dim; ++d) accumulate_dims<1>(value, v_row, d, n);
  }

  static const float* scales(const float* all, int64_t j) { return all != nullptr ? all + j : nullptr; }

  float* q_;                 // [head_dim, kW]
  float* wide_;              // keys or values of the tile when they are widened
  const float* k_ = nullptr;  // of the tile
  int64_t k_row_ = 0, k_dim_ = 0;
};

template <class A, class T>
struct BlockRunnerOf {
  template <class Arch, int kNv>
  using Type = BlockRunner<Arch, T, kNv>;
};

template <class A, class T>
void run_block(const AttentionBlock& block, float* partial, float* scratch) {
  run_with_vectors<A, BlockRunnerOf<A, T>::template Type>(block, partial, scratch);
}

template <class A, class T>
int64_t block_scratch_floats(int64_t head_dim, int64_t v_dim, int64_t /*keys*/) {
  const int64_t widest = widened_pitch<A>(head_dim < v_dim ? v_dim : head_dim);
  const int64_t widened = std::is_same_v<T, float> ? 0 : Tile<A>::kKeys * widest;
  return frame_floats<A>(v_dim) + head_dim * Tile<A>::kVecs * F32<A>::kLanes + widened;
}

}  // namespace sprun::kernels::attn
