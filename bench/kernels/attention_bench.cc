// Speed of every attention kernel on one thread: encoder shapes of BERT, and decode over a cache.
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/isa.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

struct BenchShape {
  int64_t heads, kv_heads, q_len, kv_len, dim;
};

void run(benchmark::State& state, const AttentionKernel* kernel, BenchShape s) {
  ThreadPool pool(1);
  std::vector<float> q(static_cast<size_t>(s.heads * s.q_len * s.dim), 0.1F), out(q.size());
  std::vector<float> k(static_cast<size_t>(s.kv_heads * s.kv_len * s.dim), 0.1F), v(k);
  AttentionArgs args;
  args.heads = s.heads, args.kv_heads = s.kv_heads, args.q_len = s.q_len, args.kv_len = s.kv_len;
  args.head_dim = args.v_dim = s.dim;
  args.q = q.data(), args.k = k.data(), args.v = v.data(), args.out = out.data();
  args.q_strides = args.out_strides = bshd_strides(s.heads, s.q_len, s.dim);
  args.k_strides = args.v_strides = bhsd_strides(s.kv_heads, s.kv_len, s.dim);
  args.scale = 1.0F / std::sqrt(static_cast<float>(s.dim));
  args.kernel = kernel;
  const PackedBlob scratch = allocate_blob(attention_scratch_bytes(args, 1)).value();
  for (auto _ : state) attention(args, pool, scratch.data.get());
  const auto iterations = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] =
      benchmark::Counter(attention_flops(args) * iterations * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(static_cast<double>(2 * k.size() * sizeof(float)) * iterations * 1e-9,
                                              benchmark::Counter::kIsRate);
}

const bool kRegistered = [] {
  constexpr BenchShape kShapes[] = {{12, 12, 32, 32, 64},   {12, 12, 128, 128, 64}, {12, 12, 384, 384, 64},
                                    {12, 12, 197, 197, 64}, {12, 12, 1, 512, 64},   {32, 8, 1, 2048, 128}};
  std::vector<KernelInfo<AttentionKernel>> kernels(attention_kernels().begin(), attention_kernels().end());
  kernels.insert(kernels.begin(), attention_bf16_kernels().begin(), attention_bf16_kernels().end());
  for (const auto& info : kernels) {
    if (!available_isas().contains(info.isa)) continue;
    for (const BenchShape& s : kShapes) {
      const std::string name = std::string(info.name) + "/heads:" + std::to_string(s.heads) + "/kv_heads:" +
                               std::to_string(s.kv_heads) + "/q:" + std::to_string(s.q_len) + "/k:" +
                               std::to_string(s.kv_len) + "/dim:" + std::to_string(s.dim);
      benchmark::RegisterBenchmark(name.c_str(), run, info.kernel, s);
    }
  }
  return true;
}();

}  // namespace
}  // namespace sprun::kernels
