#include "graph/ops/linear_segments.h"

#include <bit>
#include <cstring>

#include "graph/ops/float_elements.h"

namespace sprun::graph {
namespace {

using kernels::num_panels;
using kernels::WeightSource;

template <class T>
WeightSource<T> source_of(const WeightConstant& w, const T* data) {
  return {data, w.n, w.k, w.stride_n, w.stride_k};
}

std::string key_of(std::string_view layout, std::string_view kernel, const WeightConstant& w) {
  std::string key = std::string(layout) + ":" + std::string(kernel) + ":" + std::to_string(w.tensor->id());
  for (int64_t part : {w.n, w.k, w.stride_n, w.stride_k}) key += ":" + std::to_string(part);
  return key;
}

template <class Kernel, class Packed>
Result<PackedBlob> pack_float(PackedCache& cache, const kernels::KernelInfo<Kernel>& info, const WeightConstant& weight,
                              std::string_view layout, int64_t elements) {
  return cache.get(key_of(layout, info.name, weight), [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(const auto data, FloatElements::of(*weight.tensor));
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(elements * static_cast<int64_t>(sizeof(Packed))));
    info.kernel->pack(source_of(weight, data.data()), 0, num_panels(weight.n, info.kernel->nr),
                      static_cast<Packed*>(blob.data.get()));
    return blob;
  });
}

// Blob of int8 weights: panels, then sums, then scales, each from a multiple of 64 bytes.
struct S8Layout {
  int64_t sums_at, scale_at, total;
};

S8Layout s8_layout(int64_t n, int64_t k, int64_t nr) {
  const int64_t outputs = num_panels(n, nr) * nr;
  const int64_t sums_at = kernels::align_scratch(kernels::packed_size_s8(n, k, nr));
  const int64_t scale_at = sums_at + kernels::align_scratch(outputs * 4);
  return {sums_at, scale_at, scale_at + kernels::align_scratch(outputs * 4)};
}

PackedS8 s8_view(PackedBlob blob, const S8Layout& layout) {
  const char* base = static_cast<const char*>(blob.data.get());
  return {std::move(blob), reinterpret_cast<const int8_t*>(base),
          reinterpret_cast<const int32_t*>(base + layout.sums_at),
          reinterpret_cast<const float*>(base + layout.scale_at)};
}

}  // namespace

bool WeightConstant::worth_packing(int64_t nr) const {
  constexpr int64_t kLarge = int64_t{1} << 24;
  if (n == 0 || k == 0) return false;
  return n * 4 >= nr || nr * k <= kLarge;
}

Result<PackedBlob> pack_f32(PackedCache& cache, const kernels::KernelInfo<kernels::GemmF32Kernel>& info,
                            const WeightConstant& weight) {
  return pack_float<kernels::GemmF32Kernel, float>(cache, info, weight, "f32",
                                                   kernels::packed_size_f32(weight.n, weight.k, info.kernel->nr));
}

Result<PackedBlob> pack_bf16(PackedCache& cache, const kernels::KernelInfo<kernels::GemmBf16Kernel>& info,
                             const WeightConstant& weight) {
  return pack_float<kernels::GemmBf16Kernel, uint16_t>(cache, info, weight, "bf16",
                                                       kernels::packed_size_bf16(weight.n, weight.k, info.kernel->nr));
}

Result<PackedS8> pack_s8(PackedCache& cache, const kernels::KernelInfo<kernels::GemmU8S8Kernel>& info,
                         const WeightConstant& weight) {
  const int64_t nr = info.kernel->nr, panels = num_panels(weight.n, nr);
  const S8Layout layout = s8_layout(weight.n, weight.k, nr);
  SPRUN_ASSIGN(PackedBlob blob, cache.get(key_of("s8", std::to_string(nr), weight), [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob made, allocate_blob(layout.total));
    char* base = static_cast<char*>(made.data.get());
    int8_t* packed = reinterpret_cast<int8_t*>(base);
    int32_t* sums = reinterpret_cast<int32_t*>(base + layout.sums_at);
    if (weight.tensor->dtype() == DType::kU8) {
      kernels::pack_u8(source_of(weight, weight.tensor->as<uint8_t>()), nr, 0, panels, packed, sums);
    } else {
      kernels::pack_s8(source_of(weight, weight.tensor->as<int8_t>()), nr, 0, panels, packed, sums);
    }
    return made;
  }));
  PackedS8 result = s8_view(std::move(blob), layout);
  result.scale = nullptr;
  return result;
}

Result<PackedS8> quantise_s8(PackedCache& cache, const kernels::KernelInfo<kernels::GemmU8S8Kernel>& info,
                             const WeightConstant& weight, float alpha) {
  const int64_t n = weight.n, k = weight.k, nr = info.kernel->nr;
  const S8Layout layout = s8_layout(n, k, nr);
  const std::string key =
      key_of("f32_to_s8", std::to_string(nr), weight) + ":" + std::to_string(std::bit_cast<uint32_t>(alpha));
  SPRUN_ASSIGN(PackedBlob blob, cache.get(key, [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(const auto data, FloatElements::of(*weight.tensor));
    SPRUN_ASSIGN(PackedBlob made, allocate_blob(layout.total));
    SPRUN_ASSIGN(const PackedBlob codes, allocate_blob(n * k));
    char* base = static_cast<char*>(made.data.get());
    int8_t* quantised = static_cast<int8_t*>(codes.data.get());
    float* scale = reinterpret_cast<float*>(base + layout.scale_at);
    kernels::quantize_weights_s8(source_of(weight, data.data()), 0, n, quantised, scale);
    for (int64_t i = 0; i < n; ++i) scale[i] *= alpha;
    const WeightSource<int8_t> rows = {quantised, n, k, k, 1};
    kernels::pack_s8(rows, nr, 0, num_panels(n, nr), reinterpret_cast<int8_t*>(base),
                     reinterpret_cast<int32_t*>(base + layout.sums_at));
    return made;
  }));
  return s8_view(std::move(blob), layout);
}

void append_rejections(std::vector<Rejection>& to, const std::vector<kernels::Rejection>& from) {
  for (const kernels::Rejection& r : from) to.push_back({r.kernel, r.reason});
}

std::string gemm_regime(int64_t m) { return m >= 12 ? "compute-bound" : "bandwidth-bound"; }

}  // namespace sprun::graph
