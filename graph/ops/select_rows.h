// Which values of a row survive, and what is left of them: the zeros that sparse FFNs skip.
//
//   stat_top_k   y = max(x - theta, 0), theta = mean(x) + z * std(x); variance over n - ddof
//   threshold    y = x where x > t (inclusive: x >= t), else 0; absolute compares |x|; shift moves survivors towards 0
//   top_k        y = x for the k largest x (absolute: |x|), else 0; equal values: lower index first, or with ties all of
//                those equal to the k-th
//   relu         y = max(x, 0)
// sprun.StatTopK, sprun.Threshold, sprun.TopKSelect and sprun.SparseFfn share it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "graph/ir/attr.h"
#include "sprun/status.h"

namespace sprun::graph {

enum class SelectKind : uint8_t { kAll, kRelu, kStatTopK, kThreshold, kTopK };

struct Selection {
  SelectKind kind = SelectKind::kAll;
  float z = 0;
  int64_t ddof = 0;
  int64_t k = 0;
  bool ties = false, absolute = false, inclusive = false;
  float shift = 0;
};

// kind: "all", "relu", "stat_top_k", "threshold", "top_k"; the rest from the attributes of these names (z, ddof, k, ties,
// absolute, inclusive, shift). kBadModel for another kind or a negative k or ddof.
Result<Selection> selection_of(std::string_view kind, const AttrMap& attrs);

// Thresholds of a row: one value for all (step 0) or one for each column (step 1). Null unless kind is kThreshold.
template <class T>
struct Thresholds {
  const T* values = nullptr;
  int64_t step = 0;
};

// y may be x. keys: room for n values, used by kTopK only.   T is float or double.
template <class T>
void select_row(const Selection& selection, Thresholds<T> thresholds, const T* x, int64_t n, T* y, T* keys);

// The part of Gaussian values that survives, or -1 when it cannot be told from the attributes.
double expected_density(const Selection& selection, int64_t n);

}  // namespace sprun::graph
