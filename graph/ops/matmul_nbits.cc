// MatMulNBits (com.microsoft): Y = A * dequantise(B)^T + bias with 2-, 4- or 8-bit weights in blocks along K.
//
//   B           u8 [N, blocks, block_size * bits / 8], low bits first
//   scales      [N, blocks], type of A        zero_points   u8 packed [N, ceil(blocks * bits / 8)] or float [N, blocks]
//   g_idx       s32 [K]: block of each input feature, instead of k / block_size
//   weight(n, k) = (q(n, k) - zero(n, block)) * scale(n, block)
// float32 without g_idx runs on kernels/nbits: few rows straight from the packed weights, many rows by dequantising
// one panel of outputs at a time for kernels/gemm. accuracy_level only permits less, so it is not read.
#include <algorithm>
#include <string>
#include <vector>

#include "graph/ops/matmul_util.h"
#include "graph/ops/op.h"
#include "graph/ops/op_util.h"
#include "graph/ops/quant_util.h"
#include "kernels/gemm/gemm.h"
#include "kernels/nbits/nbits.h"
#include "runtime/base/packed_cache.h"

namespace sprun::graph {
namespace {

struct Geometry {
  int64_t n = 0, k = 0, bits = 0, block_size = 0, blocks = 0;
  int64_t row_bytes() const { return blocks * (block_size * bits / 8); }
  int64_t zero_row_bytes() const { return (blocks * bits + 7) / 8; }
};

template <class Ctx>
Result<Geometry> geometry_of(const Ctx& ctx) {
  const AttrMap& attrs = ctx.attrs();
  Geometry g = {.n = attrs.get_int("N", 0),
                .k = attrs.get_int("K", 0),
                .bits = attrs.get_int("bits", 4),
                .block_size = attrs.get_int("block_size", 0)};
  const auto fail = [](const std::string& why) { return Status(Code::kBadModel, why); };
  if (g.n < 1 || g.k < 1 || g.n > kMaxElements || g.k > kMaxElements) return fail("N and K must be positive");
  if (g.bits != 2 && g.bits != 4 && g.bits != 8)
    return fail("bits = " + std::to_string(g.bits) + ", expected 2, 4 or 8");
  if (g.block_size < 16 || g.block_size > (1 << 30) || (g.block_size & (g.block_size - 1)) != 0) {
    return fail("block_size = " + std::to_string(g.block_size) + ", expected a power of two from 16");
  }
  if (attrs.get_int("weight_prepacked", 0) != 0) return fail("prepacked weights are not supported");
  g.blocks = (g.k + g.block_size - 1) / g.block_size;
  return g;
}

// The weight is left out (a zero size in B): the product counts as zero.
template <class Ctx>
bool omitted(const Ctx& ctx) {
  return ctx.input(1).num_elements() == 0;
}

Status check_sizes(const InferContext& ctx, const Geometry& g) {
  const auto expect = [&ctx](int input, int64_t size, const char* name) {
    return ctx.check(ctx.input(input).num_elements() == size, std::string(name) + " of shape " +
                                                                  ctx.shape(input).to_string() + ", expected " +
                                                                  std::to_string(size) + " elements");
  };
  SPRUN_TRY(ctx.check(ctx.dtype(1) == DType::kU8, "B must be uint8"));
  if (!omitted(ctx)) {
    int64_t elements = 0;
    SPRUN_TRY(ctx.check(!__builtin_mul_overflow(g.n, g.row_bytes(), &elements), "N * K is too large"));
    SPRUN_TRY(expect(1, elements, "B"));
    SPRUN_TRY(expect(2, g.n * g.blocks, "scales"));
    if (ctx.has_input(3)) {
      const bool packed = ctx.dtype(3) == DType::kU8;
      SPRUN_TRY(ctx.check(packed || ctx.dtype(3) == ctx.dtype(0), "zero_points must be uint8 or of the type of A"));
      SPRUN_TRY(expect(3, packed ? g.n * g.zero_row_bytes() : g.n * g.blocks, "zero_points"));
    }
    if (ctx.has_input(4)) {
      SPRUN_TRY(ctx.check(ctx.dtype(4) == DType::kS32, "g_idx must be int32"));
      SPRUN_TRY(ctx.check(ctx.input(4).num_elements() == g.k || ctx.input(4).num_elements() == g.blocks * g.block_size,
                          "g_idx must have K elements"));
    }
  }
  if (ctx.has_input(5)) {
    SPRUN_TRY(ctx.check(ctx.dtype(5) == ctx.dtype(0), "bias and A differ in type"));
    SPRUN_TRY(expect(5, g.n, "bias"));
  }
  return {};
}

Status infer_nbits(InferContext& ctx) {
  auto g = geometry_of(ctx);
  if (!g.ok()) return ctx.error(g.status().message());
  const bool float_type = ctx.dtype(0) == DType::kF32 || ctx.dtype(0) == DType::kF16 || ctx.dtype(0) == DType::kBf16;
  SPRUN_TRY(ctx.check(float_type && ctx.dtype(2) == ctx.dtype(0), "A and scales must be floats of one type"));
  SPRUN_TRY(
      ctx.check(ctx.shape(0).rank() >= 1 && ctx.shape(0).back() == g->k,
                "A of shape " + ctx.shape(0).to_string() + ", expected K = " + std::to_string(g->k) + " at the end"));
  SPRUN_TRY(check_sizes(ctx, *g));
  Shape out = ctx.shape(0);
  out[out.rank() - 1] = g->n;
  SPRUN_TRY(ctx.check(out.num_elements() <= kMaxElements, "the result is too large"));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

int32_t unpack_bits(const uint8_t* data, int64_t index, int64_t bits) {
  const int64_t bit = index * bits;
  return (data[bit / 8] >> (bit % 8)) & ((1 << bits) - 1);
}

// Row n of the weight as floats.
void dequantise_row(const RunContext& ctx, const Geometry& g, int64_t n, const int32_t* groups, float* row) {
  const uint8_t* data = ctx.input(1).as<uint8_t>() + n * g.row_bytes();
  const ScaleReader scales(ctx.input(2));
  const bool has_zero = ctx.has_input(3), packed = has_zero && ctx.input(3).dtype == DType::kU8;
  const ScaleReader float_zero(ctx.input(has_zero ? 3 : 2));
  for (int64_t k = 0; k < g.k; ++k) {
    const int64_t block = groups != nullptr ? groups[k] : k / g.block_size;
    float zero = static_cast<float>(1 << (g.bits - 1));
    if (packed) {
      zero = static_cast<float>(unpack_bits(ctx.input(3).as<uint8_t>() + n * g.zero_row_bytes(), block, g.bits));
    } else if (has_zero) {
      zero = float_zero[n * g.blocks + block];
    }
    row[k] = (static_cast<float>(unpack_bits(data, k, g.bits)) - zero) * scales[n * g.blocks + block];
  }
}

template <class T>
void multiply_row(const RunContext& ctx, const Geometry& g, int64_t n, const float* row, int64_t m, T* y) {
  const T* a = ctx.input(0).as<T>();
  const float bias = ctx.has_input(5) ? static_cast<float>(load(ctx.input(5).as<T>()[n])) : 0.0f;
  for (int64_t i = 0; i < m; ++i) {
    float sum = 0;
    if (row != nullptr) {
      for (int64_t k = 0; k < g.k; ++k) sum += static_cast<float>(load(a[i * g.k + k])) * row[k];
    }
    y[i * g.n + n] = store<T>(static_cast<ComputeType<T>>(sum + bias));
  }
}

Status check_groups(const RunContext& ctx, const Geometry& g) {
  if (!ctx.has_input(4)) return {};
  const int32_t* groups = ctx.input(4).as<int32_t>();
  for (int64_t k = 0; k < g.k; ++k) {
    if (groups[k] < 0 || groups[k] >= g.blocks) {
      return ctx.error("g_idx[" + std::to_string(k) + "] = " + std::to_string(groups[k]) + " is outside [0, " +
                       std::to_string(g.blocks) + ")");
    }
  }
  return {};
}

// --- on kernels

// From this many rows on, dequantising a panel once costs less than decoding it for every few rows.
constexpr int64_t kGemmRows = 13;

struct NbitsState : OpState {
  Geometry g;
  int64_t m = 0;
  int workers = 1;
  const kernels::NbitsKernel* kernel = nullptr;
  const kernels::GemmF32Kernel* gemm = nullptr;  // null: gemv
  PackedBlob zeros;                              // unpacked zero points, one byte each
  int64_t x_stride = 0;                          // gemv: floats of one arranged row

  kernels::NbitsWeight weight(const RunContext& ctx) const {
    kernels::NbitsWeight w = {.n = g.n,
                              .k = g.k,
                              .block_size = g.block_size,
                              .blocks = g.blocks,
                              .bits = static_cast<int>(g.bits),
                              .data = ctx.input(1).as<uint8_t>(),
                              .scale = ctx.input(2).as<float>(),
                              .zero_u8 = nullptr,
                              .zero_f32 = nullptr};
    if (zeros.data) w.zero_u8 = static_cast<const uint8_t*>(zeros.data.get());
    else if (ctx.has_input(3) && ctx.input(3).dtype == DType::kU8) w.zero_u8 = ctx.input(3).as<uint8_t>();
    else if (ctx.has_input(3)) w.zero_f32 = ctx.input(3).as<float>();
    return w;
  }

  // gemm: scratch of one worker is that of the kernel and one packed panel.
  int64_t kernel_bytes() const { return kernels::align_scratch(gemm->scratch_bytes); }
  int64_t worker_bytes() const { return kernel_bytes() + kernels::align_scratch(gemm->nr * g.k * 4); }

  void run(RunContext& ctx) const;
  void run_gemv(RunContext& ctx) const;
  void run_panel(const RunContext& ctx, const kernels::NbitsWeight& w, int64_t panel, char* scratch) const;
};

const float* bias_of(const RunContext& ctx) { return ctx.has_input(5) ? ctx.input(5).as<float>() : nullptr; }

void NbitsState::run_gemv(RunContext& ctx) const {
  constexpr int64_t kBytesPerTask = 64 * 1024;
  const kernels::NbitsWeight w = weight(ctx);
  float* x = static_cast<float*>(ctx.scratch());
  ctx.pool().parallel_for(m, 32 * 1024 / g.k + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) kernel->arrange(w, ctx.input(0).as<float>() + r * g.k, x + r * x_stride);
  });
  const kernels::NbitsGemvArgs args = {
      .w = w, .m = m, .x = x, .x_stride = x_stride, .bias = bias_of(ctx), .y = ctx.output(0).as<float>(), .ldy = g.n};
  const int64_t groups = (g.n + 3) / 4;  // kernels take four outputs at a time
  ctx.pool().parallel_for(groups, kBytesPerTask / (4 * w.row_bytes()) + 1, [&](int64_t begin, int64_t end, int) {
    kernel->gemv(args, begin * 4, std::min(end * 4, g.n));
  });
}

void NbitsState::run_panel(const RunContext& ctx, const kernels::NbitsWeight& w, int64_t panel, char* scratch) const {
  float* packed = reinterpret_cast<float*>(scratch + kernel_bytes());
  const int64_t n0 = panel * gemm->nr, columns = std::min(gemm->nr, g.n - n0);
  kernel->pack(w, n0, columns, gemm->nr, packed);
  const float* bias = bias_of(ctx);
  const kernels::GemmF32Args args = {.m = m,
                                     .n = columns,
                                     .k = g.k,
                                     .x = ctx.input(0).as<float>(),
                                     .ldx = g.k,
                                     .w = packed,
                                     .y = ctx.output(0).as<float>() + n0,
                                     .ldy = g.n,
                                     .epilogue = {.bias = bias == nullptr ? nullptr : bias + n0}};
  gemm->run(args, {0, m, 0, 1}, scratch);
}

void NbitsState::run(RunContext& ctx) const {
  if (gemm == nullptr) return run_gemv(ctx);
  const kernels::NbitsWeight w = weight(ctx);
  char* scratch = static_cast<char*>(ctx.scratch());
  const int64_t panels = kernels::num_panels(g.n, gemm->nr);
  const auto work = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t p = begin; p < end; ++p) run_panel(ctx, w, p, scratch + worker_bytes() * worker);
  };
  if (ctx.pool().num_threads() > workers) return work(0, panels, 0);  // scratch is for fewer
  ctx.pool().parallel_for(panels, 1, work);
}

