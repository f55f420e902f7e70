#include "graph/ops/sparse_ffn_codes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/ops/code_matrix.h"
#include "graph/ops/sparse_ffn_gather.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {
namespace {

using kernels::align_scratch;
using kernels::SparseInputWeights;
using Form = FfnLayer::Form;

bool has_codes(const FfnLayer& layer) { return layer.form == Form::kDequant || layer.form == Form::kNBits; }

int64_t bits_of(const FfnLayer& layer) { return layer.form == Form::kNBits ? layer.bits : 8; }

// Sparse-input kernels have 4 and 8 bits; 2-bit codes become 4-bit codes of a zero point 6 higher.
SparseInputWeights down_type(const FfnLayer& layer) {
  return bits_of(layer) == 8 ? SparseInputWeights::kS8 : SparseInputWeights::kS4;
}

const kernels::KernelInfo<kernels::SparseInputKernel>& best_down(SparseInputWeights type,
                                                                 std::vector<kernels::Rejection>* why_not = nullptr) {
  return kernels::select(kernels::sparse_input_kernels(type), kernels::available_isas(), why_not);
}

// Part of the neurons that may be active. Zen 5, one thread, whole models out of cache (bench/README.md), gather against
// dense. One row: 4 bits 1.78 times the speed at 5 %, 1.58 at 10 %, 0.91 at 35 %; 8-bit weights behind DequantizeLinear 1.74 at
// 10 %, 1.23 at 43 %, on 4 KiB pages less (kernels/sparse_input/sparse_input.h). Several rows: 4 bits 1.6 at 10 % (2 rows), 1.75
// at 19 % (4), 1.46 at 34 % (8), 0.8 at 58 % (2); 8 bits 1.77, 1.37 and 1.12. The dense product of MatMulNBits decodes weights
// for every two rows, so that many rows pay longer.
double most_active(const FfnProblem& p) {
  const bool nbits = p.down.form == Form::kNBits, narrow = bits_of(p.down) < 8;
  if (p.m > 4) return nbits ? 0.45 : 0.35;
  if (narrow) return p.m == 1 ? 0.2 : 0.28;
  return 0.35;
}

std::string key_of(const PrepareContext& ctx, const char* what, const FfnLayer& layer) {
  std::string key = fmt::format("{}:{}", what, layer.block_size);
  for (int input : {layer.weight(), layer.scale(), layer.zero()}) {
    key += fmt::format(":{}", ctx.has_input(input) ? ctx.constant(input).id() : 0);
  }
  return key;
}

bool all_constant(const PrepareContext& ctx, const FfnLayer& layer) {
  for (int input : {layer.weight(), layer.scale(), layer.zero(), layer.bias()}) {
    if (ctx.has_input(input) && ctx.constant(input).empty()) return false;
  }
  return true;
}

bool float32_bias(const PrepareContext& ctx, const FfnLayer& layer) {
  return !ctx.has_input(layer.bias()) || ctx.input(layer.bias()).dtype == DType::kF32;
}

template <class T>
T* carve(char* base, int64_t* at, int64_t count) {
  T* p = base == nullptr ? nullptr : reinterpret_cast<T*>(base + *at);
  *at += align_scratch(count * static_cast<int64_t>(sizeof(T)));
  return p;
}

}  // namespace

bool FfnCodeRows::fits(const FfnProblem& p) {
  return has_codes(p.down) && !p.masked && (!p.gated || p.fused_up || has_codes(p.up));
}

std::string FfnCodeRows::reason_against(const PrepareContext& ctx, const FfnProblem& p) {
  constexpr int64_t kMinBytes = 512 * 1024;  // smaller weights stay in a cache
  if (ctx.sparse() == SparseMode::kOff) return "sparse kernels are switched off";
  if (ctx.input(FfnInput::kXGate).dtype != DType::kF32) return "X is no float32";
  const bool up = p.gated && !p.fused_up;
  if (!all_constant(ctx, p.down) || (up && !all_constant(ctx, p.up))) return "a weight is not constant";
  if (!float32_bias(ctx, p.down) || (up && !float32_bias(ctx, p.up))) return "a bias is no float32";
  if (up && p.up.form == Form::kDequant && p.up.block_size % 16 != 0) return "blocks that are no multiple of 16 inputs";
  if (p.m > kernels::kSparseInputRows) return fmt::format("{} rows: the dense product answers them for the same bytes", p.m);
  if (ctx.sparse() == SparseMode::kForce) return "";
  if (p.m > 1) {
    const double density = expected_density(p.select, p.d_ff), limit = most_active(p);
    if (density < 0) return fmt::format("{} rows: how many neurons are active for some of them is not known", p.m);
    const double active = 1 - std::pow(1 - density, static_cast<double>(p.m));
    if (active > limit) {
      return fmt::format("{:.0f} % of the neurons are expected to be active for some of {} rows, over {:.0f} %", 100 * active,
                         p.m, 100 * limit);
    }
  }
  const int64_t bits = bits_of(p.down) * p.d_out + (up ? bits_of(p.up) * p.up.k : 0);
  if (p.d_ff * bits / 8 < kMinBytes) return "small weights, which stay in a cache";
  return best_down(down_type(p.down)).name.ends_with("_ref") ? "no vector kernel on this CPU" : "";
}

