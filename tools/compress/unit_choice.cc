#include "tools/compress/unit_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/half.h"

namespace sprun::compress {
namespace {

// Units of one site that go together, so that what is left is a multiple of the tile.
struct Chunk {
  double score;
  size_t site;
  int64_t units;
};

Vector standardised(const Vector& scores) {
  const Vector centred = scores.array() - scores.mean();
  const double deviation = std::sqrt(centred.squaredNorm() / static_cast<double>(scores.size()));
  if (!(deviation > 0)) return Vector::Zero(scores.size());
  return centred / deviation;
}

// All of a site but the last tile, lowest scores first.
void add_chunks(const Vector& scores, size_t site, int64_t tile, std::vector<Chunk>& chunks) {
  Vector sorted = standardised(scores);
  std::sort(sorted.begin(), sorted.end());
  const int64_t units = sorted.size();
  int64_t first = 0, size = units % tile == 0 ? tile : units % tile;
  while (first + size < units) {
    chunks.push_back({sorted.segment(first, size).mean(), site, size});
    first += size;
    size = tile;
  }
}

void remove_lowest(std::vector<Chunk> chunks, int64_t wanted, std::vector<int64_t>& counts) {
  std::stable_sort(chunks.begin(), chunks.end(), [](const Chunk& a, const Chunk& b) { return a.score < b.score; });
  int64_t removed = 0;
  for (const Chunk& chunk : chunks) {
    if (2 * removed + chunk.units > 2 * wanted) return;  // farther away than without it
    removed += chunk.units;
    counts[chunk.site] += chunk.units;
  }
}

}  // namespace

const float* float_row(const Tensor& x, int64_t row, int64_t k, std::vector<float>& copy) {
  if (x.dtype() == DType::kF32) return x.as<float>() + row * k;
  copy.resize(static_cast<size_t>(k));
  if (x.dtype() == DType::kF16) {
    const Float16* from = x.as<Float16>() + row * k;
    std::transform(from, from + k, copy.begin(), [](Float16 v) { return to_float(v); });
  } else {
    const BFloat16* from = x.as<BFloat16>() + row * k;
    std::transform(from, from + k, copy.begin(), [](BFloat16 v) { return to_float(v); });
  }
  return copy.data();
}

Vector ColumnMoments::variance() const {
  const Vector m = mean();
  return (squares / static_cast<double>(rows) - m.cwiseProduct(m)).cwiseMax(0);
}

void ColumnMoments::add(const Tensor& x, std::span<const int64_t> counted) {
  const int64_t k = x.shape().back(), total = x.num_elements() / std::max<int64_t>(k, 1);
  if (rows == 0) sum = squares = Vector::Zero(k);
  std::vector<float> copy;
  const int64_t count = counted.empty() ? total : static_cast<int64_t>(counted.size());
  for (int64_t i = 0; i < count; ++i) {
    const float* row = float_row(x, counted.empty() ? i : counted[static_cast<size_t>(i)], k, copy);
    const Vector values = Eigen::Map<const Eigen::VectorXf>(row, k).cast<double>();
    sum += values;
    squares += values.cwiseProduct(values);
  }
  rows += count;
}

Vector unit_scores(const ColumnMoments& moments, const Matrix& w, std::span<const int32_t> unit, int64_t units) {
  const Vector variance = moments.variance();
  const Vector norms = w.colwise().squaredNorm();
  Vector scores = Vector::Zero(units);
  for (size_t i = 0; i < unit.size(); ++i) {
    const auto at = static_cast<Eigen::Index>(i);
    scores[unit[i]] += variance[at] * norms[at];
  }
  return scores;
}

std::vector<int64_t> removal_counts(std::span<const Vector> scores, double part, int64_t tile, bool even) {
  std::vector<int64_t> counts(scores.size(), 0);
  std::vector<Chunk> chunks;
  double total = 0;
  for (size_t s = 0; s < scores.size(); ++s) {
    const auto units = static_cast<double>(scores[s].size());
    total += units;
    add_chunks(scores[s], s, tile, chunks);
    if (!even) continue;
    remove_lowest(chunks, std::llround(part * units), counts);
    chunks.clear();
  }
  if (!even) remove_lowest(std::move(chunks), std::llround(part * total), counts);
  return counts;
}

std::vector<bool> keep_highest(const Vector& scores, int64_t count) {
  std::vector<int64_t> order(static_cast<size_t>(scores.size()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] < scores[b]; });
  std::vector<bool> keep(order.size(), true);
  for (int64_t i = 0; i < count; ++i) keep[static_cast<size_t>(order[static_cast<size_t>(i)])] = false;
  return keep;
}

}  // namespace sprun::compress
