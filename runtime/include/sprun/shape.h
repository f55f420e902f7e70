// Shape: the sizes of a tensor, at most kMaxRank of them, held inline (no allocation).
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "sprun/export.h"
#include "sprun/status.h"

namespace sprun {

inline constexpr int kMaxRank = 8;
// No tensor may have more elements than this; larger shapes are refused before anything is allocated.
inline constexpr int64_t kMaxElements = int64_t{1} << 40;

// Concrete sizes, each >= 0. Rank 0 is a scalar with one element.
class SPRUN_API Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  // Precondition: dims.size() <= kMaxRank (checked() reports instead).
  explicit Shape(std::span<const int64_t> dims);
  // kBadModel if the rank is over kMaxRank or a size is negative; kResourceLimit if the product of the sizes that are
  // not 0 is over kMaxElements, so that no product of sizes and no stride of a checked shape can overflow.
  static Result<Shape> checked(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  // Size of axis i, 0 <= i < rank().
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t& operator[](int i) { return dims_[static_cast<size_t>(i)]; }
  int64_t back() const { return dims_[static_cast<size_t>(rank_ - 1)]; }
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  // Product of all sizes, saturating at kMaxElements + 1.
  int64_t num_elements() const { return num_elements(0, rank_); }
  // Product of the sizes of axes [begin, end).
  int64_t num_elements(int begin, int end) const;
  // Adds an axis at the end or before axis i. Precondition: rank() < kMaxRank.
  void push_back(int64_t dim) { dims_[static_cast<size_t>(rank_++)] = dim; }
  void insert(int i, int64_t dim);
  void erase(int i);
  // "[2,3]"
  std::string to_string() const;

  bool operator==(const Shape& other) const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace sprun
