// What the quantising ops share: how scales and zero points lie over a tensor, reading them in any type, ranges.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#include "graph/ops/op_util.h"
#include "sprun/tensor.h"

namespace sprun::graph {

// Smallest and largest value of a quantised integer type.
struct QuantRange {
  int32_t min = 0, max = 0;
};
// u8 s8 u16 s16 u4 s4; {0, 0} for every other type.
QuantRange quant_range(DType dtype);

// Reads parameter i of a float tensor (f32, f16, bf16, or s32 as QuantizeLinear allows) as float.
struct ScaleReader {
  const void* data = nullptr;
  DType dtype = DType::kUndefined;

  explicit ScaleReader(const ConstTensorView& view) : data(view.data), dtype(view.dtype) {}
  float operator[](int64_t i) const {
    switch (dtype) {
      case DType::kF16:
        return to_float(static_cast<const Float16*>(data)[i]);
      case DType::kBf16:
        return to_float(static_cast<const BFloat16*>(data)[i]);
      case DType::kS32:
        return static_cast<float>(static_cast<const int32_t*>(data)[i]);
      default:
        return static_cast<const float*>(data)[i];
    }
  }
};

// Reads an integer zero point of any type as int32; 0 everywhere when there is no tensor.
struct ZeroPointReader {
  const void* data = nullptr;
  DType dtype = DType::kUndefined;

  ZeroPointReader() = default;
  explicit ZeroPointReader(const ConstTensorView& view) : data(view.data), dtype(view.dtype) {}
  int32_t operator[](int64_t i) const {
    switch (dtype) {
      case DType::kU4:
      case DType::kU8:
        return static_cast<const uint8_t*>(data)[i];
      case DType::kS4:
      case DType::kS8:
        return static_cast<const int8_t*>(data)[i];
      case DType::kU16:
        return static_cast<const uint16_t*>(data)[i];
      case DType::kS16:
        return static_cast<const int16_t*>(data)[i];
      case DType::kS32:
        return static_cast<const int32_t*>(data)[i];
      default:
        return 0;
    }
  }
};

// x seen as [outer, size, inner] with `size` the quantisation axis; element (o, d, i) uses parameter
// o * outer_stride + (d / block) * axis_stride + i * inner_stride.
struct QuantLayout {
  int64_t outer = 1, size = 1, inner = 1, block = 1;
  int64_t outer_stride = 0, axis_stride = 0, inner_stride = 0;

  bool per_tensor() const { return axis_stride == 0; }
};

// Layout for x under `scale`: one element = per tensor, rank 1 = per axis, block_size > 0 = blocked.
// kBadModel when the shapes do not fit.
Result<QuantLayout> quant_layout(const Shape& x, const Shape& scale, int64_t axis, int64_t block_size);

// Cuts elements [begin, end) of x into runs whose parameters are base + step * position:
// fn(offset, count, base, step). step is 0 or 1.
template <class Fn>
void for_each_quant_run(const QuantLayout& q, int64_t begin, int64_t end, const Fn& fn) {
  if (q.per_tensor()) return fn(begin, end - begin, int64_t{0}, int64_t{0});
  for (int64_t at = begin; at < end;) {
    const int64_t o = at / (q.size * q.inner), rest = at % (q.size * q.inner);
    const int64_t d = rest / q.inner, i = rest % q.inner;
    const int64_t base = o * q.outer_stride + d / q.block * q.axis_stride + i * q.inner_stride;
    int64_t run = q.inner - i, step = q.inner_stride;
    if (q.inner == 1) {  // along the axis itself: neighbours share a block, or step from one parameter to the next
      run = q.block == 1 ? q.size - d : std::min(q.block - d % q.block, q.size - d);
      step = q.block == 1 ? q.axis_stride : 0;
    }
    run = std::min(run, end - at);
    fn(at, run, base, step);
    at += run;
  }
}

// round_half_even(value) + zero_point, clamped; NaN gives the smallest value.
inline int32_t quantize_value(float value, int32_t zero_point, const QuantRange& range) {
  const float shifted = std::nearbyint(value) + static_cast<float>(zero_point);
  if (!(shifted > static_cast<float>(range.min))) return range.min;
  if (shifted >= static_cast<float>(range.max)) return range.max;
  return static_cast<int32_t>(shifted);
}

}  // namespace sprun::graph
