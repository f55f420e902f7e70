// The inputs of gate and up in the form that the products read.
#include <cstring>

#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

// s8 codes become u8 codes whose zero point is 128 higher.
void copy_codes(const Call& c, const FfnInput& in, int64_t k, int64_t ld, uint8_t* codes,
                const RowQuant& q) {
  const uint8_t flip = in.codes_signed ? 0x80 : 0;
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    q.scale[t] = in.scale[t * in.quant_stride];
    q.zero[t] = in.zero_point[t * in.quant_stride] + flip;
    int32_t sum = 0;
    for (int64_t i = 0; i < k; ++i) {
      const uint8_t code = in.codes[t * in.ld + i] ^ flip;
      codes[t * ld + i] = code;
      sum += code;
    }
    q.sum[t] = sum;
  }
}

void prepare_input(const Call& c, ThreadPool& pool, const FfnInput& in, int64_t k, int64_t ld,
                   char* copy, const RowQuant& q, InputRows* rows) {
  *rows = {copy, ld, q.scale, q.zero, q.sum};
  if (!c.int8) {
    const int64_t bytes = weight_bytes(c.ffn);
    for (int64_t t = 0; t < c.args.tokens; ++t) {
      c.ffn.kernel->convert(in.x + t * in.ld, k, ld, copy + t * ld * bytes);
    }
    return;
  }
  uint8_t* codes = reinterpret_cast<uint8_t*>(copy);
  for (int64_t t = 0; t < c.args.tokens; ++t)
    std::memset(codes + t * ld + k, 0, static_cast<size_t>(ld - k));
  if (in.codes != nullptr) return copy_codes(c, in, k, ld, codes, q);
  QuantizeRowsArgs args{in.x, in.ld, c.args.tokens, k, codes, ld, q.scale, q.zero, q.sum};
  const auto parallel_for = [&pool](int64_t n, int64_t grain, const auto& fn) {
    pool.parallel_for(n, grain, fn);
  };
  const int workers = static_cast<int>(c.workers);
  if (c.args.range == FfnRange::kPerRow) {
    return quantize_per_row(*c.ffn.quantize, args, workers, parallel_for);
  }
  quantize_per_tensor(*c.ffn.quantize, args, workers, c.mem.unit, parallel_for);
  std::fill_n(q.scale, c.args.tokens, q.scale[0]);
  std::fill_n(q.zero, c.args.tokens, q.zero[0]);
}

}  // namespace

void prepare_inputs(Call& c, ThreadPool& pool) {
  const SparseFfnArgs& a = c.args;
  if (c.shape.d_gate > 0) prepare_input(c, pool, a.x_gate, c.shape.d_gate, c.sizes.ld_x, c.mem.x_gate, c.mem.gate_quant,
                &c.gate);
  if (!c.shape.gated()) return;
  prepare_input(c, pool, a.x_up, c.shape.d_up, c.sizes.ld_up, c.mem.x_up, c.mem.up_quant, &c.up);
}

}  // namespace sprun::kernels::sparse_ffn
