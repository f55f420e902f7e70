// Plan: a graph specialised to concrete input shapes: ordered steps, where every value lives, chosen kernels.
// Immutable after build(); shared by every session that runs these shapes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun {

class PackedCache;
class ThreadPool;

// Where the elements of a value are while running.
struct Location {
  enum class Kind : uint8_t {
    kNone,
    kConstant,  // in the graph
    kInput,     // caller's memory; index = input number
    kOutput,    // memory of an output; index = output number
    kArena,     // index = byte offset in the arena
    kDynamic,   // heap memory whose size is known only when running; owned by the executor
  };
  Kind kind = Kind::kNone;
  int64_t index = 0;
};

struct Step {
  graph::NodeId node = graph::kNoNode;
  std::unique_ptr<const graph::OpState> state;
  bool dynamic = false;          // shapes are found when running
  std::string kernel, regime;    // kernel empty: the op's plain loop
  std::string detail;            // why this kernel, what it needs
  double flops = 0, bytes = 0;
  std::vector<graph::Rejection> rejected;
  std::vector<graph::ValueId> last_uses;  // dynamic values to free after this step
};

// A graph output that is not written in place: it is an input, a constant, a view of another output, or dynamic.
struct OutputCopy {
  int output = 0;
  graph::ValueId from = graph::kNoValue;
};

struct PlanOptions {
  int num_threads = 1;
  Precision precision = Precision::kF32;
  SparseMode sparse = SparseMode::kAuto;
  std::span<const std::string> disabled_passes = {};
  const graph::KvCacheSpec* kv_cache = nullptr;  // keys and values stay in place: see graph/passes/kv_cache.h
};

class Plan {
 public:
  // Specialises a copy of `source` to the input types and shapes (by position), runs the plan-stage passes, chooses
  // kernels and places memory. pool is used for folding; packed receives repacked weights.
  // kBadModel / kBadInput when shapes do not fit the graph.
  static Result<std::shared_ptr<const Plan>> build(const graph::Graph& source,
                                                   std::span<const ConstTensorView> inputs, const PlanOptions& options,
                                                   ThreadPool& pool, PackedCache& packed);

  const graph::Graph& graph() const { return graph_; }
  std::span<const Step> steps() const { return steps_; }
  const Location& location(graph::ValueId v) const { return locations_[static_cast<size_t>(v)]; }
  // The view of value v with data null unless it is constant; undefined dtype when dynamic.
  ConstTensorView type_of(graph::ValueId v) const;
  std::span<const OutputCopy> output_copies() const { return copies_; }
  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t scratch_bytes() const { return scratch_bytes_; }
  std::span<const graph::PassRecord> passes() const { return passes_; }
  std::span<const std::string> notes() const { return notes_; }
  // One block of text per step, then the passes.
  std::string explain() const;

 private:
  friend class Planner;
  graph::Graph graph_;
  std::vector<Step> steps_;
  std::vector<Location> locations_;
  std::vector<OutputCopy> copies_;
  int64_t arena_bytes_ = 0, scratch_bytes_ = 0;
  std::vector<graph::PassRecord> passes_;
  std::vector<std::string> notes_;
};

}  // namespace sprun
