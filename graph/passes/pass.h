// Graph passes: named rewrites, run in the order of passes.def, each timed and verified after.
//
// A pass is one file with `Result<int> pass_<name>(Graph&, PassContext&)` and one line in passes.def. It returns how
// many rewrites it made. Passes run twice: when the model is loaded (shapes mostly unknown) and again for each plan
// (every shape that can be known is known), so a pass rewrites only what it can prove from what is there.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/model.h"
#include "sprun/sparse.h"

namespace sprun {
class PackedCache;
class ThreadPool;
}

namespace sprun::graph {

struct KvCacheSpec;

enum class PassStage : uint8_t { kLoad, kPlan, kBoth };

struct PassContext {
  PassStage stage = PassStage::kLoad;  // kLoad or kPlan: what is running now
  Precision precision = Precision::kF32;
  ThreadPool* pool = nullptr;
  // When a plan is made: what its kernels will be chosen with.
  SparseMode sparse = SparseMode::kAuto;
  PackedCache* packed = nullptr;
  // Set when a plan is made for steps that keep keys and values in place.
  const KvCacheSpec* kv_cache = nullptr;
  // Folded constants above this size stay computed when running.
  int64_t max_folded_bytes = int64_t{64} << 20;
  // Why a fusion did not fire where it was meant to: "fuse_attention: 'layer.0/MatMul': mask has rank 5".
  std::vector<std::string> notes;

  void note(std::string text) {
    if (notes.size() < 64) notes.push_back(std::move(text));
  }
};

struct PassInfo {
  std::string_view name;
  PassStage stage;
  Result<int> (*run)(Graph&, PassContext&);
};

// What a pass did, for explain.
struct PassRecord {
  std::string_view name;
  PassStage stage;
  int rewrites = 0;
  int nodes_before = 0, nodes_after = 0;
  double milliseconds = 0;
  bool disabled = false;
};

std::span<const PassInfo> pass_table();
// kUsage naming the pass if it does not exist.
Status check_pass_names(std::span<const std::string> names);
// Runs every pass of ctx.stage that is not disabled; appends to records.
Status run_passes(Graph& graph, PassContext& ctx, std::span<const std::string> disabled,
                  std::vector<PassRecord>& records);

}  // namespace sprun::graph
