#include "graph/ops/sparse_float.h"

#include <cstring>
#include <new>
#include <type_traits>

#include "runtime/base/half.h"

namespace sprun::graph {
namespace {

template <class Type>
auto kernels_of() {
  if constexpr (std::is_same_v<Type, SparseF32>) return kernels::bsr_f32_kernels();
  else return kernels::bsr_bf16_kernels();
}

template <class Type>
Result<PackedBlob> pack_bsr(const kernels::BsrLayout& layout, const FloatWeight& weight, const SparseSource& source) {
  using Element = typename Type::Element;
  const kernels::NonZeros bits = non_zeros_of(source);
  const BsrHeader header = BsrHeader::of(layout, kernels::bsr_size(layout, bits), sizeof(Element));
  SPRUN_ASSIGN(PackedBlob blob, allocate_blob(header.total));
  char* base = static_cast<char*>(blob.data.get());
  std::memset(base, 0, static_cast<size_t>(header.total));
  new (base) BsrHeader(header);
  auto* values = reinterpret_cast<Element*>(base + BsrHeader::kBytes + header.size.values_at());
  SPRUN_ASSIGN(const FloatWeightReader read, FloatWeightReader::of(weight));
  kernels::bsr_pack(layout, bits, header.size, base + BsrHeader::kBytes, [&](int64_t at, int64_t n, int64_t k) {
    const float value = read(n, k);
    if constexpr (std::is_same_v<Element, float>) values[at] = value;
    else values[at] = to_bfloat16(value).bits;
  });
  return blob;
}

}  // namespace

template <class Type>
Result<std::optional<SparseFloat<Type>>> SparseFloat<Type>::choose(PrepareContext& ctx, int64_t m,
                                                                   std::span<const FloatWeight> weights) {
  std::optional<SparseFloat> none;
  if (auto why = no_sparse(ctx.sparse(), nullptr)) {
    ctx.rejected.push_back({"bsr_spmm", *why});
    return none;
  }
  std::vector<std::vector<int32_t>> zeros(weights.size());
  std::vector<SparseSource> sources;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i].dequantised()) {
      SPRUN_ASSIGN(const FloatWeightReader reader, FloatWeightReader::of(weights[i]));
      auto values = reader.zero_per_output();
      if (!values) {
        ctx.rejected.push_back({"bsr_spmm", "zero points differ from block to block"});
        return none;
      }
      zeros[i] = std::move(*values);
    }
    sources.push_back({weights[i].weight, zeros[i]});
  }
  SPRUN_ASSIGN(SparseLayer layer, SparseLayer::of(ctx.packed(), Type::kType, m, sources));
  if (std::is_same_v<Type, SparseF32>) layer.dense_bytes = weights[0].element_bytes();
  if (auto why = no_sparse(ctx.sparse(), &layer)) {
    if (!why->empty()) ctx.rejected.push_back({"bsr_spmm", *why});
    return none;
  }
  std::vector<Rejection> why_not;
  const auto best = cheapest_sparse(layer, kernels_of<Type>(), why_not);
  ctx.rejected.insert(ctx.rejected.end(), why_not.begin(), why_not.end());
  if (best.info == nullptr) {
    ctx.rejected.push_back({"bsr_spmm", "no kernel takes K " + std::to_string(layer.k)});
    return none;
  }
  if (ctx.sparse() == SparseMode::kAuto && best.cost > kWorthIt * layer.dense_cost()) {
    ctx.rejected.push_back({std::string(best.info->name), best.estimate});
    return none;
  }
  SparseFloat made;
  made.info_ = best.info;
  made.m_ = m;
  made.k_ = layer.k;
  double bytes = 0, dense_bytes = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    SPRUN_TRY(made.pack(ctx.packed(), weights[i], sources[i]));
    bytes += static_cast<double>(made.weights_.back().bytes);
    dense_bytes += static_cast<double>(sources[i].weight.n) * static_cast<double>(layer.k) * sizeof(Element);
    made.parts_.push_back(kernels::bsr_parts(made.weights_.back().packed, num_slabs(best.info->kernel->layout, m),
                                             ctx.max_threads()));
  }
  ctx.kernel = std::string(best.info->name);
  ctx.detail = fmt::format("{}, weights {:.0f} bytes, {:.3f}x of dense {}", best.estimate, bytes, bytes / dense_bytes,
                           Type::kName);
  ctx.flops = 2.0 * static_cast<double>(m) * layer.stored(best.info->kernel->layout.block);
  ctx.scratch_bytes = kernels::align_scratch(made.slab_bytes()) +
                      kernels::align_scratch(best.info->kernel->scratch_bytes) * ctx.max_threads();
  return std::optional<SparseFloat>(std::move(made));
}

template <class Type>
Status SparseFloat<Type>::pack(PackedCache& cache, const FloatWeight& weight, const SparseSource& source) {
  const kernels::BsrLayout& layout = info_->kernel->layout;
  Weight made;
  std::string key = bsr_key(Type::kName, layout, source);
  if (weight.dequantised()) key += ":" + weight.key();
  SPRUN_ASSIGN(made.blob, cache.get(key, [&] { return pack_bsr<Type>(layout, weight, source); }));
  const char* base = static_cast<const char*>(made.blob.data.get());
  const BsrHeader& header = *reinterpret_cast<const BsrHeader*>(base);
  made.packed = kernels::bsr_view(header.size, base + BsrHeader::kBytes);
  made.n = source.weight.n;
  made.bytes = header.size.bytes(sizeof(Element));
  weights_.push_back(std::move(made));
  return {};
}

template class SparseFloat<SparseF32>;
template class SparseFloat<SparseBf16>;

}  // namespace sprun::graph
