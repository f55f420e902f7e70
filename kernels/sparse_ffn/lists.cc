// Many tokens, each with its own list of active neurons: no token computes what only others need.
//
// A group of up rows stays in a cache while all tokens take theirs from it; likewise a piece of the
// down rows, list_block neurons by list_columns outputs, whose successor is fetched meanwhile.
// A list is made in the place of the gate row: values of block b lie from b * list_block on.
#include <cstring>

#include "kernels/sparse_ffn/steps.h"

namespace sprun::kernels::sparse_ffn {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kCopyTokens = 48;  // that pay for a copy of the rows they share

int32_t* ids_of(const Call& c, int64_t t, int64_t block) {
  return c.mem.list_ids + t * c.sizes.ld_ids + block * (c.sizes.list_block + kIndexSlack);
}

float* values_of(const Call& c, int64_t t, int64_t block) {
  return c.mem.g + t * c.sizes.ld_g + block * c.sizes.list_block;
}

int32_t* count_of(const Call& c, int64_t t, int64_t block) {
  return c.mem.list_count + (t * c.sizes.list_blocks + block) * 2;
}

int64_t groups_of_block(const Call& c) { return c.sizes.list_block / kListUpNeurons; }

// Places behind the groups of neurons of a token.
int32_t* ends_of(const Call& c, int64_t t) { return c.mem.list_ends + t * c.sizes.list_groups; }

// Entries of a block.
int64_t entries(const Call& c, int64_t t, int64_t block) {
  const int64_t last = std::min((block + 1) * groups_of_block(c), c.sizes.list_groups) - 1;
  return ends_of(c, t)[last];
}

// Fetches part `part` of `parts` of `rows` rows of `bytes` each.
void fetch_part(const char* rows, int64_t stride, int64_t bytes, int64_t count, int64_t part,
                int64_t parts) {
  for (int64_t r = part * count / parts; r < (part + 1) * count / parts; ++r) {
    for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(rows + r * stride + at, 0, 2);
  }
}

// Lists lie far apart: no hardware sees where the next one is.
void fetch_list(const int32_t* ids, const void* values, int64_t count, int64_t value_bytes) {
  const char* first = reinterpret_cast<const char*>(ids);
  for (int64_t at = 0; at < count * 4 + kLine; at += kLine) __builtin_prefetch(first + at);
  const char* value = static_cast<const char*>(values);
  for (int64_t at = 0; at < count * value_bytes + kLine; at += kLine) {
    __builtin_prefetch(value + at, 1);
  }
}

void keep_top_k(const Call& c, float* g, int worker) {
  const SparseFfnRule& rule = c.args.rule;
  const bool by_abs = rule.sparsifier == FfnSparsifier::kTopKAbs;
  if (!by_abs && rule.sparsifier != FfnSparsifier::kTopK) return;
  const TopKCut cut =
      top_k_cut(g, c.shape.d_ff, rule.k, by_abs, c.mem.topk + worker * c.mem.topk_bytes);
  top_k_keep(g, c.shape.d_ff, by_abs, cut, g);
}

// Neurons [begin, begin + n) of a gate row; `values` is no later than the row's own place.
int64_t take_active(const Call& c, int64_t t, int64_t begin, int64_t n, int32_t* ids,
                    float* values) {
  const SparseFfnRule& rule = c.args.rule;
  float* g = c.mem.g + t * c.sizes.ld_g;
  const int32_t base = static_cast<int32_t>(begin);
  if (rule.sparsifier == FfnSparsifier::kStatTopK || rule.sparsifier == FfnSparsifier::kRelu) {
    const float theta = rule.sparsifier == FfnSparsifier::kRelu ? 0.0F : c.mem.theta[t];
    return c.ffn.topk->select_above(g + begin, n, theta, base, ids, values);
  }
  const float* thresholds = rule.thresholds == nullptr ? nullptr : rule.thresholds + begin;
  c.ffn.kernel->sparsify({&rule, 0.0F, thresholds, g + begin, n});
  const int64_t count = c.ffn.topk->select_non_zero(g + begin, c.sizes.ld_g, 1, n, base, ids);
  for (int64_t i = 0; i < count; ++i) values[i] = g[ids[i]];
  return count;
}

// Codes of one block by sign: magnitudes below the zero point, then those above; h that rounds to
// zero is left out.
struct Signed {
  int32_t ids[kMostListBlock + kFfnGroup];
  uint8_t codes[kMostListBlock + kFfnGroup];
  int64_t count = 0;

