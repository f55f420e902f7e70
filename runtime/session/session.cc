#include "sprun/session.h"

#include <algorithm>
#include <list>

#include "runtime/base/thread_pool.h"
#include "runtime/generate/generator.h"
#include "runtime/session/executor.h"
#include "runtime/session/model_impl.h"
#include "runtime/session/promised_sparsity.h"

namespace sprun {

namespace {

// Executors kept per session: their arenas are memory that only pays while shapes come back.
constexpr size_t kMaxExecutors = 4;

template <class Specs>
int find_spec(const Specs& specs, std::string_view name) {
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

std::string list_names(const std::vector<TensorSpec>& specs) {
  std::string text;
  for (const TensorSpec& spec : specs) text += (text.empty() ? "" : ", ") + spec.name;
  return text;
}

Status check_shape(const TensorSpec& spec, const Shape& shape) {
  if (!spec.has_shape) return {};
  if (spec.dims.empty() && shape.num_elements() == 1) return {};  // [1] for a scalar: files and tools mix them up
  bool fits = static_cast<int>(spec.dims.size()) == shape.rank();
  for (int i = 0; fits && i < shape.rank(); ++i) {
    const int64_t want = spec.dims[static_cast<size_t>(i)].value;
    fits = want < 0 || want == shape[i];
  }
  if (fits) return {};
  return {Code::kBadInput, "input '" + spec.name + "': expected shape " + spec.shape_string() + ", got " + shape.to_string()};
}

Status check_input(const TensorSpec& spec, const ConstTensorView& view) {
  if (spec.dtype != DType::kUndefined && view.dtype != spec.dtype) {
    return {Code::kBadInput, "input '" + spec.name + "': expected type " + std::string(dtype_name(spec.dtype)) +
                                 ", got " + std::string(dtype_name(view.dtype))};
  }
  SPRUN_TRY(check_shape(spec, view.shape));
  const auto size = static_cast<uintptr_t>(dtype_size(view.dtype));
  if (size == 0) return {Code::kBadInput, "input '" + spec.name + "': element type is not supported"};
  if (reinterpret_cast<uintptr_t>(view.data) % size != 0) {
    return {Code::kBadInput, "input '" + spec.name + "': data is not aligned to its element size"};
  }
  if (view.data == nullptr && view.num_elements() > 0) {
    return {Code::kBadInput, "input '" + spec.name + "': data pointer is null"};
  }
  return {};
}

// Equal symbols must mean equal sizes ("batch" of one input is "batch" of another).
Status check_symbols(const std::vector<TensorSpec>& specs, std::span<const ConstTensorView> inputs) {
  struct Seen {
    std::string_view symbol, input;
    int64_t size;
  };
  std::vector<Seen> seen;
  for (size_t i = 0; i < specs.size(); ++i) {
    for (size_t d = 0; d < specs[i].dims.size(); ++d) {
      const std::string& symbol = specs[i].dims[d].symbol;
      if (symbol.empty()) continue;
      const int64_t size = inputs[i].shape[static_cast<int>(d)];
      const auto it = std::find_if(seen.begin(), seen.end(), [&](const Seen& s) { return s.symbol == symbol; });
      if (it == seen.end()) {
        seen.push_back({symbol, specs[i].name, size});
      } else if (it->size != size) {
        return {Code::kBadInput, "size '" + symbol + "' is " + std::to_string(it->size) + " in input '" +
                                     std::string(it->input) + "' but " + std::to_string(size) + " in input '" +
                                     specs[i].name + "'"};
      }
    }
  }
  return {};
}

}  // namespace

struct Session::Impl {
  Impl(std::shared_ptr<const Model> m, const SessionOptions& options)
      : model(std::move(m)), pool(options.arena ? ThreadPool(options.arena) : ThreadPool(options.num_threads)) {
    const auto& impl = model->impl();
    inputs.resize(impl.inputs.size());
    outputs.resize(impl.outputs.size());
  }

  const Model::Impl& shared() const { return model->impl(); }

