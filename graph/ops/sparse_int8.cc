#include "graph/ops/sparse_int8.h"

#include <bit>
#include <cstring>
#include <new>

#include "graph/ops/columns.h"
#include "graph/ops/float_elements.h"
#include "kernels/bsr_gemv/cost.h"
#include "kernels/bsr_gemv/pack.h"

namespace sprun::graph {
namespace {

using kernels::BsrLayout;
using kernels::GemvFormat;
using kernels::NonZeros;
using kernels::WeightSource;

// Weight values by (output, input) as int8 with the zero point taken out.
class Codes {
 public:
  // scale [N] is written for float weights only.
  static Result<Codes> of(const Int8Constant& weight, float* scale) {
    Codes codes(weight.source);
    if (!weight.quantise()) return codes;
    const WeightConstant& w = weight.source.weight;
    SPRUN_ASSIGN(codes.quantised_, allocate_blob(w.n * w.k));
    SPRUN_ASSIGN(const FloatElements data, FloatElements::of(*w.tensor));
    const WeightSource<float> source = {data.data(), w.n, w.k, w.stride_n, w.stride_k};
    kernels::quantize_weights_s8(source, 0, w.n, static_cast<int8_t*>(codes.quantised_.data.get()), scale);
    for (int64_t i = 0; i < w.n; ++i) scale[i] *= weight.alpha;
    return codes;
  }
  int8_t at(int64_t n, int64_t k) const {
    const WeightConstant& w = source_.weight;
    if (quantised_.data) return quantised()[n * w.k + k];
    const int64_t i = n * w.stride_n + k * w.stride_k;
    const auto& zeros = source_.zero_point;
    const int32_t zero = zeros.empty() ? 0 : zeros[zeros.size() == 1 ? 0 : static_cast<size_t>(n)];
    const int32_t code = w.tensor->dtype() == DType::kU8 ? int32_t{w.tensor->as<uint8_t>()[i]}
                                                          : int32_t{w.tensor->as<int8_t>()[i]};
    return static_cast<int8_t>(code - zero);
  }
  const int8_t* quantised() const { return static_cast<const int8_t*>(quantised_.data.get()); }