  void put(int32_t id, int32_t magnitude) {  // keeps it if above 0
    ids[count] = id;
    codes[count] = static_cast<uint8_t>(magnitude);
    count += magnitude > 0 ? 1 : 0;
  }
  void pad() {
    const int64_t padded = round_up(count, kFfnGroup);
    for (int64_t i = count; i < padded; ++i) {
      ids[i] = ids[count - 1];
      codes[i] = 0;
    }
    count = padded;
  }
  void copy(int32_t* to_ids, uint8_t* to_codes) const {
    std::memcpy(to_ids, ids, static_cast<size_t>(count) * 4);
    std::memcpy(to_codes, codes, static_cast<size_t>(count));
  }
};

int32_t split_codes(const Call& c, int64_t t, int64_t block) {
  const QuantParams q = c.mem.h_quant[t];
  const int64_t n = entries(c, t, block);
  int32_t* ids = ids_of(c, t, block);
  float* h = values_of(c, t, block);
  uint8_t codes[kMostListBlock];
  int32_t sum = 0;
  c.ffn.quantize->quantize(h, n, 1, n, q.scale, q.zero_point, codes, n, &sum);
  Signed below;
  Signed above;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t centred = codes[i] - q.zero_point;
    below.put(ids[i], -centred);
    above.put(ids[i], centred);
  }
  below.pad();
  above.pad();
  uint8_t* out = reinterpret_cast<uint8_t*>(h);
  below.copy(ids, out);
  above.copy(ids + below.count, out + below.count);
  int32_t* counts = count_of(c, t, block);
  counts[0] = static_cast<int32_t>(below.count);
  counts[1] = static_cast<int32_t>(below.count + above.count);
  return sum - static_cast<int32_t>(n) * q.zero_point;
}

// h of a block in the type of the products, padded.
void convert_block(const Call& c, int64_t t, int64_t block) {
  const int64_t n = entries(c, t, block);
  const int64_t padded = round_up(n, kFfnGroup);
  int32_t* ids = ids_of(c, t, block);
  if (n > 0) std::fill(ids + n, ids + padded, ids[n - 1]);
  float* h = values_of(c, t, block);
  alignas(kLine) float converted[kMostListBlock];
  c.ffn.kernel->convert(h, n, padded, converted);
  std::memcpy(h, converted, static_cast<size_t>(padded * weight_bytes(c.ffn)));
  count_of(c, t, block)[1] = static_cast<int32_t>(padded);
}

// A piece of rows without the gaps between them: a row a page would miss most translations.
void copy_rows(const char* rows, int64_t stride, int64_t count, int64_t bytes, char* piece) {
  for (int64_t r = 0; r < count; ++r) {
    std::memcpy(piece + r * bytes, rows + r * stride, static_cast<size_t>(bytes));
  }
}