// 2- and 4-bit zero points, a byte each. Empty when the tensor can be read as it is.
Result<PackedBlob> unpack_zeros(PrepareContext& ctx, const Geometry& g) {
  if (!ctx.has_input(3) || ctx.input(3).dtype != DType::kU8 || g.bits == 8) return PackedBlob();
  const Tensor& zeros = ctx.constant(3);
  const std::string key = "nbits_zero:" + std::to_string(zeros.id()) + ":" + std::to_string(g.bits);
  return ctx.packed().get(key, [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(g.n * g.blocks));
    uint8_t* out = static_cast<uint8_t*>(blob.data.get());
    for (int64_t n = 0; n < g.n; ++n) {
      const uint8_t* row = zeros.as<uint8_t>() + n * g.zero_row_bytes();
      for (int64_t b = 0; b < g.blocks; ++b) out[n * g.blocks + b] = static_cast<uint8_t>(unpack_bits(row, b, g.bits));
    }
    return blob;
  });
}

// Why the kernels do not fit; empty when they do.
std::string reason_against(const PrepareContext& ctx, const Geometry& g) {
  if (ctx.input(0).dtype != DType::kF32) return "element type is " + std::string(dtype_name(ctx.input(0).dtype));
  if (ctx.has_input(4)) return "g_idx";
  if (omitted(ctx) || ctx.input(0).num_elements() == 0) return "empty product";
  const bool packed_zero = ctx.has_input(3) && ctx.input(3).dtype == DType::kU8 && g.bits != 8;
  return packed_zero && ctx.constant(3).empty() ? "packed zero points that are not constant" : "";
}

