// OpDef: everything sprun knows about one operator, and the contexts its functions get.
//
// An op group is one file that defines `extern const std::span<const OpDef> k_<group>_ops;` and one line in
// op_groups.def. Adding an op = one entry in a group's table:
//
//   Status infer_relu(InferContext& ctx) { ctx.set_output(0, ctx.dtype(0), ctx.shape(0)); return {}; }
//   Status run_relu(RunContext& ctx) { ... }
//   constexpr OpDef kOps[] = {{.name = "Relu", .since = 6, .inputs = {1, 1}, .outputs = {1, 1},
//                              .infer = infer_relu, .run = run_relu, .flags = kInPlace}};
//   extern const std::span<const OpDef> k_activation_ops = kOps;
//
// Shapes are always concrete here: graphs are specialised to the shapes of a request before ops see them.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/sparse.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun {
class ThreadPool;
class PackedCache;
}

namespace sprun::graph {

// Facts about a node that infer() may use. dtype, shape and data of an absent optional input must not be asked for.
class InferContext {
 public:
  struct Output {
    DType dtype = DType::kUndefined;
    Shape shape;
    bool set = false;
  };

  InferContext(const Node& node, std::span<const ConstTensorView> inputs, std::span<Output> outputs)
      : node_(node), inputs_(inputs), outputs_(outputs) {}

  const Node& node() const { return node_; }
  const AttrMap& attrs() const { return node_.attrs; }
  int opset() const { return node_.version; }
  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  int num_outputs() const { return static_cast<int>(outputs_.size()); }
  bool has_input(int i) const {
    return i >= 0 && i < num_inputs() && inputs_[static_cast<size_t>(i)].dtype != DType::kUndefined;
  }
  bool has_output(int i) const { return node_.output(static_cast<size_t>(i)) != kNoValue; }
  DType dtype(int i) const { return inputs_[static_cast<size_t>(i)].dtype; }
  const Shape& shape(int i) const { return inputs_[static_cast<size_t>(i)].shape; }
  // True if the elements of input i are known now (constants at planning time, everything at run time; a tensor
  // without elements always).
  bool has_data(int i) const {
    return has_input(i) && (input(i).data != nullptr || input(i).num_elements() == 0);
  }
  const ConstTensorView& input(int i) const { return inputs_[static_cast<size_t>(i)]; }

  // Sets the type of output i; ignored for an absent optional output.
  void set_output(int i, DType dtype, const Shape& shape) {
    if (i < num_outputs()) outputs_[static_cast<size_t>(i)] = {dtype, shape, true};
  }
  // The output shapes depend on elements that are not known yet: `return ctx.needs_data();`
  // Outputs not set stay unknown until run time, when infer() is called again with all data.
  Status needs_data() {
    needs_data_ = true;
    return {};
  }
  bool asked_for_data() const { return needs_data_; }

  // kBadModel "Op 'node name': text".
  Status error(const std::string& text) const;
  // Errors unless the condition holds.
  Status check(bool condition, const std::string& text) const { return condition ? Status() : error(text); }

 private:
  const Node& node_;
  std::span<const ConstTensorView> inputs_;
  std::span<Output> outputs_;
  bool needs_data_ = false;
};

// What prepare() made for one step: packed weights, the chosen kernel. Immutable while running, shared by
// the sessions of a plan.
class OpState {
 public:
  virtual ~OpState() = default;
};

// Why a kernel was not taken; `sprun explain` prints it.
struct Rejection {
  std::string kernel, reason;
};

// Runs a body graph of If, Loop or Scan. Implemented by the runtime.
class SubgraphRunner {
 public:
  virtual ~SubgraphRunner() = default;
  // Runs the subgraph attribute `attr` of the node. inputs are those of the subgraph, in order; captured outer
  // values are appended by the importer as explicit inputs of node and subgraph. Outputs own their memory.
  virtual Result<std::vector<Tensor>> run(std::string_view attr, std::span<const ConstTensorView> inputs) = 0;
};

// One execution of a node. Inputs and outputs are contiguous; outputs have the inferred shapes. An output may
// share memory with an input only if the op says kInPlace.
class RunContext {
 public:
  const Node& node() const { return *node_; }
  const AttrMap& attrs() const { return node_->attrs; }
  int opset() const { return node_->version; }
  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  int num_outputs() const { return static_cast<int>(outputs_.size()); }
  bool has_input(int i) const {
    return i >= 0 && i < num_inputs() && inputs_[static_cast<size_t>(i)].dtype != DType::kUndefined;
  }
  bool has_output(int i) const {
    return i >= 0 && i < num_outputs() && outputs_[static_cast<size_t>(i)].dtype != DType::kUndefined;
  }
  const ConstTensorView& input(int i) const { return inputs_[static_cast<size_t>(i)]; }
  const TensorView& output(int i) const { return outputs_[static_cast<size_t>(i)]; }
  ThreadPool& pool() const { return *pool_; }
  const OpState* state() const { return state_; }
  // scratch_bytes asked for in prepare(), 64-byte aligned; nullptr if none.
  void* scratch() const { return scratch_; }
  SubgraphRunner* subgraphs() const { return subgraphs_; }

