// The units of work of a call, by phase; run.cc says what follows what. Internal to the family.
#pragma once

#include "kernels/sparse_ffn/call.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels::sparse_ffn {

// Before the parallel region.
void prepare_inputs(Call& c, ThreadPool& pool);

inline constexpr int64_t kOutColumns = 512;

void run_gate(const Call& c, int64_t unit, int worker);
void set_threshold(const Call& c, int64_t token);  // of statistical top-k
void finish_gate(const Call& c);                   // unless lists do it, token by token

void run_zeros(const Call& c, int64_t unit);
void finish_zeros(Call& c);

struct NeuronList {
  int32_t ids[kFfnUnit + kFfnAhead];
  int64_t count, listed;
};

void run_up(const Call& c, int64_t unit, int64_t next, int worker);
void finish_up(Call& c);
void run_down_int8(const Call& c, int64_t unit, int64_t next, int worker);
void run_segment(const Call& c, int64_t segment, int worker);
void run_out(const Call& c, int64_t unit);

// A list for each token: lists.cc. `expand` undoes the lists, when they turn out to be long.
void run_list_row(const Call& c, int64_t token, int worker);
void run_expand(const Call& c, int64_t token);
void run_list_up(const Call& c, int64_t group, int64_t next, int worker);
void run_list_codes(const Call& c, int64_t token);
void run_list_down(const Call& c, int64_t unit, int64_t next, int worker);

// Many tokens, all neurons: repacked.cc.
void up_by_gemm(const Call& c, const NeuronList& list, int worker, void* sums, int64_t ld_sums);
void run_codes(const Call& c, int64_t token);
void run_down_panel(const Call& c, int64_t panel, int worker);

}  // namespace sprun::kernels::sparse_ffn