Result<FfnCodeRows> FfnCodeRows::prepare(PrepareContext& ctx, const FfnProblem& problem) {
  FfnCodeRows made;
  made.p_ = &problem;
  made.workers_ = ctx.max_threads();
  made.forced_ = ctx.sparse() == SparseMode::kForce;
  if (made.gathers_up()) SPRUN_TRY(made.prepare_up(ctx));
  SPRUN_TRY(made.prepare_down(ctx));
  return made;
}

// MatMulNBits has rows of neurons already; 8-bit codes become such rows, each one block unless they have blocks.
Status FfnCodeRows::prepare_up(PrepareContext& ctx) {
  const FfnLayer& layer = p_->up;
  std::vector<kernels::Rejection> why_not;
  up_kernel_ = &kernels::select(kernels::nbits_kernels(), kernels::available_isas(), &why_not);
  append_rejections(ctx.rejected, why_not);
  SPRUN_ASSIGN(const CodeMatrix m, CodeMatrix::of(ctx, layer));
  const bool raw = layer.form == Form::kNBits;
  const int64_t block = m.blocks > 1 || raw ? m.block_size : align_scratch(m.k);
  up_ = {.n = m.n, .k = m.k, .block_size = block, .blocks = m.blocks, .bits = m.bits};
  up_row_bytes_ = up_.row_bytes() + m.blocks * (m.centred() ? 4 : 5);
  x_stride_ = up_kernel_->kernel->arranged_size(up_);
  const int64_t params = m.n * m.blocks, codes = raw ? 0 : align_scratch(m.n * up_.row_bytes());
  const bool zeros = !m.centred() && m.whole_zeros();
  SPRUN_ASSIGN(up_blob_, ctx.packed().get(key_of(ctx, "ffn_up", layer), [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(codes + align_scratch(params * 4) + align_scratch(params)));
    auto* base = static_cast<uint8_t*>(blob.data.get());
    std::memset(base, 0, static_cast<size_t>(codes));
    for (int64_t n = 0; n < m.n && !raw; ++n) {
      for (int64_t k = 0; k < m.k; ++k) base[n * up_.row_bytes() + k] = static_cast<uint8_t>(m.code(n, k));
    }
    auto* scale = reinterpret_cast<float*>(base + codes);
    uint8_t* zero = base + codes + align_scratch(params * 4);
    for (int64_t i = 0; i < params; ++i) {
      scale[i] = m.scale(i / m.blocks, i % m.blocks);
      if (zeros) zero[i] = static_cast<uint8_t>(m.zero(i / m.blocks, i % m.blocks));
    }
    return blob;
  }));
  const auto* base = static_cast<const uint8_t*>(up_blob_.data.get());
  if (!raw) up_.data = base;
  up_.scale = reinterpret_cast<const float*>(base + codes);
  if (zeros) up_.zero_u8 = base + codes + align_scratch(params * 4);
  if (!raw) ctx.unread_inputs.push_back(layer.weight());
  return {};
}

kernels::NbitsWeight FfnCodeRows::up_weight(const RunContext& ctx) const {
  kernels::NbitsWeight w = up_;
  if (w.data == nullptr) w.data = ctx.input(p_->up.weight()).as<uint8_t>();
  const bool float_zeros = p_->up.form == Form::kNBits && w.zero_u8 == nullptr && ctx.has_input(p_->up.zero()) &&
                           ctx.input(p_->up.zero()).dtype == DType::kF32;
  if (float_zeros) w.zero_f32 = ctx.input(p_->up.zero()).as<float>();
  return w;
}

