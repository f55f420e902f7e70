#include "kernels/sparse_ffn/sparse_ffn.h"

#include <cmath>

namespace sprun::kernels {

#define SPRUN_SPARSE_FFN_F32(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const SparseFfnKernel symbol;)
#define SPRUN_SPARSE_FFN_BF16 SPRUN_SPARSE_FFN_F32
#define SPRUN_SPARSE_FFN_U8S8 SPRUN_SPARSE_FFN_F32
#include "kernels/sparse_ffn/sparse_ffn.def"

namespace {

constinit const KernelInfo<SparseFfnKernel> kF32[] = {
#define SPRUN_SPARSE_FFN_F32 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_ffn/sparse_ffn.def"
};
constinit const KernelInfo<SparseFfnKernel> kBf16[] = {
#define SPRUN_SPARSE_FFN_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_ffn/sparse_ffn.def"
};
constinit const KernelInfo<SparseFfnKernel> kU8S8[] = {
#define SPRUN_SPARSE_FFN_U8S8 SPRUN_KERNEL_ENTRY
#include "kernels/sparse_ffn/sparse_ffn.def"
};

int64_t element_bytes(FfnWeights weights) {
  switch (weights) {
    case FfnWeights::kF32:
      return 4;
    case FfnWeights::kBf16:
      return 2;
    case FfnWeights::kInt8:
      return 1;
  }
  return 4;
}

SparseFfn with_kernel(const SparseFfnShape& shape, IsaSet isas,
                      const KernelInfo<SparseFfnKernel>& info) {
  SparseFfn ffn;
  ffn.shape = shape;
  ffn.name = info.name;
  ffn.kernel = info.kernel;
  ffn.topk = select(topk_kernels(), isas).kernel;
  ffn.quantize = select(quantize_rows_kernels(), isas).kernel;
  switch (shape.weights) {
    case FfnWeights::kF32:
      ffn.gate_f32 = select(gemm_f32_kernels(), isas).kernel;
      ffn.gate_nr = ffn.gate_f32->nr;
      break;
    case FfnWeights::kBf16:
      ffn.gate_bf16 = select(gemm_bf16_kernels(), isas).kernel;
      ffn.gate_nr = ffn.gate_bf16->nr;
      break;
    case FfnWeights::kInt8:
      ffn.gate_u8s8 = select(gemm_u8s8_kernels(), isas).kernel;
      ffn.gate_nr = ffn.gate_u8s8->nr;
      break;
  }
  const int64_t bytes = element_bytes(shape.weights);
  ffn.up_stride = align_scratch(shape.d_up * bytes);
  ffn.down_stride = align_scratch(shape.d_out * bytes);
  return ffn;
}

}  // namespace

std::span<const KernelInfo<SparseFfnKernel>> sparse_ffn_kernels(FfnWeights weights) {
  switch (weights) {
    case FfnWeights::kF32:
      return kF32;
    case FfnWeights::kBf16:
      return kBf16;
    case FfnWeights::kInt8:
      return kU8S8;
  }
  return kF32;
}

const char* sparse_ffn_refusal(const SparseFfnShape& s) {
  constexpr int64_t kMaxExact = 65793;  // 255 * 128 * K < 2^31
  if (s.d_gate < 0 || (s.d_gate == 0 && !s.gated()) || s.d_ff < 1 || s.d_out < 1 || s.d_up < 0) return "a size is below 1";
  if (s.d_ff > (int64_t{1} << 30)) return "more than 2^30 neurons";
  if (s.weights != FfnWeights::kInt8) return nullptr;
  if (s.d_gate > kMaxExact || s.d_up > kMaxExact) return "more than 65793 inputs with int8 weights";
  if (s.d_ff > kMaxExact) return "more than 65793 neurons with int8 weights";
  return nullptr;
}

SparseFfn make_sparse_ffn(const SparseFfnShape& shape, IsaSet isas,
                          std::vector<Rejection>* why_not) {
  return with_kernel(shape, isas, select(sparse_ffn_kernels(shape.weights), isas, why_not));
}

SparseFfn make_sparse_ffn_variant(const SparseFfnShape& shape, IsaSet isas, int64_t variant) {
  const auto& info = sparse_ffn_kernels(shape.weights)[static_cast<size_t>(variant)];
  return with_kernel(shape, limit(isas, isa_name(info.isa)).value_or(isas), info);
}

int64_t sparse_ffn_bytes(const SparseFfn& ffn, int64_t union_active) {
  const SparseFfnShape& s = ffn.shape;
  const int64_t quant = s.gated() && s.weights == FfnWeights::kInt8 ? 8 : 0;
  return s.d_ff * s.d_gate * element_bytes(s.weights) +
         union_active * (ffn.up_stride + ffn.down_stride + quant);
}

FfnPath choose_ffn_path(const SparseFfn& ffn, int64_t tokens, int64_t union_active) {
  // A gathered row costs more than a streamed one: 1.6 times (Zen 5, rows_impl.h). With many tokens
  // the dense path is the dense GEMM, which does about four times the arithmetic a second.
  constexpr double kBreakEven = 0.6;
  constexpr double kBreakEvenMany = 0.15;
  constexpr int64_t kMany = 32;
  const double density = static_cast<double>(union_active) / static_cast<double>(ffn.shape.d_ff);
  const double limit = tokens >= kMany ? kBreakEvenMany : kBreakEven;
  return density > limit ? FfnPath::kDense : FfnPath::kSparse;
}

FfnPath choose_many_path(const SparseFfn& ffn, int64_t tokens, int64_t active) {
  // Beside separate dense layers lists have to be faster than them; here the dense path repacks up
  // and down, which costs about half of a product of 64 tokens.
  constexpr double kMostDense = 0.25;
  const double all = static_cast<double>(tokens) * static_cast<double>(ffn.shape.d_ff);
  return static_cast<double>(active) > kMostDense * all ? FfnPath::kDense : FfnPath::kTokenLists;
}

double expected_union_density(double density, int64_t tokens) {
  return 1.0 - std::pow(1.0 - density, static_cast<double>(tokens));
}

}  // namespace sprun::kernels
