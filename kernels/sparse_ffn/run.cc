// Runs a sparse feed-forward layer: the phases of its one parallel region.
//
//   gate   g = W_gate x, sums for the statistics        units: blocks of neurons
//   zeros  s = sparsifier(g) in place, list of neurons  units: blocks of neurons
//   up     h = act(s) up(x) of listed neurons           units: kFfnUnit listed neurons (int8)
//   codes  h as the dense GEMM reads it                 units: tokens (many tokens only)
//   down   sums of h times down rows                    units: kFfnUnit listed neurons, or segments
//   out    y from the sums                              units: blocks of outputs
// int8 needs the range of h before down, so up is a phase of its own; float layers do up and down
// of a unit at once. Their segments are a function of the number of listed neurons, never of the
// threads, and are added in order. With many tokens (kManyTokens) nearly every neuron is active for
// some of them: all are taken, up and down by the dense GEMM on panels that are packed on the way.
#include <algorithm>
#include <cstring>

#include "kernels/gemm/pack.h"
#include "kernels/gemm/quantize_rows.h"
#include "kernels/sparse_ffn/phases.h"
#include "kernels/sparse_ffn/repack.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

constexpr int64_t kGateBytes = 128 * 1024;  // of weights in a unit of the gate
constexpr int64_t kZeroNeurons = 2048;
constexpr int64_t kOutColumns = 512;
constexpr int64_t kMaxSegments = 32;
constexpr int64_t kSegmentFloats = 4 << 20;  // all segments together

// From here on packing panels costs less than the faster products save.
constexpr int64_t kManyTokens = 32;

enum Phase { kGate, kZeros, kUp, kCodes, kDown, kOut, kPhases };

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t ceil_div(int64_t n, int64_t step) { return (n + step - 1) / step; }

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

// Sizes that follow from shape and tokens, in elements.
struct Sizes {
  int64_t tokens, gate_panels, gate_unit, gate_units;
  int64_t ld_g;         // rows of g and h
  int64_t ld_acc;       // outputs, whole lines
  int64_t ld_x, ld_up;  // rows of converted x
  int64_t accs;         // sets of sums: workers or segments
  int64_t acc_rows;     // of a set
  int64_t ld_codes;     // rows of h as the dense GEMM reads them

  Sizes(const SparseFfn& ffn, int64_t t, int workers) : tokens(t) {
    const SparseFfnShape& s = ffn.shape;
    const int64_t bytes = weight_bytes(ffn);
    gate_panels = num_panels(s.d_ff, ffn.gate_nr);
    gate_unit = std::max<int64_t>(1, kGateBytes / (ffn.gate_nr * s.d_gate * bytes));
    gate_units = ceil_div(gate_panels, gate_unit);
    ld_g = round_up(s.d_ff, 16) + 16;
    ld_acc = ffn.down_stride / bytes;
    ld_x = s.weights == FfnWeights::kBf16 ? bf16_ldx(s.d_gate) : round_up(s.d_gate, 64);
    ld_up = ffn.up_stride / bytes;
    const bool int8 = s.weights == FfnWeights::kInt8;
    ld_codes = int8 ? round_up(s.d_ff, 64) : bf16_ldx(s.d_ff);
    acc_rows = int8 ? tokens + 1 : tokens;
    accs =
        int8 ? workers : std::clamp<int64_t>(kSegmentFloats / (tokens * ld_acc), 1, kMaxSegments);
  }
};

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

struct RowQuant {
  float* scale;
  int32_t* zero;
  int32_t* sum;
};

struct Buffers {
  float* g;         // [tokens, ld_g]: gate values, then s
  float* h;         // [tokens, ld_g] by place in the list
  double* moments;  // [gate_units, tokens, 2]
  float* theta;     // [tokens]
  int32_t* ids;     // listed neurons
  int64_t* counts;  // [2, zero units]: listed, active
  char *x_gate, *x_up;
  RowQuant gate_quant, up_quant;
  QuantParams* h_quant;  // [tokens]
  float* h_range;        // [workers, 2, ld_range]
  int64_t ld_range;
  char* acc;          // [accs, acc_rows, ld_acc] of 4 bytes
  int64_t* acc_used;  // [accs, 8]
  char* unit;         // per worker: codes and sums of a unit
  int64_t unit_bytes;
  char* gemm;
  int64_t gemm_bytes;
  char* topk;
  // Many tokens only.
  char* codes;     // [tokens, ld_codes] int8 or bf16
  int32_t* h_sum;  // [tokens] of codes
  int32_t* w_sum;  // per worker, a panel
  char* panels;    // per worker
  int64_t panel_bytes;
  int64_t end;