// y of the outputs [n0, n0 + n) of a token from its sums.
void write_row(const Call& c, int64_t t, int64_t n0, int64_t n, void* sums) {
  FfnOutArgs out{n, sums, 1.0F, nullptr, nullptr, nullptr, nullptr};
  const float* bias = c.weights<float>(c.ffn.at.down_bias);
  if (bias != nullptr) out.bias = bias + n0;
  if (c.int8) {
    out.w_scale = c.weights<float>(c.ffn.at.down_scale) + n0;
    out.scale = c.mem.h_quant[t].scale;
    const int32_t* w_zero = c.weights<int32_t>(c.ffn.at.down_zero);
    int32_t* exact = static_cast<int32_t*>(sums);
    for (int64_t i = 0; w_zero != nullptr && i < n; ++i)
      exact[i] -= w_zero[n0 + i] * c.mem.h_sum[t];
  }
  if (c.args.residual != nullptr) out.residual = c.args.residual + t * c.args.ld_residual + n0;
  out.y = c.args.y + t * c.args.ldy + n0;
  c.ffn.kernel->out(out);
}

}  // namespace

void run_list_row(const Call& c, int64_t t, int worker) {
  set_threshold(c, t);
  keep_top_k(c, c.mem.g + t * c.sizes.ld_g, worker);
  const int64_t in_block = groups_of_block(c);
  int64_t place = 0;
  c.mem.list_active[t] = 0;
  for (int64_t group = 0; group < c.sizes.list_groups; ++group) {
    const int64_t block = group / in_block;
    if (group % in_block == 0) place = 0;
    const int64_t begin = group * kListUpNeurons;
    const int64_t n = std::min(kListUpNeurons, c.shape.d_ff - begin);
    const int64_t count =
        take_active(c, t, begin, n, ids_of(c, t, block) + place, values_of(c, t, block) + place);
    place += count;
    c.mem.list_active[t] += count;
    ends_of(c, t)[group] = static_cast<int32_t>(place);
    int32_t* counts = count_of(c, t, block);
    counts[0] = 0;
    counts[1] = static_cast<int32_t>(place);
  }
}

void run_expand(const Call& c, int64_t t) {
  for (int64_t block = 0; block < c.sizes.list_blocks; ++block) {
    const int64_t first = block * c.sizes.list_block;
    const int64_t n = entries(c, t, block);
    const int32_t* ids = ids_of(c, t, block);
    float* g = values_of(c, t, block);
    float values[kMostListBlock];
    std::copy(g, g + n, values);
    std::fill(g, g + std::min(c.sizes.list_block, c.shape.d_ff - first), 0.0F);
    for (int64_t i = 0; i < n; ++i) g[ids[i] - first] = values[i];
  }
}

void run_list_up(const Call& c, int64_t group, int64_t next, int worker) {
  const int64_t block = group / groups_of_block(c);
  const bool first = group % groups_of_block(c) == 0;
  const char* rows = c.weights<char>(c.ffn.at.up);
  const int64_t stride = c.ffn.up_stride;
  const int64_t m = c.args.tokens;
  const char* x = static_cast<const char*>(c.up.x);
  const int64_t x_bytes = c.up.ld * weight_bytes(c.ffn);
  char* sums = c.mem.unit + c.mem.unit_bytes * worker;
  float* range = c.mem.h_range + worker * 2 * c.mem.ld_range;
  FfnHiddenArgs h{};
  h.rule = &c.args.rule;
  h.gated = c.shape.gated();
  h.tokens = 1;
  h.s_listed = true;
  h.bias = c.weights<float>(c.ffn.at.up_bias);
  h.quant = c.weights<FfnRowQuant>(c.ffn.at.up_quant);
  h.w_zero = c.weights<int32_t>(c.ffn.at.up_zero);
  h.k = c.shape.d_up;
  const int64_t next_first = next * kListUpNeurons;
  const int64_t next_count = next < 0 ? 0 : std::min(kListUpNeurons, c.shape.d_ff - next_first);
  for (int64_t t = 0; t < m; ++t) {
    const int64_t begin = first ? 0 : ends_of(c, t)[group - 1];
    const int64_t end = ends_of(c, t)[group];
    const int32_t* ids = ids_of(c, t, block);
    if (t + 1 < m) {
      const int64_t next_begin = first ? 0 : ends_of(c, t + 1)[group - 1];
      fetch_list(ids_of(c, t + 1, block) + next_begin, values_of(c, t + 1, block) + next_begin,
                 ends_of(c, t + 1)[group] - next_begin, 4);
    }
    if (h.gated) {
      fetch_part(rows + next_first * stride, stride, stride, next_count, t, m);
      c.ffn.kernel->dot({rows, stride, c.sizes.ld_up, ids + begin, end - begin, end - begin, 1,
                         x + t * x_bytes, c.up.ld, sums, 0, true});
      if (c.int8) {
        h.x_scale = c.up.scale + t;
        h.x_zero = c.up.zero + t;
        h.x_sum = c.up.sum + t;
      }
    }
    h.min = range + t;
    h.max = range + c.mem.ld_range + t;
    for (int64_t at = begin; at < end; at += kFfnUnit) {
      h.ids = ids + at;
      h.count = std::min(kFfnUnit, end - at);
      h.sums = sums + (at - begin) * 4;
      h.h = values_of(c, t, block) + at;
      h.s = h.h;
      c.ffn.kernel->hidden(h);
    }
  }
}

