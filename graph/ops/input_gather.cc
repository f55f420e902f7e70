#include "graph/ops/input_gather.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sprun::graph {
namespace {

using kernels::align_scratch;
using kernels::SparseInputWeights;

SparseInputWeights type_of(DType dtype) {
  switch (dtype) {
    case DType::kF16: return SparseInputWeights::kF16;
    case DType::kBf16: return SparseInputWeights::kBf16;
    case DType::kF32: return SparseInputWeights::kF32;
    default: return SparseInputWeights::kS8;
  }
}

const kernels::KernelInfo<kernels::SparseInputKernel>& best(DType dtype, std::vector<kernels::Rejection>* why_not = nullptr) {
  return kernels::select(kernels::sparse_input_kernels(type_of(dtype)), kernels::available_isas(), why_not);
}

// Codes of kernels are s8: u8 is stored less 128.
uint8_t flip_of(DType dtype) { return dtype == DType::kU8 ? 0x80 : 0; }

// True if a dequantised weight is scale[n] * (stored code) and nothing more.
Result<bool> is_symmetric(const FloatWeight& w) {
  if (!w.dequantised()) return true;
  if (w.block_size > 0) return false;
  SPRUN_ASSIGN(const FloatWeightReader reader, FloatWeightReader::of(w));
  const int32_t zero = w.weight.tensor->dtype() == DType::kU8 ? 128 : 0;
  for (int64_t n = 0; n < w.weight.n; ++n) {
    if (reader.zero(n, 0) != zero) return false;
  }
  return true;
}

template <class T>
void pack_elements(const WeightConstant& w, const void* data, int64_t width, T flip, void* out) {
  kernels::pack_sparse_input<T>({static_cast<const T*>(data), w.n, w.k, w.stride_n, w.stride_k}, width, flip,
                                static_cast<T*>(out));
}

}  // namespace

std::string InputGather::detail(const AttrMap& attrs) {
  if (mark(attrs).empty()) return "";
  const float expected = attrs.get_float("input_density", -1.0F);
  return fmt::format("{}: leaving out zeros is exact; density expected {}; ", mark(attrs),
                     expected < 0 ? "unknown" : fmt::format("{:.1f} %", 100 * static_cast<double>(expected)));
}

std::string InputGather::reason_against(const PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights) {
  // Smaller layers lie in a cache, where little is gained.
  constexpr int64_t kMinBytes = 512 * 1024;
  if (ctx.sparse() == SparseMode::kOff) return "sparse kernels are switched off";
  const DType dtype = weights[0].weight.tensor->dtype();
  int64_t bytes = 0;
  for (const FloatWeight& w : weights) {
    if (w.weight.tensor->dtype() != dtype) return "weights of several types";
    const auto symmetric = is_symmetric(w);
    if (!symmetric.ok() || !*symmetric) return "8-bit weights with zero points or blocks";
    bytes += w.weight.n * w.weight.k * w.element_bytes();
  }
  if (m > kernels::kSparseInputRows) return fmt::format("{} rows: the dense product answers them for the same bytes", m);
  if (ctx.sparse() == SparseMode::kForce) return "";
  if (bytes < kMinBytes) return "small weights, which stay in a cache";
  return best(dtype).name.ends_with("_ref") ? "no vector kernel on this CPU" : "";
}

std::shared_ptr<LayerDensity> InputGather::density(const PrepareContext& ctx, const FloatWeight& weight) {
  auto made = std::make_shared<LayerDensity>();
  made->weight = weight.weight.tensor->id();
  made->name = ctx.node().name;
  made->pattern = mark(ctx.attrs());
  made->expected = static_cast<double>(ctx.attrs().get_float("input_density", -1.0F));
  made->width = weight.weight.k;
  return made;
}

