#include "kernels/sparse_ffn/call.h"

#include "kernels/gemm/pack.h"

namespace sprun::kernels::sparse_ffn {
namespace {

constexpr int64_t kGateBytes = 128 * 1024;  // of weights in a unit of the gate
constexpr int64_t kMaxSegments = 32;
constexpr int64_t kSegmentFloats = 4 << 20;  // all segments together

// Everything in scratch, carved from one block.
struct Scratch {
  char* at;
  int64_t used = 0;
  template <class T>
  T* take(int64_t count) {
    T* p = at == nullptr ? nullptr : reinterpret_cast<T*>(at + used);
    used += align_scratch(count * static_cast<int64_t>(sizeof(T)));
    return p;
  }
};

}  // namespace

int64_t weight_bytes(const SparseFfn& ffn) {
  switch (ffn.shape.weights) {
    case FfnWeights::kF32:
      return 4;
    case FfnWeights::kBf16:
      return 2;
    case FfnWeights::kInt8:
      return 1;
  }
  return 4;
}

Sizes::Sizes(const SparseFfn& ffn, int64_t t, int workers) : tokens(t) {
  const SparseFfnShape& s = ffn.shape;
  const int64_t bytes = weight_bytes(ffn);
  gate_panels = num_panels(s.d_ff, ffn.gate_nr);
  gate_unit = std::max<int64_t>(1, kGateBytes / (ffn.gate_nr * std::max<int64_t>(s.d_gate, 1) * bytes));
  gate_units = ceil_div(gate_panels, gate_unit);
  ld_g = round_up(s.d_ff, 16) + 16;
  ld_acc = ffn.down_stride / bytes;
  ld_x = s.weights == FfnWeights::kBf16 ? bf16_ldx(s.d_gate) : round_up(s.d_gate, 64);
  ld_up = ffn.up_stride / bytes;
  const bool int8 = s.weights == FfnWeights::kInt8;
  ld_codes = int8 ? round_up(s.d_ff, 64) : bf16_ldx(s.d_ff);
  acc_rows = int8 ? tokens + 1 : tokens;
  list_columns = (int8 ? 256 : 512) / bytes;
  list_block = kListDownBytes / (list_columns * bytes);
  list_blocks = ceil_div(s.d_ff, list_block);
  ld_ids = list_blocks * (list_block + kIndexSlack);
  list_groups = ceil_div(s.d_ff, kListUpNeurons);
  accs = int8 ? workers : std::clamp<int64_t>(kSegmentFloats / (tokens * ld_acc), 1, kMaxSegments);
}

Buffers::Buffers(const SparseFfn& ffn, const Sizes& z, int workers, void* scratch) {
  const SparseFfnShape& s = ffn.shape;
  Scratch mem{static_cast<char*>(scratch)};
  const int64_t t = z.tokens;
  const int64_t bytes = weight_bytes(ffn);
  g = mem.take<float>(t * z.ld_g);
  const bool lists = t >= kFfnListTokens;
  h = mem.take<float>(t * (lists ? std::max(z.ld_g, z.ld_ids) : z.ld_g));
  list_ids = reinterpret_cast<int32_t*>(h);
  moments = mem.take<double>(z.gate_units * t * 2);
  theta = mem.take<float>(t);
  const int64_t zero_units = ceil_div(s.d_ff, kZeroNeurons);
  ids = mem.take<int32_t>(s.d_ff + (zero_units + 1) * kIndexSlack);
  counts = mem.take<int64_t>(2 * zero_units);
  x_gate = mem.take<char>(t * z.ld_x * bytes);
  x_up = mem.take<char>(t * z.ld_up * bytes);
  for (RowQuant* q : {&gate_quant, &up_quant}) {
    *q = {mem.take<float>(t), mem.take<int32_t>(t), mem.take<int32_t>(t)};
  }
  h_quant = mem.take<QuantParams>(t);
  ld_range = round_up(t, 16);
  h_range = mem.take<float>(workers * 2 * ld_range);
  acc = mem.take<char>(z.accs * z.acc_rows * z.ld_acc * 4);
  acc_used = mem.take<int64_t>(z.accs * 8);
  unit_bytes = align_scratch((t + 1) * kFfnUnit * 4) * 2;
  unit = mem.take<char>(unit_bytes * workers);
  const int64_t gemm_scratch = ffn.gate_f32 != nullptr    ? ffn.gate_f32->scratch_bytes
                               : ffn.gate_bf16 != nullptr ? ffn.gate_bf16->scratch_bytes
                                                          : ffn.gate_u8s8->scratch_bytes;
  gemm_bytes = align_scratch(gemm_scratch);
  gemm = mem.take<char>(gemm_bytes * workers);
  h_sum = mem.take<int32_t>(t);
  topk_bytes = align_scratch(top_k_scratch_bytes(s.d_ff));
  topk = mem.take<char>(topk_bytes * (lists ? workers : 1));
  if (lists) {
    list_ends = mem.take<int32_t>(t * z.list_groups);
    list_count = mem.take<int32_t>(t * z.list_blocks * 2);
    list_active = mem.take<int64_t>(t);
    list_acc_bytes = align_scratch(t * std::min(z.list_columns, z.ld_acc) * 4);
    list_acc = mem.take<char>(list_acc_bytes * workers);
    list_piece = mem.take<char>(kListDownBytes * workers);
  }
  if (t >= kManyTokens) {
    codes = mem.take<char>(s.weights == FfnWeights::kF32 ? 0 : t * z.ld_codes * bytes);
    w_sum = mem.take<int32_t>(workers * ffn.gate_nr);
    const int64_t of_up = round_up(kFfnUnit, ffn.gate_nr) * z.ld_up;
    panel_bytes = align_scratch(std::max(of_up, ffn.gate_nr * round_up(s.d_ff, 4)) * bytes);
    panels = mem.take<char>(workers * panel_bytes);
  }
  end = mem.used;
}

}  // namespace sprun::kernels::sparse_ffn
