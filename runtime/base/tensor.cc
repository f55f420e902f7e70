#include "sprun/tensor.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "runtime/base/packed_cache.h"

namespace sprun {

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(std::min<size_t>(dims.size(), kMaxRank))) {
  std::copy_n(dims.begin(), rank_, dims_.begin());
}

Result<Shape> Shape::checked(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank) {
    return Status(Code::kBadModel, "shape has rank " + std::to_string(dims.size()) + ", at most " +
                                       std::to_string(kMaxRank) + " is supported");
  }
  const Shape shape(dims);
  Shape extents;  // zero sizes count as one: strides and partial products must not overflow either
  for (int64_t dim : dims) {
    if (dim < 0) return Status(Code::kBadModel, "shape " + shape.to_string() + " has a negative size");
    extents.push_back(dim == 0 ? 1 : dim);
  }
  if (extents.num_elements() > kMaxElements) {
    return Status(Code::kResourceLimit, "shape " + shape.to_string() + " has more than 2^40 elements");
  }
  return shape;
}

int64_t Shape::num_elements(int begin, int end) const {
  int64_t product = 1;
  bool too_large = false;
  for (int i = begin; i < end; ++i) {
    const int64_t dim = (*this)[i];
    if (dim == 0) return 0;
    if (too_large || __builtin_mul_overflow(product, dim, &product) || product > kMaxElements) too_large = true;
  }
  return too_large ? kMaxElements + 1 : product;
}

void Shape::insert(int i, int64_t dim) {
  std::copy_backward(dims_.begin() + i, dims_.begin() + rank_, dims_.begin() + rank_ + 1);
  dims_[static_cast<size_t>(i)] = dim;
  ++rank_;
}

void Shape::erase(int i) {
  std::copy(dims_.begin() + i + 1, dims_.begin() + rank_, dims_.begin() + i);
  --rank_;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ',';
    text += std::to_string((*this)[i]);
  }
  return text + "]";
}

bool Shape::operator==(const Shape& other) const {
  return rank_ == other.rank_ && std::equal(dims_.begin(), dims_.begin() + rank_, other.dims_.begin());
}

namespace {
uint64_t next_tensor_id() {
  static constinit std::atomic<uint64_t> counter{0};
  return ++counter;
}
}  // namespace

Result<Tensor> Tensor::allocate(DType dtype, const Shape& shape) {
  const int64_t count = shape.num_elements();
  if (dtype_size(dtype) == 0) {
    return Status(Code::kBadModel, "tensors of type " + std::string(dtype_name(dtype)) + " are not supported");
  }
  if (count > kMaxElements) return Status(Code::kResourceLimit, "tensor of shape " + shape.to_string() + " is too large");
  SPRUN_ASSIGN(PackedBlob blob, allocate_blob(count * dtype_size(dtype)));
  void* data = blob.data.get();
  return adopt(std::move(blob.data), data, dtype, shape);
}

Result<Tensor> Tensor::zeros(DType dtype, const Shape& shape) {
  SPRUN_ASSIGN(Tensor tensor, allocate(dtype, shape));
  if (tensor.size_bytes() > 0) std::memset(tensor.view_.data, 0, static_cast<size_t>(tensor.size_bytes()));
  return tensor;
}

Tensor Tensor::adopt(std::shared_ptr<const void> owner, void* data, DType dtype, const Shape& shape, bool file_backed) {
  Tensor tensor;
  tensor.owner_ = std::move(owner);
  tensor.view_ = {data, dtype, shape};
  tensor.id_ = next_tensor_id();
  tensor.file_backed_ = file_backed;
  return tensor;
}

Result<Tensor> Tensor::copy_of(const ConstTensorView& view) {
  SPRUN_ASSIGN(Tensor tensor, allocate(view.dtype, view.shape));
  if (view.size_bytes() > 0) std::memcpy(tensor.view_.data, view.data, static_cast<size_t>(view.size_bytes()));
  return tensor;
}

Tensor Tensor::reshaped(const Shape& shape) const {
  Tensor tensor = *this;
  tensor.view_.shape = shape;
  return tensor;
}

}  // namespace sprun
