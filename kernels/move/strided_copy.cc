#include "kernels/move/strided_copy.h"

#include <algorithm>
#include <cstring>

#include "kernels/move/transpose_block.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

constexpr int64_t kGrainBytes = int64_t{1} << 16;      // work worth a task: some 5 us of copying
constexpr int64_t kLargeCopyBytes = int64_t{1} << 18;  // chunk of one plain memcpy
constexpr int64_t kTile = 64;                          // transposes go through squares of this side: 16 KiB of floats

int64_t grain_for(int64_t bytes_per_item) {
  return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, bytes_per_item));
}

// Drops axes of size 1 and joins neighbours that are contiguous with respect to each other on both sides.
StridedCopy simplified(const StridedCopy& copy) {
  StridedCopy out;
  for (size_t i = 0; i < static_cast<size_t>(copy.rank); ++i) {
    if (copy.dims[i] == 1) continue;
    if (out.rank > 0) {
      const auto last = static_cast<size_t>(out.rank - 1);
      if (out.src_strides[last] == copy.src_strides[i] * copy.dims[i] &&
          out.dst_strides[last] == copy.dst_strides[i] * copy.dims[i]) {
        out.dims[last] *= copy.dims[i];
        out.src_strides[last] = copy.src_strides[i];
        out.dst_strides[last] = copy.dst_strides[i];
        continue;
      }
    }
    out.add_axis(copy.dims[i], copy.src_strides[i], copy.dst_strides[i]);
  }
  return out;
}

// A short contiguous last axis becomes part of a wider element, if the other strides allow it.
void widen_elements(StridedCopy& copy, int64_t& element_bytes) {
  if (copy.rank < 2) return;
  const auto last = static_cast<size_t>(copy.rank - 1);
  const int64_t dim = copy.dims[last];
  const int64_t bytes = dim * element_bytes;
  const bool power_of_two = (dim & (dim - 1)) == 0;
  if (copy.src_strides[last] != 1 || copy.dst_strides[last] != 1 || dim > 16 || bytes > 16 || !power_of_two) return;
  for (size_t i = 0; i < last; ++i) {
    if (copy.src_strides[i] % dim != 0 || copy.dst_strides[i] % dim != 0) return;
  }
  for (size_t i = 0; i < last; ++i) {
    copy.src_strides[i] /= dim;
    copy.dst_strides[i] /= dim;
  }
  --copy.rank;
  element_bytes = bytes;
}

// Walks the first `axes` axes in row-major order and keeps both offsets.
class Walker {
 public:
  Walker(const StridedCopy& copy, int axes, int64_t start) : copy_(copy), axes_(static_cast<size_t>(axes)) {
    for (size_t i = axes_; i-- > 0;) {
      x_[i] = start % copy.dims[i];
      start /= copy.dims[i];
      src += x_[i] * copy.src_strides[i];
      dst += x_[i] * copy.dst_strides[i];
    }
  }

  void next() {
    for (size_t i = axes_; i-- > 0;) {
      src += copy_.src_strides[i];
      dst += copy_.dst_strides[i];
      if (++x_[i] < copy_.dims[i]) return;
      src -= copy_.dims[i] * copy_.src_strides[i];
      dst -= copy_.dims[i] * copy_.dst_strides[i];
      x_[i] = 0;
    }
  }

  int64_t src = 0, dst = 0;

 private:
  const StridedCopy& copy_;
  size_t axes_;
  std::array<int64_t, kMaxCopyRank> x_{};
};

int64_t outer_count(const StridedCopy& copy, int axes) {
  int64_t count = 1;
  for (int i = 0; i < axes; ++i) count *= copy.dims[static_cast<size_t>(i)];
  return count;
}

