// If, Loop, Scan. Values that a body takes from outside are explicit inputs of node and body, behind the inputs that
// ONNX names ("captures"); attributes num_carried (Loop) and num_captures (Scan) tell where they begin.
#include <algorithm>
#include <cstring>
#include <limits>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// Loops that collect more than this are taken for broken or hostile.
constexpr int64_t kMaxCollectedBytes = int64_t{1} << 34;

Status infer_unknown(InferContext& ctx) { return ctx.needs_data(); }

Status too_large(const RunContext& ctx) {
  return at_node(ctx, Status(Code::kResourceLimit, "the collected outputs are too large"));
}

// Gives output i a copy of `tensor`; nothing to do if nobody wants it.
Status copy_output(RunContext& ctx, int i, const ConstTensorView& tensor) {
  if (ctx.node().output(static_cast<size_t>(i)) == kNoValue) return {};
  SPRUN_ASSIGN(const TensorView out, ctx.alloc_output(i, tensor.dtype, tensor.shape));
  kernels::parallel_copy(tensor.data, out.data, out.size_bytes(), ctx.pool());
  return {};
}

Result<bool> read_condition(const RunContext& ctx, const ConstTensorView& condition) {
  if (condition.dtype != DType::kBool || condition.num_elements() != 1) {
    return ctx.error("the condition must be one bool, got " + std::string(dtype_name(condition.dtype)) +
                     condition.shape.to_string());
  }
  return *condition.as<uint8_t>() != 0;
}

Status check_output_count(const RunContext& ctx, size_t got, size_t expected) {
  return ctx.check(got == expected,
                   "the body has " + std::to_string(got) + " outputs, expected " + std::to_string(expected));
}

Status check_has_runner(const RunContext& ctx) {
  if (ctx.subgraphs() != nullptr) return {};
  return Status(Code::kInternal, ctx.node().op_type + " '" + ctx.node().name + "': nothing runs its subgraphs");
}

// The type and shape that a body declares for its output `index`, for loops that never run; unknown sizes are 0.
Result<ConstTensorView> declared_output(const RunContext& ctx, size_t index) {
  const auto body = ctx.attrs().get_graph("body");
  if (!body || index >= body->outputs().size()) return ctx.error("the body lacks output " + std::to_string(index));
  const Value& value = body->value(body->outputs()[index]);
  if (value.dtype == DType::kUndefined) {
    return ctx.error("no iteration ran and the type of body output '" + value.name + "' is not declared");
  }
  std::vector<int64_t> dims;
  if (value.declared) {
    for (const DimInfo& dim : *value.declared) dims.push_back(std::max<int64_t>(dim.value, 0));
  } else if (value.shape) {
    dims.assign(value.shape->dims().begin(), value.shape->dims().end());
  }
  SPRUN_ASSIGN(const Shape shape, at_node(ctx, Shape::checked(dims)));
  return ConstTensorView{nullptr, value.dtype, shape};
}

// Output i is the empty stack of what the body declares for its output `body_index`, stacked along `axis`.
Status empty_stack(RunContext& ctx, int i, size_t body_index, int64_t axis) {
  if (ctx.node().output(static_cast<size_t>(i)) == kNoValue) return {};
  SPRUN_ASSIGN(const ConstTensorView element, declared_output(ctx, body_index));
  SPRUN_ASSIGN(const int position, at_node(ctx, normalize_axis(axis, element.shape.rank() + 1)));
  std::vector<int64_t> dims(element.shape.dims().begin(), element.shape.dims().end());
  dims.insert(dims.begin() + position, 0);
  SPRUN_ASSIGN(const Shape shape, at_node(ctx, Shape::checked(dims)));
  return ctx.alloc_output(i, element.dtype, shape).status();
}

// --- If-1..25: runs then_branch or else_branch on the captures

