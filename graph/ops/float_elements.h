// The elements of a constant as aligned f32: constants inside a mapped file may lie anywhere, and be 16-bit.
#pragma once

#include "runtime/base/packed_cache.h"
#include "sprun/tensor.h"

namespace sprun::graph {

class FloatElements {
 public:
  // `tensor` is f32, f16 or bf16 and must outlive the result. kResourceLimit when memory is short.
  static Result<FloatElements> of(const Tensor& tensor);
  const float* data() const { return data_; }

 private:
  const float* data_ = nullptr;
  PackedBlob copy_;
};

}  // namespace sprun::graph
