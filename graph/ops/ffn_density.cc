#include "graph/ops/ffn_density.h"

#include <algorithm>

namespace sprun::graph {

double LayerDensity::measured() const {
  const int64_t rows = counter.rows();
  if (rows == 0 || width == 0) return -1;
  return static_cast<double>(counter.active()) / (static_cast<double>(rows) * static_cast<double>(width));
}

Result<std::shared_ptr<DensityBook>> DensityBook::of(PackedCache& cache) {
  SPRUN_ASSIGN(const PackedBlob blob, cache.get("ffn_density", []() -> Result<PackedBlob> {
    return PackedBlob{std::make_shared<DensityBook>(), 0};  // of no bytes: the cache moves nothing
  }));
  return std::static_pointer_cast<DensityBook>(blob.data);
}

std::shared_ptr<LayerDensity> DensityBook::record(uint64_t weight, const std::string& name, const std::string& pattern,
                                                  double expected, int64_t width) {
  const std::lock_guard lock(mutex_);
  const auto same = [&](const auto& layer) { return layer->weight == weight && layer->name == name; };
  const auto found = std::find_if(records_.begin(), records_.end(), same);
  if (found != records_.end()) return *found;
  auto made = std::make_shared<LayerDensity>();
  made->weight = weight;
  made->name = name;
  made->pattern = pattern;
  made->expected = expected;
  made->width = width;
  records_.push_back(made);
  return made;
}

std::vector<std::shared_ptr<const LayerDensity>> DensityBook::records() const {
  const std::lock_guard lock(mutex_);
  return {records_.begin(), records_.end()};
}

}  // namespace sprun::graph
