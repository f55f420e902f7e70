// Hidden values of listed neurons, and the products with their down rows: every token computes
// every neuron of the list.
#include <cstring>

#include "kernels/sparse_ffn/requant.h"
#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

// Ids of places [begin, end) of the list, and those of the unit after it.
NeuronList list_of(const Call& c, int64_t begin, int64_t end, int64_t next_begin,
                   int64_t next_end) {
  NeuronList list;
  list.count = end - begin;
  std::copy(c.mem.ids + begin, c.mem.ids + end, list.ids);
  const int64_t ahead = std::clamp<int64_t>(next_end - next_begin, 0, kFfnAhead);
  std::copy(c.mem.ids + next_begin, c.mem.ids + next_begin + ahead, list.ids + list.count);
  list.listed = list.count + ahead;
  return list;
}

NeuronList unit_list(const Call& c, int64_t unit, int64_t next) {
  const int64_t begin = unit * kFfnUnit;
  const int64_t next_begin = next < 0 ? 0 : next * kFfnUnit;
  const int64_t next_end = next < 0 ? 0 : std::min(next_begin + kFfnUnit, c.listed);
  return list_of(c, begin, std::min(begin + kFfnUnit, c.listed), next_begin, next_end);
}

// Hidden values whose up values pass through codes of their own: up alone, as the product with ones, then those of the
// gate, then their product. Ranges are not taken: h has a given scale.
void requantized_hidden(const Call& c, FfnHiddenArgs args, int worker) {
  alignas(64) float ones[kFfnUnit];
  std::fill_n(ones, kFfnUnit, 1.0F);
  const SparseFfnRule plain{};
  const bool relu = args.rule->up_activation == FfnActivation::kRelu;
  float* up = reinterpret_cast<float*>(c.mem.unit + c.mem.unit_bytes * worker + c.mem.unit_bytes / 2);
  FfnHiddenArgs of_up = args;
  of_up.rule = &plain;
  of_up.s = ones, of_up.ld_s = 0, of_up.s_listed = true;
  of_up.h = up, of_up.ld_h = kFfnUnit;
  c.ffn.kernel->hidden(of_up);
  args.gated = false;
  c.ffn.kernel->hidden(args);
  for (int64_t t = 0; t < args.tokens; ++t) {
    float* u = up + t * kFfnUnit;
    float* h = args.h + t * args.ld_h;
    requantize(*c.ffn.quantize, *c.args.up_requant, 0, args.ids, u, args.count);
    for (int64_t i = 0; i < args.count; ++i) h[i] *= relu ? std::max(u[i], 0.0F) : u[i];
  }
}

// Scales of the rows lie far apart; the product of the rows gives them time to come.
void fetch_quant(const Call& c, const NeuronList& list) {
  const FfnRowQuant* quant = c.weights<FfnRowQuant>(c.ffn.at.up_quant);
  for (int64_t i = 0; c.int8 && i < list.count; ++i) __builtin_prefetch(quant + list.ids[i]);
}

void hidden(const Call& c, const NeuronList& list, int worker, float* h, int64_t ld_h) {
  void* sums = c.mem.unit + c.mem.unit_bytes * worker;
  const int64_t ld_sums = kFfnUnit;
  if (c.shape.gated() && c.many) {
    up_by_gemm(c, list, worker, sums, ld_sums);
  } else if (c.shape.gated()) {
    fetch_quant(c, list);
    c.ffn.kernel->dot({c.weights<char>(c.ffn.at.up), c.ffn.up_stride, c.sizes.ld_up, list.ids,
                       list.count, list.listed, c.args.tokens, c.up.x, c.up.ld, sums, ld_sums,
                       false});
  }
  float* range = c.mem.h_range + worker * 2 * c.mem.ld_range;
  const FfnHiddenArgs args{&c.args.rule,
                           c.shape.gated(),
                           list.ids,
                           list.count,
                           c.args.tokens,
                           c.mem.g,
                           c.sizes.ld_g,
                           false,
                           sums,
                           ld_sums,
                           c.weights<float>(c.ffn.at.up_bias),
                           c.weights<FfnRowQuant>(c.ffn.at.up_quant),
                           c.weights<int32_t>(c.ffn.at.up_zero),
                           c.shape.d_up,
                           c.up.scale,
                           c.up.zero,
                           c.up.sum,
                           h,
                           ld_h,
                           range,
                           range + c.mem.ld_range};
  if (c.shape.gated() && c.args.up_requant != nullptr) return requantized_hidden(c, args, worker);
  c.ffn.kernel->hidden(args);
}

// The sums of one worker or segment, zero when used for the first time.
char* sums_of(const Call& c, int64_t index) {
  const int64_t bytes = c.sizes.acc_rows * c.sizes.ld_acc * 4;
  char* acc = c.mem.acc + index * bytes;
  if (c.mem.acc_used[8 * index] == 0) std::memset(acc, 0, static_cast<size_t>(bytes));
  c.mem.acc_used[8 * index] = 1;
  return acc;
}