  Buffers(const SparseFfn& ffn, const Sizes& z, int workers, void* scratch) {
    const SparseFfnShape& s = ffn.shape;
    Scratch mem{static_cast<char*>(scratch)};
    const int64_t t = z.tokens;
    const int64_t bytes = weight_bytes(ffn);
    g = mem.take<float>(t * z.ld_g);
    h = mem.take<float>(t * z.ld_g);
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
    topk = mem.take<char>(top_k_scratch_bytes(s.d_ff));
    if (t >= kManyTokens) {
      codes = mem.take<char>(s.weights == FfnWeights::kF32 ? 0 : t * z.ld_codes * bytes);
      h_sum = mem.take<int32_t>(t);
      w_sum = mem.take<int32_t>(workers * ffn.gate_nr);
      const int64_t of_up = round_up(kFfnUnit, ffn.gate_nr) * z.ld_up;
      panel_bytes = align_scratch(std::max(of_up, ffn.gate_nr * round_up(s.d_ff, 4)) * bytes);
      panels = mem.take<char>(workers * panel_bytes);
    }
    end = mem.used;
  }
};

class Call {
 public:
  Call(const SparseFfn& ffn, const SparseFfnArgs& args, int workers, void* scratch)
      : f_(ffn),
        a_(args),
        s_(ffn.shape),
        z_(ffn, args.tokens, workers),
        b_(ffn, z_, workers, scratch),
        blob_(static_cast<const char*>(args.weights)),
        int8_(ffn.shape.weights == FfnWeights::kInt8),
        workers_(workers) {}

  // What precedes the region, on the calling thread.
  void prepare() {
    prepare_input(a_.x_gate, s_.d_gate, z_.ld_x, b_.x_gate, b_.gate_quant, &gate_);
    if (s_.gated()) prepare_input(a_.x_up, s_.d_up, z_.ld_up, b_.x_up, b_.up_quant, &up_);
    std::fill_n(b_.h_range, workers_ * 2 * b_.ld_range, 0.0F);
    for (int64_t i = 0; i < z_.accs; ++i) b_.acc_used[8 * i] = 0;
  }

  int64_t units(int phase) const {
    switch (phase) {
      case kGate:
        return z_.gate_units;
      case kZeros:
        return ceil_div(s_.d_ff, kZeroNeurons);
      case kUp:
        return int8_ || many_ ? ceil_div(listed_, kFfnUnit) : 0;
      case kCodes:
        return many_ && s_.weights != FfnWeights::kF32 ? a_.tokens : 0;
      case kDown:
        if (many_) return num_panels(s_.d_out, f_.gate_nr);
        return int8_ ? ceil_div(listed_, kFfnUnit) : segments_;
      default:
        return many_ ? 0 : ceil_div(s_.d_out, kOutColumns);
    }
  }

  void run(int phase, int64_t unit, int64_t next, int worker) {
    switch (phase) {
      case kGate:
        return run_gate(unit, worker);
      case kZeros:
        return run_zeros(unit);
      case kUp:
        return run_up(unit, next, worker);
      case kCodes:
        return run_codes(unit);
      case kDown:
        if (many_) return run_down_panel(unit, worker);
        return int8_ ? run_down_int8(unit, next, worker) : run_segment(unit, worker);
      default:
        return run_out(unit);
    }
  }

  void finish(int phase) {
    if (phase == kGate) finish_gate();
    if (phase == kZeros) finish_zeros();
    if (phase == kUp) finish_up();
  }

  void report(SparseFfnStats* stats) const {
    if (stats == nullptr) return;
    *stats = {active_, union_, path_, sparse_ffn_bytes(f_, listed_)};
  }

 private:
  // x as the products read it.
  struct Rows {
    const void* x;
    int64_t ld;
    const float* scale;
    const int32_t* zero;
    const int32_t* sum;
  };

  template <class T>
  const T* weights(int64_t offset) const {
    return offset < 0 ? nullptr : reinterpret_cast<const T*>(blob_ + offset);
  }

