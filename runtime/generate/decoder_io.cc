#include "runtime/generate/decoder_io.h"

#include <algorithm>
#include <limits>

namespace sprun {

namespace {

using Role = DecoderIo::Role;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

bool is_id_type(DType dtype) { return dtype == DType::kS64 || dtype == DType::kS32; }

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  return at == std::string::npos ? std::string() : text.replace(at, from.size(), to);
}

bool looks_like_state(const std::string& name) {
  return (contains(name, "past") && !contains(name, "mask")) || contains(name, "cache_in");
}

// Keys and values are [batch, heads, length, dim] or both in one [2, batch, heads, length, dim]; fixed states keep their
// sizes. kUsage if a size stays open.
Result<StateSpec> read_state(const TensorSpec& spec) {
  StateSpec state;
  state.dtype = spec.dtype;
  const int rank = static_cast<int>(spec.dims.size());
  const int batch_axis = rank == 5 ? 1 : 0, length_axis = rank == 5 ? 3 : 2;
  for (int i = 0; i < rank; ++i) {
    int64_t size = spec.dims[static_cast<size_t>(i)].value;
    if (size < 0 && i == batch_axis) size = 1;
    if (size < 0 && i == length_axis) {
      state.length_axis = i;
      size = 0;
    }
    if (size < 0 || rank > 5) {
      return Status(Code::kBadModel, "state '" + spec.name + "' has shape " + spec.shape_string() +
                                      ", expected [batch, heads, length, dim] or [2, batch, heads, length, dim] with "
                                      "known heads and dim, or fixed sizes");
    }
    state.empty.push_back(size);
  }
  return state;
}

Result<Role> role_of(const TensorSpec& spec) {
  const std::string& name = spec.name;
  if (looks_like_state(name)) return Role::kState;
  if (contains(name, "use_cache") && spec.dtype == DType::kBool) return Role::kCacheBranch;
  if (contains(name, "mask")) return Role::kMask;
  if (is_id_type(spec.dtype)) {
    if (contains(name, "position")) return Role::kPositions;
    if (contains(name, "token_type") || contains(name, "segment")) return Role::kTokenTypes;
    if (contains(name, "ids") || contains(name, "tokens") || name == "input") return Role::kIds;
  }
  return Status(Code::kBadModel, "input '" + name + "' (" + std::string(dtype_name(spec.dtype)) + spec.shape_string() +
                                  ") is not one that text generation can give: expected input_ids, attention_mask, "
                                  "position_ids, cache_position, token_type_ids, use_cache_branch or past states");
}

// The output named like logits, or the only one that is no state.
Result<int> find_logits(const std::vector<TensorSpec>& outputs, const std::vector<bool>& is_state) {
  std::vector<int> others;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (contains(outputs[i].name, "logits")) return static_cast<int>(i);
    if (!is_state[i]) others.push_back(static_cast<int>(i));
  }
  if (others.size() == 1) return others.front();
  return Status(Code::kBadModel, "the model has no output 'logits', and " + std::to_string(others.size()) +
                                  " others that are no states: it is no decoder");
}

template <class T>
void fill(Tensor& tensor, int64_t first, int64_t step) {
  T* out = tensor.mutable_view().as<T>();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) out[i] = static_cast<T>(first + i * step);
}

Status fill_any(Tensor& tensor, int64_t first, int64_t step, const std::string& name) {
  switch (tensor.dtype()) {
    case DType::kS64: fill<int64_t>(tensor, first, step); return {};
    case DType::kS32: fill<int32_t>(tensor, first, step); return {};
    case DType::kF32: fill<float>(tensor, first, step); return {};
    case DType::kBool: fill<uint8_t>(tensor, first, step); return {};
    default:
      return {Code::kBadModel, "input '" + name + "' has type " + std::string(dtype_name(tensor.dtype())) +
                                ", expected int64, int32, float or bool"};
  }
}

}  // namespace

int state_output(const std::string& name, const std::vector<TensorSpec>& outputs) {
  if (!looks_like_state(name)) return -1;
  const std::string candidates[] = {
      replaced(name, "past_key_values", "present"), replaced(name, "past_key_values", "present_key_values"),
      replaced(name, "past_key_self", "present_key_self"), replaced(name, "past", "present"),
      replaced(name, "cache_in", "cache_out")};
  for (const std::string& candidate : candidates) {
    if (candidate.empty()) continue;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].name == candidate) return static_cast<int>(i);
    }
  }
  return -1;
}

