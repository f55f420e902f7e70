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
// some of them: all are taken, up and down by the dense GEMM on panels that are packed on the way,
// or each token has a list of its own (lists.cc), with other units in the same phases:
//
//   zeros  list of a token, in the place of its gate row   units: tokens
//   expand gate rows again, when the lists are too long     units: tokens
//   up     h of the listed neurons                          units: groups of neurons
//   codes  h as the products take it, by sign               units: tokens (not f32)
//   down   sums and y                                       units: pieces of the outputs
#include "kernels/gemm/pack.h"
#include "kernels/sparse_ffn/phases.h"
#include "kernels/sparse_ffn/steps.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

enum Phase { kGate, kZeros, kExpand, kUp, kCodes, kDown, kOut, kPhases };

class Job {
 public:
  Job(const SparseFfn& ffn, const SparseFfnArgs& args, ThreadPool& pool, void* scratch)
      : c_(ffn, args, pool.num_threads(), scratch) {
    const bool lists = args.path == FfnPath::kAuto || args.path == FfnPath::kTokenLists;
    c_.make_lists = lists && args.tokens >= kFfnListTokens && args.up_requant == nullptr;
    sparse_ffn::prepare_inputs(c_, pool);
    std::fill_n(c_.mem.h_range, c_.workers * 2 * c_.mem.ld_range, 0.0F);
    for (int64_t i = 0; i < c_.sizes.accs; ++i) c_.mem.acc_used[8 * i] = 0;
  }

  int64_t units(int phase) const {
    if (has_lists(phase)) return list_units(phase);
    switch (phase) {
      case kGate:
        return c_.sizes.gate_units;
      case kZeros:
        return sparse_ffn::ceil_div(c_.shape.d_ff, sparse_ffn::kZeroNeurons);
      case kExpand:
        return c_.expand ? c_.args.tokens : 0;
      case kUp:
        return c_.int8 || c_.many ? sparse_ffn::ceil_div(c_.listed, kFfnUnit) : 0;
      case kCodes:
        return c_.many && c_.shape.weights != FfnWeights::kF32 ? c_.args.tokens : 0;
      case kDown:
        if (c_.many) return num_panels(c_.shape.d_out, c_.ffn.gate_nr);
        return c_.int8 ? sparse_ffn::ceil_div(c_.listed, kFfnUnit) : c_.segments;
      default:
        return c_.many ? 0 : sparse_ffn::ceil_div(c_.shape.d_out, sparse_ffn::kOutColumns);
    }
  }

  void run(int phase, int64_t unit, int64_t next, int worker) {
    if (has_lists(phase)) return run_list(phase, unit, next, worker);
    switch (phase) {
      case kGate:
        return sparse_ffn::run_gate(c_, unit, worker);
      case kZeros:
        return sparse_ffn::run_zeros(c_, unit);
      case kExpand:
        return sparse_ffn::run_expand(c_, unit);
      case kUp:
        return sparse_ffn::run_up(c_, unit, next, worker);
      case kCodes:
        return sparse_ffn::run_codes(c_, unit);
      case kDown:
        if (c_.many) return sparse_ffn::run_down_panel(c_, unit, worker);
        return c_.int8 ? sparse_ffn::run_down_int8(c_, unit, next, worker)
                       : sparse_ffn::run_segment(c_, unit, worker);
      default:
        return sparse_ffn::run_out(c_, unit);
    }
  }

  void finish(int phase) {
    if (phase == kGate) sparse_ffn::finish_gate(c_);
    if (phase == kZeros) sparse_ffn::finish_zeros(c_);
    if (phase == kUp) sparse_ffn::finish_up(c_);
  }

  void report(SparseFfnStats* stats) const {
    if (stats == nullptr) return;
    *stats = {c_.active, c_.union_active, c_.path, sparse_ffn_bytes(c_.ffn, c_.listed)};
  }

 private:
  // What units of a phase are does not change any more once it is open.
  bool has_lists(int phase) const {
    if (phase == kGate) return false;
    return phase == kZeros ? c_.make_lists : c_.lists;
  }

  int64_t list_units(int phase) const {
    switch (phase) {
      case kZeros:
        return c_.args.tokens;
      case kUp:
        return c_.sizes.list_groups;
      case kCodes:
        return c_.shape.weights != FfnWeights::kF32 ? c_.args.tokens : 0;
      case kDown:
        return sparse_ffn::ceil_div(c_.sizes.ld_acc, c_.sizes.list_columns);
      default:
        return 0;
    }
  }

  void run_list(int phase, int64_t unit, int64_t next, int worker) {
    switch (phase) {
      case kZeros:
        return sparse_ffn::run_list_row(c_, unit, worker);
      case kUp:
        return sparse_ffn::run_list_up(c_, unit, next, worker);
      case kCodes:
        return sparse_ffn::run_list_codes(c_, unit);
      default:
        return sparse_ffn::run_list_down(c_, unit, next, worker);
    }
  }

  sparse_ffn::Call c_;
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
  const sparse_ffn::Sizes sizes(ffn, tokens, threads);
  return sparse_ffn::Buffers(ffn, sizes, threads, nullptr).end;
}

void run_sparse_ffn(const SparseFfn& ffn, const SparseFfnArgs& args, ThreadPool& pool,
                    void* scratch) {
  if (args.tokens <= 0) {
    if (args.stats != nullptr) *args.stats = {};
    return;
  }
  Job job(ffn, args, pool, scratch);
  PhaseRegion<kPhases> region;
  const int workers = useful_workers(ffn, args.tokens, pool.num_threads());
  region.begin(job, workers);
  pool.parallel_for(workers, 1,
                    [&](int64_t, int64_t, int worker) { region.participate(job, worker); });
  job.report(args.stats);
}

}  // namespace sprun::kernels