// Repeats the last id; a unit that needs it is the last one, so nothing is listed after it.
void pad(NeuronList* list, int64_t padded) {
  if (padded == list->count) return;
  std::fill(list->ids + list->count, list->ids + padded, list->ids[list->count - 1]);
  list->count = list->listed = padded;
}

// Places [begin, end) of segment i: whole units but for the last.
int64_t segment_begin(const Call& c, int64_t i) {
  return std::min(c.listed, ceil_div(c.listed, kFfnUnit) * i / c.segments * kFfnUnit);
}

}  // namespace

void run_up(const Call& c, int64_t unit, int64_t next, int worker) {
  hidden(c, unit_list(c, unit, next), worker, c.mem.h + unit * kFfnUnit, c.sizes.ld_g);
}

// Scale and zero point of h, from the ranges that the workers saw.
void finish_up(Call& c) {
  float low = 0.0F;
  float high = 0.0F;
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    float min = 0.0F;
    float max = 0.0F;
    for (int64_t w = 0; w < c.workers; ++w) {
      min = std::min(min, c.mem.h_range[w * 2 * c.mem.ld_range + t]);
      max = std::max(max, c.mem.h_range[(w * 2 + 1) * c.mem.ld_range + t]);
    }
    c.mem.h_quant[t] = dynamic_quant_params(min, max);
    low = std::min(low, min);
    high = std::max(high, max);
  }
  if (c.args.range == FfnRange::kPerTensor) {
    std::fill_n(c.mem.h_quant, c.args.tokens, dynamic_quant_params(low, high));
  }
  if (c.args.h_scale > 0.0F) {
    std::fill_n(c.mem.h_quant, c.args.tokens, QuantParams{c.args.h_scale, c.args.h_zero_point});
  }
  c.weight_sums = c.ffn.at.down_zero >= 0;
  for (int64_t t = 0; t < c.args.tokens; ++t) c.weight_sums |= c.mem.h_quant[t].zero_point != 0;
}

// Codes of h, and with c.weight_sums a row of ones after the tokens: it gives the sums of the
// weights that zero points are taken out with.
void run_down_int8(const Call& c, int64_t unit, int64_t next, int worker) {
  NeuronList list = unit_list(c, unit, next);
  uint8_t* codes = reinterpret_cast<uint8_t*>(c.mem.unit + c.mem.unit_bytes * worker);
  const int64_t padded = round_up(list.count, kFfnGroup);
  for (int64_t t = 0; t < c.args.tokens; ++t) {
    uint8_t* row = codes + t * kFfnUnit;
    const float* h = c.mem.h + t * c.sizes.ld_g + unit * kFfnUnit;
    c.ffn.quantize->quantize(h, c.sizes.ld_g, 1, list.count, c.mem.h_quant[t].scale,
                             c.mem.h_quant[t].zero_point, row, kFfnUnit, nullptr);
    std::fill(row + list.count, row + padded, uint8_t{0});
  }
  uint8_t* ones = codes + c.args.tokens * kFfnUnit;
  std::fill(ones, ones + list.count, uint8_t{1});
  std::fill(ones + list.count, ones + padded, uint8_t{0});
  pad(&list, padded);
  c.ffn.kernel->down({c.weights<char>(c.ffn.at.down), c.ffn.down_stride, c.sizes.ld_acc, list.ids,
                      list.count, list.listed, c.args.tokens + (c.weight_sums ? 1 : 0), codes,
                      kFfnUnit, sums_of(c, worker), c.sizes.ld_acc});
}

void run_segment(const Call& c, int64_t segment, int worker) {
  const int64_t end = segment_begin(c, segment + 1);
  char* acc = sums_of(c, segment);
  const int64_t bytes = weight_bytes(c.ffn);
  char* h_row = c.mem.unit + c.mem.unit_bytes * worker + c.mem.unit_bytes / 2;
  for (int64_t at = segment_begin(c, segment); at < end; at += kFfnUnit) {
    const int64_t stop = std::min(at + kFfnUnit, end);
    NeuronList list = list_of(c, at, stop, stop, end);
    float* h = c.mem.h + at;
    hidden(c, list, worker, h, c.sizes.ld_g);
    const int64_t padded = round_up(list.count, kFfnGroup);
    for (int64_t t = 0; t < c.args.tokens; ++t) {
      c.ffn.kernel->convert(h + t * c.sizes.ld_g, list.count, padded, h_row + t * kFfnUnit * bytes);
    }
    pad(&list, padded);
    c.ffn.kernel->down({c.weights<char>(c.ffn.at.down), c.ffn.down_stride, c.sizes.ld_acc, list.ids,
                        list.count, list.listed, c.args.tokens, h_row, kFfnUnit, acc,
                        c.sizes.ld_acc});
  }
}

}  // namespace sprun::kernels::sparse_ffn