Status write_ids(std::span<const int64_t> ids, Tensor& tensor) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (tensor.dtype() == DType::kS64) {
      tensor.mutable_view().as<int64_t>()[i] = ids[i];
      continue;
    }
    if (ids[i] < std::numeric_limits<int32_t>::min() || ids[i] > std::numeric_limits<int32_t>::max()) {
      return {Code::kBadInput, "token " + std::to_string(ids[i]) + " does not fit the model's int32 ids"};
    }
    tensor.mutable_view().as<int32_t>()[i] = static_cast<int32_t>(ids[i]);
  }
  return {};
}

Shape StateSpec::shape_at(int64_t past) const {
  Shape shape = empty;
  if (length_axis >= 0) shape[length_axis] = past;
  return shape;
}

bool DecoderIo::has_cache() const {
  return std::any_of(states.begin(), states.end(), [](const StateSpec& s) { return s.length_axis >= 0; });
}

bool DecoderIo::has(Role role) const { return std::find(roles.begin(), roles.end(), role) != roles.end(); }

Shape DecoderIo::shape_of(int input, int64_t past, int64_t tokens) const {
  const TensorSpec& spec = inputs[static_cast<size_t>(input)];
  const Role role = roles[static_cast<size_t>(input)];
  if (role == Role::kCacheBranch) return Shape{1};
  const int64_t length = role == Role::kMask ? past + tokens : tokens;
  if (spec.has_shape && spec.dims.size() == 1) return Shape{length};
  return Shape{1, length};
}

Result<DecoderIo> DecoderIo::describe(const Model& model) {
  DecoderIo io;
  io.inputs = model.inputs();
  const std::vector<TensorSpec>& outputs = model.outputs();
  std::vector<bool> is_state(outputs.size(), false);
  for (size_t i = 0; i < io.inputs.size(); ++i) {
    const TensorSpec& spec = io.inputs[i];
    SPRUN_ASSIGN(const Role role, role_of(spec));
    io.roles.push_back(role);
    if (role == Role::kIds) {
      if (io.ids >= 0) {
        return Status(Code::kBadModel, "both '" + io.inputs[static_cast<size_t>(io.ids)].name + "' and '" + spec.name +
                                        "' look like token ids, expected one such input");
      }
      io.ids = static_cast<int>(i);
      if (spec.dims.size() == 2) io.fixed_tokens = spec.dims[1].value;
    }
    if (role != Role::kState) continue;
    SPRUN_ASSIGN(StateSpec state, read_state(spec));
    state.input = static_cast<int>(i);
    state.output = state_output(spec.name, outputs);
    if (state.output < 0) {
      return Status(Code::kBadModel, "no output carries on the state '" + spec.name +
                                      "', expected one named like it with 'present' in place of 'past'");
    }
    is_state[static_cast<size_t>(state.output)] = true;
    io.states.push_back(std::move(state));
  }
  if (io.ids < 0) return Status(Code::kBadModel, "the model has no input of token ids (input_ids), it is no decoder");
  SPRUN_ASSIGN(io.logits, find_logits(outputs, is_state));
  const TensorSpec& logits = outputs[static_cast<size_t>(io.logits)];
  if (!logits.dims.empty()) io.vocabulary = logits.dims.back().value;
  return io;
}

Result<StepInputs> StepInputs::make(const DecoderIo& io, int64_t past, std::span<const int64_t> ids) {
  StepInputs made;
  made.tensors_.resize(io.inputs.size());
  for (size_t i = 0; i < io.inputs.size(); ++i) {
    if (io.roles[i] == Role::kState) continue;
    const Shape shape = io.shape_of(static_cast<int>(i), past, static_cast<int64_t>(ids.size()));
    SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(io.inputs[i].dtype, shape));
    Status status;
    switch (io.roles[i]) {
      case Role::kIds: status = write_ids(ids, tensor); break;
      case Role::kMask: status = fill_any(tensor, 1, 0, io.inputs[i].name); break;
      case Role::kPositions: status = fill_any(tensor, past, 1, io.inputs[i].name); break;
      case Role::kTokenTypes: status = fill_any(tensor, 0, 0, io.inputs[i].name); break;
      case Role::kCacheBranch: status = fill_any(tensor, past > 0 ? 1 : 0, 0, io.inputs[i].name); break;
      case Role::kState: break;
    }
    SPRUN_TRY(status);
    made.tensors_[i] = std::move(tensor);
  }
  return made;
}

std::vector<ConstTensorView> StepInputs::views() const {
  std::vector<ConstTensorView> views;
  for (const Tensor& tensor : tensors_) views.push_back(tensor.empty() ? ConstTensorView{} : tensor.view());
  return views;
}

}  // namespace sprun
