#include "kernels/sparse_input/sparse_input.h"

#include <algorithm>

namespace sprun::kernels {

#define SPRUN_SPARSE_INPUT_F32(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const SparseInputKernel symbol;)
#define SPRUN_SPARSE_INPUT_F16 SPRUN_SPARSE_INPUT_F32
#define SPRUN_SPARSE_INPUT_BF16 SPRUN_SPARSE_INPUT_F32
#define SPRUN_SPARSE_INPUT_S8 SPRUN_SPARSE_INPUT_F32
#define SPRUN_SPARSE_INPUT_S4 SPRUN_SPARSE_INPUT_F32
#include "kernels/sparse_input/sparse_input.def"

namespace {

constinit const KernelInfo<SparseInputKernel> kF32[] = {
#define SPRUN_SPARSE_INPUT_F32 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_input/sparse_input.def"
};
constinit const KernelInfo<SparseInputKernel> kF16[] = {
#define SPRUN_SPARSE_INPUT_F16 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_input/sparse_input.def"
};
constinit const KernelInfo<SparseInputKernel> kBf16[] = {
#define SPRUN_SPARSE_INPUT_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_input/sparse_input.def"
};
constinit const KernelInfo<SparseInputKernel> kS8[] = {
#define SPRUN_SPARSE_INPUT_S8 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_input/sparse_input.def"
};
constinit const KernelInfo<SparseInputKernel> kS4[] = {
#define SPRUN_SPARSE_INPUT_S4 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_input/sparse_input.def"
};

}  // namespace

std::span<const KernelInfo<SparseInputKernel>> sparse_input_kernels(SparseInputWeights weights) {
  switch (weights) {
    case SparseInputWeights::kF32: return kF32;
    case SparseInputWeights::kF16: return kF16;
    case SparseInputWeights::kBf16: return kBf16;
    case SparseInputWeights::kS8: return kS8;
    case SparseInputWeights::kS4: return kS4;
  }
  return kF32;
}

int64_t list_inputs(const float* x, int64_t ldx, int64_t m, int64_t k, int32_t* ids, float* values, int64_t ld_values,
                    int64_t* active) {
  int64_t count = 0, non_zero = 0;
  for (int64_t i = 0; i < k; ++i) {
    int64_t set = 0;
    for (int64_t r = 0; r < m; ++r) set += x[r * ldx + i] != 0.0F;
    ids[count] = static_cast<int32_t>(i);
    for (int64_t r = 0; r < m; ++r) values[r * ld_values + count] = x[r * ldx + i];
    non_zero += set;
    count += set != 0;
  }
  *active = non_zero;
  if (count == 0) return 0;
  for (; count % kSparseInputGroup != 0; ++count) {
    ids[count] = ids[count - 1];
    for (int64_t r = 0; r < m; ++r) values[r * ld_values + count] = 0;
  }
  return count;
}

int64_t list_by_block(const int32_t* ids, const float* values, int64_t ld_values, int64_t listed, int64_t m, int64_t block_size,
                      int32_t* to_ids, float* to_values, int64_t ld_to) {
  int64_t count = 0;
  const auto pad = [&] {
    for (; count % kSparseInputGroup != 0; ++count) {
      to_ids[count] = to_ids[count - 1];
      for (int64_t r = 0; r < m; ++r) to_values[r * ld_to + count] = 0;
    }
  };
  for (int64_t i = 0; i < listed; ++i, ++count) {
    if (i > 0 && ids[i] / block_size != ids[i - 1] / block_size) pad();
    to_ids[count] = ids[i];
    for (int64_t r = 0; r < m; ++r) to_values[r * ld_to + count] = values[r * ld_values + i];
  }
  pad();
  return count;
}

double sparse_input_limit(SparseInputWeights weights, int64_t m) {
  if (weights == SparseInputWeights::kF32) return m == 1 ? 0.75 : m <= 4 ? 0.65 : 0.55;
  return m <= 4 ? 0.35 : 0.25;
}

int64_t sparse_input_width(int64_t n, int workers) {
  constexpr int64_t kWidest = 1024, kPanelsPerWorker = 2;
  const int64_t wanted = workers > 1 ? kPanelsPerWorker * workers : 1;
  const int64_t panels = std::max(wanted, (n + kWidest - 1) / kWidest);
  const int64_t lines = ((n + panels - 1) / panels + kSparseInputLine - 1) / kSparseInputLine;
  constexpr int64_t kNarrowestLines = 4;
  return std::max(lines, kNarrowestLines) * kSparseInputLine;
}

}  // namespace sprun::kernels