 private:
  explicit Codes(const SparseSource& source) : source_(source) {}
  SparseSource source_;
  PackedBlob quantised_;
};

Result<PackedBlob> pack_bsr(const BsrLayout& layout, const Int8Constant& weight) {
  const NonZeros bits = non_zeros_of(weight.source);
  const BsrHeader header = BsrHeader::of(layout, kernels::bsr_size(layout, bits), 1);
  SPRUN_ASSIGN(PackedBlob blob, allocate_blob(header.total));
  char* base = static_cast<char*>(blob.data.get());
  std::memset(base, 0, static_cast<size_t>(header.total));
  auto* own_header = new (base) BsrHeader(header);
  auto* values = reinterpret_cast<int8_t*>(base + BsrHeader::kBytes + header.size.values_at());
  auto* sums = reinterpret_cast<int32_t*>(base + header.sums_at);
  SPRUN_ASSIGN(const Codes codes, Codes::of(weight, reinterpret_cast<float*>(base + header.scale_at)));
  kernels::bsr_pack(layout, bits, header.size, base + BsrHeader::kBytes, [&](int64_t at, int64_t n, int64_t k) {
    values[at] = codes.at(n, k);
    sums[n] += values[at];
  });
  own_header->pairs_fit = kernels::bsr_pairs_fit(values, header.size.groups * header.size.group_values);
  return blob;
}

std::string key_suffix(const Int8Constant& weight) {
  return ":" + std::to_string(std::bit_cast<uint32_t>(weight.alpha));
}

// The compressed form at the start of a blob, scales of quantised weights at the end.
Result<PackedBlob> pack_compressed(const Int8Constant& weight, GemvFormat format) {
  const WeightConstant& w = weight.source.weight;
  const int64_t scale_bytes = kernels::align_scratch(w.n * 4);
  SPRUN_ASSIGN(const PackedBlob scale, allocate_blob(scale_bytes));
  SPRUN_ASSIGN(const Codes codes, Codes::of(weight, static_cast<float*>(scale.data.get())));
  const int32_t* zero = weight.source.zero_point.empty() ? nullptr : weight.source.zero_point.data();
  const int64_t stride = weight.source.zero_point.size() > 1 ? 1 : 0;
  const auto finish = [&](const kernels::GemvCounts& counts, const auto& pack) -> Result<PackedBlob> {
    if (const char* why = kernels::gemv_refusal(counts, format, 1)) return Status(Code::kInternal, why);
    const int64_t bytes = kernels::align_scratch(kernels::gemv_packed_bytes(counts, format, 1));
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(bytes + scale_bytes));
    pack(counts, blob.data.get());
    std::memcpy(static_cast<char*>(blob.data.get()) + bytes, scale.data.get(), static_cast<size_t>(w.n * 4));
    return blob;
  };
  if (w.tensor->dtype() == DType::kU8) {
    const WeightSource<uint8_t> source = {w.tensor->as<uint8_t>(), w.n, w.k, w.stride_n, w.stride_k};
    return finish(kernels::count_gemv_u8(source, zero, stride), [&](const kernels::GemvCounts& counts, void* blob) {
      kernels::pack_gemv_u8(source, zero, stride, counts, format, blob);
    });
  }
  WeightSource<int8_t> source = {codes.quantised(), w.n, w.k, w.k, 1};
  if (!weight.quantise()) source = {w.tensor->as<int8_t>(), w.n, w.k, w.stride_n, w.stride_k};
  return finish(kernels::count_gemv_s8(source, zero, stride), [&](const kernels::GemvCounts& counts, void* blob) {
    kernels::pack_gemv_s8(source, zero, stride, counts, format, blob);
  });
}

struct FormatFacts {
  GemvFormat format;
  std::string_view name;
  kernels::BlockShape block;  // whose density says how many weights are stored
};
constexpr FormatFacts kFormats[] = {{GemvFormat::kQuads, "1x4", kernels::kBlock1x4},
                                    {GemvFormat::kBitmap, "bitmap", kernels::kBlock1x1},
                                    {GemvFormat::kOneOfFour, "1:4", kernels::kBlock1x1}};

}  // namespace

struct SparseInt8::Gemv {
  const kernels::KernelInfo<kernels::BsrGemvU8S8Kernel>* info = nullptr;
  FormatFacts facts{};
  double cost = 0;
  std::string estimate;
};

std::optional<SparseInt8::Gemv> SparseInt8::cheapest_gemv(const SparseLayer& layer, std::vector<Rejection>& why_not) {
  constexpr int64_t kMostRows = 16;
  if (layer.m > kMostRows) return std::nullopt;
  const auto& info = kernels::select(kernels::bsr_gemv_u8s8_kernels(), kernels::available_isas());
  const double dense = layer.dense_cost();
  const bool one_of_four = std::all_of(layer.zeros.begin(), layer.zeros.end(),
                                       [](const WeightZeros& z) { return z.n_of_m == 1 && z.of_m == 4; });
  std::optional<Gemv> best;
  std::vector<Gemv> others;
  for (const FormatFacts& facts : kFormats) {
    if (facts.format == GemvFormat::kOneOfFour && !one_of_four) continue;
    Gemv gemv = {&info, facts, 0, {}};
    for (size_t i = 0; i < layer.n.size(); ++i) {
      const double stored = facts.format == GemvFormat::kOneOfFour ? 0.25 : layer.zeros[i].density_of(facts.block);
      gemv.cost += kernels::gemv_u8s8_cost(info.isa, facts.format, layer.m, layer.n[i], layer.k, stored);
    }
    gemv.estimate = fmt::format("{}, density {:.2f}, estimated {:.2f}x of dense", facts.name,
                                layer.mean_density(facts.block), gemv.cost / dense);
    others.push_back(gemv);
    if (!best || gemv.cost < best->cost) best = std::move(gemv);
  }
  for (const Gemv& other : others) {
    if (other.facts.format != best->facts.format) why_not.push_back({std::string(info.name), other.estimate});
  }
  return best;
}