Status run_if(RunContext& ctx) {
  SPRUN_TRY(check_has_runner(ctx));
  if (!ctx.has_input(0)) return ctx.error("the condition is missing");
  SPRUN_ASSIGN(const bool condition, read_condition(ctx, ctx.input(0)));
  SPRUN_ASSIGN(const std::vector<Tensor> outputs,
               ctx.subgraphs()->run(condition ? "then_branch" : "else_branch", ctx.inputs_.subspan(1)));
  SPRUN_TRY(check_output_count(ctx, outputs.size(), ctx.node().outputs.size()));
  for (size_t i = 0; i < outputs.size(); ++i) {
    SPRUN_TRY(copy_output(ctx, static_cast<int>(i), outputs[i].view()));
  }
  return {};
}

// --- Loop-1..25

// Elements of equal shape, one after the other in memory that doubles when full.
class Stack {
 public:
  Status push(const RunContext& ctx, const ConstTensorView& element) {
    if (count_ == 0) {
      element_ = {nullptr, element.dtype, element.shape};
    } else if (element.dtype != element_.dtype || element.shape != element_.shape) {
      return ctx.error("scan outputs changed from " + std::string(dtype_name(element_.dtype)) +
                       element_.shape.to_string() + " to " + std::string(dtype_name(element.dtype)) +
                       element.shape.to_string());
    }
    const int64_t bytes = element.size_bytes();
    SPRUN_TRY(reserve(ctx, used_bytes_ + bytes));
    if (bytes > 0)
      std::memcpy(buffer_.mutable_view().as<char>() + used_bytes_, element.data, static_cast<size_t>(bytes));
    used_bytes_ += bytes;
    ++count_;
    return {};
  }

  // Output i becomes [count, element...].
  Status write(RunContext& ctx, int i) const {
    std::vector<int64_t> dims = {count_};
    dims.insert(dims.end(), element_.shape.dims().begin(), element_.shape.dims().end());
    SPRUN_ASSIGN(const Shape shape, at_node(ctx, Shape::checked(dims)));
    return copy_output(ctx, i, {buffer_.data(), element_.dtype, shape});
  }

  int64_t count() const { return count_; }

 private:
  Status reserve(const RunContext& ctx, int64_t bytes) {
    const int64_t capacity = buffer_.empty() ? 0 : buffer_.size_bytes();
    if (bytes <= capacity) return {};
    if (bytes > kMaxCollectedBytes) return too_large(ctx);
    SPRUN_ASSIGN(Tensor grown, at_node(ctx, Tensor::allocate(DType::kU8, {std::max(bytes, 2 * capacity)})));
    if (used_bytes_ > 0) std::memcpy(grown.mutable_view().data, buffer_.data(), static_cast<size_t>(used_bytes_));
    buffer_ = std::move(grown);
    return {};
  }

  ConstTensorView element_;
  Tensor buffer_;
  int64_t used_bytes_ = 0, count_ = 0;
};

// The state of one execution of a Loop. Node inputs: M, cond, carried..., captures...; body inputs: iteration, cond,
// carried..., captures...; body outputs: cond, carried..., scanned...
class LoopRun {
 public:
  explicit LoopRun(RunContext& ctx) : ctx_(ctx) {}

  Status run() {
    SPRUN_TRY(start());
    while (iteration_ < trip_count_ && condition_ != 0) SPRUN_TRY(step());
    return finish();
  }

 private:
  Status start() {
    num_carried_ = static_cast<size_t>(std::max<int64_t>(ctx_.attrs().get_int("num_carried", 0), 0));
    const size_t num_inputs = ctx_.inputs_.size();
    if (num_inputs < 2 || num_carried_ > num_inputs - 2 || num_carried_ > ctx_.node().outputs.size()) {
      return ctx_.error("num_carried does not fit the inputs and outputs");
    }
    if (ctx_.has_input(0)) {
      SPRUN_ASSIGN(trip_count_, at_node(ctx_, read_scalar_int(ctx_.input(0))));
    }
    if (ctx_.has_input(1)) {
      SPRUN_ASSIGN(condition_, read_condition(ctx_, ctx_.input(1)));
    }
    // With neither input ONNX loops for ever; here the body may end it.
    has_condition_ = ctx_.has_input(1) || !ctx_.has_input(0);
    inputs_.assign(ctx_.inputs_.begin(), ctx_.inputs_.end());
    inputs_[0] = {&iteration_, DType::kS64, {}};
    inputs_[1] = {&condition_, DType::kBool, {}};
    scanned_.resize(ctx_.node().outputs.size() - num_carried_);
    return {};
  }