  // For ops flagged kDynamicOutput only: gives output i its type and memory, once.
  Result<TensorView> alloc_output(int i, DType dtype, const Shape& shape);

  // kBadInput "Op 'node name': text", for values that only show when running (an index out of range).
  Status error(const std::string& text) const;
  Status check(bool condition, const std::string& text) const { return condition ? Status() : error(text); }

  // Filled by whoever executes (runtime/plan, constant folding).
  const Node* node_ = nullptr;
  std::span<const ConstTensorView> inputs_;
  std::span<TensorView> outputs_;
  ThreadPool* pool_ = nullptr;
  const OpState* state_ = nullptr;
  void* scratch_ = nullptr;
  SubgraphRunner* subgraphs_ = nullptr;
  std::function<Result<TensorView>(int, DType, const Shape&)> alloc_;
};

// Choosing a kernel for a node whose shapes are known: runs once per plan.
class PrepareContext {
 public:
  const Node& node() const { return *node_; }
  const AttrMap& attrs() const { return node_->attrs; }
  bool has_input(int i) const {
    return i >= 0 && i < static_cast<int>(inputs_.size()) && inputs_[static_cast<size_t>(i)].dtype != DType::kUndefined;
  }
  // data is set for constants only.
  const ConstTensorView& input(int i) const { return inputs_[static_cast<size_t>(i)]; }
  const ConstTensorView& output(int i) const { return outputs_[static_cast<size_t>(i)]; }
  // The constant itself, for keeping it alive or as identity of a packed copy; empty if not constant.
  const Tensor& constant(int i) const { return constants_[static_cast<size_t>(i)]; }
  int max_threads() const { return max_threads_; }
  // Packed weights, shared by all plans of a model.
  PackedCache& packed() const { return *packed_; }
  SparseMode sparse() const { return sparse_; }

  // --- results
  std::unique_ptr<const OpState> state;
  int64_t scratch_bytes = 0;
  std::string kernel;                 // "gemm_f32_avx512"; empty: the op's plain loop
  std::string detail;                 // why this kernel, what it needs; one line for explain
  std::string regime;                 // "compute-bound", "bandwidth-bound" or empty
  double flops = 0;                   // multiply and add count as two
  std::vector<Rejection> rejected;
  std::vector<int> unread_inputs;     // constant inputs that run() does not read (packed): may be released

  const Node* node_ = nullptr;
  std::span<const ConstTensorView> inputs_, outputs_;
  std::span<const Tensor> constants_;
  int max_threads_ = 1;
  PackedCache* packed_ = nullptr;
  SparseMode sparse_ = SparseMode::kAuto;
};

struct Arity {
  int16_t min, max;
};
inline constexpr int16_t kVariadic = std::numeric_limits<int16_t>::max();

enum OpFlags : uint32_t {
  kNoFlags = 0,
  kInPlace = 1u << 0,        // output 0 may share memory with input 0 when it has as many bytes
  kView = 1u << 1,           // output 0 is input 0 with another shape: no work at all
  kDynamicOutput = 1u << 2,  // run() calls alloc_output(); infer() may leave shapes unset even with all data
  kRandom = 1u << 3,         // never folded, never merged with a twin
  kShapeOnly = 1u << 4,      // output depends on the shapes of the inputs, not on their elements (Shape, Size)
  kSubgraphs = 1u << 5,      // has body graphs; run() uses subgraphs()
};

struct OpDef {
  std::string_view domain = "";        // "" = ai.onnx
  std::string_view name;
  int since = 1;                       // oldest opset of the domain that is understood
  int until = std::numeric_limits<int>::max();  // newest
  Arity inputs = {1, 1}, outputs = {1, 1};
  Status (*infer)(InferContext&) = nullptr;
  Status (*run)(RunContext&) = nullptr;
  Status (*prepare)(PrepareContext&) = nullptr;  // nullptr: no state
  uint32_t flags = kNoFlags;
};

// Every group of op_groups.def, in order.
std::span<const std::span<const OpDef>> op_groups();
// The definition for domain, name and opset version; nullptr if there is none. "ai.onnx" is the same as "".
const OpDef* find_op(std::string_view domain, std::string_view name, int version);
// True if the op exists for some other opset (for better messages).
bool op_known(std::string_view domain, std::string_view name);

}  // namespace sprun::graph
