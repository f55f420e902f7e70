#include "tools/modelgen/weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

namespace sprun::modelgen {

namespace {
// SplitMix64 (Steele, Lea, Flood 2014): a counter mixed by multiplications and shifts.
uint64_t next_random(uint64_t* state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

uint64_t seed_of(uint64_t seed, const std::string& name) {
  uint64_t hash = 14695981039346656037ull ^ seed;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return next_random(&hash);
}

// Sum of the four 16-bit parts of a random number, shifted and scaled to mean 0 and deviation 1.
float near_normal(uint64_t bits) {
  const auto sum = static_cast<float>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
  constexpr float kMean = 4 * 65535.0f / 2;
  constexpr float kDeviation = 37837.2f;  // sqrt(4 / 12) * 65536
  return (sum - kMean) / kDeviation;
}

struct Matrix {
  float* data;
  int64_t inputs, outputs;  // stored [inputs, outputs]
  float& at(int64_t output, int64_t input) const { return data[input * outputs + output]; }
};

void prune_nm(const Matrix& w, int keep, int group) {
  std::vector<int64_t> order;
  for (int64_t n = 0; n < w.outputs; ++n) {
    for (int64_t begin = 0; begin < w.inputs; begin += group) {
      order.resize(static_cast<size_t>(std::min<int64_t>(group, w.inputs - begin)));
      std::iota(order.begin(), order.end(), begin);
      if (std::cmp_less_equal(order.size(), keep)) continue;
      std::nth_element(order.begin(), order.begin() + keep, order.end(), [&](int64_t a, int64_t b) {
        return std::abs(w.at(n, a)) > std::abs(w.at(n, b));
      });
      for (auto it = order.begin() + keep; it != order.end(); ++it) w.at(n, *it) = 0;
    }
  }
}

template <class Fn>
void for_block(const Matrix& w, const Pattern& pattern, int64_t block, const Fn& fn) {
  const int64_t columns = (w.inputs + pattern.cols - 1) / pattern.cols;
  const int64_t n0 = block / columns * pattern.rows, k0 = block % columns * pattern.cols;
  for (int64_t k = k0; k < std::min(k0 + pattern.cols, w.inputs); ++k) {
    for (int64_t n = n0; n < std::min(n0 + pattern.rows, w.outputs); ++n) fn(w.at(n, k));
  }
}

void prune_blocks(const Matrix& w, const Pattern& pattern, double sparsity) {
  const int64_t blocks = ((w.outputs + pattern.rows - 1) / pattern.rows) * ((w.inputs + pattern.cols - 1) / pattern.cols);
  std::vector<float> norms(static_cast<size_t>(blocks), 0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    for_block(w, pattern, b, [&](float v) { norms[static_cast<size_t>(b)] += v * v; });
  }
  std::vector<int64_t> order(static_cast<size_t>(blocks));
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto drop = static_cast<int64_t>(std::llround(sparsity * static_cast<double>(blocks)));
  std::nth_element(order.begin(), order.begin() + drop, order.end(), [&](int64_t a, int64_t b) {
    return norms[static_cast<size_t>(a)] < norms[static_cast<size_t>(b)];
  });
  for (int64_t i = 0; i < drop; ++i) {
    for_block(w, pattern, order[static_cast<size_t>(i)], [](float& v) { v = 0; });
  }
}

double sum_of_squares(const Tensor& tensor) {
  double sum = 0;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) sum += std::pow(static_cast<double>(tensor.as<float>()[i]), 2);
  return sum;
}

struct Range {
  float low = 0, high = 0;  // always holds zero
};

// Smallest and largest element of each channel; channels are columns.
std::vector<Range> ranges_of(const Tensor& weight, int64_t channels) {
  std::vector<Range> ranges(static_cast<size_t>(channels));
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    Range& range = ranges[static_cast<size_t>(i % channels)];
    range.low = std::min(range.low, weight.as<float>()[i]);
    range.high = std::max(range.high, weight.as<float>()[i]);
  }
  return ranges;
}

template <class T>
Result<QuantizedWeight> quantize(const Tensor& weight, bool per_channel) {
  constexpr bool kSigned = std::is_signed_v<T>;
  constexpr float kLowest = kSigned ? -127.0f : 0.0f, kHighest = kSigned ? 127.0f : 255.0f;
  const int64_t channels = per_channel ? weight.shape().back() : 1;
  const Shape parameters = per_channel ? Shape({channels}) : Shape{};
  QuantizedWeight q;
  SPRUN_ASSIGN(q.values, Tensor::allocate(dtype_of<T>(), weight.shape()));
  SPRUN_ASSIGN(q.scale, Tensor::allocate(DType::kF32, parameters));
  SPRUN_ASSIGN(q.zero_point, Tensor::allocate(dtype_of<T>(), parameters));
  auto* scale = q.scale.mutable_view().as<float>();
  auto* zero = q.zero_point.mutable_view().as<T>();
  const std::vector<Range> ranges = ranges_of(weight, channels);
  for (int64_t c = 0; c < channels; ++c) {
    const Range& range = ranges[static_cast<size_t>(c)];
    const float span = kSigned ? 2 * std::max(range.high, -range.low) : range.high - range.low;
    scale[c] = span > 0 ? span / (kHighest - kLowest) : 1.0f;
    zero[c] = static_cast<T>(kSigned ? 0.0f : std::nearbyint(-range.low / scale[c]));
  }
  auto* values = q.values.mutable_view().as<T>();
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    const int64_t c = i % channels;
    const float value = std::nearbyint(weight.as<float>()[i] / scale[c]) + static_cast<float>(zero[c]);
    values[i] = static_cast<T>(std::clamp(value, kLowest, kHighest));
  }
  return q;
}
}  // namespace