  void prepare_input(const FfnInput& in, int64_t k, int64_t ld, char* copy, const RowQuant& q,
                     Rows* rows) {
    *rows = {copy, ld, q.scale, q.zero, q.sum};
    if (!int8_) {
      const int64_t bytes = weight_bytes(f_);
      for (int64_t t = 0; t < a_.tokens; ++t) {
        f_.kernel->convert(in.x + t * in.ld, k, ld, copy + t * ld * bytes);
      }
      return;
    }
    uint8_t* codes = reinterpret_cast<uint8_t*>(copy);
    for (int64_t t = 0; t < a_.tokens; ++t)
      std::memset(codes + t * ld + k, 0, static_cast<size_t>(ld - k));
    if (in.codes != nullptr) return copy_codes(in, k, ld, codes, q);
    QuantizeRowsArgs args{in.x, in.ld, a_.tokens, k, codes, ld, q.scale, q.zero, q.sum};
    if (a_.range == FfnRange::kPerRow) return quantize_rows_each(*f_.quantize, args, 0, a_.tokens);
    const auto inline_for = [](int64_t n, int64_t, const auto& fn) { fn(0, n, 0); };
    alignas(64) char ranges[64];
    quantize_per_tensor(*f_.quantize, args, 1, ranges, inline_for);
    std::fill_n(q.scale, a_.tokens, q.scale[0]);
    std::fill_n(q.zero, a_.tokens, q.zero[0]);
  }

  void copy_codes(const FfnInput& in, int64_t k, int64_t ld, uint8_t* codes, const RowQuant& q) {
    for (int64_t t = 0; t < a_.tokens; ++t) {
      std::memcpy(codes + t * ld, in.codes + t * in.ld, static_cast<size_t>(k));
      q.scale[t] = in.scale[t * in.quant_stride];
      q.zero[t] = in.zero_point[t * in.quant_stride];
      int32_t sum = 0;
      for (int64_t i = 0; i < k; ++i) sum += codes[t * ld + i];
      q.sum[t] = sum;
    }
  }

  // ---- gate
  void run_gate(int64_t unit, int worker) {
    const int64_t p0 = unit * z_.gate_unit;
    const int64_t p1 = std::min(p0 + z_.gate_unit, z_.gate_panels);
    const TileRange tiles{0, a_.tokens, p0, p1};
    void* own = b_.gemm + b_.gemm_bytes * worker;
    Epilogue epilogue;
    epilogue.bias = weights<float>(f_.at.gate_bias);
    const int64_t m = a_.tokens;
    if (f_.gate_f32 != nullptr) {
      f_.gate_f32->run({m, s_.d_ff, s_.d_gate, static_cast<const float*>(gate_.x), gate_.ld,
                        weights<float>(f_.at.gate), b_.g, z_.ld_g, epilogue},
                       tiles, own);
    } else if (f_.gate_bf16 != nullptr) {
      f_.gate_bf16->run({m, s_.d_ff, s_.d_gate, static_cast<const uint16_t*>(gate_.x), gate_.ld,
                         weights<uint16_t>(f_.at.gate), b_.g, z_.ld_g, epilogue},
                        tiles, own);
    } else {
      f_.gate_u8s8->run(gate_args(epilogue), tiles, own);
    }
    if (a_.rule.sparsifier != FfnSparsifier::kStatTopK) return;
    const int64_t begin = p0 * f_.gate_nr;
    const int64_t n = std::min(p1 * f_.gate_nr, s_.d_ff) - begin;
    for (int64_t t = 0; t < m; ++t) {
      double* out = b_.moments + (unit * m + t) * 2;
      f_.topk->moments(b_.g + t * z_.ld_g + begin, n, out, out + 1);
    }
  }

  GemmU8S8Args gate_args(const Epilogue& epilogue) const {
    GemmU8S8Args g;
    g.m = a_.tokens;
    g.n = s_.d_ff;
    g.k = s_.d_gate;
    g.x = static_cast<const uint8_t*>(gate_.x);
    g.ldx = gate_.ld;
    g.w = weights<int8_t>(f_.at.gate);
    g.w_sum = weights<int32_t>(f_.at.gate_sum);
    g.x_zero_point = gate_.zero;
    g.x_zero_point_stride = 1;
    g.w_zero_point = weights<int32_t>(f_.at.gate_zero);
    g.w_zero_point_stride = 1;
    g.x_sum = gate_.sum;
    g.x_scale = gate_.scale;
    g.x_scale_stride = 1;
    g.w_scale = weights<float>(f_.at.gate_scale);
    g.w_scale_stride = 1;
    g.y = b_.g;
    g.ldy = z_.ld_g;
    g.epilogue = epilogue;
    return g;
  }