void run_list_codes(const Call& c, int64_t t) {
  int32_t sum = 0;
  for (int64_t block = 0; block < c.sizes.list_blocks; ++block) {
    if (c.int8) {
      sum += split_codes(c, t, block);
    } else {
      convert_block(c, t, block);
    }
  }
  c.mem.h_sum[t] = sum;
}

void run_list_down(const Call& c, int64_t unit, int64_t next, int worker) {
  const int64_t bytes = weight_bytes(c.ffn);
  const int64_t n0 = unit * c.sizes.list_columns;
  const int64_t n = std::min(c.sizes.list_columns, c.sizes.ld_acc - n0);
  const int64_t stride = c.ffn.down_stride;
  const char* down = c.weights<char>(c.ffn.at.down);
  char* acc = c.mem.list_acc + c.mem.list_acc_bytes * worker;
  const bool copy = c.args.tokens >= kCopyTokens;
  char* piece = c.mem.list_piece + kListDownBytes * worker;
  for (int64_t block = 0; block < c.sizes.list_blocks; ++block) {
    const int64_t row = block * c.sizes.list_block;
    const char* rows = down + n0 * bytes;
    if (copy) {
      copy_rows(rows + row * stride, stride, std::min(c.sizes.list_block, c.shape.d_ff - row),
                n * bytes, piece);
      rows = piece - row * n * bytes;
    }
    const bool last = block + 1 == c.sizes.list_blocks;
    const int64_t next_row = last ? 0 : (block + 1) * c.sizes.list_block;
    const int64_t next_n0 = last ? next * c.sizes.list_columns : n0;
    const int64_t next_rows = std::min(c.sizes.list_block, c.shape.d_ff - next_row);
    const int64_t next_n = std::min(c.sizes.list_columns, c.sizes.ld_acc - next_n0);
    for (int64_t t = 0; t < c.args.tokens; ++t) {
      if (!last || next >= 0) {
        fetch_part(down + next_row * stride + next_n0 * bytes, stride, next_n * bytes, next_rows, t,
                   c.args.tokens);
      }
      const int32_t* counts = count_of(c, t, block);
      if (t + 1 < c.args.tokens) {
        fetch_list(ids_of(c, t + 1, block), values_of(c, t + 1, block),
                   count_of(c, t + 1, block)[1], bytes);
      }
      if (counts[1] == 0 && block > 0) continue;
      c.ffn.kernel->down_list({rows, copy ? n * bytes : stride, n, ids_of(c, t, block), counts[0],
                               counts[1], values_of(c, t, block), acc + t * n * 4, block > 0});
    }
  }
  const int64_t outputs = std::min(n, c.shape.d_out - n0);
  for (int64_t t = 0; t < c.args.tokens; ++t) write_row(c, t, n0, outputs, acc + t * n * 4);
}

}  // namespace sprun::kernels::sparse_ffn