Status prepare_nbits(PrepareContext& ctx) {
  SPRUN_ASSIGN(const Geometry g, geometry_of(ctx));
  if (std::string reason = reason_against(ctx, g); !reason.empty()) {
    ctx.rejected.push_back({"nbits", std::move(reason)});
    return {};
  }
  const kernels::IsaSet isas = kernels::available_isas();
  std::vector<kernels::Rejection> why_not;
  const auto& info = kernels::select(kernels::nbits_kernels(), isas, &why_not);
  auto state = std::make_unique<NbitsState>();
  state->g = g;
  state->m = ctx.input(0).num_elements() / g.k;
  state->workers = ctx.max_threads();
  state->kernel = info.kernel;
  SPRUN_ASSIGN(state->zeros, unpack_zeros(ctx, g));
  if (state->zeros.data) ctx.unread_inputs.push_back(3);
  ctx.kernel = std::string(info.name) + " gemv";
  const kernels::NbitsWeight sizes = {
      .n = g.n, .k = g.k, .block_size = g.block_size, .blocks = g.blocks, .bits = static_cast<int>(g.bits)};
  state->x_stride = info.kernel->arranged_size(sizes);
  ctx.scratch_bytes = state->m * state->x_stride * 4;
  if (state->m >= kGemmRows) {
    const auto& gemm = kernels::select(kernels::gemm_f32_kernels(), isas, &why_not);
    state->gemm = gemm.kernel;
    ctx.scratch_bytes = state->worker_bytes() * state->workers;
    ctx.kernel = std::string(info.name) + " + " + std::string(gemm.name);
  }
  for (const kernels::Rejection& r : why_not) ctx.rejected.push_back({r.kernel, r.reason});
  ctx.regime = state->m >= kGemmRows ? "compute-bound" : "bandwidth-bound";
  ctx.flops = 2.0 * static_cast<double>(state->m) * static_cast<double>(g.n) * static_cast<double>(g.k);
  ctx.state = std::move(state);
  return {};
}

