// What a decoder graph wants at each step and what it gives, read from the names, types and shapes of its inputs and
// outputs as exporters write them:
//
//   input_ids [1, T]      attention_mask [1, P + T]      position_ids [1, T] or cache_position [T]
//   past_key_values.N.key [1, heads, P, dim]  ->  present.N.key [1, heads, P + T, dim]       (past_N: [2, 1, heads, P, dim])
//   use_cache_branch [1]      token_type_ids [1, T]      logits [1, T, vocabulary]
//
// T new tokens follow P tokens of the past; one sequence at a time. A state whose sizes are all fixed (a convolution's last
// columns) is carried from step to step as it is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sprun/model.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun {

// An input that is an output of the step before.
struct StateSpec {
  int input = -1, output = -1;
  int length_axis = -1;  // the axis of size P; -1: the shape is fixed
  DType dtype = DType::kUndefined;
  Shape empty;           // batch 1 and size 0 at length_axis

  Shape shape_at(int64_t past) const;
};

// The output that carries on the state input `name`, by their names; -1 if `name` is no state or nothing carries it on.
int state_output(const std::string& name, const std::vector<TensorSpec>& outputs);

struct DecoderIo {
  enum class Role : uint8_t { kIds, kMask, kPositions, kTokenTypes, kCacheBranch, kState };

  std::vector<TensorSpec> inputs;
  std::vector<Role> roles;          // by input
  std::vector<StateSpec> states;
  int logits = -1;                  // output
  int ids = -1;                     // input
  int64_t fixed_tokens = -1;        // T if the file fixes it
  int64_t vocabulary = -1;          // if the file says it

  // True if the graph hands on at least one state that grows with the text.
  bool has_cache() const;
  bool has(Role role) const;
  // Shape of an input that is no state.
  Shape shape_of(int input, int64_t past, int64_t tokens) const;

  // kBadModel naming the input or output that generation cannot serve.
  static Result<DecoderIo> describe(const Model& model);
};

// Writes ids to a tensor of as many int64 or int32. kBadInput if an id does not fit.
Status write_ids(std::span<const int64_t> ids, Tensor& tensor);

// Owns the small inputs of one step (all but the states).
class StepInputs {
 public:
  // Fills every input that is no state for `ids` after `past` tokens. kBadInput if an id does not fit the input's type.
  static Result<StepInputs> make(const DecoderIo& io, int64_t past, std::span<const int64_t> ids);
  // By input; states are undefined.
  std::vector<ConstTensorView> views() const;
  const Tensor& tensor(int input) const { return tensors_[static_cast<size_t>(input)]; }

 private:
  std::vector<Tensor> tensors_;
};

}  // namespace sprun
