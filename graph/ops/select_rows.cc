#include "graph/ops/select_rows.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace sprun::graph {
namespace {

// Sum of fn(x[i]) in double, in a fixed order that vectorises.
template <class T, class Fn>
double sum_of(const T* x, int64_t n, const Fn& fn) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += fn(static_cast<double>(x[i + j]));
  }
  double sum = 0;
  for (; i < n; ++i) sum += fn(static_cast<double>(x[i]));
  for (double lane : lanes) sum += lane;
  return sum;
}

template <class T>
void stat_top_k(const Selection& s, const T* x, int64_t n, T* y) {
  const double mean = sum_of(x, n, [](double v) { return v; }) / static_cast<double>(n);
  const double squares = sum_of(x, n, [mean](double v) { return (v - mean) * (v - mean); });
  const double deviation = std::sqrt(squares / static_cast<double>(n - s.ddof));
  const T theta = static_cast<T>(mean + deviation * static_cast<double>(s.z));
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] - theta < 0 ? T{0} : x[i] - theta;
}

template <class T>
void threshold(const Selection& s, Thresholds<T> t, const T* x, int64_t n, T* y) {
  const T shift = static_cast<T>(s.shift);
  for (int64_t i = 0; i < n; ++i) {
    const T value = s.absolute ? std::abs(x[i]) : x[i], limit = t.values[i * t.step];
    const bool keep = s.inclusive ? value >= limit : value > limit;
    y[i] = keep ? x[i] - std::copysign(shift, x[i]) : T{0};
  }
}

template <class T>
void top_k(const Selection& s, const T* x, int64_t n, T* y, T* keys) {
  if (s.k >= n) {
    std::copy_n(x, n, y);
    return;
  }
  if (s.k == 0) {
    std::fill_n(y, n, T{0});
    return;
  }
  const auto key = [&s](T v) { return std::isnan(v) ? std::numeric_limits<T>::infinity() : s.absolute ? std::abs(v) : v; };
  std::transform(x, x + n, keys, key);
  std::nth_element(keys, keys + (s.k - 1), keys + n, std::greater<>());
  const T kth = keys[s.k - 1];
  int64_t equal = n;
  if (!s.ties) equal = s.k - std::count_if(keys, keys + s.k, [kth](T v) { return v > kth; });
  for (int64_t i = 0; i < n; ++i) {
    const T value = key(x[i]);
    const bool keep = value > kth || (value == kth && equal-- > 0);
    y[i] = keep ? x[i] : T{0};
  }
}

}  // namespace

Result<Selection> selection_of(std::string_view kind, const AttrMap& attrs) {
  struct Entry {
    std::string_view name;
    SelectKind kind;
  };
  constexpr Entry kEntries[] = {{"all", SelectKind::kAll},
                                {"relu", SelectKind::kRelu},
                                {"stat_top_k", SelectKind::kStatTopK},
                                {"threshold", SelectKind::kThreshold},
                                {"top_k", SelectKind::kTopK}};
  const auto* entry = std::find_if(std::begin(kEntries), std::end(kEntries), [&](auto& e) { return e.name == kind; });
  if (entry == std::end(kEntries)) return Status(Code::kBadModel, "unknown selection '" + std::string(kind) + "'");
  const Selection selection = {.kind = entry->kind,
                               .z = attrs.get_float("z", 0),
                               .ddof = attrs.get_int("ddof", 0),
                               .k = attrs.get_int("k", 0),
                               .ties = attrs.get_int("ties", 0) != 0,
                               .absolute = attrs.get_int("absolute", 0) != 0,
                               .inclusive = attrs.get_int("inclusive", 0) != 0,
                               .shift = attrs.get_float("shift", 0)};
  if (selection.k < 0 || selection.ddof < 0) return Status(Code::kBadModel, "k and ddof must not be negative");
  return selection;
}

template <class T>
void select_row(const Selection& selection, Thresholds<T> thresholds, const T* x, int64_t n, T* y, T* keys) {
  switch (selection.kind) {
    case SelectKind::kAll:
      if (y != x) std::copy_n(x, n, y);
      return;
    case SelectKind::kRelu:
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] < 0 ? T{0} : x[i];
      return;
    case SelectKind::kStatTopK:
      return stat_top_k(selection, x, n, y);
    case SelectKind::kThreshold:
      return threshold(selection, thresholds, x, n, y);
    case SelectKind::kTopK:
      return top_k(selection, x, n, y, keys);
  }
}

template void select_row<float>(const Selection&, Thresholds<float>, const float*, int64_t, float*, float*);
template void select_row<double>(const Selection&, Thresholds<double>, const double*, int64_t, double*, double*);

double expected_density(const Selection& selection, int64_t n) {
  if (selection.kind == SelectKind::kStatTopK) return 0.5 * std::erfc(static_cast<double>(selection.z) * M_SQRT1_2);
  if (selection.kind != SelectKind::kTopK || n == 0) return -1;
  return static_cast<double>(std::min(selection.k, n)) / static_cast<double>(n);
}

}  // namespace sprun::graph