  Status step() {
    SPRUN_ASSIGN(std::vector<Tensor> outputs, ctx_.subgraphs()->run("body", inputs_));
    SPRUN_TRY(check_output_count(ctx_, outputs.size(), 1 + num_carried_ + scanned_.size()));
    SPRUN_ASSIGN(const bool go_on, read_condition(ctx_, outputs[0].view()));
    condition_ = go_on || !has_condition_;
    for (size_t i = 0; i < scanned_.size(); ++i) {
      SPRUN_TRY(scanned_[i].push(ctx_, outputs[1 + num_carried_ + i].view()));
    }
    carried_.assign(std::make_move_iterator(outputs.begin() + 1),
                    std::make_move_iterator(outputs.begin() + 1 + static_cast<std::ptrdiff_t>(num_carried_)));
    for (size_t i = 0; i < num_carried_; ++i) inputs_[2 + i] = carried_[i].view();
    ++iteration_;
    return {};
  }

  Status finish() {
    for (size_t i = 0; i < num_carried_; ++i) SPRUN_TRY(copy_output(ctx_, static_cast<int>(i), inputs_[2 + i]));
    for (size_t i = 0; i < scanned_.size(); ++i) {
      const int output = static_cast<int>(num_carried_ + i);
      SPRUN_TRY(iteration_ > 0 ? scanned_[i].write(ctx_, output) : empty_stack(ctx_, output, 1 + num_carried_ + i, 0));
    }
    return {};
  }

  RunContext& ctx_;
  size_t num_carried_ = 0;
  int64_t iteration_ = 0, trip_count_ = std::numeric_limits<int64_t>::max();
  uint8_t condition_ = 1;       // as the body sees it
  bool has_condition_ = false;  // a loop with a trip count only ignores what the body says
  std::vector<ConstTensorView> inputs_;
  std::vector<Tensor> carried_;
  std::vector<Stack> scanned_;
};

Status run_loop(RunContext& ctx) {
  SPRUN_TRY(check_has_runner(ctx));
  return LoopRun(ctx).run();
}

// --- Scan-8, 9..25

// A tensor as [outer, size, inner] around one axis: slice t of it, or the place where slice t goes.
struct AxisView {
  int64_t outer = 1, size = 1, inner = 1;

  AxisView(const Shape& shape, int axis)
      : outer(shape.num_elements(0, axis)), size(shape[axis]), inner(shape.num_elements(axis + 1, shape.rank())) {}

  void copy_out(const ConstTensorView& whole, int64_t t, void* slice, ThreadPool& pool) const {
    const int64_t bytes = dtype_size(whole.dtype);
    kernels::StridedCopy copy;
    copy.add_axis(outer, size * inner, inner);
    copy.add_axis(inner, 1, 1);
    kernels::strided_copy(copy, bytes, whole.as<char>() + t * inner * bytes, slice, pool);
  }
  void copy_in(const TensorView& whole, int64_t t, const void* slice, ThreadPool& pool) const {
    const int64_t bytes = dtype_size(whole.dtype);
    kernels::StridedCopy copy;
    copy.add_axis(outer, inner, size * inner);
    copy.add_axis(inner, 1, 1);
    kernels::strided_copy(copy, bytes, slice, whole.as<char>() + t * inner * bytes, pool);
  }
};

Shape without_axis(Shape shape, int axis) {
  shape.erase(axis);
  return shape;
}

