// y from the sums of workers or segments.
#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

template <class T>
const T* acc_row(const Call& c, int64_t index, int64_t row) {
  return reinterpret_cast<const T*>(c.mem.acc) + (index * c.sizes.acc_rows + row) * c.sizes.ld_acc;
}

template <class T>
void add_accs(const Call& c, int64_t row, int64_t begin, int64_t end, T* sum) {
  std::fill(sum, sum + (end - begin), T{0});
  for (int64_t i = 0; i < c.sizes.accs; ++i) {
    if (c.mem.acc_used[8 * i] == 0) continue;
    const T* from = acc_row<T>(c, i, row) + begin;
    for (int64_t n = 0; n < end - begin; ++n) sum[n] += from[n];
  }
}

// sum over the list of q - zero.
int32_t code_sum(const Call& c, int64_t t) {
  const QuantParams q = c.mem.h_quant[t];
  uint8_t codes[kFfnUnit];
  int32_t total = 0;
  for (int64_t i = 0; i < c.listed; i += kFfnUnit) {
    const int64_t n = std::min(kFfnUnit, c.listed - i);
    int32_t sum = 0;
    c.ffn.quantize->quantize(c.mem.h + t * c.sizes.ld_g + i, c.sizes.ld_g, 1, n, q.scale,
                             q.zero_point, codes, kFfnUnit, &sum);
    total += sum - static_cast<int32_t>(n) * q.zero_point;
  }
  return total;
}

// From sums of q[j] W[n, j] those of (q[j] - zero) (W[n, j] - w_zero[n]).
void take_out_zeros(const Call& c, int64_t t, int64_t begin, int64_t end, const int32_t* w_sum,
                    int32_t* sum) {
  const int32_t zero = c.mem.h_quant[t].zero_point;
  for (int64_t n = 0; n < end - begin; ++n) sum[n] -= zero * w_sum[n];
  const int32_t* w_zero = c.weights<int32_t>(c.ffn.at.down_zero);
  if (w_zero == nullptr) return;
  const int32_t centred = code_sum(c, t);
  for (int64_t n = 0; n < end - begin; ++n) sum[n] -= w_zero[begin + n] * centred;
}

}  // namespace

void run_out(const Call& c, int64_t unit) {
  const int64_t begin = unit * kOutColumns;
  const int64_t end = std::min(begin + kOutColumns, c.shape.d_out);
  alignas(64) int32_t w_sum[kOutColumns];
  if (c.int8 && c.weight_sums) add_accs(c, c.args.tokens, begin, end, w_sum);
  const float* bias = c.weights<float>(c.ffn.at.down_bias);
  FfnOutArgs out{end - begin, nullptr, 1.0F, nullptr, nullptr, nullptr, nullptr};
  if (bias != nullptr) out.bias = bias + begin;
  if (c.int8) out.w_scale = c.weights<float>(c.ffn.at.down_scale) + begin;
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    alignas(64) int32_t exact[kOutColumns];
    alignas(64) float rounded[kOutColumns];
    if (c.int8) {
      add_accs(c, t, begin, end, exact);
      if (c.weight_sums) take_out_zeros(c, t, begin, end, w_sum, exact);
      out.scale = c.mem.h_quant[t].scale;
      out.sum = exact;
    } else {
      add_accs(c, t, begin, end, rounded);
      out.sum = rounded;
    }
    if (c.args.residual != nullptr) out.residual = c.args.residual + t * c.args.ld_residual + begin;
    out.y = c.args.y + t * c.args.ldy + begin;
    c.ffn.kernel->out(out);
  }
}

}  // namespace sprun::kernels::sparse_ffn