  Status check_bound() const {
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].dtype == DType::kUndefined) {
        return {Code::kBadInput, "input '" + shared().inputs[i].name + "' is missing (expected " +
                                     std::string(dtype_name(shared().inputs[i].dtype)) +
                                     shared().inputs[i].shape_string() + ")"};
      }
    }
    return {};
  }

  bool fits(const Executor& executor) const {
    const auto& graph = executor.plan().graph();
    for (size_t i = 0; i < inputs.size(); ++i) {
      const graph::Value& value = graph.value(graph.inputs()[i]);
      if (value.dtype != inputs[i].dtype || *value.shape != inputs[i].shape) return false;
    }
    return true;
  }

  // The executor for the bound shapes, moved to the front.
  Status select_executor() {
    const auto found = std::find_if(executors.begin(), executors.end(), [&](const auto& e) { return fits(*e); });
    if (found != executors.end()) {
      if (found != executors.begin()) executors.splice(executors.begin(), executors, found);
      return {};
    }
    SPRUN_TRY(check_symbols(shared().inputs, inputs));
    SPRUN_ASSIGN(auto plan, build_plan());
    SPRUN_ASSIGN(auto executor, Executor::create(std::move(plan), execution_env()));
    executors.push_front(std::move(executor));
    if (executors.size() > kMaxExecutors) executors.pop_back();
    return {};
  }

  ExecutionEnv execution_env() {
    return {.pool = &pool, .packed = &shared().packed, .precision = shared().options.precision,
            .sparse = shared().options.sparse};
  }

  Status open_generator() {
    if (generator != nullptr) return {};
    SPRUN_ASSIGN(generator, Generator::create(*model, {&shared(), &pool, execution_env()}));
    return {};
  }

  // Shapes that contradict the graph are the input's fault here: the same model runs with others.
  Result<std::shared_ptr<const Plan>> build_plan() {
    auto plan = shared().plan_for(inputs, pool);
    if (plan.ok() || plan.status().code() != Code::kBadModel) return plan;
    return Status(Code::kBadInput, "the input shapes do not fit the model: " + plan.status().message());
  }

  Status run(const RunOptions& options) {
    has_run = false;
    SPRUN_TRY(check_bound());
    Status status;
    pool.enter([&] {
      status = select_executor();
      if (!status.ok()) return;
      status = executors.front()->run(inputs, outputs, options, profiling ? &profile : nullptr);
    });
    has_run = status.ok();
    return status;
  }

  std::shared_ptr<const Model> model;
  ThreadPool pool;
  std::vector<ConstTensorView> inputs;  // as bound; undefined dtype: not bound
  std::vector<TensorView> outputs;      // data null: not bound
  std::list<std::unique_ptr<Executor>> executors;  // most recently used first
  std::unique_ptr<Generator> generator;            // made by the first generate()
  bool has_run = false;
  bool profiling = false;
  std::vector<StepProfile> profile;
  GenerateProfile generate_profile;
};

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::create(std::shared_ptr<const Model> model, const SessionOptions& options) {
  if (model == nullptr) return Status(Code::kUsage, "Session::create needs a model");
  if (options.num_threads < 0 || options.num_threads > 1024) {
    return Status(Code::kUsage, "num_threads is " + std::to_string(options.num_threads) + ", expected 0 to 1024");
  }
  if (options.arena && options.num_threads != 0) {
    return Status(Code::kUsage, "num_threads is " + std::to_string(options.num_threads) +
                                    ", expected 0 beside an arena, which has " +
                                    std::to_string(options.arena.max_concurrency()) + " threads");
  }
  return Session(std::make_unique<Impl>(std::move(model), options));
}

const Model& Session::model() const { return *impl_->model; }
int Session::num_threads() const { return impl_->pool.num_threads(); }

Status Session::bind_input(std::string_view name, const ConstTensorView& view) {
  const auto& specs = impl_->shared().inputs;
  const int i = find_spec(specs, name);
  if (i < 0) {
    return {Code::kBadInput, "the model has no input '" + std::string(name) + "'; it has: " + list_names(specs)};
  }
  SPRUN_TRY(check_input(specs[static_cast<size_t>(i)], view));
  impl_->inputs[static_cast<size_t>(i)] = view;
  return {};
}

