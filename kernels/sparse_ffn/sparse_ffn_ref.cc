// Scalar references of the sparse feed-forward pieces: the obvious loops.
#include <cmath>
#include <type_traits>

#include "kernels/simd/half.h"
#include "kernels/sparse_ffn/sparse_ffn_types.h"

namespace sprun::kernels {
namespace {

float activate(FfnActivation activation, float v) {
  switch (activation) {
    case FfnActivation::kIdentity:
      return v;
    case FfnActivation::kGeluTanh: {
      const float u = 0.7978845608028654F * (v + 0.044715F * v * v * v);
      return 0.5F * v * (1.0F + std::tanh(u));
    }
    case FfnActivation::kGeluErf:
      return 0.5F * v * (1.0F + std::erf(v * 0.70710678118654752F));
    case FfnActivation::kSilu:
      return v / (1.0F + std::exp(-v));
    case FfnActivation::kRelu:
      return v > 0.0F ? v : 0.0F;
    case FfnActivation::kReluSquared:
      return v > 0.0F ? v * v : 0.0F;
  }
  return v;
}

float value(const float* p) { return *p; }
float value(const uint16_t* p) { return simd::bf16_to_f32(*p); }

template <class T>
void convert(const float* x, int64_t k, int64_t padded, void* y) {
  T* out = static_cast<T*>(y);
  for (int64_t i = 0; i < padded; ++i) {
    const float v = i < k ? x[i] : 0.0F;
    if constexpr (sizeof(T) == 2) {
      out[i] = simd::f32_to_bf16(v);
    } else {
      out[i] = v;
    }
  }
}

// The zeros of one row. kTopK and kTopKAbs are cut by kernels/topk before.
int64_t sparsify(const FfnSparsifyArgs& a) {
  int64_t kept = 0;
  const SparseFfnRule& rule = *a.rule;
  for (int64_t i = 0; i < a.n; ++i) {
    const float g = a.g[i];
    const float t = a.thresholds != nullptr ? a.thresholds[i] : rule.threshold;
    float s = g;
    bool keep = true;
    switch (rule.sparsifier) {
      case FfnSparsifier::kRelu:
        keep = g > 0.0F;
        break;
      case FfnSparsifier::kStatTopK:
        keep = g > a.theta;
        s = g - a.theta;
        break;
      case FfnSparsifier::kGateThreshold:
        keep = rule.strict ? g > t : g >= t;
        break;
      case FfnSparsifier::kActThreshold:
        s = activate(rule.activation, g);
        keep = rule.strict ? std::fabs(s) > t : std::fabs(s) >= t;
        break;
      case FfnSparsifier::kTopK:
      case FfnSparsifier::kTopKAbs:
        keep = g == g;
        break;
    }
    a.g[i] = keep ? s : 0.0F;
    kept += a.g[i] != 0.0F ? 1 : 0;
  }
  return kept;
}

template <class T>
void dot_float(const FfnDotArgs& a) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    const T* x = static_cast<const T*>(a.x) + t * a.ldx;
    for (int64_t i = 0; i < a.count; ++i) {
      const T* row = reinterpret_cast<const T*>(a.rows + a.ids[i] * a.stride_bytes);
      double sum = 0;
      for (int64_t k = 0; k < a.k; ++k) {
        sum += static_cast<double>(value(x + k)) * static_cast<double>(value(row + k));
      }
      static_cast<float*>(a.sums)[t * a.ld_sums + i] = static_cast<float>(sum);
    }
  }
}

void dot_u8s8(const FfnDotArgs& a) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    const uint8_t* x = static_cast<const uint8_t*>(a.x) + t * a.ldx;
    for (int64_t i = 0; i < a.count; ++i) {
      const int8_t* row = reinterpret_cast<const int8_t*>(a.rows + a.ids[i] * a.stride_bytes);
      int32_t sum = 0;
      for (int64_t k = 0; k < a.k; ++k) sum += x[k] * row[k];
      static_cast<int32_t*>(a.sums)[t * a.ld_sums + i] = sum;
    }
  }
}

template <class Sum>
float up_value(const FfnHiddenArgs& a, int64_t t, int64_t i) {
  const int64_t id = a.ids[i];
  const float bias = a.bias == nullptr ? 0.0F : a.bias[id];
  const Sum sum = static_cast<const Sum*>(a.sums)[t * a.ld_sums + i];
  if constexpr (std::is_same_v<Sum, float>) {
    return sum + bias;
  } else {
    int32_t exact = sum - a.x_zero[t] * a.quant[id].sum;
    if (a.w_zero != nullptr) {
      exact -= a.w_zero[id] * (a.x_sum[t] - static_cast<int32_t>(a.k) * a.x_zero[t]);
    }
    return std::fma(static_cast<float>(exact), a.x_scale[t] * a.quant[id].scale, bias);
  }
}

