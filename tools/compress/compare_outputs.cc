#include "tools/compress/compare_outputs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "runtime/base/half.h"
#include "tools/compress/graph_runner.h"
#include "tools/compress/kv_states.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;

namespace {

bool is_small_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBf16;
}

std::vector<float> row_of(const Tensor& t, int64_t row, int64_t width) {
  std::vector<float> values(static_cast<size_t>(width));
  for (int64_t i = 0; i < width; ++i) {
    const int64_t at = row * width + i;
    values[static_cast<size_t>(i)] = t.dtype() == DType::kF32   ? t.as<float>()[at]
                                     : t.dtype() == DType::kF16 ? to_float(t.as<Float16>()[at])
                                                                : to_float(t.as<BFloat16>()[at]);
  }
  return values;
}

// log(softmax(x)) in place.
void log_softmax(std::vector<float>& x) {
  const float top = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (float v : x) sum += std::exp(static_cast<double>(v - top));
  const float shift = top + static_cast<float>(std::log(sum));
  for (float& v : x) v -= shift;
}

// Sums over rows of one output.
class OutputSums {
 public:
  explicit OutputSums(std::string name) {
    name_ = std::move(name);
    is_scores_ =
        name_.find("logit") != std::string::npos || name_.find("score") != std::string::npos;
  }

  // next[r]: the token that row r predicts, -1: none.
  void add(const Tensor& before, const Tensor& after, std::span<const int64_t> rows,
           std::span<const int64_t> next) {
    const Shape& shape = before.shape();
    const int64_t width = shape.rank() == 0 ? 1 : shape.back();
    if (width == 0) return;
    std::vector<int64_t> all;
    if (rows.empty()) {
      all.resize(static_cast<size_t>(shape.num_elements() / width));
      std::iota(all.begin(), all.end(), 0);
      rows = all;
    }
    for (int64_t row : rows) {
      std::vector<float> b = row_of(before, row, width), a = row_of(after, row, width);
      add_geometry(b, a);
      if (is_scores_ && width > 1)
        add_scores(b, a, next.empty() ? -1 : next[static_cast<size_t>(row)]);
    }
  }

  OutputReport report() const {
    OutputReport out;
    out.name = name_;
    const double norms = std::sqrt(bb_ * aa_);
    out.cosine = norms > 0 ? ab_ / norms : bb_ == aa_ ? 1 : 0;
    out.relative_error = bb_ > 0 ? std::sqrt(dd_ / bb_) : std::sqrt(dd_);
    if (scored_ > 0) {
      out.kl = kl_ / scored_;
      out.top1 = same_top_ / scored_;
    }
    if (tokens_ > 0) {
      out.nll_before = nll_before_ / tokens_;
      out.nll_after = nll_after_ / tokens_;
    }
    return out;
  }

 private:
  void add_geometry(const std::vector<float>& b, const std::vector<float>& a) {
    for (size_t i = 0; i < b.size(); ++i) {
      const double x = b[i], y = a[i];
      bb_ += x * x;
      aa_ += y * y;
      ab_ += x * y;
      dd_ += (x - y) * (x - y);
    }
  }

  void add_scores(std::vector<float>& b, std::vector<float>& a, int64_t next) {
    const auto top = [](const std::vector<float>& v) {
      return std::max_element(v.begin(), v.end()) - v.begin();
    };
    same_top_ += top(b) == top(a);
    log_softmax(b);
    log_softmax(a);
    for (size_t i = 0; i < b.size(); ++i) {
      const double p = std::exp(static_cast<double>(b[i]));
      if (p > 0) kl_ += p * (static_cast<double>(b[i]) - static_cast<double>(a[i]));
    }
    ++scored_;
    if (next < 0 || next >= static_cast<int64_t>(b.size())) return;
    nll_before_ -= static_cast<double>(b[static_cast<size_t>(next)]);
    nll_after_ -= static_cast<double>(a[static_cast<size_t>(next)]);
    ++tokens_;
  }

  std::string name_;
  bool is_scores_ = false;
  double bb_ = 0, aa_ = 0, ab_ = 0, dd_ = 0, kl_ = 0, same_top_ = 0, scored_ = 0;
  double nll_before_ = 0, nll_after_ = 0, tokens_ = 0;
};

