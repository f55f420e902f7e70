// Packs sparse weights once, when a model is loaded.
//
//   const NonZeros bits = NonZeros::of(w);
//   const BsrSize size = bsr_size(layout, bits);
//   ... allocate size.bytes(value_bytes) ...
//   BsrWeights packed = bsr_pack<int8_t>(layout, bits, value_of, blob, size);
//
// Memory per stored block: its values and 2 bytes; int8 4x1 4 + 2 bytes, 16x4 64 + 2; f32 1x1 4 + 2.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "kernels/bsr/non_zeros.h"
#include "kernels/bsr_spmm/bsr_spmm_types.h"

namespace sprun::kernels {

// Sizes of the packed form.
struct BsrSize {
  int64_t units = 0, runs = 0, groups = 0;
  int64_t group_values = 0, group_cols = 0;  // elements of one group

  int64_t runs_at() const { return align(8 * (units + 1)); }
  int64_t cols_at() const { return runs_at() + align(4 * runs); }
  int64_t values_at() const { return cols_at() + align(2 * groups * group_cols); }
  int64_t bytes(int64_t value_bytes) const {
    return values_at() + align(groups * group_values * value_bytes);
  }

 private:
  static constexpr int64_t align(int64_t bytes) { return (bytes + 63) / 64 * 64; }
};

// Why weights of this shape cannot have this layout; empty when they can.
std::string bsr_refusal(const BsrLayout& layout, int64_t n, int64_t k);

BsrSize bsr_size(const BsrLayout& layout, const NonZeros& bits);

// Writes everything but the values to `blob` (size.bytes(..) bytes, 64-byte aligned) and calls
// place(at, n, k) for each stored value: element `at` of the value array is W[n, k]; values that no
// call names are padding and must be 0.
BsrWeights bsr_pack(const BsrLayout& layout, const NonZeros& bits, const BsrSize& size, void* blob,
                    const std::function<void(int64_t at, int64_t n, int64_t k)>& place);

// True when the two products of no pair of packed weights (bytes 2 i and 2 i + 1, which belong to one
// output in every u8s8 layout) can leave 16 bits, whatever the u8 inputs are: the positive ones of a
// pair sum to 128 at most, the negative ones to -128 at least.
bool bsr_pairs_fit(const int8_t* values, int64_t count);

// The view of a blob that was packed before; pairs_fit is not set.
BsrWeights bsr_view(const BsrSize& size, const void* blob);

}  // namespace sprun::kernels
