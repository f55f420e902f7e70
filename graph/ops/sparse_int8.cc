#include "graph/ops/sparse_int8.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <new>

#include "graph/ops/float_elements.h"
#include "kernels/bsr_spmm/cost.h"
#include "kernels/gemm/quantize_rows.h"

namespace sprun::graph {
namespace {

using kernels::BsrLayout;
using kernels::BsrSize;
using kernels::BsrU8S8Kernel;
using kernels::KernelInfo;
using kernels::NonZeros;

constexpr kernels::BlockShape kSparsePatterns[] = {kernels::kBlock16x4, kernels::kBlock4x4, kernels::kBlock4x1,
                                                   kernels::kBlock1x4};
// A sparse kernel must promise at least this part less: below it, the estimate is noise.
constexpr double kWorthIt = 0.9;

// What all the weights of a layer are together.
struct Layer {
  int64_t m = 0, k = 0;
  std::vector<int64_t> n;
  std::vector<WeightZeros> zeros;
};

std::string why_not_at_all(const Layer& layer) {
  for (const WeightZeros& zeros : layer.zeros) {
    if (zeros.stored_min < -128 || zeros.stored_max > 127) return "weight minus zero point does not fit int8";
  }
  return {};
}

double dense_cost(const Layer& layer, kernels::IsaSet isas) {
  double cost = 0;
  for (int64_t n : layer.n) cost += kernels::dense_u8s8_cost({layer.m, n, layer.k}, isas);
  return cost;
}

double sparse_cost(const Layer& layer, const KernelInfo<BsrU8S8Kernel>& info) {
  double cost = 0;
  for (size_t i = 0; i < layer.n.size(); ++i) {
    const double density = layer.zeros[i].density_of(info.kernel->layout.block);
    cost += kernels::bsr_u8s8_cost(info, {layer.m, layer.n[i], layer.k}, density);
  }
  return cost;
}

double mean_density(const Layer& layer, kernels::BlockShape block) {
  double stored = 0, all = 0;
  for (size_t i = 0; i < layer.n.size(); ++i) {
    stored += layer.zeros[i].density_of(block) * static_cast<double>(layer.n[i]);
    all += static_cast<double>(layer.n[i]);
  }
  return stored / all;
}

// What the packed form is made of, in front of it in its blob.
struct Header {
  BsrSize size;
  int64_t sums_at = 0, scale_at = 0, total = 0;
};
constexpr int64_t kHeaderBytes = (static_cast<int64_t>(sizeof(Header)) + 63) / 64 * 64;

Header header_of(const BsrLayout& layout, const BsrSize& size) {
  const int64_t outputs = size.units * layout.unit_rows;
  Header h;
  h.size = size;
  h.sums_at = kHeaderBytes + kernels::align_scratch(size.bytes(1));
  h.scale_at = h.sums_at + kernels::align_scratch(outputs * 4);
  h.total = h.scale_at + kernels::align_scratch(outputs * 4);
  return h;
}

// Weight values by (output, input) as int8 with the zero point taken out.
class Codes {
 public:
  static Result<Codes> of(const Int8Constant& weight, float* scale) {
    Codes codes(weight.source);
    if (!weight.quantise()) return codes;
    const WeightConstant& w = weight.source.weight;
    SPRUN_ASSIGN(codes.quantised_, allocate_blob(w.n * w.k));
    SPRUN_ASSIGN(const FloatElements data, FloatElements::of(*w.tensor));
    const kernels::WeightSource<float> source = {data.data(), w.n, w.k, w.stride_n, w.stride_k};
    kernels::quantize_weights_s8(source, 0, w.n, static_cast<int8_t*>(codes.quantised_.data.get()), scale);
    for (int64_t i = 0; i < w.n; ++i) scale[i] *= weight.alpha;
    return codes;
  }
  int8_t at(int64_t n, int64_t k) const {
    const WeightConstant& w = source_.weight;
    if (quantised_.data) return static_cast<const int8_t*>(quantised_.data.get())[n * w.k + k];
    const int64_t i = n * w.stride_n + k * w.stride_k;
    const auto& zeros = source_.zero_point;
    const int32_t zero = zeros.empty() ? 0 : zeros[zeros.size() == 1 ? 0 : static_cast<size_t>(n)];
    const int32_t code = w.tensor->dtype() == DType::kU8 ? int32_t{w.tensor->as<uint8_t>()[i]}
                                                          : int32_t{w.tensor->as<int8_t>()[i]};
    return static_cast<int8_t>(code - zero);
  }

