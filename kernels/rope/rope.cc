#include "kernels/rope/rope.h"

#include <algorithm>
#include <type_traits>

#include "runtime/base/half.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;

template <class T>
auto load(T v) {
  if constexpr (kIsHalf<T>) return to_float(v);
  else return v;
}

template <class T, class C>
T store(C v) {
  if constexpr (std::is_same_v<T, Float16>) return to_float16(v);
  else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(v);
  else return v;
}

template <class T>
void rotate_row(const RopeArgs& a, const T* x, const T* cos, const T* sin, T* y) {
  const int64_t half = a.rotary_dim / 2;
  const int64_t step = a.interleaved ? 2 : 1, gap = a.interleaved ? 1 : half;
  for (int64_t i = 0; i < half; ++i) {
    const auto c = load(cos[i]), s = load(sin[i]);
    const auto lo = load(x[i * step]), hi = load(x[i * step + gap]);
    y[i * step] = store<T>(lo * c - hi * s);
    y[i * step + gap] = store<T>(hi * c + lo * s);
  }
  if (x != y) std::copy(x + a.rotary_dim, x + a.dim, y + a.rotary_dim);
}

// The common case, written so that the compiler vectorises it.
void rotate_halves(const RopeArgs& a, const float* x, const float* cos, const float* sin, float* y) {
  const int64_t half = a.rotary_dim / 2;
  float* y_hi = y + half;
  const float* x_hi = x + half;
#pragma GCC ivdep
  for (int64_t i = 0; i < half; ++i) {
    const float lo = x[i], hi = x_hi[i];
    y[i] = lo * cos[i] - hi * sin[i];
    y_hi[i] = hi * cos[i] + lo * sin[i];
  }
  if (x != y) std::copy(x + a.rotary_dim, x + a.dim, y + a.rotary_dim);
}

template <class T>
void run(const RopeArgs& a, ThreadPool& pool) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, a.heads * a.dim));
  pool.parallel_for(a.batch * a.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t b = t / a.rows, s = t % a.rows;
      const int64_t r = (a.positions ? a.positions[t] : t) * (a.rotary_dim / 2);
      const T* cos = static_cast<const T*>(a.cos) + r;
      const T* sin = static_cast<const T*>(a.sin) + r;
      for (int64_t h = 0; h < a.heads; ++h) {
        const T* x = static_cast<const T*>(a.x) + b * a.x_strides.batch + h * a.x_strides.head + s * a.x_strides.row;
        T* y = static_cast<T*>(a.y) + b * a.y_strides.batch + h * a.y_strides.head + s * a.y_strides.row;
        if constexpr (std::is_same_v<T, float>) {
          if (!a.interleaved) {
            rotate_halves(a, x, cos, sin, y);
            continue;
          }
        }
        rotate_row(a, x, cos, sin, y);
      }
    }
  });
}

}  // namespace

void rope(const RopeArgs& args, ThreadPool& pool) {
  switch (args.dtype) {
    case DType::kF64: return run<double>(args, pool);
    case DType::kF16: return run<Float16>(args, pool);
    case DType::kBf16: return run<BFloat16>(args, pool);
    default: return run<float>(args, pool);
  }
}

}  // namespace sprun::kernels
