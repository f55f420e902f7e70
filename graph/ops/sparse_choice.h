// Choosing sparse or dense for the constant weights of one linear layer, for all element types.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "graph/ops/sparse_weight.h"
#include "kernels/bsr_spmm/cost.h"

namespace sprun::graph {

// A sparse kernel must promise to take at most this part of the dense time: closer is noise.
inline constexpr double kWorthIt = 0.9;

// The weights that share X, and what their zeros look like.
struct SparseLayer {
  kernels::ProductType type = kernels::ProductType::kF32;
  int64_t m = 0, k = 0;
  int64_t dense_bytes = 0;  // of a weight that the dense kernel reads; 0: as `type` has it
  std::vector<int64_t> n;
  std::vector<WeightZeros> zeros;

  static Result<SparseLayer> of(PackedCache& cache, kernels::ProductType type, int64_t m,
                                std::span<const SparseSource> sources);
  double mean_density(kernels::BlockShape block) const;
  double dense_cost() const;
  // Stored multiply-adds for one row of X.
  double stored(kernels::BlockShape block) const;
};

// Why no sparse kernel is even looked at: switched off, or next to no zeros (an empty reason: not worth a line in
// explain). nullopt: go on and choose.
std::optional<std::string> no_sparse(SparseMode mode, const SparseLayer* layer);

template <class Kernel>
struct SparseChoice {
  const kernels::KernelInfo<Kernel>* info = nullptr;  // the cheapest; null when no pattern has a kernel
  double cost = 0;
  std::string estimate;  // "density 0.10 (unstructured 0.10), estimated 0.17x of dense"
};

// The cheapest kernel of all patterns in the list; the others go to `why_not` with their estimates.
template <class Kernel>
SparseChoice<Kernel> cheapest_sparse(const SparseLayer& layer, std::span<const kernels::KernelInfo<Kernel>> list,
                                     std::vector<Rejection>& why_not) {
  const kernels::IsaSet isas = kernels::available_isas();
  const double dense = layer.dense_cost();
  std::vector<SparseChoice<Kernel>> all;
  for (const NamedPattern& pattern : kPatterns) {
    const auto* info = kernels::select_bsr(list, pattern.block, layer.m, isas);
    if (info == nullptr || !kernels::bsr_refusal(info->kernel->layout, layer.n[0], layer.k).empty()) continue;
    SparseChoice<Kernel> choice = {info, 0, {}};
    for (size_t i = 0; i < layer.n.size(); ++i) {
      choice.cost += kernels::bsr_cost(layer.type, info->isa, info->kernel->layout, {layer.m, layer.n[i], layer.k},
                                       layer.zeros[i].density_of(pattern.block));
    }
    choice.estimate =
        fmt::format("density {:.2f} (unstructured {:.2f}), estimated {:.2f}x of dense", layer.mean_density(pattern.block),
                    layer.mean_density(kernels::kBlock1x1), choice.cost / dense);
    all.push_back(std::move(choice));
  }
  const auto best = std::min_element(all.begin(), all.end(), [](auto& a, auto& b) { return a.cost < b.cost; });
  for (auto it = all.begin(); it != all.end(); ++it) {
    if (it != best) why_not.push_back({std::string(it->info->name), it->estimate});
  }
  return best == all.end() ? SparseChoice<Kernel>() : *best;
}

// What the packed form is made of, in front of it in its blob: sums and scales of outputs follow the groups.
struct BsrHeader {
  kernels::BsrSize size;
  int64_t sums_at = 0, scale_at = 0, total = 0;
  bool pairs_fit = false;  // int8, see bsr_pairs_fit()

  static constexpr int64_t kBytes = 128;
  static BsrHeader of(const kernels::BsrLayout& layout, const kernels::BsrSize& size, int64_t value_bytes);
};
static_assert(sizeof(BsrHeader) <= BsrHeader::kBytes);

// Names a packed form in the cache: only what the packer reads, so that kernels that differ in how X lies share it.
std::string bsr_key(std::string_view type, const kernels::BsrLayout& layout, const SparseSource& source);

}  // namespace sprun::graph
