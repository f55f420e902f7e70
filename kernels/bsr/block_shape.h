// BlockShape: a block pattern of a weight W[N, K], always written outputs x inputs.
//
// 4x1 is four consecutive outputs that share one input; 1x4 is one output and four consecutive
// inputs. Sources call either of them by the other name: look at the zeros, not at the name.
#pragma once

#include <cstdint>

namespace sprun::kernels {

struct BlockShape {
  int16_t rows = 1, cols = 1;  // outputs, inputs
  constexpr int64_t size() const { return int64_t{rows} * cols; }
  bool operator==(const BlockShape&) const = default;
};

inline constexpr BlockShape kBlock1x1{1, 1};  // unstructured
inline constexpr BlockShape kBlock4x1{4, 1};
inline constexpr BlockShape kBlock1x4{1, 4};
inline constexpr BlockShape kBlock4x4{4, 4};
inline constexpr BlockShape kBlock16x1{16, 1};
inline constexpr BlockShape kBlock16x4{16, 4};
inline constexpr BlockShape kBlock32x32{32, 32};

}  // namespace sprun::kernels
