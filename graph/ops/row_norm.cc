#include "graph/ops/row_norm.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/op_util.h"
#include "kernels/norm/norm.h"

namespace sprun::graph {

namespace {

bool present(const ConstTensorView& view) { return view.dtype != DType::kUndefined; }

// Which element of gamma or beta belongs to element (row, column) of x.
class AffineIndex {
 public:
  AffineIndex(const ConstTensorView& scale, const RowNorm& norm)
      : shape_(norm.x.shape), n_(norm.n) {
    const int64_t count = scale.num_elements();
    if (!present(scale) || count == 1) {
      mode_ = Mode::kOne;
    } else if (count == norm.n &&
               shape_.num_elements(shape_.rank() - scale.shape.rank(), shape_.rank()) == norm.n) {
      mode_ = Mode::kColumn;
    } else {
      mode_ = Mode::kGeneral;
      strides_ = broadcast_strides(scale.shape, shape_);
    }
  }
  int64_t operator()(int64_t row, int64_t column) const {
    if (mode_ == Mode::kOne) return 0;
    if (mode_ == Mode::kColumn) return column;
    int64_t rest = row * n_ + column;
    int64_t index = 0;
    for (int i = shape_.rank() - 1; i >= 0; --i) {
      index += rest % shape_[i] * strides_[static_cast<size_t>(i)];
      rest /= shape_[i];
    }
    return index;
  }
  bool per_column() const { return mode_ == Mode::kColumn; }

 private:
  enum class Mode { kOne, kColumn, kGeneral };
  Mode mode_ = Mode::kOne;
  Shape shape_;
  int64_t n_;
  std::array<int64_t, kMaxRank> strides_{};
};

void store_stat(const TensorView& view, int64_t i, double v) {
  switch (view.dtype) {
    case DType::kF32:
      view.as<float>()[i] = static_cast<float>(v);
      break;
    case DType::kF64:
      view.as<double>()[i] = v;
      break;
    case DType::kF16:
      view.as<Float16>()[i] = to_float16(v);
      break;
    case DType::kBf16:
      view.as<BFloat16>()[i] = to_bfloat16(v);
      break;
    default:
      break;  // absent
  }
}

template <class TX, class TS>
class PlainRows {
  using C =
      std::conditional_t<std::is_same_v<TX, double> || std::is_same_v<TS, double>, double, float>;

 public:
  explicit PlainRows(const RowNorm& norm)
      : norm_(norm), gamma_index_(norm.gamma, norm), beta_index_(norm.beta, norm) {}

  void run(int64_t begin, int64_t end) const {
    for (int64_t r = begin; r < end; ++r) run_one(r);
  }

 private:
  C value(int64_t r, int64_t c) const {
    C v = static_cast<C>(load(norm_.x.as<TX>()[r * norm_.n + c]));
    if (present(norm_.skip))
      v += static_cast<C>(load(norm_.skip.as<TX>()[r % norm_.skip_rows * norm_.n + c]));
    if (present(norm_.bias)) v += static_cast<C>(load(norm_.bias.as<TX>()[c]));
    return v;
  }

  void run_one(int64_t r) const {
    const int64_t n = norm_.n;
    double mean = 0;
    if (!norm_.rms) {
      for (int64_t c = 0; c < n; ++c) mean += static_cast<double>(value(r, c));
      mean /= static_cast<double>(n);
    }
    double square = 0;
    for (int64_t c = 0; c < n; ++c) {
      const double d = static_cast<double>(value(r, c)) - mean;
      square += d * d;
    }
    const double inv_std = 1.0 / std::sqrt(square / static_cast<double>(n) + norm_.epsilon);
    store_stat(norm_.mean, r, mean);
    store_stat(norm_.inv_std, r, inv_std);
    write_row(r, static_cast<C>(mean), static_cast<C>(inv_std));
  }

  void write_row(int64_t r, C mean, C inv_std) const {
    for (int64_t c = 0; c < norm_.n; ++c) {
      const C v = value(r, c);
      if (present(norm_.sum)) norm_.sum.as<TX>()[r * norm_.n + c] = store<TX>(v);
      C y = (v - mean) * inv_std;
      if (present(norm_.gamma)) y *= static_cast<C>(load(norm_.gamma.as<TS>()[gamma_index_(r, c)]));
      if (present(norm_.beta)) y += static_cast<C>(load(norm_.beta.as<TS>()[beta_index_(r, c)]));
      norm_.y.as<TS>()[r * norm_.n + c] = store<TS>(y);
    }
  }