// For scores [batch, sequence, vocabulary] of a model with token ids of the same batch and
// sequence: the id after each position, -1 at the end of a sample and before padding.
std::vector<int64_t> next_tokens(const Graph& graph, const Batch& batch, const Shape& scores) {
  if (scores.rank() != 3) return {};
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Tensor& ids = batch.inputs[i];
    const bool is_ids =
        graph.value(graph.inputs()[i]).name == "input_ids" && ids.dtype() == DType::kS64;
    if (!is_ids || ids.shape() != Shape{scores[0], scores[1]}) continue;
    const std::vector<int64_t> counted = unmasked_rows(graph, batch, scores);
    std::vector<int64_t> next(static_cast<size_t>(ids.num_elements()), -1);
    for (int64_t r = 0; r + 1 < ids.num_elements(); ++r) {
      const bool is_last = (r + 1) % scores[1] == 0;
      const bool is_padding =
          !counted.empty() && !std::binary_search(counted.begin(), counted.end(), r + 1);
      if (!is_last && !is_padding) next[static_cast<size_t>(r)] = ids.as<int64_t>()[r + 1];
    }
    return next;
  }
  return {};
}

struct OutputPair {
  size_t before, after;
};

bool is_same_shape(const graph::Value& a, const graph::Value& b) {
  if (!a.declared || !b.declared || a.declared->size() != b.declared->size())
    return a.declared.has_value() == b.declared.has_value();
  return std::equal(a.declared->begin(), a.declared->end(), b.declared->begin(),
                    [](const auto& x, const auto& y) { return x.value == y.value; });
}

// Outputs of one name, without keys and values that have lost heads or their layer.
std::vector<OutputPair> pair_outputs(const Graph& before, const Graph& after) {
  std::vector<OutputPair> pairs;
  for (size_t i = 0; i < before.outputs().size(); ++i) {
    const graph::Value& x = before.value(before.outputs()[i]);
    for (size_t k = 0; k < after.outputs().size(); ++k) {
      const graph::Value& y = after.value(after.outputs()[k]);
      if (x.name == y.name && is_same_shape(x, y)) pairs.push_back({i, k});
    }
  }
  return pairs;
}

std::vector<ConstTensorView> views_of(const Batch& batch) {
  std::vector<ConstTensorView> views;
  for (const Tensor& t : batch.inputs) views.push_back(t.view());
  return views;
}

}  // namespace

Result<std::vector<OutputReport>> compare_outputs(const Graph& before, const Graph& after,
                                                  const std::vector<Batch>& batches,
                                                  ThreadPool& pool, std::stop_token stop) {
  SPRUN_ASSIGN(GraphRunner a, GraphRunner::create(before, pool, SparseMode::kOff));
  SPRUN_ASSIGN(GraphRunner b, GraphRunner::create(after, pool, SparseMode::kAuto));
  const std::vector<OutputPair> pairs = pair_outputs(before, after);
  const std::vector<std::string> names = input_names(before);
  std::vector<OutputSums> sums;
  for (const OutputPair& pair : pairs)
    sums.emplace_back(before.value(before.outputs()[pair.before]).name);
  for (const Batch& batch : batches) {
    SPRUN_ASSIGN(const Batch fitted, fit_batch(batch, names, after));
    SPRUN_ASSIGN(const std::vector<Tensor> all_before, a.run(views_of(batch), stop));
    SPRUN_ASSIGN(const std::vector<Tensor> all_after, b.run(views_of(fitted), stop));
    for (size_t k = 0; k < pairs.size(); ++k) {
      const Tensor& want = all_before[pairs[k].before];
      const Tensor& got = all_after[pairs[k].after];
      if (want.shape() != got.shape() || want.dtype() != got.dtype()) {
        return Status(Code::kInternal, "output '" + before.value(before.outputs()[pairs[k].before]).name +
                                           "' has changed its shape");
      }
      if (!is_small_float(want.dtype())) continue;
      const auto rows = unmasked_rows(before, batch, want.shape());
      sums[k].add(want, got, rows, next_tokens(before, batch, want.shape()));
    }
  }
  std::vector<OutputReport> reports;
  for (const OutputSums& sum : sums) reports.push_back(sum.report());
  return reports;
}

}  // namespace sprun::compress