  void finish_gate() {
    const SparseFfnRule& rule = a_.rule;
    const bool by_abs = rule.sparsifier == FfnSparsifier::kTopKAbs;
    for (int64_t t = 0; t < a_.tokens; ++t) {
      float* g = b_.g + t * z_.ld_g;
      if (by_abs || rule.sparsifier == FfnSparsifier::kTopK) {
        const TopKCut cut = top_k_cut(g, s_.d_ff, rule.k, by_abs, b_.topk);
        top_k_keep(g, s_.d_ff, by_abs, cut, g);
      }
      if (rule.sparsifier != FfnSparsifier::kStatTopK) continue;
      double sum = 0;
      double squares = 0;
      for (int64_t u = 0; u < z_.gate_units; ++u) {
        sum += b_.moments[(u * a_.tokens + t) * 2];
        squares += b_.moments[(u * a_.tokens + t) * 2 + 1];
      }
      b_.theta[t] = stat_threshold(sum, squares, s_.d_ff, rule.z, rule.ddof);
    }
  }

  // ---- zeros
  int32_t* unit_ids(int64_t unit) { return b_.ids + unit * (kZeroNeurons + kIndexSlack); }

  void run_zeros(int64_t unit) {
    const int64_t begin = unit * kZeroNeurons;
    const int64_t n = std::min(kZeroNeurons, s_.d_ff - begin);
    const float* thresholds = a_.rule.thresholds;
    FfnSparsifyArgs args{&a_.rule, 0.0F, thresholds == nullptr ? nullptr : thresholds + begin,
                         nullptr, n};
    int64_t active = 0;
    for (int64_t t = 0; t < a_.tokens; ++t) {
      args.theta = b_.theta[t];
      args.g = b_.g + t * z_.ld_g + begin;
      active += f_.kernel->sparsify(args);
    }
    const int64_t units = ceil_div(s_.d_ff, kZeroNeurons);
    b_.counts[unit] = f_.topk->select_non_zero(b_.g + begin, z_.ld_g, a_.tokens, n,
                                               static_cast<int32_t>(begin), unit_ids(unit));
    b_.counts[units + unit] = active;
  }

  void finish_zeros() {
    const int64_t units = ceil_div(s_.d_ff, kZeroNeurons);
    for (int64_t u = 0; u < units; ++u) {
      std::memmove(b_.ids + union_, unit_ids(u), static_cast<size_t>(b_.counts[u]) * 4);
      union_ += b_.counts[u];
      active_ += b_.counts[units + u];
    }
    path_ = a_.path != FfnPath::kAuto ? a_.path : choose_ffn_path(f_, a_.tokens, union_);
    listed_ = union_;
    if (path_ == FfnPath::kDense) {
      listed_ = s_.d_ff;
      for (int64_t j = 0; j < s_.d_ff; ++j) b_.ids[j] = static_cast<int32_t>(j);
    }
    segments_ = std::min(z_.accs, ceil_div(listed_, kFfnUnit));
    many_ = path_ == FfnPath::kDense && a_.tokens >= kManyTokens;
  }

  // ---- up
  struct List {
    int32_t ids[kFfnUnit + kFfnAhead];
    int64_t count, listed;
  };

  // Ids of places [begin, end) of the list, and those of the unit after it.
  List list_of(int64_t begin, int64_t end, int64_t next_begin, int64_t next_end) const {
    List list;
    list.count = end - begin;
    std::copy(b_.ids + begin, b_.ids + end, list.ids);
    const int64_t ahead = std::clamp<int64_t>(next_end - next_begin, 0, kFfnAhead);
    std::copy(b_.ids + next_begin, b_.ids + next_begin + ahead, list.ids + list.count);
    list.listed = list.count + ahead;
    return list;
  }

  List unit_list(int64_t unit, int64_t next) const {
    const int64_t begin = unit * kFfnUnit;
    const int64_t next_begin = next < 0 ? 0 : next * kFfnUnit;
    const int64_t next_end = next < 0 ? 0 : std::min(next_begin + kFfnUnit, listed_);
    return list_of(begin, std::min(begin + kFfnUnit, listed_), next_begin, next_end);
  }

