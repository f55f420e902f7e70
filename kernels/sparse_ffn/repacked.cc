// Up and down of all neurons for many tokens: the dense GEMM, on panels that are packed on the way.
#include "kernels/sparse_ffn/repack.h"

#include "kernels/gemm/pack.h"
#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

template <class Gemm, class Args>
void run_gemm(const Call& c, const Gemm& gemm, const Args& args, int64_t panels, int worker) {
  gemm.run(args, TileRange{0, c.args.tokens, 0, panels}, c.mem.gemm + c.mem.gemm_bytes * worker);
}

GemmU8S8Args down_args(const Call& c, int64_t n0, int64_t n, const int8_t* w, const int32_t* w_sum,
                       float* y, const Epilogue& epilogue) {
  constexpr int64_t kQuantStride = sizeof(QuantParams) / 4;
  GemmU8S8Args g;
  g.m = c.args.tokens;
  g.n = n;
  g.k = c.shape.d_ff;
  g.x = reinterpret_cast<const uint8_t*>(c.mem.codes);
  g.ldx = c.sizes.ld_codes;
  g.w = w;
  g.w_sum = w_sum;
  g.x_zero_point = &c.mem.h_quant->zero_point;
  g.x_zero_point_stride = kQuantStride;
  if (c.ffn.at.down_zero >= 0) g.w_zero_point = c.weights<int32_t>(c.ffn.at.down_zero) + n0;
  g.w_zero_point_stride = 1;
  g.x_sum = c.mem.h_sum;
  g.x_scale = &c.mem.h_quant->scale;
  g.x_scale_stride = kQuantStride;
  g.w_scale = c.weights<float>(c.ffn.at.down_scale) + n0;
  g.w_scale_stride = 1;
  g.y = y;
  g.ldy = c.args.ldy;
  g.epilogue = epilogue;
  return g;
}

}  // namespace

// The dot of the listed neurons, which follow each other.
void up_by_gemm(const Call& c, const NeuronList& list, int worker, void* sums, int64_t ld_sums) {
  const int64_t nr = c.ffn.gate_nr;
  const int64_t panels = num_panels(list.count, nr);
  const int64_t units = c.ffn.up_stride / 4;
  char* packed = c.mem.panels + c.mem.panel_bytes * worker;
  const char* rows = c.weights<char>(c.ffn.at.up) + list.ids[0] * c.ffn.up_stride;
  for (int64_t p = 0; p < panels; ++p) {
    pack_row_units(rows + p * nr * c.ffn.up_stride, c.ffn.up_stride, list.count - p * nr, units, nr,
                   packed + 4 * p * units * nr);
  }
  const int64_t m = c.args.tokens;
  if (c.ffn.gate_f32 != nullptr) {
    const GemmF32Args args{m,
                           list.count,
                           c.sizes.ld_up,
                           static_cast<const float*>(c.up.x),
                           c.up.ld,
                           reinterpret_cast<const float*>(packed),
                           static_cast<float*>(sums),
                           ld_sums,
                           {}};
    return run_gemm(c, *c.ffn.gate_f32, args, panels, worker);
  }
  if (c.ffn.gate_bf16 != nullptr) {
    const GemmBf16Args args{m,
                            list.count,
                            c.sizes.ld_up,
                            static_cast<const uint16_t*>(c.up.x),
                            c.up.ld,
                            reinterpret_cast<const uint16_t*>(packed),
                            static_cast<float*>(sums),
                            ld_sums,
                            {}};
    return run_gemm(c, *c.ffn.gate_bf16, args, panels, worker);
  }
  GemmU8S8Args args;
  args.m = m;
  args.n = list.count;
  args.k = c.sizes.ld_up;
  args.x = static_cast<const uint8_t*>(c.up.x);
  args.ldx = c.up.ld;
  args.w = reinterpret_cast<const int8_t*>(packed);
  args.y_s32 = static_cast<int32_t*>(sums);
  args.ldy = ld_sums;
  run_gemm(c, *c.ffn.gate_u8s8, args, panels, worker);
}

void run_codes(const Call& c, int64_t t) {
  const float* h = c.mem.h + t * c.sizes.ld_g;
  if (!c.int8)
    return c.ffn.kernel->convert(h, c.shape.d_ff, c.sizes.ld_codes,
                                 c.mem.codes + 2 * t * c.sizes.ld_codes);
  const QuantParams q = c.mem.h_quant[t];
  c.ffn.quantize->quantize(h, c.sizes.ld_g, 1, c.shape.d_ff, q.scale, q.zero_point,
                           reinterpret_cast<uint8_t*>(c.mem.codes) + t * c.sizes.ld_codes,
                           c.sizes.ld_codes, c.mem.h_sum + t);
}

// Outputs of one panel, to y.
void run_down_panel(const Call& c, int64_t panel, int worker) {
  const int64_t nr = c.ffn.gate_nr;
  const int64_t m = c.args.tokens;
  const int64_t n0 = panel * nr;
  const int64_t n = std::min(nr, c.shape.d_out - n0);
  char* packed = c.mem.panels + c.mem.panel_bytes * worker;
  Epilogue epilogue;
  if (c.ffn.at.down_bias >= 0) epilogue.bias = c.weights<float>(c.ffn.at.down_bias) + n0;
  if (c.args.residual != nullptr) epilogue.residual = c.args.residual + n0;
  epilogue.ld_residual = c.args.ld_residual;
  float* y = c.args.y + n0;
  if (c.ffn.gate_f32 != nullptr) {
    float* w = reinterpret_cast<float*>(packed);
    const float* rows = c.weights<float>(c.ffn.at.down) + n0;
    c.ffn.gate_f32->pack({rows, n, c.shape.d_ff, 1, c.sizes.ld_acc}, 0, 1, w);
    const GemmF32Args args{m, n, c.shape.d_ff, c.mem.h, c.sizes.ld_g, w, y, c.args.ldy, epilogue};
    return run_gemm(c, *c.ffn.gate_f32, args, 1, worker);
  }
  if (c.ffn.gate_bf16 != nullptr) {
    pack_row_pairs(c.weights<char>(c.ffn.at.down) + 2 * n0, c.ffn.down_stride, c.shape.d_ff,
                   c.sizes.ld_acc - n0, nr, packed);
    const GemmBf16Args args{m,
                            n,
                            c.shape.d_ff,
                            reinterpret_cast<const uint16_t*>(c.mem.codes),
                            c.sizes.ld_codes,
                            reinterpret_cast<const uint16_t*>(packed),
                            y,
                            c.args.ldy,
                            epilogue};
    return run_gemm(c, *c.ffn.gate_bf16, args, 1, worker);
  }
  int32_t* w_sum = c.mem.w_sum + nr * worker;
  int8_t* w = reinterpret_cast<int8_t*>(packed);
  pack_s8({c.weights<int8_t>(c.ffn.at.down) + n0, n, c.shape.d_ff, 1, c.ffn.down_stride}, nr, 0, 1,
          w, w_sum);
  run_gemm(c, *c.ffn.gate_u8s8, down_args(c, n0, n, w, w_sum, y, epilogue), 1, worker);
}

}  // namespace sprun::kernels::sparse_ffn