// The cheapest form of the weights.
struct SparseInt8::Form {
  SparseLayer layer;
  const kernels::KernelInfo<kernels::BsrU8S8Kernel>* blocks = nullptr;  // one of the two
  std::optional<Gemv> gemv;
  std::string estimate;
};

Result<std::optional<SparseInt8::Form>> SparseInt8::choose_form(PackedCache& cache, SparseMode mode, int64_t m,
                                                                std::span<const Int8Constant> weights,
                                                                std::vector<Rejection>& rejected) {
  std::optional<Form> none;
  const auto refuse = [&](std::string_view kernel, std::string reason) {
    rejected.push_back({std::string(kernel), std::move(reason)});
    return none;
  };
  if (auto why = no_sparse(mode, nullptr)) return refuse("bsr_spmm", *why);
  std::vector<SparseSource> sources;
  for (const Int8Constant& weight : weights) sources.push_back(weight.source);
  Form form;
  SPRUN_ASSIGN(form.layer, SparseLayer::of(cache, kernels::ProductType::kU8S8, m, sources));
  if (auto why = no_sparse(mode, &form.layer)) return why->empty() ? none : refuse("bsr_spmm", *why);
  std::vector<Rejection> why_not;
  auto blocks = cheapest_sparse(form.layer, kernels::bsr_u8s8_kernels(), why_not);
  form.gemv = cheapest_gemv(form.layer, why_not);
  const bool use_gemv = form.gemv && (blocks.info == nullptr || form.gemv->cost < blocks.cost);
  if (!use_gemv && blocks.info == nullptr) return refuse("bsr_spmm", "no kernel takes K " + std::to_string(form.layer.k));
  if (form.gemv && !use_gemv) why_not.push_back({std::string(form.gemv->info->name), form.gemv->estimate});
  if (use_gemv && blocks.info != nullptr) why_not.push_back({std::string(blocks.info->name), blocks.estimate});
  rejected.insert(rejected.end(), why_not.begin(), why_not.end());
  form.estimate = use_gemv ? form.gemv->estimate : blocks.estimate;
  if (mode == SparseMode::kAuto && (use_gemv ? form.gemv->cost : blocks.cost) > kWorthIt * form.layer.dense_cost()) {
    return refuse(use_gemv ? form.gemv->info->name : blocks.info->name, form.estimate);
  }
  if (use_gemv) return std::optional<Form>(std::move(form));
  form.blocks = blocks.info;
  form.gemv.reset();
  return std::optional<Form>(std::move(form));
}

Result<const kernels::BsrU8S8Kernel*> SparseInt8::columns_kernel(PackedCache& cache, SparseMode mode, int64_t m,
                                                                 std::span<const Int8Constant> weights) {
  std::vector<Rejection> unused;
  SPRUN_ASSIGN(const std::optional<Form> form, choose_form(cache, mode, m, weights, unused));
  const bool takes = form && form->blocks != nullptr && form->blocks->kernel->run_columns != nullptr;
  return takes ? form->blocks->kernel : nullptr;
}

