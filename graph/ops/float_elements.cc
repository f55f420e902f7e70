#include "graph/ops/float_elements.h"

#include <algorithm>
#include <cstring>

#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
namespace {

// memcpy by parts: 16-bit constants may be unaligned too.
void widen(const Tensor& tensor, float* out) {
  constexpr int64_t kPart = 1024;
  uint16_t part[kPart];
  const kernels::ElementwiseKernel& kernel = *kernels::best_elementwise().kernel;
  const auto fn = tensor.dtype() == DType::kF16 ? kernel.f16_to_f32 : kernel.bf16_to_f32;
  for (int64_t at = 0; at < tensor.num_elements(); at += kPart) {
    const int64_t count = std::min(kPart, tensor.num_elements() - at);
    std::memcpy(part, tensor.as<char>() + 2 * at, static_cast<size_t>(2 * count));
    fn(part, out + at, count);
  }
}

}  // namespace

Result<FloatElements> FloatElements::of(const Tensor& tensor) {
  FloatElements elements;
  elements.data_ = tensor.as<float>();
  if (tensor.dtype() == DType::kF32 && tensor.is_aligned()) return elements;
  const int64_t count = tensor.num_elements();
  SPRUN_ASSIGN(elements.copy_, allocate_blob(count * 4));
  float* out = static_cast<float*>(elements.copy_.data.get());
  elements.data_ = out;
  if (tensor.dtype() == DType::kF32) {
    std::memcpy(out, tensor.data(), static_cast<size_t>(count * 4));
  } else {
    widen(tensor, out);
  }
  return elements;
}

}  // namespace sprun::graph