template <class Sum>
void hidden(const FfnHiddenArgs& a) {
  const bool done = a.rule->sparsifier == FfnSparsifier::kActThreshold;
  const FfnActivation activation = done ? FfnActivation::kIdentity : a.rule->activation;
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t i = 0; i < a.count; ++i) {
      const float s = a.s[t * a.ld_s + (a.s_listed ? i : a.ids[i])];
      float h = s != 0.0F ? activate(activation, s) : 0.0F;
      if (a.gated && s != 0.0F) h *= activate(a.rule->up_activation, up_value<Sum>(a, t, i));
      a.h[t * a.ld_h + i] = h;
      a.min[t] = h < a.min[t] ? h : a.min[t];
      a.max[t] = h > a.max[t] ? h : a.max[t];
    }
  }
}

template <class T>
void down_float(const FfnDownArgs& a) {
  for (int64_t t = 0; t < a.rows_of_h; ++t) {
    const T* h = static_cast<const T*>(a.h) + t * a.ld_h;
    float* acc = static_cast<float*>(a.acc) + t * a.ld_acc;
    for (int64_t n = 0; n < a.n; ++n) {
      double sum = static_cast<double>(acc[n]);
      for (int64_t i = 0; i < a.count; ++i) {
        const T* row = reinterpret_cast<const T*>(a.rows + a.ids[i] * a.stride_bytes);
        sum += static_cast<double>(value(h + i)) * static_cast<double>(value(row + n));
      }
      acc[n] = static_cast<float>(sum);
    }
  }
}

void down_u8s8(const FfnDownArgs& a) {
  for (int64_t t = 0; t < a.rows_of_h; ++t) {
    const uint8_t* h = static_cast<const uint8_t*>(a.h) + t * a.ld_h;
    int32_t* acc = static_cast<int32_t*>(a.acc) + t * a.ld_acc;
    for (int64_t i = 0; i < a.count; ++i) {
      const int8_t* row = reinterpret_cast<const int8_t*>(a.rows + a.ids[i] * a.stride_bytes);
      for (int64_t n = 0; n < a.n; ++n) acc[n] += h[i] * row[n];
    }
  }
}

template <class T>
void down_list_float(const FfnListArgs& a) {
  const T* h = static_cast<const T*>(a.h);
  float* acc = static_cast<float*>(a.acc);
  for (int64_t n = 0; n < a.n; ++n) {
    double sum = a.add ? static_cast<double>(acc[n]) : 0.0;
    for (int64_t i = 0; i < a.count; ++i) {
      const T* row = reinterpret_cast<const T*>(a.rows + a.ids[i] * a.stride_bytes);
      const double product =
          static_cast<double>(value(h + i)) * static_cast<double>(value(row + n));
      sum += i < a.negative ? -product : product;
    }
    acc[n] = static_cast<float>(sum);
  }
}

void down_list_u8s8(const FfnListArgs& a) {
  const uint8_t* h = static_cast<const uint8_t*>(a.h);
  int32_t* acc = static_cast<int32_t*>(a.acc);
  for (int64_t n = 0; n < a.n; ++n) {
    int32_t sum = a.add ? acc[n] : 0;
    for (int64_t i = 0; i < a.count; ++i) {
      const int8_t* row = reinterpret_cast<const int8_t*>(a.rows + a.ids[i] * a.stride_bytes);
      sum += (i < a.negative ? -1 : 1) * h[i] * row[n];
    }
    acc[n] = sum;
  }
}

void out(const FfnOutArgs& a) {
  for (int64_t i = 0; i < a.n; ++i) {
    float v = a.bias == nullptr ? 0.0F : a.bias[i];
    if (a.w_scale == nullptr) {
      v += static_cast<const float*>(a.sum)[i];
    } else {
      const float sum = static_cast<float>(static_cast<const int32_t*>(a.sum)[i]);
      v = sum * (a.scale * a.w_scale[i]) + v;
    }
    a.y[i] = a.residual == nullptr ? v : v + a.residual[i];
  }
}

}  // namespace

extern constinit const SparseFfnKernel sparse_ffn_f32_ref = {
    convert<float>,         sparsify, dot_float<float>, hidden<float>, down_float<float>,
    down_list_float<float>, out};
extern constinit const SparseFfnKernel sparse_ffn_bf16_ref = {
    convert<uint16_t>,         sparsify, dot_float<uint16_t>, hidden<float>, down_float<uint16_t>,
    down_list_float<uint16_t>, out};
extern constinit const SparseFfnKernel sparse_ffn_u8s8_ref = {
    nullptr, sparsify, dot_u8s8, hidden<int32_t>, down_u8s8, down_list_u8s8, out};

}  // namespace sprun::kernels