  void hidden(const List& list, int worker, float* h, int64_t ld_h) {
    void* sums = b_.unit + b_.unit_bytes * worker;
    const int64_t ld_sums = kFfnUnit;
    if (s_.gated() && many_) {
      up_by_gemm(list, worker, sums, ld_sums);
    } else if (s_.gated()) {
      f_.kernel->dot({weights<char>(f_.at.up), f_.up_stride, z_.ld_up, list.ids, list.count,
                      list.listed, a_.tokens, up_.x, up_.ld, sums, ld_sums});
    }
    float* range = b_.h_range + worker * 2 * b_.ld_range;
    f_.kernel->hidden({&a_.rule,
                       s_.gated(),
                       list.ids,
                       list.count,
                       a_.tokens,
                       b_.g,
                       z_.ld_g,
                       sums,
                       ld_sums,
                       weights<float>(f_.at.up_bias),
                       weights<FfnRowQuant>(f_.at.up_quant),
                       weights<int32_t>(f_.at.up_zero),
                       s_.d_up,
                       up_.scale,
                       up_.zero,
                       up_.sum,
                       h,
                       ld_h,
                       range,
                       range + b_.ld_range});
  }

  void run_up(int64_t unit, int64_t next, int worker) {
    hidden(unit_list(unit, next), worker, b_.h + unit * kFfnUnit, z_.ld_g);
  }

  // Scale and zero point of h, from the ranges that the workers saw.
  void finish_up() {
    float low = 0.0F;
    float high = 0.0F;
    for (int64_t t = 0; t < a_.tokens; ++t) {
      float min = 0.0F;
      float max = 0.0F;
      for (int64_t w = 0; w < workers_; ++w) {
        min = std::min(min, b_.h_range[w * 2 * b_.ld_range + t]);
        max = std::max(max, b_.h_range[(w * 2 + 1) * b_.ld_range + t]);
      }
      b_.h_quant[t] = dynamic_quant_params(min, max);
      low = std::min(low, min);
      high = std::max(high, max);
    }
    if (a_.range == FfnRange::kPerTensor) {
      std::fill_n(b_.h_quant, a_.tokens, dynamic_quant_params(low, high));
    }
    if (a_.h_scale > 0.0F) {
      std::fill_n(b_.h_quant, a_.tokens, QuantParams{a_.h_scale, a_.h_zero_point});
    }
    weight_sums_ = f_.at.down_zero >= 0;
    for (int64_t t = 0; t < a_.tokens; ++t) weight_sums_ |= b_.h_quant[t].zero_point != 0;
  }

  // ---- many tokens
  template <class Gemm, class Args>
  void run_gemm(const Gemm& gemm, const Args& args, int64_t panels, int worker) {
    gemm.run(args, TileRange{0, a_.tokens, 0, panels}, b_.gemm + b_.gemm_bytes * worker);
  }

  // The dot of the listed neurons, which follow each other.
  void up_by_gemm(const List& list, int worker, void* sums, int64_t ld_sums) {
    const int64_t nr = f_.gate_nr;
    const int64_t panels = num_panels(list.count, nr);
    const int64_t units = f_.up_stride / 4;
    char* packed = b_.panels + b_.panel_bytes * worker;
    const char* rows = weights<char>(f_.at.up) + list.ids[0] * f_.up_stride;
    for (int64_t p = 0; p < panels; ++p) {
      pack_row_units(rows + p * nr * f_.up_stride, f_.up_stride, list.count - p * nr, units, nr,
                     packed + 4 * p * units * nr);
    }
    const int64_t m = a_.tokens;
    if (f_.gate_f32 != nullptr) {
      const GemmF32Args args{m,
                             list.count,
                             z_.ld_up,
                             static_cast<const float*>(up_.x),
                             up_.ld,
                             reinterpret_cast<const float*>(packed),
                             static_cast<float*>(sums),
                             ld_sums,
                             {}};
      return run_gemm(*f_.gate_f32, args, panels, worker);
    }
    if (f_.gate_bf16 != nullptr) {
      const GemmBf16Args args{m,
                              list.count,
                              z_.ld_up,
                              static_cast<const uint16_t*>(up_.x),
                              up_.ld,
                              reinterpret_cast<const uint16_t*>(packed),
                              static_cast<float*>(sums),
                              ld_sums,
                              {}};
      return run_gemm(*f_.gate_bf16, args, panels, worker);
    }
    GemmU8S8Args args;
    args.m = m;
    args.n = list.count;
    args.k = z_.ld_up;
    args.x = static_cast<const uint8_t*>(up_.x);
    args.ldx = up_.ld;
    args.w = reinterpret_cast<const int8_t*>(packed);
    args.y_s32 = static_cast<int32_t*>(sums);
    args.ldy = ld_sums;
    run_gemm(*f_.gate_u8s8, args, panels, worker);
  }

