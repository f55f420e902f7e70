#include "graph/ops/attention_projection.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "graph/ops/float_product.h"
#include "graph/ops/int8_product.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

struct FloatState : ScratchState {
  std::unique_ptr<const FloatProduct> product;  // null: the plain loop
  int64_t product_bytes = 0;
};

struct ByteState : ScratchState {
  explicit ByteState(Int8Product p) : product(std::move(p)) {}
  Int8Product product;
  int64_t product_bytes = 0;
};

BatchedGemm product_of(int64_t m, int64_t n, int64_t k) {
  BatchedGemm g;
  g.m = m, g.n = n, g.k = k;
  g.a_row = k, g.a_col = 1;
  g.b_row = n, g.b_col = 1;
  g.c_row = n, g.c_col = 1;
  return g;
}

template <class T>
void project(ThreadPool& pool, const T* x, const T* w, const T* bias, const BatchedGemm& g, T* y) {
  gemm_ref(pool, g, x, w, [&](int64_t at, int64_t count, const SumType<T>* sums) {
    for (int64_t j = 0; j < count; ++j) {
      y[at + j] = store<T>(sums[j] + (bias ? load(bias[(at + j) % g.n]) : SumType<T>{0}));
    }
  });
}

// An 8-bit tensor read as int32, signed or not.
struct Bytes {
  const uint8_t* data;
  bool is_signed;
  explicit Bytes(const ConstTensorView& view) : data(view.as<uint8_t>()), is_signed(view.dtype == DType::kS8) {}
  int32_t operator[](int64_t i) const { return is_signed ? static_cast<int8_t>(data[i]) : data[i]; }
};

// Why the packed int8 kernel does not take the projection; empty if it does.
std::string reason_against(const PrepareContext& ctx, int64_t m, int64_t n, int64_t k) {
  if (m == 0 || n == 0 || k == 0) return "empty product";
  if (ctx.constant(1).empty()) return "weights are not constant";
  if (ctx.has_input(7) && ctx.constant(7).empty()) return "weight zero points are not constant";
  if (k > Int8Product::kMaxK) return "K is too long for int32 sums";
  if (ctx.input(3).dtype != DType::kF32) return "scales are not float32";
  return {};
}

}  // namespace

Result<std::unique_ptr<ScratchState>> FloatProjection::prepare(PrepareContext& ctx, int64_t m, int64_t n, int64_t k) {
  auto state = std::make_unique<FloatState>();
  ctx.flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (ctx.input(0).dtype == DType::kF32) {
    SPRUN_ASSIGN(state->product, FloatProduct::prepare(ctx, product_of(m, n, k), 0, 1));
    state->product_bytes = state->product ? ctx.scratch_bytes : 0;
  }
  return std::unique_ptr<ScratchState>(std::move(state));
}

int64_t FloatProjection::scratch_bytes(const OpState* state) {
  return state ? static_cast<const FloatState*>(state)->product_bytes : 0;
}

Status FloatProjection::run(RunContext& ctx, int64_t m, int64_t n, int64_t k, void* qkv, void* scratch) {
  const auto* state = static_cast<const FloatState*>(ctx.state());
  if (state && state->product) {
    const kernels::Epilogue epilogue{.bias = ctx.has_input(2) ? ctx.input(2).as<float>() : nullptr};
    state->product->run(ctx.pool(), ctx.input(0).as<float>(), ctx.input(1).as<float>(), static_cast<float*>(qkv),
                        epilogue, scratch);
    return {};
  }
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    project(ctx.pool(), ctx.input(0).as<T>(), ctx.input(1).as<T>(), ctx.has_input(2) ? ctx.input(2).as<T>() : nullptr,
            product_of(m, n, k), static_cast<T*>(qkv));
    return Status();
  });
}

Result<std::unique_ptr<ScratchState>> ByteProjection::prepare(PrepareContext& ctx, int64_t m, int64_t n, int64_t k) {
  std::unique_ptr<ScratchState> none;
  if (std::string reason = reason_against(ctx, m, n, k); !reason.empty()) {
    ctx.rejected.push_back({"gemm_u8s8", std::move(reason)});
    return none;
  }
  const XQuant codes = ctx.input(0).dtype == DType::kU8 ? XQuant::kU8 : XQuant::kS8;
  const Tensor& w = ctx.constant(1);
  const std::vector<int32_t> zeros =
      ctx.has_input(7) ? zero_point_values(ctx.constant(7).view()) : std::vector<int32_t>();
  const Int8Constant constant = {.source = {WeightConstant::matrix(w, false), zeros}};
  SPRUN_ASSIGN(Int8Product product,
               Int8Product::prepare(ctx, {.m = m, .k = k, .x_quant = codes, .y_dtype = DType::kF32}, {&constant, 1}));
  ctx.unread_inputs.push_back(1);
  auto state = std::make_unique<ByteState>(std::move(product));
  state->product_bytes = ctx.scratch_bytes;
  return std::unique_ptr<ScratchState>(std::move(state));
}

int64_t ByteProjection::scratch_bytes(const OpState* state) {
  return state ? static_cast<const ByteState*>(state)->product_bytes : 0;
}

Status ByteProjection::run(RunContext& ctx, int64_t m, int64_t n, int64_t k, void* qkv, void* scratch) {
  const int32_t x_zero = ctx.has_input(6) ? Bytes(ctx.input(6))[0] : 0;
  if (const auto* state = static_cast<const ByteState*>(ctx.state())) {
    const Int8Segment segment = {.w_scale = ctx.input(4).as<float>(),
                                 .w_scale_stride = ctx.input(4).num_elements() == 1 ? 0 : 1,
                                 .bias = ctx.has_input(2) ? ctx.input(2).as<float>() : nullptr, .y = qkv, .ldy = n};
    state->product.run(ctx.pool(), {.x = ctx.input(0).data, .x_scale = *ctx.input(3).as<float>(),
                                    .x_zero_point = x_zero, .segments = {&segment, 1}},
                       scratch);
    return {};
  }
  const Bytes x(ctx.input(0)), w(ctx.input(1));
  const bool w_zeros = ctx.has_input(7) && ctx.input(7).num_elements() > 1;
  const bool w_scales = ctx.input(4).num_elements() > 1;
  return dispatch_real(ctx, ctx.input(3).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto x_scale = load(*ctx.input(3).as<T>());
    const T* w_scale = ctx.input(4).as<T>();
    const T* bias = ctx.has_input(2) ? ctx.input(2).as<T>() : nullptr;
    auto* y = static_cast<T*>(qkv);
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(k, 1));
    ctx.pool().parallel_for(m * n, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t i = t / n, j = t % n;
        const int32_t w_zero = ctx.has_input(7) ? Bytes(ctx.input(7))[w_zeros ? j : 0] : 0;
        int64_t sum = 0;
        for (int64_t c = 0; c < k; ++c) sum += (x[i * k + c] - x_zero) * (w[c * n + j] - w_zero);
        const auto scale = x_scale * load(w_scale[w_scales ? j : 0]);
        y[t] = store<T>(static_cast<ComputeType<T>>(sum) * scale + (bias ? load(bias[j]) : 0));
      }
    });
    return Status();
  });
}

}  // namespace sprun::graph