// The last axis is contiguous on both sides: whole rows by memcpy.
template <class T>
void copy_rows(const StridedCopy& copy, const T* src, T* dst, ThreadPool& pool) {
  const int axes = copy.rank - 1;
  const int64_t row = copy.dims[static_cast<size_t>(axes)];
  const int64_t row_bytes = row * static_cast<int64_t>(sizeof(T));
  const int64_t rows = outer_count(copy, axes);
  if (rows < pool.num_threads() && row_bytes > kLargeCopyBytes) {
    Walker walker(copy, axes, 0);
    for (int64_t i = 0; i < rows; ++i, walker.next()) {
      parallel_copy(src + walker.src, dst + walker.dst, row_bytes, pool);
    }
    return;
  }
  pool.parallel_for(rows, grain_for(row_bytes), [&](int64_t begin, int64_t end, int) {
    Walker walker(copy, axes, begin);
    for (int64_t i = begin; i < end; ++i, walker.next()) {
      std::memcpy(dst + walker.dst, src + walker.src, static_cast<size_t>(row_bytes));
    }
  });
}

template <class T>
void copy_strip(const T* src, int64_t src_stride, T* dst, int64_t dst_stride, int64_t count) {
  if (src_stride == 0 && dst_stride == 1) {
    std::fill_n(dst, count, *src);
    return;
  }
  for (int64_t i = 0; i < count; ++i) dst[i * dst_stride] = src[i * src_stride];
}

template <class T>
void copy_elements(const StridedCopy& copy, const T* src, T* dst, ThreadPool& pool) {
  const int axes = copy.rank - 1;
  const auto last = static_cast<size_t>(axes);
  const int64_t row = copy.dims[last];
  pool.parallel_for(
      outer_count(copy, axes), grain_for(row * static_cast<int64_t>(sizeof(T))), [&](int64_t begin, int64_t end, int) {
        Walker walker(copy, axes, begin);
        for (int64_t i = begin; i < end; ++i, walker.next()) {
          copy_strip(src + walker.src, copy.src_strides[last], dst + walker.dst, copy.dst_strides[last], row);
        }
      });
}

// dst[j * dst_stride + i] = src[i * src_stride + j] for i < rows, j < cols: one tile.
template <class T>
void transpose_tile(const T* src, int64_t src_stride, T* dst, int64_t dst_stride, int64_t rows, int64_t cols) {
  constexpr int64_t kBlock = TransposeBlock<T>::kBlock;
  const int64_t full_rows = rows - rows % kBlock, full_cols = cols - cols % kBlock;
  for (int64_t j = 0; j < full_cols; j += kBlock) {
    for (int64_t i = 0; i < full_rows; i += kBlock) {
      TransposeBlock<T>::run(src + i * src_stride + j, src_stride, dst + j * dst_stride + i, dst_stride);
    }
    for (int64_t k = j; k < j + kBlock; ++k) {
      for (int64_t i = full_rows; i < rows; ++i) dst[k * dst_stride + i] = src[i * src_stride + k];
    }
  }
  for (int64_t j = full_cols; j < cols; ++j) {
    for (int64_t i = 0; i < rows; ++i) dst[j * dst_stride + i] = src[i * src_stride + j];
  }
}

// The destination is contiguous along the last axis, the source along axis `j`.
template <class T>
void transpose_tiles(const StridedCopy& copy, int j_axis, const T* src, T* dst, ThreadPool& pool) {
  const auto j = static_cast<size_t>(j_axis), last = static_cast<size_t>(copy.rank - 1);
  StridedCopy outer;
  for (size_t i = 0; i < last; ++i) {
    if (i != j) outer.add_axis(copy.dims[i], copy.src_strides[i], copy.dst_strides[i]);
  }
  const int64_t cols = copy.dims[j], rows = copy.dims[last];
  const int64_t src_stride = copy.src_strides[last], dst_stride = copy.dst_strides[j];
  const int64_t strips = (cols + kTile - 1) / kTile;
  const int64_t strip_bytes = std::min(cols, kTile) * rows * static_cast<int64_t>(sizeof(T));
  pool.parallel_for(
      outer_count(outer, outer.rank) * strips, grain_for(strip_bytes), [&](int64_t begin, int64_t end, int) {
        for (int64_t item = begin; item < end; ++item) {
          const Walker at(outer, outer.rank, item / strips);
          const int64_t col = item % strips * kTile;
          for (int64_t row = 0; row < rows; row += kTile) {
            transpose_tile(src + at.src + row * src_stride + col, src_stride, dst + at.dst + col * dst_stride + row,
                           dst_stride, std::min(kTile, rows - row), std::min(kTile, cols - col));
          }
        }
      });
}