  void run_codes(int64_t t) {
    const float* h = b_.h + t * z_.ld_g;
    if (!int8_) return f_.kernel->convert(h, s_.d_ff, z_.ld_codes, b_.codes + 2 * t * z_.ld_codes);
    const QuantParams q = b_.h_quant[t];
    f_.quantize->quantize(h, z_.ld_g, 1, s_.d_ff, q.scale, q.zero_point,
                          reinterpret_cast<uint8_t*>(b_.codes) + t * z_.ld_codes, z_.ld_codes,
                          b_.h_sum + t);
  }

  // Outputs of one panel, to y.
  void run_down_panel(int64_t panel, int worker) {
    const int64_t nr = f_.gate_nr;
    const int64_t m = a_.tokens;
    const int64_t n0 = panel * nr;
    const int64_t n = std::min(nr, s_.d_out - n0);
    char* packed = b_.panels + b_.panel_bytes * worker;
    Epilogue epilogue;
    if (f_.at.down_bias >= 0) epilogue.bias = weights<float>(f_.at.down_bias) + n0;
    if (a_.residual != nullptr) epilogue.residual = a_.residual + n0;
    epilogue.ld_residual = a_.ld_residual;
    float* y = a_.y + n0;
    if (f_.gate_f32 != nullptr) {
      float* w = reinterpret_cast<float*>(packed);
      const float* rows = weights<float>(f_.at.down) + n0;
      f_.gate_f32->pack({rows, n, s_.d_ff, 1, z_.ld_acc}, 0, 1, w);
      const GemmF32Args args{m, n, s_.d_ff, b_.h, z_.ld_g, w, y, a_.ldy, epilogue};
      return run_gemm(*f_.gate_f32, args, 1, worker);
    }
    if (f_.gate_bf16 != nullptr) {
      pack_row_pairs(weights<char>(f_.at.down) + 2 * n0, f_.down_stride, s_.d_ff, z_.ld_acc - n0,
                     nr, packed);
      const GemmBf16Args args{m,           n,
                              s_.d_ff,     reinterpret_cast<const uint16_t*>(b_.codes),
                              z_.ld_codes, reinterpret_cast<const uint16_t*>(packed),
                              y,           a_.ldy,
                              epilogue};
      return run_gemm(*f_.gate_bf16, args, 1, worker);
    }
    int32_t* w_sum = b_.w_sum + nr * worker;
    int8_t* w = reinterpret_cast<int8_t*>(packed);
    pack_s8({weights<int8_t>(f_.at.down) + n0, n, s_.d_ff, 1, f_.down_stride}, nr, 0, 1, w, w_sum);
    run_gemm(*f_.gate_u8s8, down_args(n0, n, w, w_sum, y, epilogue), 1, worker);
  }

  GemmU8S8Args down_args(int64_t n0, int64_t n, const int8_t* w, const int32_t* w_sum, float* y,
                         const Epilogue& epilogue) const {
    constexpr int64_t kQuantStride = sizeof(QuantParams) / 4;
    GemmU8S8Args g;
    g.m = a_.tokens;
    g.n = n;
    g.k = s_.d_ff;
    g.x = reinterpret_cast<const uint8_t*>(b_.codes);
    g.ldx = z_.ld_codes;
    g.w = w;
    g.w_sum = w_sum;
    g.x_zero_point = &b_.h_quant->zero_point;
    g.x_zero_point_stride = kQuantStride;
    if (f_.at.down_zero >= 0) g.w_zero_point = weights<int32_t>(f_.at.down_zero) + n0;
    g.w_zero_point_stride = 1;
    g.x_sum = b_.h_sum;
    g.x_scale = &b_.h_quant->scale;
    g.x_scale_stride = kQuantStride;
    g.w_scale = weights<float>(f_.at.down_scale) + n0;
    g.w_scale_stride = 1;
    g.y = y;
    g.ldy = a_.ldy;
    g.epilogue = epilogue;
    return g;
  }