Result<InputGather::Weight> InputGather::pack(PackedCache& cache, const FloatWeight& source) const {
  const WeightConstant& w = source.weight;
  const DType dtype = w.tensor->dtype();
  Weight made;
  made.n = w.n;
  made.width = kernels::sparse_input_width(w.n, workers_);
  const int64_t codes = align_scratch(kernels::sparse_input_panels(w.n, made.width) * made.width * w.k * source.element_bytes());
  const std::string key = fmt::format("sparse_input:{}:{}", made.width, source.key());
  SPRUN_ASSIGN(made.blob, cache.get(key, [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(codes + align_scratch(w.n * 4)));
    char* base = static_cast<char*>(blob.data.get());
    Tensor aligned;
    const void* data = w.tensor->data();
    if (source.element_bytes() > 1 && !w.tensor->is_aligned()) {
      SPRUN_ASSIGN(aligned, Tensor::copy_of(w.tensor->view()));
      data = aligned.data();
    }
    if (source.element_bytes() == 4) pack_elements<uint32_t>(w, data, made.width, 0, base);
    if (source.element_bytes() == 2) pack_elements<uint16_t>(w, data, made.width, 0, base);
    if (source.element_bytes() == 1) pack_elements<uint8_t>(w, data, made.width, flip_of(dtype), base);
    if (!source.dequantised()) return blob;
    SPRUN_ASSIGN(const FloatWeightReader reader, FloatWeightReader::of(source));
    float* scale = reinterpret_cast<float*>(base + codes);
    for (int64_t n = 0; n < w.n; ++n) scale[n] = reader.scale(n, 0);
    return blob;
  }));
  if (source.dequantised()) made.scale = reinterpret_cast<const float*>(static_cast<const char*>(made.blob.data.get()) + codes);
  return made;
}

Result<InputGather> InputGather::prepare(PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights) {
  InputGather made;
  std::vector<kernels::Rejection> why_not;
  made.info_ = &best(weights[0].weight.tensor->dtype(), &why_not);
  append_rejections(ctx.rejected, why_not);
  made.type_ = type_of(weights[0].weight.tensor->dtype());
  made.forced_ = ctx.sparse() == SparseMode::kForce;
  made.m_ = m;
  made.k_ = weights[0].weight.k;
  made.workers_ = ctx.max_threads();
  for (const FloatWeight& weight : weights) {
    SPRUN_ASSIGN(Weight packed, made.pack(ctx.packed(), weight));
    made.panels_.add(kernels::sparse_input_panels(packed.n, packed.width));
    made.acc_floats_ = std::max(made.acc_floats_, m * packed.width);
    made.weights_.push_back(std::move(packed));
  }
  ctx.kernel = std::string(made.info_->name);
  ctx.scratch_bytes = made.memory(nullptr).total;
  return made;
}

int64_t InputGather::list(const float* x, void* scratch, DensityCounter& counter) const {
  // Every eighth input says whether a list pays, so that layers with few zeros lose next to nothing.
  constexpr int64_t kSampled = 8;
  int64_t used = 0, set = 0, seen = 0;
  for (int64_t i = 0; i < k_ && !forced_; i += kSampled, ++seen) {
    const int64_t before = set;
    for (int64_t r = 0; r < m_; ++r) set += x[r * k_ + i] != 0.0F;
    used += set != before;
  }
  if (static_cast<double>(used) > (limit() + 0.1) * static_cast<double>(seen)) {
    counter.add(set * k_ / seen, m_);
    return k_;
  }
  const Memory at = memory(scratch);
  int64_t active = 0;
  const int64_t listed =
      kernels::list_inputs(x, k_, m_, k_, at.ids, at.values, kernels::listed_capacity(k_), &active);
  counter.add(active, m_);
  return listed;
}

double InputGather::limit() const { return forced_ ? 2.0 : kernels::sparse_input_limit(type_, m_); }

bool InputGather::worth(int64_t listed) const {
  return static_cast<double>(listed) <= limit() * static_cast<double>(k_);
}

InputGather::Memory InputGather::memory(void* scratch) const {
  char* base = static_cast<char*>(scratch);
  const int64_t listed = kernels::listed_capacity(k_);
  const int64_t values = align_scratch(listed * 4), acc = values + align_scratch(m_ * listed * 4);
  const auto at = [base](int64_t offset) { return base == nullptr ? nullptr : base + offset; };
  return {reinterpret_cast<int32_t*>(at(0)), reinterpret_cast<float*>(at(values)), reinterpret_cast<float*>(at(acc)),
          acc + acc_floats_ * 4 * workers_};
}

}  // namespace sprun::graph