// Codes [panels, d_ff, width], then scales of outputs, or scales and shifts of blocks.
Status FfnCodeRows::prepare_down(PrepareContext& ctx) {
  const FfnLayer& layer = p_->down;
  down_type_ = down_type(layer);
  std::vector<kernels::Rejection> why_not;
  down_kernel_ = &best_down(down_type_, &why_not);
  append_rejections(ctx.rejected, why_not);
  SPRUN_ASSIGN(const CodeMatrix m, CodeMatrix::of(ctx, layer));
  const bool blocked = m.blocks > 1 || !m.centred() || layer.form == Form::kNBits;
  const int64_t width = kernels::sparse_input_width(m.n, workers_), panels = kernels::sparse_input_panels(m.n, width);
  down_.m = p_->m, down_.n = m.n, down_.k = m.k, down_.width = width;
  down_.block_size = m.block_size, down_.blocks = m.blocks, down_.shifts = blocked && !m.centred();
  const int64_t rows = down_.shifts ? 2 : 1, params = blocked ? panels * m.blocks * rows * width : m.n;
  const bool s4 = down_type_ == SparseInputWeights::kS4;
  const int64_t codes = align_scratch(panels * width * m.k / (s4 ? 2 : 1));
  down_row_bytes_ = m.n / (s4 ? 2 : 1);
  down_param_bytes_ = blocked ? m.n * rows * 4 : 0;
  SPRUN_ASSIGN(down_blob_, ctx.packed().get(key_of(ctx, "ffn_down", layer) + fmt::format(":{}", width), [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(codes + align_scratch(params * 4)));
    auto* base = static_cast<uint8_t*>(blob.data.get());
    auto* param = reinterpret_cast<float*>(base + codes);
    std::memset(param, 0, static_cast<size_t>(params * 4));
    ThreadPool pool(ctx.max_threads());
    pool.parallel_for(panels, 1, [&](int64_t begin, int64_t end, int) {
      if (s4) {
        const int lift = 8 - static_cast<int>(m.middle());
        const auto code = [&](int64_t n, int64_t k) { return m.code(n, k) + lift; };
        kernels::pack_sparse_input_s4(m.n, m.k, width, code, begin, end, base);
        return;
      }
      for (int64_t p = begin; p < end; ++p) {
        uint8_t* out = base + p * width * m.k;
        for (int64_t i = 0; i < width * m.k; ++i) {
          const int64_t n = p * width + i % width;
          out[i] = n < m.n ? static_cast<uint8_t>(m.code(n, i / width) ^ 0x80) : uint8_t{0};
        }
      }
    });
    for (int64_t n = 0; n < m.n; ++n) {
      if (!blocked) param[n] = m.scale(n, 0);
      for (int64_t b = 0; b < m.blocks && blocked; ++b) {
        float* to = param + (n / width * m.blocks + b) * rows * width + n % width;
        to[0] = m.scale(n, b);
        if (down_.shifts) to[width] = (m.middle() - m.zero(n, b)) * m.scale(n, b);
      }
    }
    return blob;
  }));
  const char* base = static_cast<const char*>(down_blob_.data.get());
  down_.w = base;
  (blocked ? down_.block_params : down_.scale) = reinterpret_cast<const float*>(base + codes);
  if (layer.form == Form::kDequant) ctx.unread_inputs.push_back(layer.weight());
  return {};
}

FfnCodeRows::Memory FfnCodeRows::memory(void* scratch) const {
  const int64_t m = p_->m, ld = kernels::listed_capacity(p_->d_ff), ld_down = kernels::block_capacity(p_->d_ff, down_.blocks);
  char* base = static_cast<char*>(scratch);
  Memory at{};
  at.ids = carve<int32_t>(base, &at.total, ld);
  at.values = carve<float>(base, &at.total, m * ld);
  at.down_ids = carve<int32_t>(base, &at.total, ld_down);
  at.down_values = carve<float>(base, &at.total, m * ld_down);
  at.up = carve<float>(base, &at.total, gathers_up() ? m * ld : 0);
  at.x = carve<float>(base, &at.total, gathers_up() ? m * x_stride_ : 0);
  at.acc = carve<float>(base, &at.total, workers_ * m * down_.width);
  return at;
}

bool FfnCodeRows::too_many(int64_t active) const {
  return !forced_ && static_cast<double>(active) > most_active(*p_) * static_cast<double>(p_->m * p_->d_ff);
}

bool FfnCodeRows::list(const float* s, void* scratch, int64_t* listed) const {
  const Memory at = memory(scratch);
  const int64_t ld = kernels::listed_capacity(p_->d_ff);
  int64_t active = 0;
  *listed = kernels::list_inputs(s, p_->d_ff, p_->m, p_->d_ff, at.ids, at.values, ld, &active);
  return forced_ || static_cast<double>(*listed) <= most_active(*p_) * static_cast<double>(p_->d_ff);
}