// One execution of a Scan. Node inputs: [sequence lengths (Scan-8),] states..., scanned..., captures...;
// body inputs: states..., slices..., captures...; body outputs: states..., slices...
// Scan-8 adds a batch axis: each item of the batch is scanned on its own, along what is axis 1 of the whole.
class ScanRun {
 public:
  explicit ScanRun(RunContext& ctx) : ctx_(ctx), batched_(ctx.opset() < 9) {}

  Status run() {
    SPRUN_TRY(start());
    SPRUN_TRY(check_lengths());
    if (!batched_) return scan_all();
    for (int64_t b = 0; b < batch_; ++b) SPRUN_TRY(scan_item(b));
    // What was never stored has no known shape.
    const auto num_stacks = static_cast<size_t>(ctx_.num_outputs() - num_states_);
    return ctx_.check(batch_ > 0 && (num_stacks == 0 || stacks_.size() == num_stacks), "no step was run");
  }

 private:
  Status start() {
    const auto& attrs = ctx_.attrs();
    first_input_ = batched_ ? 1 : 0;
    const int64_t num_scanned = attrs.get_int("num_scan_inputs", 0), num_captures = attrs.get_int("num_captures", 0);
    const int64_t limit = ctx_.num_inputs();
    const bool plausible = num_scanned >= 1 && num_scanned <= limit && num_captures >= 0 && num_captures <= limit;
    const int64_t num_states = plausible ? limit - first_input_ - num_scanned - num_captures : -1;
    if (num_states < 0 || num_states > ctx_.num_outputs()) {
      return ctx_.error("num_scan_inputs or num_captures does not fit the inputs and outputs");
    }
    num_states_ = static_cast<int>(num_states);
    num_scanned_ = static_cast<int>(num_scanned);
    for (int i = first_input_; i < ctx_.num_inputs(); ++i) {
      if (!ctx_.has_input(i)) return ctx_.error("input " + std::to_string(i) + " is missing");
    }
    inputs_.assign(ctx_.inputs_.begin() + first_input_, ctx_.inputs_.end());
    return check_scanned();
  }

  // The list attribute `name` at i; 0 where the list is shorter.
  int64_t list_at(std::string_view name, int i) const {
    const auto& list = ctx_.attrs().get_ints(name);
    return static_cast<size_t>(i) < list.size() ? list[static_cast<size_t>(i)] : 0;
  }
  bool reversed_input(int i) const { return list_at(batched_ ? "directions" : "scan_input_directions", i) == 1; }
  const ConstTensorView& scanned(int i) const { return ctx_.input(first_input_ + num_states_ + i); }

  // Axes, sizes and slice buffers of the scanned inputs.
  Status check_scanned() {
    for (int i = 0; i < num_scanned_; ++i) {
      const Shape& shape = scanned(i).shape;
      if (batched_ && shape.rank() < 2) return ctx_.error("scanned inputs must have a batch and a time axis");
      const int64_t wanted_axis = batched_ ? 1 : list_at("scan_input_axes", i);
      SPRUN_ASSIGN(const int axis, at_node(ctx_, normalize_axis(wanted_axis, shape.rank())));
      if (i == 0) {
        length_ = shape[axis];
        batch_ = batched_ ? shape[0] : 1;
      }
      if (shape[axis] != length_ || (batched_ && shape[0] != batch_)) {
        return ctx_.error("scanned inputs have different lengths or batches");
      }
      axes_.push_back(axis);
      Shape slice = without_axis(shape, axis);
      if (batched_) slice.erase(0);
      SPRUN_ASSIGN(Tensor buffer, at_node(ctx_, Tensor::allocate(scanned(i).dtype, slice)));
      inputs_[static_cast<size_t>(num_states_ + i)] = buffer.view();
      slices_.push_back(std::move(buffer));
    }
    return {};
  }