// The axis along which only the source is contiguous; -1 if there is none worth a blocked transpose.
int transposed_axis(const StridedCopy& copy) {
  const auto last = static_cast<size_t>(copy.rank - 1);
  if (copy.dst_strides[last] != 1 || copy.src_strides[last] == 0) return -1;
  for (size_t i = 0; i < last; ++i) {
    if (copy.src_strides[i] == 1) return static_cast<int>(i);
  }
  return -1;
}

template <class T>
void copy_as(const StridedCopy& copy, const void* src, void* dst, ThreadPool& pool) {
  const auto* from = static_cast<const T*>(src);
  auto* to = static_cast<T*>(dst);
  if (copy.rank == 0) {
    *to = *from;
    return;
  }
  const auto last = static_cast<size_t>(copy.rank - 1);
  if (copy.src_strides[last] == 1 && copy.dst_strides[last] == 1) return copy_rows(copy, from, to, pool);
  if (const int j = transposed_axis(copy); j >= 0) return transpose_tiles(copy, j, from, to, pool);
  copy_elements(copy, from, to, pool);
}

template <class T>
void fill_as(const void* value, void* dst, int64_t count, ThreadPool& pool) {
  T element;
  std::memcpy(&element, value, sizeof(T));
  auto* to = static_cast<T*>(dst);
  pool.parallel_for(count, kGrainBytes / static_cast<int64_t>(sizeof(T)),
                    [&](int64_t begin, int64_t end, int) { std::fill(to + begin, to + end, element); });
}

}  // namespace

void parallel_copy(const void* src, void* dst, int64_t bytes, ThreadPool& pool) {
  pool.parallel_for(bytes, kLargeCopyBytes, [&](int64_t begin, int64_t end, int) {
    std::memcpy(static_cast<char*>(dst) + begin, static_cast<const char*>(src) + begin,
                static_cast<size_t>(end - begin));
  });
}

void parallel_fill(const void* value, int64_t element_bytes, void* dst, int64_t count, ThreadPool& pool) {
  switch (element_bytes) {
    case 1:
      return fill_as<uint8_t>(value, dst, count, pool);
    case 2:
      return fill_as<uint16_t>(value, dst, count, pool);
    case 4:
      return fill_as<uint32_t>(value, dst, count, pool);
    case 8:
      return fill_as<uint64_t>(value, dst, count, pool);
    default:
      return;
  }
}

void strided_copy(const StridedCopy& copy, int64_t element_bytes, const void* src, void* dst, ThreadPool& pool) {
  for (size_t i = 0; i < static_cast<size_t>(copy.rank); ++i) {
    if (copy.dims[i] <= 0) return;
  }
  StridedCopy simple = simplified(copy);
  widen_elements(simple, element_bytes);
  switch (element_bytes) {
    case 1:
      return copy_as<uint8_t>(simple, src, dst, pool);
    case 2:
      return copy_as<uint16_t>(simple, src, dst, pool);
    case 4:
      return copy_as<uint32_t>(simple, src, dst, pool);
    case 8:
      return copy_as<uint64_t>(simple, src, dst, pool);
    case 16:
      return copy_as<Wide16>(simple, src, dst, pool);
    default:
      return;
  }
}

}  // namespace sprun::kernels