  // ---- down
  // The sums of one worker or segment, zero when used for the first time.
  char* sums_of(int64_t index) {
    const int64_t bytes = z_.acc_rows * z_.ld_acc * 4;
    char* acc = b_.acc + index * bytes;
    if (b_.acc_used[8 * index] == 0) std::memset(acc, 0, static_cast<size_t>(bytes));
    b_.acc_used[8 * index] = 1;
    return acc;
  }

  // Codes of h, and with weight_sums_ a row of ones after the tokens: it gives the sums of the
  // weights that zero points are taken out with.
  void run_down_int8(int64_t unit, int64_t next, int worker) {
    List list = unit_list(unit, next);
    uint8_t* codes = reinterpret_cast<uint8_t*>(b_.unit + b_.unit_bytes * worker);
    const int64_t padded = round_up(list.count, kFfnGroup);
    for (int64_t t = 0; t < a_.tokens; ++t) {
      uint8_t* row = codes + t * kFfnUnit;
      const float* h = b_.h + t * z_.ld_g + unit * kFfnUnit;
      f_.quantize->quantize(h, z_.ld_g, 1, list.count, b_.h_quant[t].scale,
                            b_.h_quant[t].zero_point, row, kFfnUnit, nullptr);
      std::fill(row + list.count, row + padded, uint8_t{0});
    }
    uint8_t* ones = codes + a_.tokens * kFfnUnit;
    std::fill(ones, ones + list.count, uint8_t{1});
    std::fill(ones + list.count, ones + padded, uint8_t{0});
    pad(&list, padded);
    f_.kernel->down({weights<char>(f_.at.down), f_.down_stride, z_.ld_acc, list.ids, list.count,
                     list.listed, a_.tokens + (weight_sums_ ? 1 : 0), codes, kFfnUnit,
                     sums_of(worker), z_.ld_acc});
  }

  // Repeats the last id; a unit that needs it is the last one, so nothing is listed after it.
  static void pad(List* list, int64_t padded) {
    if (padded == list->count) return;
    std::fill(list->ids + list->count, list->ids + padded, list->ids[list->count - 1]);
    list->count = list->listed = padded;
  }

  // Places [begin, end) of segment i: whole units but for the last.
  int64_t segment_begin(int64_t i) const {
    return std::min(listed_, ceil_div(listed_, kFfnUnit) * i / segments_ * kFfnUnit);
  }

  void run_segment(int64_t segment, int worker) {
    const int64_t end = segment_begin(segment + 1);
    char* acc = sums_of(segment);
    const int64_t bytes = weight_bytes(f_);
    char* h_row = b_.unit + b_.unit_bytes * worker + b_.unit_bytes / 2;
    for (int64_t at = segment_begin(segment); at < end; at += kFfnUnit) {
      const int64_t stop = std::min(at + kFfnUnit, end);
      List list = list_of(at, stop, stop, end);
      float* h = b_.h + at;
      hidden(list, worker, h, z_.ld_g);
      const int64_t padded = round_up(list.count, kFfnGroup);
      for (int64_t t = 0; t < a_.tokens; ++t) {
        f_.kernel->convert(h + t * z_.ld_g, list.count, padded, h_row + t * kFfnUnit * bytes);
      }
      pad(&list, padded);
      f_.kernel->down({weights<char>(f_.at.down), f_.down_stride, z_.ld_acc, list.ids, list.count,
                       list.listed, a_.tokens, h_row, kFfnUnit, acc, z_.ld_acc});
    }
  }

  // ---- out
  void run_out(int64_t unit) {
    const int64_t begin = unit * kOutColumns;
    const int64_t end = std::min(begin + kOutColumns, s_.d_out);
    alignas(64) int32_t w_sum[kOutColumns];
    if (int8_ && weight_sums_) add_accs(a_.tokens, begin, end, w_sum);
    const float* bias = weights<float>(f_.at.down_bias);
    FfnOutArgs out{end - begin, nullptr, 1.0F, nullptr, nullptr, nullptr, nullptr};
    if (bias != nullptr) out.bias = bias + begin;
    if (int8_) out.w_scale = weights<float>(f_.at.down_scale) + begin;
    for (int64_t t = 0; t < a_.tokens; ++t) {
      alignas(64) int32_t exact[kOutColumns];
      alignas(64) float rounded[kOutColumns];
      if (int8_) {
        add_accs(t, begin, end, exact);
        if (weight_sums_) take_out_zeros(t, begin, end, w_sum, exact);
        out.scale = b_.h_quant[t].scale;
        out.sum = exact;
      } else {
        add_accs(t, begin, end, rounded);
        out.sum = rounded;
      }
      if (a_.residual != nullptr) out.residual = a_.residual + t * a_.ld_residual + begin;
      out.y = a_.y + t * a_.ldy + begin;
      f_.kernel->out(out);
    }
  }

