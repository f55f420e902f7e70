#include "graph/passes/causal_mask.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/ir/pattern.h"

namespace sprun::graph {

namespace {

constexpr float kHidden = -1e4F;  // what exporters hide keys with is at most this

// Rows of a mask, one a head and query.
class Rows {
 public:
  Rows(const Tensor& mask, int64_t row) : bytes_(nullptr), floats_(nullptr) {
    const int64_t begin = row * mask.shape().back();
    if (mask.dtype() == DType::kBool) bytes_ = mask.as<uint8_t>() + begin;
    else floats_ = mask.as<float>() + begin;
  }
  float operator[](int64_t j) const {
    if (floats_) return floats_[j];
    return bytes_[j] != 0 ? 0.0F : -std::numeric_limits<float>::infinity();
  }

 private:
  const uint8_t* bytes_;
  const float* floats_;
};

// The slope of the row that sees all `width` keys. Next to a 0 differences are exact, so that all positions give the same.
float slope_of(const Rows& x, int64_t width) {
  if (width < 2 || x[width - 2] <= kHidden) return 0.0F;
  if (x[width - 1] == 0.0F) return 0.0F - x[width - 2];
  return x[0] == 0.0F ? x[1] : std::numeric_limits<float>::quiet_NaN();
}

struct RowSight {
  int64_t first = 0;  // key that is seen
  bool open = false;  // keys after `last` are seen too
};

// nullopt unless the row sees exactly [first, last], or all from first on, with a bias of `slope` a key.
std::optional<RowSight> read_row(const Rows& x, int64_t width, int64_t last, float slope) {
  const auto sees = [&](int64_t j) {
    if (slope == 0.0F) return x[j] == 0.0F;
    const float expected = x[last] + slope * static_cast<float>(j - last);
    return std::abs(x[j] - expected) <= 1e-6F * (std::abs(x[j]) + std::abs(x[last]));
  };
  RowSight sight;
  while (sight.first < last && x[sight.first] <= kHidden && !sees(sight.first)) ++sight.first;
  for (int64_t j = sight.first; j <= last; ++j) {
    if (!sees(j)) return std::nullopt;
  }
  sight.open = last + 1 < width && sees(last + 1);
  for (int64_t j = last + 1; j < width; ++j) {
    if (sight.open ? !sees(j) : x[j] > kHidden) return std::nullopt;
  }
  return sight;
}

int64_t size_at(const Shape& shape, int from_end) {
  return from_end <= shape.rank() ? shape[shape.rank() - from_end] : 1;
}

// The window that all rows of a head agree on; false if they do not.
bool take_window(int64_t first, int64_t last, int64_t* window) {
  const int64_t reach = last - first;
  if (first == 0) return *window < 0 || reach <= *window;
  if (*window >= 0 && *window != reach) return false;
  *window = reach;
  return true;
}

std::optional<CausalMask> read_constant(const Tensor& mask, int64_t past, int64_t tokens, int64_t heads) {
  const Shape& shape = mask.shape();
  const int64_t width = past + tokens, own_rows = size_at(shape, 2), own_heads = size_at(shape, 3);
  const bool fits = shape.rank() >= 1 && shape.rank() <= 4 && shape.back() == width &&
                    (own_rows == tokens || own_rows == 1) && (own_heads == heads || own_heads == 1) && size_at(shape, 4) == 1;
  if (!fits || (mask.dtype() != DType::kF32 && mask.dtype() != DType::kBool)) return std::nullopt;
  CausalMask result;
  int64_t open = 0, closed = 0;
  for (int64_t h = 0; h < own_heads; ++h) {
    const float slope = slope_of(Rows(mask, (h + 1) * own_rows - 1), width);
    if (std::isnan(slope)) return std::nullopt;
    if (slope != 0.0F) result.slopes.resize(static_cast<size_t>(heads));
    if (slope != 0.0F) result.slopes[static_cast<size_t>(h)] = slope;
    for (int64_t i = 0; i < own_rows; ++i) {
      const int64_t last = width - own_rows + i;
      const auto sight = read_row(Rows(mask, h * own_rows + i), width, last, slope);
      if (!sight || !take_window(sight->first, last, &result.window)) return std::nullopt;
      if (last + 1 < width) ++(sight->open ? open : closed);
    }
  }
  if (open > 0 && closed > 0) return std::nullopt;
  if (own_heads < heads && !result.slopes.empty()) std::fill(result.slopes.begin(), result.slopes.end(), result.slopes[0]);
  result.causal = closed > 0;
  if (own_rows < tokens && result.window >= 0) return std::nullopt;
  return result;
}

}  // namespace

std::optional<CausalMask> read_causal_mask(const Graph& graph, ValueId mask, int64_t past, int64_t tokens, int64_t heads) {
  if (const Tensor* constant = graph.constant(mask)) return read_constant(*constant, past, tokens, heads);
  const Node* add = producer_is(graph, mask, "Add");
  if (add == nullptr) return std::nullopt;
  auto a = read_causal_mask(graph, add->inputs[0], past, tokens, heads);
  const auto b = read_causal_mask(graph, add->inputs[1], past, tokens, heads);
  if (!a || !b || (!a->slopes.empty() && !b->slopes.empty()) || (a->window >= 0 && b->window >= 0)) return std::nullopt;
  a->causal = a->causal || b->causal;
  a->window = std::max(a->window, b->window);
  if (a->slopes.empty()) a->slopes = b->slopes;
  return a;
}

}  // namespace sprun::graph
