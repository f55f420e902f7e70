#include "kernels/bsr/non_zeros.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

namespace sprun::kernels {
namespace {

// The element as a number that is 0 exactly when the weight is (zero points aside).
template <class T>
int32_t code(T value) {
  if constexpr (std::is_same_v<T, float>) {
    return static_cast<int32_t>(std::bit_cast<uint32_t>(value) << 1 != 0);
  } else if constexpr (std::is_same_v<T, uint16_t>) {
    return value & 0x7fff;
  } else {
    return value;
  }
}

// Weights inside a mapped file need not be aligned.
template <class T>
T load(const T* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// Folds each group of `width` bits of a word into its lowest bit.
uint64_t fold(uint64_t bits, int width) {
  for (int shift = 1; shift < width; shift *= 2) bits |= bits >> shift;
  switch (width) {
    case 2:
      return bits & 0x5555555555555555U;
    case 4:
      return bits & 0x1111111111111111U;
    case 8:
      return bits & 0x0101010101010101U;
    case 16:
      return bits & 0x0001000100010001U;
    case 32:
      return bits & 0x0000000100000001U;
    default:
      return bits;
  }
}

}  // namespace

template <class T>
NonZeros NonZeros::of(const WeightSource<T>& w, const int32_t* zero_point, int64_t zero_stride) {
  NonZeros bits;
  bits.n_ = w.n;
  bits.k_ = w.k;
  bits.row_words_ = (w.k + 63) / 64;
  bits.words_.assign(static_cast<size_t>(w.n * bits.row_words_), 0);
  const auto zero = [&](int64_t n) {
    return zero_point == nullptr ? 0 : zero_point[n * zero_stride];
  };
  if (w.stride_n == 1) {  // walk the memory as it lies: 64 inputs of a stripe of outputs
    constexpr int64_t kStripe = 256;
    for (int64_t n0 = 0; n0 < w.n; n0 += kStripe) {
      const int64_t count = std::min(kStripe, w.n - n0);
      for (int64_t k = 0; k < w.k; ++k) {
        const T* in = w.data + n0 + k * w.stride_k;
        uint64_t* out = bits.words_.data() + n0 * bits.row_words_ + k / 64;
        for (int64_t i = 0; i < count; ++i) {
          out[i * bits.row_words_] |= uint64_t{code(load(in + i)) != zero(n0 + i)} << (k % 64);
        }
      }
    }
    return bits;
  }
  for (int64_t n = 0; n < w.n; ++n) {
    const int32_t none = zero(n);
    for (int64_t k = 0; k < w.k; ++k) {
      const bool set = code(load(w.data + n * w.stride_n + k * w.stride_k)) != none;
      bits.words_[static_cast<size_t>(n * bits.row_words_ + k / 64)] |= uint64_t{set} << (k % 64);
    }
  }
  return bits;
}

template NonZeros NonZeros::of(const WeightSource<float>&, const int32_t*, int64_t);
template NonZeros NonZeros::of(const WeightSource<uint16_t>&, const int32_t*, int64_t);
template NonZeros NonZeros::of(const WeightSource<int8_t>&, const int32_t*, int64_t);
template NonZeros NonZeros::of(const WeightSource<uint8_t>&, const int32_t*, int64_t);

void NonZeros::block_bits(BlockShape block, int64_t block_row, std::span<uint64_t> out) const {
  const int64_t begin = block_row * block.rows, end = std::min<int64_t>(begin + block.rows, n_);
  std::fill(out.begin(), out.end(), 0);
  for (int64_t n = begin; n < end; ++n) {
    const auto in = row(n);
    for (size_t i = 0; i < in.size(); ++i) out[i] |= in[i];
  }
  if (block.cols == 1) return;
  // One bit per block: the folded bits of a word move together.
  const size_t per_word = 64 / static_cast<size_t>(block.cols);
  for (size_t i = 0; i < out.size(); ++i) {
    uint64_t folded = fold(out[i], block.cols);
    out[i] = 0;
    while (folded != 0) {
      const size_t at =
          i * per_word + static_cast<size_t>(std::countr_zero(folded)) / static_cast<size_t>(block.cols);
      out[at / 64] |= uint64_t{1} << (at % 64);
      folded &= folded - 1;
    }
  }
}

int64_t NonZeros::count(BlockShape block) const {
  int64_t total = 0;
  std::vector<uint64_t> bits(static_cast<size_t>(row_words_));
  for (int64_t r = 0; r * block.rows < n_; ++r) {
    const int64_t begin = r * block.rows, end = std::min<int64_t>(begin + block.rows, n_);
    std::fill(bits.begin(), bits.end(), 0);
    for (int64_t n = begin; n < end; ++n) {
      const auto in = row(n);
      for (size_t i = 0; i < in.size(); ++i) bits[i] |= in[i];
    }
    for (uint64_t word : bits) total += std::popcount(fold(word, block.cols));
  }
  return total;
}

double NonZeros::density(BlockShape block) const {
  const int64_t rows = (n_ + block.rows - 1) / block.rows, cols = (k_ + block.cols - 1) / block.cols;
  if (rows == 0 || cols == 0) return 0.0;
  return static_cast<double>(count(block)) / static_cast<double>(rows * cols);
}

bool NonZeros::is_n_of_m(int n_kept, int m) const {
  const uint64_t group = m == 64 ? ~uint64_t{0} : (uint64_t{1} << m) - 1;
  for (uint64_t word : words_) {
    for (int at = 0; at < 64; at += m) {
      if (std::popcount((word >> at) & group) > n_kept) return false;
    }
  }
  return true;
}

}  // namespace sprun::kernels
