#include "graph/ops/attention_projection.h"

#include <vector>

#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

template <class T>
void project(ThreadPool& pool, const T* x, const T* w, const T* bias, int64_t m, int64_t n, int64_t k, T* y) {
  using C = ComputeType<T>;
  pool.parallel_for(m, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<C> sums(static_cast<size_t>(n));
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < n; ++j) sums[static_cast<size_t>(j)] = bias ? load(bias[j]) : C{0};
      for (int64_t c = 0; c < k; ++c) {
        const C factor = load(x[i * k + c]);
        for (int64_t j = 0; j < n; ++j) sums[static_cast<size_t>(j)] += factor * load(w[c * n + j]);
      }
      for (int64_t j = 0; j < n; ++j) y[i * n + j] = store<T>(sums[static_cast<size_t>(j)]);
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

}  // namespace

Result<std::unique_ptr<ScratchState>> FloatProjection::prepare(PrepareContext& ctx, int64_t m, int64_t n, int64_t k) {
  ctx.flops += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return std::make_unique<ScratchState>();
}

int64_t FloatProjection::scratch_bytes(const OpState*, int64_t, int) { return 0; }

Status FloatProjection::run(RunContext& ctx, int64_t m, int64_t n, int64_t k, void* qkv, void*) {
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    project(ctx.pool(), ctx.input(0).as<T>(), ctx.input(1).as<T>(), ctx.has_input(2) ? ctx.input(2).as<T>() : nullptr,
            m, n, k, static_cast<T*>(qkv));
    return Status();
  });
}

Result<std::unique_ptr<ScratchState>> ByteProjection::prepare(PrepareContext& ctx, int64_t m, int64_t n, int64_t k) {
  ctx.flops += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return std::make_unique<ScratchState>();
}

int64_t ByteProjection::scratch_bytes(const OpState*, int64_t, int) { return 0; }

Status ByteProjection::run(RunContext& ctx, int64_t m, int64_t n, int64_t k, void* qkv, void*) {
  const Bytes x(ctx.input(0)), w(ctx.input(1));
  const int32_t x_zero = ctx.has_input(6) ? Bytes(ctx.input(6))[0] : 0;
  const bool w_zeros = ctx.has_input(7) && ctx.input(7).num_elements() > 1;
  const bool w_scales = ctx.input(4).num_elements() > 1;
  return dispatch_real(ctx, ctx.input(3).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto x_scale = load(*ctx.input(3).as<T>());
    const T* w_scale = ctx.input(4).as<T>();
    const T* bias = ctx.has_input(2) ? ctx.input(2).as<T>() : nullptr;
    auto* y = static_cast<T*>(qkv);
    ctx.pool().parallel_for(m * n, std::max<int64_t>(1, 65536 / std::max<int64_t>(k, 1)), [&](int64_t b, int64_t e, int) {
      for (int64_t t = b; t < e; ++t) {
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
