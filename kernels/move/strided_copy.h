// Strided copies: the one loop behind Transpose, Slice, Expand, Tile, Concat, Split and their relatives.
//
//   StridedCopy copy;                       // [B, S, H, D] -> [B, H, S, D]
//   copy.add_axis(B, S * H * D, H * S * D);
//   copy.add_axis(H, D, S * D);
//   copy.add_axis(S, H * D, D);
//   copy.add_axis(D, 1, 1);
//   strided_copy(copy, sizeof(float), src, dst, pool);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace sprun {
class ThreadPool;
}

namespace sprun::kernels {

inline constexpr int kMaxCopyRank = 16;

// Axes of a copy, outermost of the destination first. Strides are in elements. Source strides may be 0 (broadcast) or
// negative; destination strides are positive and address every element once.
struct StridedCopy {
  int rank = 0;
  std::array<int64_t, kMaxCopyRank> dims{}, src_strides{}, dst_strides{};

  // Precondition: rank < kMaxCopyRank.
  void add_axis(int64_t dim, int64_t src_stride, int64_t dst_stride) {
    const auto i = static_cast<size_t>(rank++);
    dims[i] = dim;
    src_strides[i] = src_stride;
    dst_strides[i] = dst_stride;
  }
};

// dst[sum_i x_i * dst_strides[i]] = src[sum_i x_i * src_strides[i]]   for all 0 <= x_i < dims[i].
//   element_bytes  1, 2, 4, 8 or 16
//   src, dst       the elements at x = 0; must not overlap; any alignment
// Regime: bandwidth-bound. Numeric: exact. Threads: splits the outer axes over `pool`. No allocation.
void strided_copy(const StridedCopy& copy, int64_t element_bytes, const void* src, void* dst, ThreadPool& pool);

// memcpy that uses all threads for large blocks. bytes >= 0; pointers may be null when bytes is 0.
void parallel_copy(const void* src, void* dst, int64_t bytes, ThreadPool& pool);

// Fills `count` elements of element_bytes (1, 2, 4, 8) at dst with the one at `value`.
void parallel_fill(const void* value, int64_t element_bytes, void* dst, int64_t count, ThreadPool& pool);

}  // namespace sprun::kernels