  template <class T>
  const T* acc_row(int64_t index, int64_t row) const {
    return reinterpret_cast<const T*>(b_.acc) + (index * z_.acc_rows + row) * z_.ld_acc;
  }

  template <class T>
  void add_accs(int64_t row, int64_t begin, int64_t end, T* sum) const {
    std::fill(sum, sum + (end - begin), T{0});
    for (int64_t i = 0; i < z_.accs; ++i) {
      if (b_.acc_used[8 * i] == 0) continue;
      const T* from = acc_row<T>(i, row) + begin;
      for (int64_t n = 0; n < end - begin; ++n) sum[n] += from[n];
    }
  }

  // From sums of q[j] W[n, j] those of (q[j] - zero) (W[n, j] - w_zero[n]).
  void take_out_zeros(int64_t t, int64_t begin, int64_t end, const int32_t* w_sum,
                      int32_t* sum) const {
    const int32_t zero = b_.h_quant[t].zero_point;
    for (int64_t n = 0; n < end - begin; ++n) sum[n] -= zero * w_sum[n];
    const int32_t* w_zero = weights<int32_t>(f_.at.down_zero);
    if (w_zero == nullptr) return;
    const int32_t centred = code_sum(t);
    for (int64_t n = 0; n < end - begin; ++n) sum[n] -= w_zero[begin + n] * centred;
  }

  // sum over the list of q - zero.
  int32_t code_sum(int64_t t) const {
    const QuantParams q = b_.h_quant[t];
    uint8_t codes[kFfnUnit];
    int32_t total = 0;
    for (int64_t i = 0; i < listed_; i += kFfnUnit) {
      const int64_t n = std::min(kFfnUnit, listed_ - i);
      int32_t sum = 0;
      f_.quantize->quantize(b_.h + t * z_.ld_g + i, z_.ld_g, 1, n, q.scale, q.zero_point, codes,
                            kFfnUnit, &sum);
      total += sum - static_cast<int32_t>(n) * q.zero_point;
    }
    return total;
  }

  const SparseFfn& f_;
  const SparseFfnArgs& a_;
  const SparseFfnShape& s_;
  const Sizes z_;
  const Buffers b_;
  const char* blob_;
  const bool int8_;
  const int64_t workers_;
  Rows gate_{}, up_{};
  int64_t active_ = 0, union_ = 0, listed_ = 0, segments_ = 0;
  FfnPath path_ = FfnPath::kSparse;
  bool weight_sums_ = false;
  bool many_ = false;
};

// Workers that are worth starting.
int useful_workers(const SparseFfn& ffn, int64_t tokens, int threads) {
  constexpr int64_t kBytesPerWorker = 256 * 1024;
  const int64_t bytes =
      sparse_ffn_bytes(ffn, ffn.shape.d_ff / 8) * std::max<int64_t>(1, tokens / 4);
  return static_cast<int>(std::clamp<int64_t>(bytes / kBytesPerWorker, 1, threads));
}

}  // namespace

int64_t sparse_ffn_scratch_bytes(const SparseFfn& ffn, int64_t tokens, int threads) {
  const Sizes sizes(ffn, tokens, threads);
  return Buffers(ffn, sizes, threads, nullptr).end;
}

void run_sparse_ffn(const SparseFfn& ffn, const SparseFfnArgs& args, ThreadPool& pool,
                    void* scratch) {
  if (args.tokens <= 0) {
    if (args.stats != nullptr) *args.stats = {};
    return;
  }
  Call call(ffn, args, pool.num_threads(), scratch);
  call.prepare();
  PhaseRegion<kPhases> region;
  region.begin(call);
  const int workers = useful_workers(ffn, args.tokens, pool.num_threads());
  pool.parallel_for(workers, 1,
                    [&](int64_t, int64_t, int worker) { region.participate(call, worker); });
  call.report(args.stats);
}

}  // namespace sprun::kernels