Status run_nbits(RunContext& ctx) {
  if (const auto* state = static_cast<const NbitsState*>(ctx.state())) {
    state->run(ctx);
    return {};
  }
  auto g = geometry_of(ctx);
  if (!g.ok()) return ctx.error(g.status().message());
  const int64_t m = ctx.input(0).num_elements() / g->k;
  const bool no_weight = omitted(ctx);
  if (!no_weight) SPRUN_TRY(check_groups(ctx, *g));
  const int32_t* groups = ctx.has_input(4) && !no_weight ? ctx.input(4).as<int32_t>() : nullptr;
  return dispatch_real(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::vector<float> rows(no_weight ? 0 : static_cast<size_t>(g->k) * static_cast<size_t>(ctx.pool().num_threads()));
    ctx.pool().parallel_for(g->n, 1, [&](int64_t begin, int64_t end, int worker) {
      float* row = no_weight ? nullptr : rows.data() + worker * g->k;
      for (int64_t n = begin; n < end; ++n) {
        if (row != nullptr) dequantise_row(ctx, *g, n, groups, row);
        multiply_row(ctx, *g, n, row, m, ctx.output(0).as<T>());
      }
    });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.domain = "com.microsoft",
     .name = "MatMulNBits",
     .inputs = {3, 6},
     .infer = infer_nbits,
     .run = run_nbits,
     .prepare = prepare_nbits},
};

}  // namespace

extern const std::span<const OpDef> k_matmul_nbits_ops;
const std::span<const OpDef> k_matmul_nbits_ops = kOps;

}  // namespace sprun::graph
