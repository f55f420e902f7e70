#include "graph/ops/narrow_product.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/gemm/pack.h"

namespace sprun::graph {
namespace {

using kernels::align_scratch;
using kernels::num_panels;

std::span<const kernels::KernelInfo<kernels::GemmNarrowKernel>> kernels_of(DType weights) {
  if (weights == DType::kF16) return kernels::gemm_f32f16_kernels();
  return weights == DType::kBf16 ? kernels::gemm_f32bf16_kernels() : kernels::gemm_f32s8_kernels();
}

// What follows the codes in a blob, from a multiple of 64 bytes: scales [outputs], or scales and shifts of blocks.
struct Layout {
  int64_t outputs = 0;  // with padding
  int64_t block_size = 0, blocks = 0;
  int64_t params_at = 0, total = 0;

  int64_t floats() const { return blocks > 0 ? 2 * blocks * outputs : outputs; }
};

bool is_byte(const FloatWeight& w) { return w.element_bytes() == 1; }

// Kernels see u8 codes less 128. Zero points that are not 0 then, and scales of blocks, are applied to each weight.
int32_t shift_of(const FloatWeight& w) { return w.weight.tensor->dtype() == DType::kU8 ? 128 : 0; }

bool needs_blocks(const FloatWeight& w, const FloatWeightReader& reader) {
  if (w.block_size > 0) return true;
  for (int64_t n = 0; n < w.weight.n; ++n) {
    if (reader.zero(n, 0) != shift_of(w)) return true;
  }
  return false;
}

Layout layout_of(const FloatWeight& w, const FloatWeightReader& reader, int64_t nr) {
  Layout layout;
  layout.outputs = num_panels(w.weight.n, nr) * nr;
  layout.params_at = align_scratch(layout.outputs * w.weight.k * w.element_bytes());
  if (is_byte(w) && needs_blocks(w, reader)) {
    layout.block_size = w.block_size > 0 ? w.block_size : w.weight.k;
    layout.blocks = (w.weight.k + layout.block_size - 1) / layout.block_size;
  }
  layout.total = layout.params_at + (is_byte(w) ? align_scratch(layout.floats() * 4) : 0);
  return layout;
}

void pack_codes(const FloatWeight& w, int64_t nr, void* out) {
  const WeightConstant& c = w.weight;
  if (is_byte(w)) {
    kernels::pack_narrow({c.tensor->as<uint8_t>(), c.n, c.k, c.stride_n, c.stride_k}, nr, 0, num_panels(c.n, nr),
                         static_cast<uint8_t>(shift_of(w)), static_cast<uint8_t*>(out));
  } else {
    kernels::pack_narrow({c.tensor->as<uint16_t>(), c.n, c.k, c.stride_n, c.stride_k}, nr, 0, num_panels(c.n, nr),
                         uint16_t{0}, static_cast<uint16_t*>(out));
  }
}

void pack_params(const FloatWeight& w, const FloatWeightReader& reader, const Layout& layout, int64_t nr, float* out) {
  std::memset(out, 0, static_cast<size_t>(layout.floats() * 4));
  for (int64_t n = 0; n < w.weight.n; ++n) {
    if (layout.blocks == 0) out[n] = reader.scale(n, 0);
    for (int64_t b = 0; b < layout.blocks; ++b) {
      float* params = out + (n / nr * layout.blocks + b) * 2 * nr + n % nr;
      const float scale = reader.scale(n, b * layout.block_size);
      params[0] = scale;
      params[nr] = -static_cast<float>(reader.zero(n, b * layout.block_size) - shift_of(w)) * scale;
    }
  }
}

}  // namespace

bool NarrowProduct::available(DType weights) {
  return !kernels::select(kernels_of(weights), kernels::available_isas()).name.ends_with("_ref");
}

Result<NarrowProduct::Weight> NarrowProduct::pack(PackedCache& cache, const FloatWeight& source) const {
  const int64_t nr = info_->kernel->nr;
  FloatWeightReader reader;
  if (source.dequantised()) {
    SPRUN_ASSIGN(reader, FloatWeightReader::of(source));
  }
  const Layout layout = layout_of(source, reader, nr);
  Weight made;
  SPRUN_ASSIGN(made.blob, cache.get(fmt::format("narrow:{}:{}", nr, source.key()), [&]() -> Result<PackedBlob> {
    // 16-bit constants of a file may lie at odd addresses.
    FloatWeight aligned = source;
    Tensor copy;
    if (!is_byte(source) && !source.weight.tensor->is_aligned()) {
      SPRUN_ASSIGN(copy, Tensor::copy_of(source.weight.tensor->view()));
      aligned.weight.tensor = &copy;
    }
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(layout.total));
    char* base = static_cast<char*>(blob.data.get());
    pack_codes(aligned, nr, base);
    if (is_byte(source)) pack_params(source, reader, layout, nr, reinterpret_cast<float*>(base + layout.params_at));
    return blob;
  }));
  const auto* params = reinterpret_cast<const float*>(static_cast<const char*>(made.blob.data.get()) + layout.params_at);
  made.n = source.weight.n;
  made.block_size = layout.block_size;
  if (is_byte(source)) (layout.blocks > 0 ? made.block_params : made.scale) = params;
  return made;
}

Result<NarrowProduct> NarrowProduct::prepare(PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights) {
  NarrowProduct product;
  const DType dtype = weights[0].weight.tensor->dtype();
  std::vector<kernels::Rejection> why_not;
  product.info_ = &kernels::select(kernels_of(dtype), kernels::available_isas(), &why_not);
  append_rejections(ctx.rejected, why_not);
  product.m_ = m;
  product.k_ = weights[0].weight.k;
  const int64_t nr = product.info_->kernel->nr;
  for (const FloatWeight& weight : weights) {
    SPRUN_ASSIGN(Weight packed, product.pack(ctx.packed(), weight));
    product.weights_.push_back(std::move(packed));
    product.panels_.add(num_panels(weight.weight.n, nr));
  }
  product.grid_ = kernels::make_grid(m, product.panels_.total() * nr, product.k_, nr,
                                     static_cast<int>(weights[0].element_bytes()), ctx.max_threads());
  ctx.kernel = std::string(product.info_->name);
  ctx.detail = fmt::format("weights stay {} and become f32 in registers{}", dtype_name(dtype),
                           weights[0].block_size > 0 ? fmt::format(", scales of blocks of {}", weights[0].block_size) : "");
  ctx.scratch_bytes = kernels::gemm_scratch_bytes(*product.info_->kernel, ctx.max_threads());
  return product;
}

}  // namespace sprun::graph
