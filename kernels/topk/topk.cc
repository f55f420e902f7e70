#include "kernels/topk/topk.h"

#include <algorithm>
#include <cmath>

namespace sprun::kernels {

#define SPRUN_TOPK(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const TopKKernel symbol;)
#include "kernels/topk/topk.def"

namespace {

constinit const KernelInfo<TopKKernel> kTopK[] = {
#define SPRUN_TOPK SPRUN_KERNEL_ENTRY
#include "kernels/topk/topk.def"
};

// Keeps the candidates whose key has the digit that holds the k-th largest; k becomes the rank
// among them. Returns how many there are. `keys` may be `out`.
int64_t narrow(const uint32_t* keys, int64_t n, int shift, int bits, int64_t* k, uint32_t* counts,
               uint32_t* out) {
  const uint32_t mask = (1U << bits) - 1U;
  std::fill_n(counts, size_t{1} << bits, 0U);
  for (int64_t i = 0; i < n; ++i) ++counts[(keys[i] >> shift) & mask];
  uint32_t digit = mask;
  while (digit > 0 && static_cast<int64_t>(counts[digit]) < *k) *k -= counts[digit--];
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    out[kept] = keys[i];
    kept += ((keys[i] >> shift) & mask) == digit ? 1 : 0;
  }
  return kept;
}

}  // namespace

std::span<const KernelInfo<TopKKernel>> topk_kernels() { return kTopK; }

float stat_threshold(double sum, double sum_squares, int64_t n, double z, int ddof) {
  if (n <= 0) return 0.0F;
  const double count = static_cast<double>(n);
  const double mean = sum / count;
  const double squares = std::max(sum_squares - sum * mean, 0.0);
  const double divisor = std::max(count - ddof, 1.0);
  return static_cast<float>(mean + z * std::sqrt(squares / divisor));
}

void stat_top_k(const TopKKernel& kernel, const StatTopKArgs& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.ldx;
    double sum, sum_squares;
    kernel.moments(x, a.d, &sum, &sum_squares);
    const float theta = stat_threshold(sum, sum_squares, a.d, a.z, a.ddof);
    if (a.theta != nullptr) a.theta[r] = theta;
    float* values = a.values == nullptr ? nullptr : a.values + r * a.ld_ids;
    a.counts[r] = kernel.select_above(x, a.d, theta, 0, a.ids + r * a.ld_ids, values);
  }
}

TopKCut top_k_cut(const float* x, int64_t n, int64_t k, bool by_abs, void* scratch) {
  if (k <= 0 || n <= 0) return {0xffffffffU, 0};
  k = std::min(k, n);
  uint32_t* counts = static_cast<uint32_t*>(scratch);
  uint32_t* keys = counts + 4096;
  for (int64_t i = 0; i < n; ++i) keys[i] = top_k_key(x[i], by_abs);
  int64_t kept = narrow(keys, n, 21, 11, &k, counts, keys);
  kept = narrow(keys, kept, 10, 11, &k, counts, keys);
  narrow(keys, kept, 0, 10, &k, counts, keys);
  return {keys[0], k};
}

int64_t top_k_ids(const float* x, int64_t n, bool by_abs, TopKCut cut, int32_t* ids) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = top_k_key(x[i], by_abs);
    if (key < cut.key || (key == cut.key && cut.ties-- <= 0)) continue;
    ids[count++] = static_cast<int32_t>(i);
  }
  return count;
}

void top_k_keep(const float* x, int64_t n, bool by_abs, TopKCut cut, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = top_k_key(x[i], by_abs);
    const bool kept = key > cut.key || (key == cut.key && cut.ties-- > 0);
    y[i] = kept ? x[i] : 0.0F;
  }
}

}  // namespace sprun::kernels