Result<std::optional<SparseInt8>> SparseInt8::choose(PrepareContext& ctx, int64_t m,
                                                     std::span<const Int8Constant> weights, bool codes) {
  SPRUN_ASSIGN(const std::optional<Form> form, choose_form(ctx.packed(), ctx.sparse(), m, weights, ctx.rejected));
  if (!form) return std::optional<SparseInt8>();
  SparseInt8 sparse;
  sparse.info_ = form->blocks;
  sparse.gemv_ = form->gemv ? form->gemv->info : nullptr;
  sparse.codes_ = codes;
  sparse.m_ = m;
  sparse.k_ = form->layer.k;
  sparse.stored_ = form->layer.stored(form->gemv ? form->gemv->facts.block : form->blocks->kernel->layout.block);
  double bytes = 0, dense_bytes = 0;
  for (const Int8Constant& weight : weights) {
    SPRUN_TRY(form->gemv ? sparse.pack_gemv(ctx.packed(), weight, form->gemv->facts.format)
                         : sparse.pack_blocks(ctx.packed(), weight));
    bytes += static_cast<double>(sparse.weights_.back().bytes);
    dense_bytes += static_cast<double>(weight.source.weight.n) * static_cast<double>(weight.source.weight.k);
  }
  sparse.split(ctx.max_threads());
  ctx.detail = fmt::format("{}, weights {:.0f} bytes, {:.3f}x of dense int8", form->estimate, bytes, bytes / dense_bytes);
  if (form->blocks != nullptr && form->blocks->kernel->has_bounded_form) ctx.detail += sparse.pairs_detail();
  return std::optional<SparseInt8>(std::move(sparse));
}

Status SparseInt8::pack_blocks(PackedCache& cache, const Int8Constant& weight) {
  const BsrLayout& layout = info_->kernel->layout;
  const std::string key = bsr_key("s8", layout, weight.source) + key_suffix(weight);
  Weight made;
  SPRUN_ASSIGN(made.blob, cache.get(key, [&] { return pack_bsr(layout, weight); }));
  const char* base = static_cast<const char*>(made.blob.data.get());
  const BsrHeader& header = *reinterpret_cast<const BsrHeader*>(base);
  made.packed = kernels::bsr_view(header.size, base + BsrHeader::kBytes);
  made.packed.pairs_fit = header.pairs_fit;
  made.bytes = header.size.bytes(1);
  made.sums = reinterpret_cast<const int32_t*>(base + header.sums_at);
  if (weight.quantise()) made.scale = reinterpret_cast<const float*>(base + header.scale_at);
  weights_.push_back(std::move(made));
  return {};
}

std::string SparseInt8::pairs_detail() const {
  const auto fit = std::count_if(weights_.begin(), weights_.end(), [](auto& w) { return w.packed.pairs_fit; });
  const auto all = static_cast<std::ptrdiff_t>(weights_.size());
  if (fit == all) return ", quick 16-bit sums: no pair of weights can saturate";
  if (fit == 0) return ", 32-bit sums: a pair of weights can leave 16 bits";
  return fmt::format(", quick 16-bit sums for {} of {} weights: a pair of the others can saturate", fit, all);
}

Status SparseInt8::pack_gemv(PackedCache& cache, const Int8Constant& weight, GemvFormat format) {
  const std::string key =
      bsr_key(fmt::format("gemv{}", static_cast<int>(format)), BsrLayout(), weight.source) + key_suffix(weight);
  Weight made;
  SPRUN_ASSIGN(made.blob, cache.get(key, [&] { return pack_compressed(weight, format); }));
  made.gemv = static_cast<const int8_t*>(made.blob.data.get());
  made.bytes = reinterpret_cast<const kernels::GemvBlob*>(made.gemv)->bytes;
  if (weight.quantise()) made.scale = reinterpret_cast<const float*>(made.gemv + kernels::align_scratch(made.bytes));
  weights_.push_back(std::move(made));
  return {};
}

namespace {

// Outputs of a part whose floats stay in cache: with 64 tokens 64 KiB.
constexpr int64_t kSmallPart = 256;

kernels::BsrParts small_parts(const BsrLayout& layout, int64_t units, int64_t slabs) {
  kernels::BsrParts parts;
  parts.slabs = parts.slab_parts = slabs;
  const int64_t step = std::max<int64_t>(1, kSmallPart / layout.unit_rows);
  for (int64_t u = 0; u < units; u += step) parts.unit_begin.push_back(u);
  parts.unit_begin.push_back(units);
  return parts;
}

}  // namespace

