// StepGraph: a decoder graph made ready for steps of one size at any position of the text.
//
// Specialised to P past and T new tokens, with the attention mask all ones and the positions P, P + 1, ..., everything that
// depends on the position alone folds to constants: rotary tables, embedded positions, masks. Specialising twice, to
// different P, tells which constants those are. Each is then looked up when running: it is a row of the constant that the
// same value has when all positions are computed at once (P = 0, T = capacity), or an integer that grows by the same
// amount with each position. Both are checked where they are known. Masks vanish later, in pass_cache_attention.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/passes/kv_cache.h"
#include "runtime/generate/decoder_io.h"
#include "sprun/generate.h"

namespace sprun {

class ThreadPool;

// A value that depends on the position, and how to get it.
struct PositionalValue {
  graph::ValueId value = graph::kNoValue;  // in every specialised graph
  Tensor table;         // [outer, capacity, inner] as one constant, rows by position; empty: an affine integer
  int64_t outer = 1, inner = 1;
  std::vector<int64_t> at_zero, per_position;  // affine integers, by element

  // Writes the value for steps that start at `position` to `out`, which has its type and shape for T tokens.
  void write(int64_t position, const TensorView& out) const;
};

// What steps of T tokens at any position up to capacity - T need beside weights.
struct StepGraph {
  graph::Graph graph;                      // outputs: the logits
  graph::KvCacheSpec cache;                // inputs of the graph that hold keys and values
  std::vector<ConstTensorView> inputs;     // type and shape of each graph input, in order
  int ids = -1, position = -1, positions = -1;  // inputs
  std::vector<int> cache_inputs;           // inputs, one per slot (then scales, for int8)
  std::vector<int> positional_inputs;      // inputs, one per positional value
};

class StepGraphBuilder {
 public:
  StepGraphBuilder(const graph::Graph& source, const DecoderIo& io, int64_t tokens, int64_t capacity, KvType kv_type,
                   ThreadPool& pool);
  // Finds the positional values. kUsage with the reason if steps of this graph cannot be made independent of the position;
  // kBadInput if the model does not take `capacity` tokens.
  Status analyse();
  // The graph with the shapes it has after `past` tokens.
  Result<StepGraph> build(int64_t past) const;

  // Two positions far from each other that analyse() has looked at; a graph is built for both and compared.
  int64_t far_past() const { return capacity_ - tokens_; }
  int64_t near_past() const { return far_past() / 2; }
  std::span<const PositionalValue> positional() const { return positional_; }

 private:
  Result<graph::Graph> specialise(int64_t past, int64_t tokens) const;
  Status too_long(const Status& status) const;
  Status check_context(const graph::Graph& all) const;
  Status explain_value(graph::ValueId v, const graph::Graph& near, const graph::Graph& far, const graph::Graph& all);

  const graph::Graph& source_;
  const DecoderIo& io_;
  int64_t tokens_, capacity_;
  KvType kv_type_;
  ThreadPool& pool_;
  std::vector<PositionalValue> positional_;
};

}  // namespace sprun