Status Session::bind_output(std::string_view name, const TensorView& view) {
  const auto& specs = impl_->shared().outputs;
  const int i = find_spec(specs, name);
  if (i < 0) {
    return {Code::kBadInput, "the model has no output '" + std::string(name) + "'; it has: " + list_names(specs)};
  }
  impl_->outputs[static_cast<size_t>(i)] = view;
  return {};
}

void Session::clear_bindings() {
  std::fill(impl_->inputs.begin(), impl_->inputs.end(), ConstTensorView{});
  std::fill(impl_->outputs.begin(), impl_->outputs.end(), TensorView{});
}

Status Session::run(const RunOptions& options) { return impl_->run(options); }

Result<ConstTensorView> Session::output(std::string_view name) const {
  const auto& specs = impl_->shared().outputs;
  const int i = find_spec(specs, name);
  if (i < 0) {
    return Status(Code::kUsage, "the model has no output '" + std::string(name) + "'; it has: " + list_names(specs));
  }
  if (!impl_->has_run) return Status(Code::kUsage, "no successful run yet");
  return impl_->executors.front()->output(i);
}

Result<std::vector<NamedTensor>> Session::run(std::span<const NamedTensor> inputs, const RunOptions& options) {
  clear_bindings();
  for (const NamedTensor& input : inputs) SPRUN_TRY(bind_input(input.name, input.tensor.view()));
  SPRUN_TRY(run(options));
  std::vector<NamedTensor> outputs;
  for (const TensorSpec& spec : impl_->shared().outputs) {
    SPRUN_ASSIGN(const ConstTensorView view, output(spec.name));
    SPRUN_ASSIGN(Tensor copy, Tensor::copy_of(view));
    outputs.push_back({spec.name, std::move(copy)});
  }
  return outputs;
}

Result<GenerateResult> Session::generate(std::span<const int64_t> prompt, const GenerateOptions& options,
                                         const TokenSink& sink) {
  SPRUN_TRY(impl_->open_generator());
  Result<GenerateResult> result = GenerateResult{};
  GenerateProfile* profile = impl_->profiling ? &impl_->generate_profile : nullptr;
  impl_->pool.enter([&] { result = impl_->generator->run(prompt, options, sink, profile); });
  return result;
}

Result<std::string> Session::explain_generate(const GenerateOptions& options) {
  SPRUN_TRY(impl_->open_generator());
  Result<std::string> text = std::string();
  impl_->pool.enter([&] { text = impl_->generator->explain(options); });
  return text;
}

int64_t Session::arena_bytes() const {
  return impl_->executors.empty() ? 0 : impl_->executors.front()->memory_bytes();
}

void Session::set_profiling(bool on) { impl_->profiling = on; }
const std::vector<StepProfile>& Session::profile() const { return impl_->profile; }
const GenerateProfile& Session::generate_profile() const { return impl_->generate_profile; }

std::vector<FfnDensity> Session::ffn_density() const { return impl_->shared().ffn_density(); }

Result<std::string> Session::explain() {
  SPRUN_TRY(impl_->check_bound());
  Status status;
  impl_->pool.enter([&] { status = impl_->select_executor(); });
  if (!status.ok()) return status;
  std::string text;
  for (const graph::PassRecord& pass : impl_->shared().load_passes) {
    text += "load pass " + std::string(pass.name) + ": " +
            (pass.disabled ? "disabled" : std::to_string(pass.rewrites) + " rewrites") + "\n";
  }
  for (const std::string& note : impl_->shared().load_notes) text += "note " + note + "\n";
  const Plan& plan = impl_->executors.front()->plan();
  const std::string missing = missing_sparsity_note(impl_->shared().onnx.metadata_props, plan.graph());
  if (!missing.empty()) text += "note " + missing + "\n";
  return plan.explain() + text;
}

}  // namespace sprun