  Status check_lengths() {
    for (int i = 0; batched_ && i < num_states_; ++i) {
      const Shape& shape = ctx_.input(first_input_ + i).shape;
      if (shape.rank() < 1 || shape[0] != batch_) return ctx_.error("states must have the batch as axis 0");
    }
    if (!batched_ || !ctx_.has_input(0)) return {};
    const ConstTensorView& lengths = ctx_.input(0);
    if (lengths.dtype != DType::kS64 || lengths.shape != Shape{batch_}) {
      return ctx_.error("sequence lengths must be int64 of shape [" + std::to_string(batch_) + "]");
    }
    return check_range(lengths.as<int64_t>());
  }

  Status check_range(const int64_t* lengths) const {
    for (int64_t b = 0; b < batch_; ++b) {
      if (lengths[b] < 0 || lengths[b] > length_) {
        return ctx_.error("sequence length " + std::to_string(lengths[b]) + " is outside [0, " +
                          std::to_string(length_) + "]");
      }
    }
    return {};
  }

  // Runs the body on time step t of batch item b.
  Status step(int64_t b, int64_t t, int64_t steps) {
    for (int i = 0; i < num_scanned_; ++i) {
      const int64_t at = reversed_input(i) ? steps - 1 - t : t;
      ConstTensorView whole = scanned(i);
      if (batched_) whole = item_of(whole, b);
      const int axis = axes_[static_cast<size_t>(i)] - (batched_ ? 1 : 0);
      AxisView(whole.shape, axis).copy_out(whole, at, slices_[static_cast<size_t>(i)].mutable_view().data, ctx_.pool());
    }
    SPRUN_ASSIGN(std::vector<Tensor> outputs, ctx_.subgraphs()->run("body", inputs_));
    SPRUN_TRY(check_output_count(ctx_, outputs.size(), ctx_.node().outputs.size()));
    for (int i = num_states_; i < ctx_.num_outputs(); ++i) {
      SPRUN_TRY(store_slice(i, b, t, outputs[static_cast<size_t>(i)].view()));
    }
    outputs.resize(static_cast<size_t>(num_states_));
    states_ = std::move(outputs);
    for (size_t i = 0; i < states_.size(); ++i) inputs_[i] = states_[i].view();
    return {};
  }

  static ConstTensorView item_of(const ConstTensorView& whole, int64_t b) {
    ConstTensorView item{nullptr, whole.dtype, without_axis(whole.shape, 0)};
    item.data = whole.as<char>() + b * item.size_bytes();
    return item;
  }

  // Puts the slice of step t into output i, which gets its memory from the first slice.
  Status store_slice(int i, int64_t b, int64_t t, const ConstTensorView& slice) {
    const int k = i - num_states_;
    SPRUN_ASSIGN(const int axis, at_node(ctx_, normalize_axis(list_at("scan_output_axes", k), slice.shape.rank() + 1)));
    stacks_.resize(static_cast<size_t>(ctx_.num_outputs() - num_states_));
    if (ctx_.node().output(static_cast<size_t>(i)) == kNoValue) return {};
    TensorView& stack = stacks_[static_cast<size_t>(k)];
    std::vector<int64_t> dims(slice.shape.dims().begin(), slice.shape.dims().end());
    dims.insert(dims.begin() + axis, length_);
    if (batched_) dims.insert(dims.begin(), batch_);
    SPRUN_ASSIGN(const Shape shape, at_node(ctx_, Shape::checked(dims)));
    if (stack.dtype == DType::kUndefined) {
      if (shape.num_elements() > kMaxCollectedBytes / dtype_size(slice.dtype)) return too_large(ctx_);
      SPRUN_ASSIGN(stack, ctx_.alloc_output(i, slice.dtype, shape));
      if (stack.size_bytes() > 0) std::memset(stack.data, 0, static_cast<size_t>(stack.size_bytes()));
    }
    if (stack.dtype != slice.dtype || stack.shape != shape)
      return ctx_.error("scan outputs change their type or shape");
    const bool prepend = list_at("scan_output_directions", k) == 1;
    TensorView whole = stack;
    if (batched_) {
      whole.shape.erase(0);
      whole.data = whole.as<char>() + b * whole.size_bytes();
    }
    AxisView(whole.shape, axis).copy_in(whole, prepend ? length_ - 1 - t : t, slice.data, ctx_.pool());
    return {};
  }