  const RowNorm& norm_;
  AffineIndex gamma_index_, beta_index_;
};

constexpr int64_t kGrainElements = 16384;

Status run_plain(RunContext& ctx, const RowNorm& norm) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(norm.n, 1));
  return dispatch_real(ctx, norm.x.dtype, [&](auto x_tag) {
    using TX = typename decltype(x_tag)::type;
    return dispatch_real(ctx, norm.y.dtype, [&](auto y_tag) {
      using TS = typename decltype(y_tag)::type;
      const PlainRows<TX, TS> rows(norm);
      ctx.pool().parallel_for(norm.rows, grain,
                              [&](int64_t begin, int64_t end, int) { rows.run(begin, end); });
      return Status();
    });
  });
}

// True if every tensor is float32 and gamma and beta hold one value per column: what the f32
// kernels take.
bool is_plain_f32(const RowNorm& norm) {
  const auto f32 = [](const ConstTensorView& view) {
    return !present(view) || view.dtype == DType::kF32;
  };
  const auto columns = [&](const ConstTensorView& view) {
    return !present(view) || (AffineIndex(view, norm).per_column() && f32(view));
  };
  return norm.x.dtype == DType::kF32 && norm.y.dtype == DType::kF32 && f32(norm.skip) &&
         f32(norm.bias) && f32(norm.mean) && f32(norm.inv_std) && columns(norm.gamma) &&
         columns(norm.beta);
}

struct RowNormState : OpState {
  const kernels::RowNormKernel* kernel = nullptr;
};

void run_kernel(RunContext& ctx, const RowNorm& norm, const kernels::RowNormKernel& kernel) {
  const auto in = [](const ConstTensorView& view) {
    return present(view) ? view.as<float>() : nullptr;
  };
  const auto out = [](const TensorView& view) {
    return present(view) ? view.as<float>() : nullptr;
  };
  const kernels::RowNormArgs args{.x = in(norm.x),
                                  .residual = in(norm.skip),
                                  .bias = in(norm.bias),
                                  .gamma = in(norm.gamma),
                                  .beta = in(norm.beta),
                                  .y = out(norm.y),
                                  .sum = out(norm.sum),
                                  .mean = out(norm.mean),
                                  .inv_std = out(norm.inv_std),
                                  .n = norm.n,
                                  .residual_rows = norm.skip_rows,
                                  .epsilon = static_cast<float>(norm.epsilon)};
  const auto parallel_for = [&](int64_t n, int64_t grain, const auto& fn) {
    ctx.pool().parallel_for(n, grain, fn);
  };
  if (norm.rms) {
    kernels::rms_norm_rows(kernel, args, norm.rows, parallel_for);
  } else {
    kernels::layer_norm_rows(kernel, args, norm.rows, parallel_for);
  }
}

}  // namespace

Status prepare_row_norm(PrepareContext& ctx) {
  std::vector<kernels::Rejection> why_not;
  const auto& info =
      kernels::select(kernels::row_norm_kernels(), kernels::available_isas(), &why_not);
  for (kernels::Rejection& r : why_not)
    ctx.rejected.push_back({std::move(r.kernel), std::move(r.reason)});
  ctx.regime = "bandwidth-bound";
  if (ctx.input(0).dtype != DType::kF32) {
    ctx.rejected.push_back({std::string(info.name), "element type is not float32"});
    return {};
  }
  auto state = std::make_unique<RowNormState>();
  state->kernel = info.kernel;
  ctx.state = std::move(state);
  ctx.kernel = info.name;
  return {};
}

Status run_row_norm(RunContext& ctx, const RowNorm& norm) {
  const auto* state = static_cast<const RowNormState*>(ctx.state());
  if (state == nullptr || !is_plain_f32(norm)) return run_plain(ctx, norm);
  run_kernel(ctx, norm, *state->kernel);
  return {};
}

}  // namespace sprun::graph
