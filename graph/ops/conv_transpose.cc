// ConvTranspose: every input position spreads a scaled kernel over the output.
//
// Computed as a gather: y[m, o] sums x[c, i] * w[c, m, k] over all k with o + pad - k * dilation =
// i * stride.
#include "graph/ops/conv_problem.h"

namespace sprun::graph {

namespace {

Status infer(InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)), "input must be a float type"));
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.has_input(i) && ctx.dtype(i) != ctx.dtype(0))
      return ctx.error("inputs have different types");
  }
  const Result<ConvProblem> p =
      make_conv_transpose_problem(ctx.attrs(), ctx.shape(0), ctx.shape(1));
  if (!p.ok()) return ctx.error(p.status().message());
  if (ctx.has_input(2)) {
    SPRUN_TRY(ctx.check(ctx.shape(2).rank() == 1 && ctx.shape(2)[0] == p->out_channels,
                        "bias has shape " + ctx.shape(2).to_string() + ", expected [" +
                            std::to_string(p->out_channels) + "]"));
  }
  ctx.set_output(0, ctx.dtype(0), p->out_shape());
  return {};
}

// Input position that kernel element k of output o reads, or -1.
int64_t source(const WindowAxis& a, int64_t o, int64_t k) {
  const int64_t at = o + a.pad_begin - k * a.dilation;
  if (at < 0 || at % a.stride != 0 || at / a.stride >= a.in) return -1;
  return at / a.stride;
}

// Kernel elements of output o that can read anything: 0 <= o + pad - k * dilation <= (in - 1) *
// stride.
KernelRange source_range(const WindowAxis& a, int64_t o) {
  const int64_t at = o + a.pad_begin;
  const int64_t beyond = at - (a.in - 1) * a.stride;
  KernelRange range{beyond > 0 ? (beyond + a.dilation - 1) / a.dilation : 0, at / a.dilation + 1};
  range.end = std::min(range.end, a.kernel);
  range.begin = std::min(range.begin, range.end);
  return range;
}

template <class T>
struct Gather {
  const ConvProblem& p;
  const T *x, *w, *bias;
  T* y;

  // Sum over the channels of the group for one x offset and one w offset.
  double channels(int64_t n, int64_t m, int64_t x_at, int64_t k_at) const {
    const int64_t group = m / p.group_out();
    const int64_t in_size = p.window.in_size();
    const int64_t kernel = p.window.kernel_size();
    const int64_t first = group * p.group_in();
    const T* xs = x + (n * p.in_channels + first) * in_size + x_at;
    const T* ws = w + (first * p.group_out() + m % p.group_out()) * kernel + k_at;
    double sum = 0;
    for (int64_t c = 0; c < p.group_in(); ++c) {
      sum += static_cast<double>(load(xs[c * in_size])) *
             static_cast<double>(load(ws[c * p.group_out() * kernel]));
    }
    return sum;
  }

  double position(int64_t n, int64_t m, int64_t od, int64_t oh, int64_t ow) const {
    const auto& [ad, ah, aw] = p.window.axis;
    const KernelRange rd = source_range(ad, od), rh = source_range(ah, oh),
                      rw = source_range(aw, ow);
    double sum = 0;
    for (int64_t kd = rd.begin; kd < rd.end; ++kd) {
      const int64_t d = source(ad, od, kd);
      for (int64_t kh = rh.begin; d >= 0 && kh < rh.end; ++kh) {
        const int64_t h = source(ah, oh, kh);
        for (int64_t kw = rw.begin; h >= 0 && kw < rw.end; ++kw) {
          const int64_t at = source(aw, ow, kw);
          if (at < 0) continue;
          sum +=
              channels(n, m, (d * ah.in + h) * aw.in + at, (kd * ah.kernel + kh) * aw.kernel + kw);
        }
      }
    }
    return sum;
  }

  // One line of the last axis; see plain_conv_rows for the order of rows.
  void row(int64_t r) const {
    const auto& [ad, ah, aw] = p.window.axis;
    const int64_t oh = r % ah.out;
    const int64_t od = r / ah.out % ad.out;
    const int64_t m = r / (ah.out * ad.out) % p.out_channels;
    const int64_t n = r / (ah.out * ad.out * p.out_channels);
    const double b = bias != nullptr ? static_cast<double>(load(bias[m])) : 0.0;
    for (int64_t ow = 0; ow < aw.out; ++ow) {
      y[r * aw.out + ow] = store<T>(static_cast<ComputeType<T>>(b + position(n, m, od, oh, ow)));
    }
  }
};

Status run(RunContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_transpose_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const auto& axis = p.window.axis;
    const Gather<T> gather{p, ctx.input(0).as<T>(), ctx.input(1).as<T>(),
                           ctx.has_input(2) ? ctx.input(2).as<T>() : nullptr,
                           ctx.output(0).as<T>()};
    const int64_t rows = p.batch * p.out_channels * axis[0].out * axis[1].out;
    if (rows == 0 || axis[2].out == 0) return Status();
    ctx.pool().parallel_for(rows, plain_conv_grain(p), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) gather.row(r);
    });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "ConvTranspose", .inputs = {2, 3}, .infer = infer, .run = run},
};

}  // namespace

extern const std::span<const OpDef> k_conv_transpose_ops;
const std::span<const OpDef> k_conv_transpose_ops = kOps;

}  // namespace sprun::graph