void FfnCodeRows::run_up(const RunContext& ctx, const float* x, int64_t listed, const Memory& at) const {
  constexpr int64_t kTile = 4, kBytesPerTask = 64 * 1024;
  const FfnLayer& layer = p_->up;
  const int64_t ld = kernels::listed_capacity(p_->d_ff);
  kernels::NbitsGemvArgs args;
  args.w = up_weight(ctx);
  args.m = p_->m, args.x = at.x, args.x_stride = x_stride_;
  if (ctx.has_input(layer.bias())) args.bias = ctx.input(layer.bias()).as<float>();
  args.y = at.up, args.ldy = ld, args.ids = at.ids, args.listed = listed;
  for (int64_t r = 0; r < p_->m; ++r) {
    up_kernel_->kernel->arrange(args.w, x + r * p_->d_in + layer.offset, at.x + r * x_stride_);
  }
  ctx.pool().parallel_for(listed / kTile, kBytesPerTask / (kTile * args.w.row_bytes()) + 1, [&](int64_t begin, int64_t end, int) {
    up_kernel_->kernel->gemv(args, begin * kTile, end * kTile);
  });
  for (int64_t r = 0; r < p_->m; ++r) {
    const float* u = at.up + r * ld;
    float* h = at.values + r * ld;
    for (int64_t i = 0; i < listed; ++i) {
      const float factor = p_->up_relu ? std::max(u[i], 0.0F) : u[i];
      h[i] = h[i] == 0.0F ? 0.0F : h[i] * factor;
    }
  }
}

void FfnCodeRows::run_down(const RunContext& ctx, int64_t listed, const float* residual, float* y, const Memory& at) const {
  kernels::SparseInputArgs args = down_;
  args.ids = at.ids, args.x = at.values, args.listed = listed;
  args.ldx = kernels::listed_capacity(p_->d_ff);
  if (down_.blocks > 1) {
    const int64_t ld = kernels::block_capacity(p_->d_ff, down_.blocks);
    args.listed = kernels::list_by_block(at.ids, at.values, args.ldx, listed, p_->m, down_.block_size, at.down_ids, at.down_values, ld);
    args.ids = at.down_ids, args.x = at.down_values, args.ldx = ld;
  }
  args.y = y, args.ldy = p_->d_out;
  if (ctx.has_input(p_->down.bias())) args.epilogue.bias = ctx.input(p_->down.bias()).as<float>();
  args.epilogue.residual = residual, args.epilogue.ld_residual = p_->d_out;
  const int64_t panels = kernels::sparse_input_panels(args.n, args.width);
  ctx.pool().parallel_for(panels, 1, [&](int64_t begin, int64_t end, int worker) {
    down_kernel_->kernel->run(args, begin, end, at.acc + worker * p_->m * args.width);
  });
}

int64_t FfnCodeRows::run(const RunContext& ctx, const float* x, int64_t listed, const float* residual, float* y, void* scratch) const {
  const Memory at = memory(scratch);
  if (gathers_up() && listed > 0) run_up(ctx, x, listed, at);
  const int64_t ld = kernels::listed_capacity(p_->d_ff);
  int64_t active = 0;
  for (int64_t r = 0; r < p_->m; ++r) active += listed - std::count(at.values + r * ld, at.values + r * ld + listed, 0.0F);
  run_down(ctx, listed, residual, y, at);
  return active;
}

std::string FfnCodeRows::kernel() const {
  const std::string down(down_kernel_->name);
  return gathers_up() ? std::string(up_kernel_->name) + " rows, " + down : down;
}

std::string FfnCodeRows::detail(double density) const {
  const double width = static_cast<double>(p_->d_ff), shown = density < 0 ? 0.1 : 1 - std::pow(1 - density, static_cast<double>(p_->m));
  const double row = static_cast<double>((gathers_up() ? up_row_bytes_ : 0) + down_row_bytes_);
  const double blocks = static_cast<double>(down_.blocks), params = static_cast<double>(down_param_bytes_);
  const double touched = blocks * (1 - std::pow(1 - shown, width / blocks));  // blocks with an active neuron
  const double part = (shown * width * row + touched * params) / (width * row + blocks * params);
  return fmt::format("reads {:.0f} % of the bytes of {} at {:.0f} % active neurons; codes of down ({} bits) lie neuron by neuron, "
                     "unchanged",
                     100 * part, gathers_up() ? "up and down" : "down", 100 * shown, bits_of(p_->down));
}

}  // namespace sprun::graph