void SparseInt8::split(int workers) {
  for (const Weight& weight : weights_) {
    if (info_ != nullptr) {
      const int64_t slabs = num_slabs(info_->kernel->layout, m_);
      parts_.push_back(codes_ ? small_parts(info_->kernel->layout, weight.packed.num_units, slabs)
                              : kernels::bsr_parts(weight.packed, slabs, workers));
    } else {
      const auto& blob = *reinterpret_cast<const kernels::GemvBlob*>(weight.gemv);
      gemv_parts_.push_back(kernels::make_gemv_split(blob, m_, workers));
    }
  }
}

const uint8_t* SparseInt8::pack(ThreadPool& pool, const uint8_t* x, int64_t ldx, void* scratch) const {
  if (info_ == nullptr || info_->kernel->pack_x == nullptr) return nullptr;
  uint8_t* slabs = static_cast<uint8_t*>(scratch);
  kernels::pack_x_slabs(*info_->kernel, x, ldx, m_, k_, slabs,
                        [&pool](int64_t n, int64_t grain, const auto& fn) { pool.parallel_for(n, grain, fn); });
  return slabs;
}

const uint8_t* SparseInt8::quantise(ThreadPool& pool, const float* x, kernels::QuantParams params,
                                    void* scratch) const {
  constexpr int64_t kInputs = 128;  // of a task
  const int64_t tasks = (k_ + kInputs - 1) / kInputs, all = num_slabs(info_->kernel->layout, m_) * tasks;
  uint8_t* slabs = static_cast<uint8_t*>(scratch);
  pool.parallel_for(all, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t task = all - 1 - i;  // the last floats written come first: they are still in a near cache
      const int64_t slab = task / tasks, k = task % tasks * kInputs, at = (slab * k_ + k) * Columns::kRows;
      info_->kernel->quantize_columns(x + at, std::min(kInputs, k_ - k), m_ - slab * Columns::kRows, params.scale,
                                      params.zero_point, slabs + at);
    }
  });
  return slabs;
}

void SparseInt8::run_columns(ThreadPool& pool, const uint8_t* slabs, const kernels::GemmU8S8Args& args,
                             const kernels::BsrColumns& y, void* scratch) const {
  kernels::BsrU8S8Args product = {args, weights_[0].packed, slabs};
  product.gemm.w_sum = weights_[0].sums;
  char* own = static_cast<char*>(scratch) + kernels::align_scratch(slab_bytes());
  const auto range_of = [&](int worker) { return reinterpret_cast<float*>(own + worker_bytes() * (worker + 1)) - 2; };
  for (int w = 0; w < pool.num_threads(); ++w) std::fill_n(range_of(w), 2, 0.0F);
  pool.parallel_for(parts_[0].count(), 1, [&](int64_t begin, int64_t end, int worker) {
    kernels::BsrColumns part = y;
    part.range = range_of(worker);
    for (int64_t p = begin; p < end; ++p) {
      info_->kernel->run_columns(product, part, parts_[0].range(p), own + worker_bytes() * worker);
    }
  });
  if (y.range == nullptr) return;
  std::fill_n(y.range, 2, 0.0F);
  for (int w = 0; w < pool.num_threads(); ++w) {
    y.range[0] = std::min(y.range[0], range_of(w)[0]);
    y.range[1] = std::max(y.range[1], range_of(w)[1]);
  }
}

int64_t SparseInt8::slab_bytes() const {
  if (info_ == nullptr || info_->kernel->pack_x == nullptr) return 0;
  return num_slabs(info_->kernel->layout, m_) * x_slab_elements(info_->kernel->layout, k_);
}

int64_t SparseInt8::scratch_bytes(int workers) const {
  if (info_ == nullptr) return 0;
  return kernels::align_scratch(slab_bytes()) + worker_bytes() * workers;
}

int64_t SparseInt8::worker_bytes() const {
  const BsrLayout& layout = info_->kernel->layout;
  const int64_t outputs = std::max<int64_t>(kSmallPart, layout.unit_rows);
  constexpr int64_t kRangeBytes = 64;  // at the end
  return kernels::align_scratch(info_->kernel->scratch_bytes) +
         (codes_ ? kernels::align_scratch(outputs * layout.slab_tokens * 4) : 0) + kRangeBytes;
}

}  // namespace sprun::graph
