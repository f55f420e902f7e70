// DeformConv (2-d): a convolution whose sampling points are moved by learned offsets and weighted
// by a mask.
#include <cmath>

#include "graph/ops/conv_problem.h"

namespace sprun::graph {

namespace {

// offset [N, offset_groups * kernel * 2, OH, OW] holds (dy, dx) pairs; mask [N, offset_groups *
// kernel, OH, OW].
Status check_field(const InferContext& ctx, int i, const char* name, const ConvProblem& p,
                   int64_t per_kernel) {
  if (!ctx.has_input(i)) return {};
  const int64_t groups = ctx.attrs().get_int("offset_group", 1);
  const Shape& s = ctx.shape(i);
  const int64_t kernel = p.window.kernel_size();
  const bool fits = s.rank() == 4 && s[0] == p.batch && s[1] % (kernel * per_kernel) == 0 &&
                    s[1] / (kernel * per_kernel) == groups && s[2] == p.window.axis[1].out &&
                    s[3] == p.window.axis[2].out;
  return ctx.check(fits && ctx.dtype(i) == ctx.dtype(0),
                   std::string(name) + " has shape " + s.to_string() +
                       ", which does not fit the output " + p.out_shape().to_string());
}

Status infer(InferContext& ctx) {
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)) && ctx.dtype(1) == ctx.dtype(0),
                      "input and weight must have one float type"));
  SPRUN_TRY(ctx.check(
      ctx.shape(0).rank() == 4,
      "only 2-d deformable convolution is supported, got input shape " + ctx.shape(0).to_string()));
  const Result<ConvProblem> p = make_conv_problem(ctx.attrs(), ctx.shape(0), ctx.shape(1));
  if (!p.ok()) return ctx.error(p.status().message());
  const int64_t groups = ctx.attrs().get_int("offset_group", 1);
  SPRUN_TRY(ctx.check(groups > 0 && p->in_channels % groups == 0,
                      "offset_group does not divide the channels"));
  SPRUN_TRY(check_field(ctx, 2, "offset", *p, 2));
  if (ctx.has_input(3)) {
    SPRUN_TRY(
        ctx.check(ctx.shape(3).num_elements() == p->out_channels && ctx.dtype(3) == ctx.dtype(0),
                  "bias must hold one value per output channel"));
  }
  SPRUN_TRY(check_field(ctx, 4, "mask", *p, 1));
  ctx.set_output(0, ctx.dtype(0), p->out_shape());
  return {};
}

// x at a fractional position, linear between pixels; 0 outside.
template <class T>
double bilinear(const T* x, int64_t height, int64_t width, double at_y, double at_x) {
  if (!(at_y > -1 && at_x > -1 && at_y < static_cast<double>(height) &&
        at_x < static_cast<double>(width)))
    return 0;
  const double y0 = std::floor(at_y), x0 = std::floor(at_x);
  const double fy = at_y - y0, fx = at_x - x0;
  const auto pixel = [&](double row, double column) {
    const auto r = static_cast<int64_t>(row), c = static_cast<int64_t>(column);
    return r < 0 || c < 0 || r >= height || c >= width
               ? 0.0
               : static_cast<double>(load(x[r * width + c]));
  };
  return (1 - fy) * ((1 - fx) * pixel(y0, x0) + fx * pixel(y0, x0 + 1)) +
         fy * ((1 - fx) * pixel(y0 + 1, x0) + fx * pixel(y0 + 1, x0 + 1));
}

template <class T>
struct Deformed {
  const ConvProblem& p;
  const T *x, *w, *offset, *bias, *mask;
  T* y;
  int64_t offset_groups;

  // One kernel element of one channel at output pixel `o`.
  double sample(int64_t n, int64_t channel, int64_t k, int64_t o) const {
    const auto& [unused, ah, aw] = p.window.axis;
    const int64_t kernel = p.window.kernel_size();
    const int64_t out = p.window.out_size();
    const int64_t group = channel / (p.in_channels / offset_groups);
    const int64_t entry = (n * offset_groups + group) * kernel + k;
    const double dy = static_cast<double>(load(offset[entry * 2 * out + o]));
    const double dx = static_cast<double>(load(offset[(entry * 2 + 1) * out + o]));
    const double at_y =
        static_cast<double>(ah.start(o / aw.out) + k / aw.kernel * ah.dilation) + dy;
    const double at_x =
        static_cast<double>(aw.start(o % aw.out) + k % aw.kernel * aw.dilation) + dx;
    const double v =
        bilinear(x + (n * p.in_channels + channel) * ah.in * aw.in, ah.in, aw.in, at_y, at_x);
    return mask == nullptr ? v : v * static_cast<double>(load(mask[entry * out + o]));
  }

  void pixel(int64_t i) const {
    const int64_t out = p.window.out_size();
    const int64_t kernel = p.window.kernel_size();
    const int64_t o = i % out, m = i / out % p.out_channels, n = i / out / p.out_channels;
    const int64_t first = m / p.group_out() * p.group_in();
    double sum = bias == nullptr ? 0.0 : static_cast<double>(load(bias[m]));
    for (int64_t c = 0; c < p.group_in(); ++c) {
      for (int64_t k = 0; k < kernel; ++k) {
        sum += sample(n, first + c, k, o) *
               static_cast<double>(load(w[(m * p.group_in() + c) * kernel + k]));
      }
    }
    y[i] = store<T>(static_cast<ComputeType<T>>(sum));
  }
};

Status run(RunContext& ctx) {
  SPRUN_ASSIGN(const ConvProblem p,
               make_conv_problem(ctx.attrs(), ctx.input(0).shape, ctx.input(1).shape));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Deformed<T> conv{p,
                           ctx.input(0).as<T>(),
                           ctx.input(1).as<T>(),
                           ctx.input(2).as<T>(),
                           ctx.has_input(3) ? ctx.input(3).as<T>() : nullptr,
                           ctx.has_input(4) ? ctx.input(4).as<T>() : nullptr,
                           ctx.output(0).as<T>(),
                           ctx.attrs().get_int("offset_group", 1)};
    ctx.pool().parallel_for(ctx.output(0).num_elements(), 256,
                            [&](int64_t begin, int64_t end, int) {
                              for (int64_t i = begin; i < end; ++i) conv.pixel(i);
                            });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "DeformConv", .since = 19, .inputs = {3, 5}, .infer = infer, .run = run},
};

}  // namespace

extern const std::span<const OpDef> k_deform_conv_ops;
const std::span<const OpDef> k_deform_conv_ops = kOps;

}  // namespace sprun::graph