 private:
  explicit Codes(const SparseSource& source) : source_(source) {}
  SparseSource source_;
  PackedBlob quantised_;
};

Result<PackedBlob> pack_blob(const BsrLayout& layout, const Int8Constant& weight) {
  const NonZeros bits = non_zeros_of(weight.source);
  const Header header = header_of(layout, kernels::bsr_size(layout, bits));
  SPRUN_ASSIGN(PackedBlob blob, allocate_blob(header.total));
  char* base = static_cast<char*>(blob.data.get());
  std::memset(base, 0, static_cast<size_t>(header.total));
  new (base) Header(header);
  auto* values = reinterpret_cast<int8_t*>(base + kHeaderBytes + header.size.values_at());
  auto* sums = reinterpret_cast<int32_t*>(base + header.sums_at);
  SPRUN_ASSIGN(const Codes codes, Codes::of(weight, reinterpret_cast<float*>(base + header.scale_at)));
  kernels::bsr_pack(layout, bits, header.size, base + kHeaderBytes, [&](int64_t at, int64_t n, int64_t k) {
    values[at] = codes.at(n, k);
    sums[n] += values[at];
  });
  return blob;
}

std::string pack_key(const BsrLayout& layout, const Int8Constant& weight) {
  const WeightConstant& w = weight.source.weight;
  // Only what the packer reads: kernels that differ in how X lies share the weights.
  std::string key = fmt::format("bsr_s8:{}x{}:{}:{}:{}:{}:{}", layout.block.rows, layout.block.cols, layout.unit_rows,
                                layout.group_blocks, layout.k_block, layout.tile_blocks, w.tensor->id());
  for (int64_t part : {w.n, w.k, w.stride_n, w.stride_k}) key += ":" + std::to_string(part);
  for (int32_t zero : weight.source.zero_point) key += "," + std::to_string(zero);
  return key + ":" + std::to_string(std::bit_cast<uint32_t>(weight.alpha));
}

struct Choice {
  const KernelInfo<BsrU8S8Kernel>* info = nullptr;
  double cost = 0;
};

// The cheapest kernel of all patterns; why_not gets the others with their estimates.
Choice cheapest(const Layer& layer, double dense, std::vector<kernels::Rejection>& why_not) {
  const kernels::IsaSet isas = kernels::available_isas();
  Choice best;
  std::vector<Choice> all;
  for (const kernels::BlockShape block : kSparsePatterns) {
    const auto* info = kernels::select_bsr(kernels::bsr_u8s8_kernels(), block, layer.m, isas);
    if (info == nullptr || !kernels::bsr_refusal(info->kernel->layout, layer.n[0], layer.k).empty()) continue;
    all.push_back({info, sparse_cost(layer, *info)});
    if (best.info == nullptr || all.back().cost < best.cost) best = all.back();
  }
  for (const Choice& other : all) {
    if (other.info == best.info) continue;
    why_not.push_back({std::string(other.info->name),
                       fmt::format("density {:.2f}, estimated {:.2f}x of dense",
                                   mean_density(layer, other.info->kernel->layout.block), other.cost / dense)});
  }
  return best;
}

}  // namespace

Result<std::optional<SparseInt8>> SparseInt8::choose(PrepareContext& ctx, int64_t m,
                                                     std::span<const Int8Constant> weights) {
  const auto refuse = [&](std::string kernel, std::string reason) {
    ctx.rejected.push_back({std::move(kernel), std::move(reason)});
    return std::optional<SparseInt8>();
  };
  if (ctx.sparse() == SparseMode::kOff) return refuse("bsr_spmm", "sparse kernels are switched off");
  Layer layer;
  layer.m = m;
  layer.k = weights[0].source.weight.k;
  for (const Int8Constant& weight : weights) {
    layer.n.push_back(weight.source.weight.n);
    SPRUN_ASSIGN(WeightZeros zeros, weight_zeros(ctx.packed(), weight.source));
    layer.zeros.push_back(zeros);
  }
  const bool forced = ctx.sparse() == SparseMode::kForce;
  const double density = mean_density(layer, kernels::kBlock1x1);
  if (!forced && density > kWorthIt) return std::optional<SparseInt8>();  // an ordinary dense layer: nothing to explain
  if (std::string reason = why_not_at_all(layer); !reason.empty()) return refuse("bsr_spmm", std::move(reason));
  const double dense = dense_cost(layer, kernels::available_isas());
  std::vector<kernels::Rejection> why_not;
  const Choice best = cheapest(layer, dense, why_not);
  if (best.info == nullptr) return refuse("bsr_spmm", "no kernel takes K " + std::to_string(layer.k));
  const double stored = mean_density(layer, best.info->kernel->layout.block);
  const std::string estimate = fmt::format("density {:.2f} (unstructured {:.2f}), estimated {:.2f}x of dense", stored,
                                           density, best.cost / dense);
  append_rejections(ctx.rejected, why_not);
  if (!forced && best.cost > kWorthIt * dense) return refuse(std::string(best.info->name), estimate);
  SparseInt8 sparse;
  sparse.info_ = best.info;
  sparse.m_ = m;
  sparse.k_ = layer.k;
  int64_t bytes = 0, dense_bytes = 0;
  for (const Int8Constant& weight : weights) {
    SPRUN_TRY(sparse.pack(ctx.packed(), weight));
    bytes += sparse.weights_.back().bytes;
    dense_bytes += weight.source.weight.n * weight.source.weight.k;
  }
  for (size_t i = 0; i < layer.n.size(); ++i) {
    sparse.stored_ += layer.zeros[i].density_of(best.info->kernel->layout.block) * static_cast<double>(layer.n[i]) *
                      static_cast<double>(layer.k);
  }
  sparse.split(ctx.max_threads());
  ctx.detail = fmt::format("{}, weights {} bytes, {:.3f}x of dense int8", estimate, bytes,
                           static_cast<double>(bytes) / static_cast<double>(dense_bytes));
  return std::optional<SparseInt8>(std::move(sparse));
}

Status SparseInt8::pack(PackedCache& cache, const Int8Constant& weight) {
  const BsrLayout& layout = info_->kernel->layout;
  Weight made;
  SPRUN_ASSIGN(made.blob, cache.get(pack_key(layout, weight), [&] { return pack_blob(layout, weight); }));
  const char* base = static_cast<const char*>(made.blob.data.get());
  const Header& header = *reinterpret_cast<const Header*>(base);
  made.packed = kernels::bsr_view(header.size, base + kHeaderBytes);
  made.n = weight.source.weight.n;
  made.bytes = header.size.bytes(1);
  made.sums = reinterpret_cast<const int32_t*>(base + header.sums_at);
  if (weight.quantise()) made.scale = reinterpret_cast<const float*>(base + header.scale_at);
  weights_.push_back(std::move(made));
  return {};
}

void SparseInt8::split(int workers) {
  for (const Weight& weight : weights_) {
    parts_.push_back(kernels::bsr_parts(weight.packed, num_slabs(info_->kernel->layout, m_), workers));
  }
}

int64_t SparseInt8::scratch_bytes(int workers) const {
  const BsrU8S8Kernel& kernel = *info_->kernel;
  const int64_t slabs =
      kernel.pack_x == nullptr ? 0 : num_slabs(kernel.layout, m_) * x_slab_elements(kernel.layout, k_);
  return kernels::align_scratch(slabs) + kernels::align_scratch(kernel.scratch_bytes) * workers;
}

}  // namespace sprun::graph
