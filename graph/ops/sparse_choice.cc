#include "graph/ops/sparse_choice.h"

namespace sprun::graph {

Result<SparseLayer> SparseLayer::of(PackedCache& cache, kernels::ProductType type, int64_t m,
                                    std::span<const SparseSource> sources) {
  SparseLayer layer;
  layer.type = type;
  layer.m = m;
  layer.k = sources[0].weight.k;
  for (const SparseSource& source : sources) {
    layer.n.push_back(source.weight.n);
    SPRUN_ASSIGN(WeightZeros zeros, weight_zeros(cache, source));
    layer.zeros.push_back(zeros);
  }
  return layer;
}

double SparseLayer::stored(kernels::BlockShape block) const {
  double sum = 0;
  for (size_t i = 0; i < n.size(); ++i) {
    sum += zeros[i].density_of(block) * static_cast<double>(n[i]) * static_cast<double>(k);
  }
  return sum;
}

double SparseLayer::mean_density(kernels::BlockShape block) const {
  double all = 0;
  for (int64_t outputs : n) all += static_cast<double>(outputs) * static_cast<double>(k);
  return stored(block) / all;
}

double SparseLayer::dense_cost() const {
  double cost = 0;
  for (int64_t outputs : n) cost += kernels::dense_cost(type, {m, outputs, k}, kernels::available_isas(), dense_bytes);
  return cost;
}

std::optional<std::string> no_sparse(SparseMode mode, const SparseLayer* layer) {
  if (mode == SparseMode::kOff) return "sparse kernels are switched off";
  if (layer == nullptr) return std::nullopt;
  if (mode == SparseMode::kAuto && layer->mean_density(kernels::kBlock1x1) > kWorthIt) return "";
  for (const WeightZeros& zeros : layer->zeros) {
    if (zeros.only_sampled) return "a sample of a weight holds next to no zeros";
    if (layer->type != kernels::ProductType::kU8S8) continue;
    if (zeros.stored_min < -128 || zeros.stored_max > 127) return "weight minus zero point does not fit int8";
  }
  return std::nullopt;
}

BsrHeader BsrHeader::of(const kernels::BsrLayout& layout, const kernels::BsrSize& size, int64_t value_bytes) {
  const int64_t outputs = size.units * layout.unit_rows;
  BsrHeader h;
  h.size = size;
  h.sums_at = kBytes + kernels::align_scratch(size.bytes(value_bytes));
  h.scale_at = h.sums_at + kernels::align_scratch(outputs * 4);
  h.total = h.scale_at + kernels::align_scratch(outputs * 4);
  return h;
}

std::string bsr_key(std::string_view type, const kernels::BsrLayout& layout, const SparseSource& source) {
  const WeightConstant& w = source.weight;
  std::string key = fmt::format("bsr_{}:{}x{}:{}:{}:{}:{}:{}", type, layout.block.rows, layout.block.cols,
                                layout.unit_rows, layout.group_blocks, layout.k_block, layout.tile_blocks,
                                w.tensor->id());
  for (int64_t part : {w.n, w.k, w.stride_n, w.stride_k}) key += ":" + std::to_string(part);
  for (int32_t zero : source.zero_point) key += "," + std::to_string(zero);
  return key;
}

}  // namespace sprun::graph
