// Speed of every attention kernel, float and integer, on one thread: encoder shapes of BERT, and decode over a cache.
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_int8.h"
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

void run_int8(benchmark::State& state, const AttentionInt8Kernel* kernel, BenchShape s) {
  ThreadPool pool(1);
  std::vector<uint8_t> q(static_cast<size_t>(s.heads * s.q_len * s.dim), 130), out(q.size());
  std::vector<uint8_t> k(static_cast<size_t>(s.kv_heads * s.kv_len * s.dim), 120), v(k);
  AttentionInt8Args args;
  AttentionArgs& a = args.shape;
  a.heads = s.heads, a.kv_heads = s.kv_heads, a.q_len = s.q_len, a.kv_len = s.kv_len;
  a.head_dim = a.v_dim = s.dim;
  a.q = q.data(), a.k = k.data(), a.v = v.data(), a.out = out.data();
  a.q_strides = a.out_strides = bshd_strides(s.heads, s.q_len, s.dim);
  a.k_strides = a.v_strides = bshd_strides(s.kv_heads, s.kv_len, s.dim);
  a.scale = 1.0F / std::sqrt(static_cast<float>(s.dim));
  args.q = args.k = args.v = args.y = {0.03F, 128, DType::kU8};
  args.p = {1.0F / 255, 0, DType::kU8};
  args.requantise = true;
  args.kernel = kernel;
  const PackedBlob scratch = allocate_blob(attention_int8_scratch_bytes(args, 1)).value();
  for (auto _ : state) attention_int8(args, pool, scratch.data.get());
  state.counters["GOP/s"] = benchmark::Counter(attention_flops(a) * static_cast<double>(state.iterations()) * 1e-9,
                                               benchmark::Counter::kIsRate);
}

std::string name_of(std::string_view kernel, const BenchShape& s) {
  return std::string(kernel) + "/heads:" + std::to_string(s.heads) + "/kv_heads:" + std::to_string(s.kv_heads) +
         "/q:" + std::to_string(s.q_len) + "/k:" + std::to_string(s.kv_len) + "/dim:" + std::to_string(s.dim);
}

const bool kRegistered = [] {
  constexpr BenchShape kShapes[] = {{12, 12, 32, 32, 64},   {12, 12, 128, 128, 64}, {12, 12, 384, 384, 64},
                                    {12, 12, 197, 197, 64}, {12, 12, 1, 512, 64},   {32, 8, 1, 2048, 128}};
  std::vector<KernelInfo<AttentionKernel>> kernels(attention_kernels().begin(), attention_kernels().end());
  kernels.insert(kernels.begin(), attention_bf16_kernels().begin(), attention_bf16_kernels().end());
  for (const auto& info : kernels) {
    if (!available_isas().contains(info.isa)) continue;
    for (const BenchShape& s : kShapes) {
      benchmark::RegisterBenchmark(name_of(info.name, s).c_str(), run, info.kernel, s);
    }
  }
  for (const auto& info : attention_int8_kernels()) {
    if (!available_isas().contains(info.isa)) continue;
    for (const BenchShape& s : kShapes) {
      if (s.q_len > 1) benchmark::RegisterBenchmark(name_of(info.name, s).c_str(), run_int8, info.kernel, s);
    }
  }
  return true;
}();

}  // namespace
}  // namespace sprun::kernels
