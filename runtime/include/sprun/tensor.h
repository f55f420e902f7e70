// Tensors: dense, row-major, contiguous arrays of up to 8 axes.
//
// ConstTensorView and TensorView point at memory of somebody else; Tensor owns it (shared, reference-counted).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "sprun/dtype.h"
#include "sprun/export.h"
#include "sprun/shape.h"
#include "sprun/status.h"

namespace sprun {

// Pointer + dtype + shape, for reading. Row-major, no gaps. Does not own.
struct ConstTensorView {
  const void* data = nullptr;
  DType dtype = DType::kUndefined;
  Shape shape;

  int64_t num_elements() const { return shape.num_elements(); }
  int64_t size_bytes() const { return num_elements() * dtype_size(dtype); }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// The same, for writing.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kUndefined;
  Shape shape;

  int64_t num_elements() const { return shape.num_elements(); }
  int64_t size_bytes() const { return num_elements() * dtype_size(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  operator ConstTensorView() const { return {data, dtype, shape}; }  // NOLINT: implicit on purpose
};

// Owns its elements by a shared pointer; copying a Tensor shares them. Data is aligned to 64 bytes
// unless it was adopted from elsewhere.
class SPRUN_API Tensor {
 public:
  Tensor() = default;
  // Uninitialised memory. kResourceLimit if it cannot be had.
  static Result<Tensor> allocate(DType dtype, const Shape& shape);
  // Zero-filled memory.
  static Result<Tensor> zeros(DType dtype, const Shape& shape);
  // Shares `owner`; data points into what it keeps alive.
  // file_backed: data lies in a read-only file mapping.
  static Tensor adopt(std::shared_ptr<const void> owner, void* data, DType dtype, const Shape& shape,
                      bool file_backed = false);
  // A deep copy of `view`.
  static Result<Tensor> copy_of(const ConstTensorView& view);

  bool empty() const { return view_.dtype == DType::kUndefined; }
  DType dtype() const { return view_.dtype; }
  const Shape& shape() const { return view_.shape; }
  int64_t num_elements() const { return view_.num_elements(); }
  int64_t size_bytes() const { return view_.size_bytes(); }
  const void* data() const { return view_.data; }
  template <class T>
  const T* as() const {
    return view_.as<T>();
  }
  ConstTensorView view() const { return view_; }
  // For filling a tensor that nobody else shares yet.
  TensorView mutable_view() { return view_; }
  // The same elements under another shape with the same number of elements.
  Tensor reshaped(const Shape& shape) const;
  // Identifies the memory for the life of the process; copies and reshaped tensors share it. 0 when empty.
  uint64_t id() const { return id_; }
  bool is_file_backed() const { return file_backed_; }
  // False if the data is not aligned to its element size: a constant that lies inside a mapped file. Such data must
  // be read with memcpy.
  bool is_aligned() const {
    const auto size = static_cast<uintptr_t>(dtype_size(view_.dtype));
    return size == 0 || reinterpret_cast<uintptr_t>(view_.data) % size == 0;
  }

 private:
  std::shared_ptr<const void> owner_;
  TensorView view_;
  uint64_t id_ = 0;
  bool file_backed_ = false;
};

// A tensor and the name it has in the model.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

}  // namespace sprun