  Status scan_all() {
    for (int64_t t = 0; t < length_; ++t) SPRUN_TRY(step(0, t, length_));
    for (int i = 0; i < num_states_; ++i) SPRUN_TRY(copy_output(ctx_, i, inputs_[static_cast<size_t>(i)]));
    for (int i = num_states_; length_ == 0 && i < ctx_.num_outputs(); ++i) {
      SPRUN_TRY(empty_stack(ctx_, i, static_cast<size_t>(i), list_at("scan_output_axes", i - num_states_)));
    }
    return {};
  }

  Status scan_item(int64_t b) {
    const int64_t steps = ctx_.has_input(0) ? ctx_.input(0).as<int64_t>()[b] : length_;
    for (int i = 0; i < num_states_; ++i) inputs_[static_cast<size_t>(i)] = item_of(ctx_.input(first_input_ + i), b);
    for (int64_t t = 0; t < steps; ++t) SPRUN_TRY(step(b, t, steps));
    for (int i = 0; i < num_states_; ++i) SPRUN_TRY(store_state(i, b));
    return {};
  }

  // The final state of batch item b; all items must agree on its shape.
  Status store_state(int i, int64_t b) {
    if (ctx_.node().output(static_cast<size_t>(i)) == kNoValue) return {};
    const ConstTensorView& state = inputs_[static_cast<size_t>(i)];
    final_states_.resize(static_cast<size_t>(num_states_));
    TensorView& all = final_states_[static_cast<size_t>(i)];
    std::vector<int64_t> dims = {batch_};
    dims.insert(dims.end(), state.shape.dims().begin(), state.shape.dims().end());
    SPRUN_ASSIGN(const Shape shape, at_node(ctx_, Shape::checked(dims)));
    if (all.dtype == DType::kUndefined) {
      SPRUN_ASSIGN(all, ctx_.alloc_output(i, state.dtype, shape));
    }
    if (all.dtype != state.dtype || all.shape != shape) return ctx_.error("states change their type or shape");
    const int64_t bytes = state.size_bytes();
    if (bytes > 0) std::memcpy(all.as<char>() + b * bytes, state.data, static_cast<size_t>(bytes));
    return {};
  }

  RunContext& ctx_;
  const bool batched_;
  int first_input_ = 0, num_states_ = 0, num_scanned_ = 0;
  int64_t length_ = 0, batch_ = 1;
  std::vector<int> axes_;                // scanned axis of each scanned input
  std::vector<Tensor> slices_, states_;  // what the body reads
  std::vector<ConstTensorView> inputs_;  // of the body
  std::vector<TensorView> stacks_, final_states_;
};

Status run_scan(RunContext& ctx) {
  SPRUN_TRY(check_has_runner(ctx));
  return ScanRun(ctx).run();
}

constexpr uint32_t kFlags = kSubgraphs | kDynamicOutput;

constexpr OpDef kOps[] = {
    {.name = "If",
     .inputs = {1, kVariadic},
     .outputs = {1, kVariadic},
     .infer = infer_unknown,
     .run = run_if,
     .flags = kFlags},
    {.name = "Loop",
     .inputs = {0, kVariadic},
     .outputs = {0, kVariadic},
     .infer = infer_unknown,
     .run = run_loop,
     .flags = kFlags},
    {.name = "Scan",
     .since = 8,
     .inputs = {0, kVariadic},
     .outputs = {1, kVariadic},
     .infer = infer_unknown,
     .run = run_scan,
     .flags = kFlags},
};

}  // namespace

extern const std::span<const OpDef> k_control_flow_ops;
const std::span<const OpDef> k_control_flow_ops = kOps;

}  // namespace sprun::graph
