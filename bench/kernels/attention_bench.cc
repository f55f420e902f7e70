// Speed of every attention kernel, float and integer, on one thread: encoder shapes of BERT, decode over a cache, and
// decode over caches of a whole model (kv/<type>/...), stored as f32, bf16 or 8-bit codes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_int8.h"
#include "kernels/attention/kv_cache.h"
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

// A layer's keys and values are read once a token, after all others': layers enough that no CPU cache holds them.
struct ModelCache {
  static constexpr int64_t kBytes = int64_t{128} << 20;
  BenchShape s;
  DType dtype;
  int64_t layers, layer_bytes, scale_bytes;
  PackedBlob data, scales;

  ModelCache(BenchShape shape, DType type, ThreadPool& pool) : s(shape), dtype(type) {
    layer_bytes = kv_cache_data_bytes(dtype, s.kv_heads, s.kv_len, s.dim);
    scale_bytes = kv_cache_scale_bytes(dtype, s.kv_heads, s.kv_len);
    layers = std::max<int64_t>(kBytes / (2 * layer_bytes), 1);
    data = allocate_blob(2 * layers * layer_bytes).value();
    scales = allocate_blob(std::max<int64_t>(2 * layers * scale_bytes, 64)).value();
    std::vector<float> rows(static_cast<size_t>(s.kv_len * s.dim));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 251) * 0.01F - 1.25F;
    const KvCacheRows all{.kv_heads = s.kv_heads, .rows = s.kv_len, .dim = s.dim, .x = rows.data(), .x_row = s.dim};
    for (int64_t i = 0; i < 2 * layers; ++i) kv_cache_store(all, view(i), 0, pool);
  }
  KvCacheView view(int64_t i) const {
    return {.dtype = dtype, .data = static_cast<char*>(data.data.get()) + i * layer_bytes,
            .scales = reinterpret_cast<float*>(static_cast<char*>(scales.data.get()) + i * scale_bytes),
            .capacity = s.kv_len};
  }
};

void run_model_cache(benchmark::State& state, const AttentionKernel* kernel, DType dtype, BenchShape s) {
  ThreadPool pool(1);
  const ModelCache cache(s, dtype, pool);
  std::vector<float> q(static_cast<size_t>(s.heads * s.q_len * s.dim), 0.1F), out(q.size());
  AttentionArgs args;
  args.heads = s.heads, args.kv_heads = s.kv_heads, args.q_len = s.q_len, args.kv_len = s.kv_len;
  args.head_dim = args.v_dim = s.dim;
  args.q = q.data(), args.out = out.data();
  args.q_strides = args.out_strides = bshd_strides(s.heads, s.q_len, s.dim);
  args.k_strides = args.v_strides = bhsd_strides(s.kv_heads, s.kv_len, s.dim);
  args.k_dtype = args.v_dtype = dtype, args.scale_head = s.kv_len;
  args.causal = true, args.offset = s.kv_len - s.q_len;
  args.scale = 1.0F / std::sqrt(static_cast<float>(s.dim));
  args.kernel = kernel;
  const PackedBlob scratch = allocate_blob(attention_scratch_bytes(args, 1)).value();
  int64_t layer = 0;
  for (auto _ : state) {
    const KvCacheView k = cache.view(2 * layer), v = cache.view(2 * layer + 1);
    args.k = k.data, args.v = v.data, args.k_scale = k.scales, args.v_scale = v.scales;
    attention(args, pool, scratch.data.get());
    layer = (layer + 1) % cache.layers;
  }
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(2 * (cache.layer_bytes + cache.scale_bytes)) *
                             static_cast<double>(state.iterations()) * 1e-9, benchmark::Counter::kIsRate);
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

void register_model_caches() {
  struct Stored {
    const char* name;
    DType dtype;
  };
  for (const Stored type : {Stored{"f32", DType::kF32}, {"bf16", DType::kBf16}, {"s8", DType::kS8}}) {
    for (const auto& info : attention_kernels(type.dtype)) {
      if (!available_isas().contains(info.isa)) continue;
      for (const int64_t kv_len : {512, 4096}) {
        for (const int64_t q_len : {1, 4, 8}) {
          const BenchShape s{32, 8, q_len, kv_len, 128};
          const std::string prefix = std::string("kv/") + type.name + "/";
          benchmark::RegisterBenchmark((prefix + name_of(info.name, s)).c_str(), run_model_cache, info.kernel,
                                       type.dtype, s);
        }
      }
    }
  }
}

const bool kRegistered = [] {
  register_model_caches();
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
