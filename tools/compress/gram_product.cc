#include "tools/compress/gram_product.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "graph/ops/op.h"
#include "runtime/base/half.h"

namespace sprun::compress {
namespace {

// Rows that are summed in float32 before they are added in float64.
constexpr int64_t kPanelRows = 1024;

// G = X^T X as a graph.
Result<GraphRunner> make_runner(ThreadPool& pool) {
  graph::Graph g;
  const graph::ValueId x = g.add_input("x", DType::kF32, {});
  const graph::NodeId n = g.add_node("", "Gemm", 13, {x, x}, {"gram"});
  g.node(n).attrs.set("transA", int64_t{1});
  g.node(n).def = graph::find_op("", "Gemm", 13);
  g.set_outputs({g.node(n).outputs[0]});
  return GraphRunner::create(std::move(g), pool, SparseMode::kOff);
}

void copy_row(const Tensor& x, int64_t row, int64_t k, float* to) {
  const int64_t first = row * k;
  if (x.dtype() == DType::kF32) {
    std::copy_n(x.as<float>() + first, k, to);
  } else if (x.dtype() == DType::kF16) {
    std::transform(x.as<Float16>() + first, x.as<Float16>() + first + k, to,
                   [](Float16 v) { return to_float(v); });
  } else {
    std::transform(x.as<BFloat16>() + first, x.as<BFloat16>() + first + k, to,
                   [](BFloat16 v) { return to_float(v); });
  }
}

}  // namespace

Result<GramProduct> GramProduct::create(ThreadPool& pool) {
  SPRUN_ASSIGN(GraphRunner runner, make_runner(pool));
  return GramProduct(std::move(runner));
}

Status GramProduct::add(const Tensor& x, std::span<const int64_t> rows,
                        InputStatistics& statistics) {
  const int64_t k = statistics.k();
  if (x.shape().rank() < 1 || x.shape().back() != k) {
    return {Code::kInternal,
            "activation " + x.shape().to_string() + " has no rows of " + std::to_string(k)};
  }
  if (x.dtype() != DType::kF32 && x.dtype() != DType::kF16 && x.dtype() != DType::kBf16) {
    return {Code::kInternal, "activation of type " + std::string(dtype_name(x.dtype()))};
  }
  const int64_t total =
      rows.empty() ? x.num_elements() / std::max<int64_t>(k, 1) : static_cast<int64_t>(rows.size());
  for (int64_t first = 0; first < total; first += kPanelRows) {
    const int64_t count = std::min(kPanelRows, total - first);
    rows_.resize(static_cast<size_t>(count * k));
    for (int64_t r = 0; r < count; ++r) {
      const int64_t row = rows.empty() ? first + r : rows[static_cast<size_t>(first + r)];
      copy_row(x, row, k, rows_.data() + r * k);
    }
    const auto [low, high] = std::minmax_element(rows_.begin(), rows_.end());
    const ConstTensorView view = {rows_.data(), DType::kF32, Shape{count, k}};
    SPRUN_ASSIGN(const std::vector<Tensor> gram, runner_.run({&view, 1}));
    if (!std::isfinite(gram[0].as<float>()[0]) || !std::isfinite(*low) || !std::isfinite(*high)) {
      return {Code::kBadInput,
              "the model gives numbers that are not finite on the calibration data"};
    }
    statistics.add(count, gram[0].as<float>(), *low, *high);
  }
  return {};
}

}  // namespace sprun::compress
