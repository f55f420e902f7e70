// Packing of 8- and 16-bit weights for the narrow families: panels of nr outputs, one input after the other.
#include <algorithm>
#include <cstring>

#include "kernels/gemm/pack.h"

namespace sprun::kernels {
namespace {

// Outputs [n0, n0 + cols) of inputs [k, k_end) to out[k][kNr], from rows of the stored matrix that hold one input each.
template <class T>
void copy_rows(const WeightSource<T>& w, int64_t n0, int64_t cols, int64_t nr, T flip, T* out) {
  for (int64_t k = 0; k < w.k; ++k, out += nr) {
    std::memcpy(out, w.data + n0 + k * w.stride_k, static_cast<size_t>(cols) * sizeof(T));
    if (flip == 0) continue;
    for (int64_t c = 0; c < cols; ++c) out[c] = static_cast<T>(out[c] ^ flip);
  }
}

// The same for any strides. Inputs go in groups whose packed lines stay in L1.
template <class T>
void turn_rows(const WeightSource<T>& w, int64_t n0, int64_t cols, int64_t nr, T flip, T* out) {
  constexpr int64_t kGroup = 64;
  for (int64_t k0 = 0; k0 < w.k; k0 += kGroup) {
    const int64_t end = w.k - k0 < kGroup ? w.k : k0 + kGroup;
    for (int64_t c = 0; c < cols; ++c) {
      const T* in = w.data + (n0 + c) * w.stride_n;
      for (int64_t k = k0; k < end; ++k) out[k * nr + c] = static_cast<T>(in[k * w.stride_k] ^ flip);
    }
  }
}

template <class T>
void pack_panels(const WeightSource<T>& w, int64_t nr, int64_t begin, int64_t end, T flip, T* packed) {
  for (int64_t p = begin; p < end; ++p) {
    const int64_t n0 = p * nr;
    const int64_t cols = w.n - n0 < nr ? w.n - n0 : nr;
    T* out = packed + n0 * w.k;
    if (cols < nr) std::fill_n(out, nr * w.k, T{0});
    if (w.stride_n == 1) copy_rows(w, n0, cols, nr, flip, out);
    else turn_rows(w, n0, cols, nr, flip, out);
  }
}

}  // namespace

void pack_narrow(const WeightSource<uint8_t>& w, int64_t nr, int64_t begin, int64_t end, uint8_t flip,
                 uint8_t* packed) {
  pack_panels(w, nr, begin, end, flip, packed);
}

void pack_narrow(const WeightSource<uint16_t>& w, int64_t nr, int64_t begin, int64_t end, uint16_t flip,
                 uint16_t* packed) {
  pack_panels(w, nr, begin, end, flip, packed);
}

}  // namespace sprun::kernels