Result<Tensor> random_tensor(uint64_t seed, const std::string& name, const Shape& shape, float mean, float deviation) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(DType::kF32, shape));
  auto* out = tensor.mutable_view().as<float>();
  uint64_t state = seed_of(seed, name);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) out[i] = mean + deviation * near_normal(next_random(&state));
  return tensor;
}

void prune(Tensor* weight, const Pattern& pattern, double sparsity) {
  const Matrix w{weight->mutable_view().as<float>(), weight->shape()[0], weight->shape()[1]};
  const double before = sum_of_squares(*weight);
  if (pattern.m > 0) {
    prune_nm(w, pattern.n, pattern.m);
  } else {
    prune_blocks(w, pattern, sparsity);
  }
  const double after = sum_of_squares(*weight);
  const float factor = after > 0 ? static_cast<float>(std::sqrt(before / after)) : 1.0f;
  for (int64_t i = 0; i < weight->num_elements(); ++i) w.data[i] *= factor;
}

Result<QuantizedWeight> quantize_weight(const Tensor& weight, Quantization type, bool per_channel) {
  return type == Quantization::kU8 ? quantize<uint8_t>(weight, per_channel) : quantize<int8_t>(weight, per_channel);
}

Result<QuantizedWeight> quantize_blocks(const Tensor& weight, int bits, int64_t block) {
  const int64_t inputs = weight.shape()[0], outputs = weight.shape()[1], blocks = (inputs + block - 1) / block;
  const int64_t block_bytes = block * bits / 8;
  const float* w = weight.as<float>();
  const int zero = 1 << (bits - 1);
  QuantizedWeight q;
  SPRUN_ASSIGN(q.values, Tensor::allocate(DType::kU8, Shape{outputs, blocks, block_bytes}));
  SPRUN_ASSIGN(q.scale, Tensor::allocate(DType::kF32, Shape{outputs * blocks}));
  auto* values = q.values.mutable_view().as<uint8_t>();
  std::fill_n(values, q.values.num_elements(), uint8_t{0});
  const auto quantise_block = [&](int64_t n, int64_t b) {
    const int64_t begin = b * block, end = std::min(begin + block, inputs);
    float largest = 0;
    for (int64_t k = begin; k < end; ++k) largest = std::max(largest, std::abs(w[k * outputs + n]));
    const float scale = largest > 0 ? largest / static_cast<float>(zero - 1) : 1.0f;
    q.scale.mutable_view().as<float>()[n * blocks + b] = scale;
    uint8_t* codes = values + (n * blocks + b) * block_bytes;
    for (int64_t k = begin; k < end; ++k) {
      const int code = static_cast<int>(std::nearbyint(w[k * outputs + n] / scale)) + zero;
      const int64_t at = (k - begin) * bits / 8;
      codes[at] = static_cast<uint8_t>(codes[at] | code << ((k - begin) * bits % 8));
    }
  };
  for (int64_t n = 0; n < outputs; ++n) {
    for (int64_t b = 0; b < blocks; ++b) quantise_block(n, b);
  }
  return q;
}

}  // namespace sprun::modelgen
