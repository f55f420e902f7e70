#include "graph/ops/sparse_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

namespace sprun::graph {
namespace {

using kernels::NonZeros;
using kernels::WeightSource;

template <class T>
WeightSource<T> view_of(const WeightConstant& w) {
  return {static_cast<const T*>(w.tensor->data()), w.n, w.k, w.stride_n, w.stride_k};
}

int32_t zero_of(const SparseSource& source, int64_t n) {
  if (source.zero_point.empty()) return 0;
  return source.zero_point[source.zero_point.size() == 1 ? 0 : static_cast<size_t>(n)];
}

int32_t code_at(const WeightConstant& w, int64_t n, int64_t k) {
  const int64_t at = n * w.stride_n + k * w.stride_k;
  return w.tensor->dtype() == DType::kU8 ? int32_t{w.tensor->as<uint8_t>()[at]} : int32_t{w.tensor->as<int8_t>()[at]};
}

// Elements of a sample spread over the weight that are not zero, as a part of it.
double sampled_density(const SparseSource& source) {
  constexpr int64_t kSamples = 4096;
  const WeightConstant& w = source.weight;
  const int64_t total = w.n * w.k, step = std::max<int64_t>(1, total / kSamples) | 1;
  const int64_t size = dtype_size(w.tensor->dtype());
  const char* data = static_cast<const char*>(w.tensor->data());
  int64_t set = 0, seen = 0;
  for (int64_t i = 0; i < total; i += step, ++seen) {
    const int64_t n = i / w.k, k = i % w.k;
    if (size == 1) {
      set += code_at(w, n, k) != zero_of(source, n);
      continue;
    }
    uint32_t bits = 0;
    std::memcpy(&bits, data + (n * w.stride_n + k * w.stride_k) * size, static_cast<size_t>(size));
    set += (bits & (size == 4 ? 0x7fffffffU : 0x7fffU)) != 0;
  }
  return seen == 0 ? 1.0 : static_cast<double>(set) / static_cast<double>(seen);
}

void find_range(const SparseSource& source, WeightZeros& zeros) {
  if (dtype_size(source.weight.tensor->dtype()) != 1) return;
  zeros.stored_min = std::numeric_limits<int32_t>::max();
  zeros.stored_max = std::numeric_limits<int32_t>::min();
  for (int64_t n = 0; n < source.weight.n; ++n) {
    for (int64_t k = 0; k < source.weight.k; ++k) {
      const int64_t value = code_at(source.weight, n, k) - zero_of(source, n);
      zeros.stored_min = std::min(zeros.stored_min, value);
      zeros.stored_max = std::max(zeros.stored_max, value);
    }
  }
}

}  // namespace

WeightZeros measure_zeros(const SparseSource& source) {
  // Weights with fewer zeros gain nothing with any kernel; looking at a sample keeps loading quick.
  constexpr double kNotSparse = 0.9;
  WeightZeros zeros;
  zeros.density.fill(1.0);
  if (source.weight.n == 0 || source.weight.k == 0) return zeros;
  const double sampled = sampled_density(source);
  if (sampled > kNotSparse) {
    zeros.density[0] = sampled;
    zeros.only_sampled = true;
    return zeros;
  }
  const NonZeros bits = non_zeros_of(source);
  for (size_t i = 0; i < kPatterns.size(); ++i) zeros.density[i] = bits.density(kPatterns[i].block);
  for (const auto& [n, m] : {std::pair{1, 4}, std::pair{2, 4}, std::pair{4, 8}}) {
    if (!bits.is_n_of_m(n, m)) continue;
    zeros.n_of_m = n;
    zeros.of_m = m;
    break;
  }
  find_range(source, zeros);
  return zeros;
}

double WeightZeros::density_of(kernels::BlockShape block) const {
  for (size_t i = 0; i < kPatterns.size(); ++i) {
    if (kPatterns[i].block == block) return density[i];
  }
  return 1.0;
}

NonZeros non_zeros_of(const SparseSource& source) {
  const int32_t* zero = source.zero_point.empty() ? nullptr : source.zero_point.data();
  const int64_t stride = source.zero_point.size() > 1 ? 1 : 0;
  switch (source.weight.tensor->dtype()) {
    case DType::kF32:
      return NonZeros::of(view_of<float>(source.weight));
    case DType::kU8:
      return NonZeros::of(view_of<uint8_t>(source.weight), zero, stride);
    case DType::kS8:
      return NonZeros::of(view_of<int8_t>(source.weight), zero, stride);
    default:
      return NonZeros::of(view_of<uint16_t>(source.weight));
  }
}

Result<WeightZeros> weight_zeros(PackedCache& cache, const SparseSource& source) {
  const WeightConstant& w = source.weight;
  std::string key = "zeros:" + std::to_string(w.tensor->id());
  for (int64_t part : {w.n, w.k, w.stride_n, w.stride_k}) key += ":" + std::to_string(part);
  for (int32_t zero : source.zero_point) key += "," + std::to_string(zero);
  SPRUN_ASSIGN(const PackedBlob blob, cache.get(key, [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob made, allocate_blob(sizeof(WeightZeros)));
    new (made.data.get()) WeightZeros(measure_zeros(source));
    return made;
  }));
  return *static_cast<const WeightZeros*>(blob.data.get());
}

std::string describe_zeros(const WeightZeros& zeros) {
  std::string text;
  for (size_t i = 0; i < kPatterns.size(); ++i) {
    text += fmt::format("{}{} {:.3f}", i == 0 ? "density " : ", ", kPatterns[i].name, zeros.density[i]);
  }
  if (zeros.of_m > 0) text += fmt::format(", {}:{}", zeros.n_of_m, zeros.of_m);
  return text;
}

}  // namespace sprun::graph
