#include "graph/ops/conv_int8.h"

#include <cstring>
#include <string>

namespace sprun::graph {

namespace {

constexpr int64_t kMaxScratchBytes = int64_t{256} << 20;

std::string reason_against(const PrepareContext& ctx, const ConvProblem& p,
                           const Int8ConvInputs& in) {
  if (ctx.constant(in.w).empty()) return "weights are not constant";
  if (ctx.has_input(in.w_zero) && ctx.constant(in.w_zero).empty())
    return "zero point of the weights is not constant";
  if (p.groups != 1) return "groups";
  if (p.out_shape().num_elements() == 0 || p.in_channels == 0) return "no elements";
  const int64_t depth = p.in_channels * p.window.kernel_size();
  if (depth > Int8Product::kMaxK)
    return "sums of over " + std::to_string(Int8Product::kMaxK) + " terms";
  if (p.window.out_size() > kMaxScratchBytes / (depth + 4 * p.out_channels))
    return "too much scratch memory";
  return "";
}

int64_t round_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

Status Int8Conv::prepare(PrepareContext& ctx, const ConvProblem& p, const Int8ConvInputs& in) {
  if (std::string reason = reason_against(ctx, p, in); !reason.empty()) {
    ctx.rejected.push_back({"gemm_u8s8", std::move(reason)});
    return {};
  }
  const int64_t depth = p.in_channels * p.window.kernel_size();
  const Tensor& w = ctx.constant(in.w);
  const std::vector<int32_t> zeros =
      ctx.has_input(in.w_zero) ? zero_point_values(ctx.constant(in.w_zero).view()) : std::vector<int32_t>();
  const Int8Constant constant = {.source = {{&w, p.out_channels, depth, depth, 1}, zeros}};
  const Int8Problem problem = {.m = p.window.out_size(),
                               .k = depth,
                               .x_quant = ctx.input(in.x).dtype == DType::kS8 ? XQuant::kS8 : XQuant::kU8,
                               .y_dtype = DType::kS32};
  SPRUN_ASSIGN(Int8Product product, Int8Product::prepare(ctx, problem, {&constant, 1}));
  auto state = std::unique_ptr<Int8Conv>(new Int8Conv(p, std::move(product)));
  state->sums_at_ = round_up(ctx.scratch_bytes);
  state->columns_at_ = state->sums_at_ + round_up(p.window.out_size() * p.out_channels * 4);
  ctx.scratch_bytes = state->columns_at_ + round_up(p.window.out_size() * depth);
  ctx.flops *= static_cast<double>(p.batch);
  ctx.unread_inputs.push_back(in.w);
  ctx.state = std::move(state);
  return {};
}

void Int8Conv::gather(const ConstTensorView& x, int64_t n, uint8_t outside, int64_t begin,
                      int64_t end, uint8_t* columns) const {
  const auto& [ad, ah, aw] = problem_.window.axis;
  const int64_t depth = problem_.in_channels * problem_.window.kernel_size();
  const uint8_t* image = x.as<uint8_t>() + n * problem_.in_channels * problem_.window.in_size();
  for (int64_t o = begin; o < end; ++o) {
    const int64_t d0 = ad.start(o / (ah.out * aw.out)), h0 = ah.start(o / aw.out % ah.out),
                  w0 = aw.start(o % aw.out);
    const KernelRange kd = kernel_range(ad, d0, ad.in), kh = kernel_range(ah, h0, ah.in),
                      kw = kernel_range(aw, w0, aw.in);
    uint8_t* row = columns + o * depth;
    std::memset(row, outside, static_cast<size_t>(depth));
    for (int64_t c = 0; c < problem_.in_channels; ++c) {
      for (int64_t i = kd.begin; i < kd.end; ++i) {
        for (int64_t j = kh.begin; j < kh.end; ++j) {
          const int64_t line = (c * ad.in + d0 + i * ad.dilation) * ah.in + h0 + j * ah.dilation;
          const uint8_t* from = image + line * aw.in + w0;
          uint8_t* to = row + ((c * ad.kernel + i) * ah.kernel + j) * aw.kernel;
          for (int64_t k = kw.begin; k < kw.end; ++k) to[k] = from[k * aw.dilation];
        }
      }
    }
  }
}

const int32_t* Int8Conv::multiply(RunContext& ctx, const ConstTensorView& x, int64_t n,
                                  int32_t x_zero) const {
  char* const scratch = static_cast<char*>(ctx.scratch());
  auto* const sums = reinterpret_cast<int32_t*>(scratch + sums_at_);
  auto* const columns = reinterpret_cast<uint8_t*>(scratch + columns_at_);
  const int64_t depth = problem_.in_channels * problem_.window.kernel_size();
  const auto outside = static_cast<uint8_t>(x_zero);  // two's complement for signed x
  ctx.pool().parallel_for(
      problem_.window.out_size(), 32768 / (depth + 1) + 1,
      [&](int64_t begin, int64_t end, int) { gather(x, n, outside, begin, end, columns); });
  const Int8Segment segment{.y = sums, .ldy = problem_.out_channels};
  product_.run(ctx.pool(), {.x = columns, .x_zero_point = x_zero, .segments = {&segment, 1}},
               scratch);
  return sums;
}

}  // namespace sprun::graph
