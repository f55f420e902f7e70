#include "sprun/model.h"

#include <algorithm>

#include "graph/ops/ffn_density.h"
#include "runtime/base/thread_pool.h"
#include "runtime/session/model_impl.h"

namespace sprun {

std::string TensorSpec::shape_string() const {
  if (!has_shape) return "[?]";
  std::string text = "[";
  for (const DimSpec& dim : dims) {
    if (text.size() > 1) text += ',';
    text += dim.value >= 0 ? std::to_string(dim.value) : dim.symbol.empty() ? "?" : dim.symbol;
  }
  return text + "]";
}

namespace {

TensorSpec spec_of(const graph::Value& value) {
  TensorSpec spec;
  spec.name = value.name;
  spec.dtype = value.dtype;
  spec.has_shape = value.declared.has_value();
  if (!spec.has_shape) return spec;
  for (const graph::DimInfo& dim : *value.declared) spec.dims.push_back({dim.value, dim.symbol});
  return spec;
}

// Inputs whose sizes are all numbers are specialised at load already.
void set_fixed_shapes(graph::Graph& graph) {
  for (graph::ValueId v : graph.inputs()) {
    graph::Value& value = graph.value(v);
    if (!value.declared) continue;
    Shape shape;
    bool fixed = value.declared->size() <= kMaxRank;
    for (size_t i = 0; fixed && i < value.declared->size(); ++i) {
      fixed = (*value.declared)[i].value >= 0;
      shape.push_back((*value.declared)[i].value);
    }
    if (fixed) value.shape = shape;
  }
}

int64_t sum_constant_bytes(const graph::Graph& graph) {
  int64_t total = 0;
  for (graph::ValueId v = 0; v < graph.num_values(); ++v) {
    if (graph.value(v).is_constant() && !graph.value(v).users.empty()) total += graph.value(v).constant.size_bytes();
  }
  return total;
}

}  // namespace

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

Result<std::shared_ptr<const Model>> Model::load(const std::string& path, const ModelOptions& options) {
  SPRUN_TRY(graph::check_pass_names(options.disabled_passes));
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  SPRUN_ASSIGN(impl->onnx, graph::read_onnx(path, {}));
  SPRUN_TRY(graph::unsupported_status(impl->onnx).with_context(path));
  SPRUN_TRY(graph::missing_data_status(impl->onnx).with_context(path));
  graph::Graph& graph = *impl->onnx.graph;
  for (graph::ValueId v : graph.inputs()) impl->inputs.push_back(spec_of(graph.value(v)));
  for (graph::ValueId v : graph.outputs()) impl->outputs.push_back(spec_of(graph.value(v)));
  set_fixed_shapes(graph);
  ThreadPool pool(1);
  graph::PassContext ctx;
  ctx.precision = options.precision;
  ctx.pool = &pool;
  SPRUN_TRY(graph::run_passes(graph, ctx, options.disabled_passes, impl->load_passes).with_context(path));
  impl->load_notes = std::move(ctx.notes);
  impl->constant_bytes = sum_constant_bytes(graph);
  return std::shared_ptr<const Model>(new Model(std::move(impl)));
}

const std::vector<TensorSpec>& Model::inputs() const { return impl_->inputs; }
const std::vector<TensorSpec>& Model::outputs() const { return impl_->outputs; }
const ModelOptions& Model::options() const { return impl_->options; }
int64_t Model::constant_bytes() const { return impl_->constant_bytes; }
int64_t Model::packed_bytes() const { return impl_->packed.total_bytes(); }

namespace {
std::string plan_key(std::span<const ConstTensorView> inputs, int threads) {
  std::string key = std::to_string(threads);
  for (const ConstTensorView& input : inputs) {
    key += ';';
    key += dtype_name(input.dtype);
    key += input.shape.to_string();
  }
  return key;
}
}  // namespace

PlanOptions Model::Impl::plan_options(const ThreadPool& pool) const {
  return {.num_threads = pool.num_threads(), .precision = options.precision, .sparse = options.sparse,
          .disabled_passes = options.disabled_passes};
}

Result<std::shared_ptr<const Plan>> Model::Impl::plan_for(std::span<const ConstTensorView> input_views,
                                                          ThreadPool& pool) const {
  const std::string key = plan_key(input_views, pool.num_threads());
  const std::lock_guard lock(plans_mutex);
  const auto found = std::find_if(plans.begin(), plans.end(), [&](const auto& entry) { return entry.first == key; });
  if (found != plans.end()) {
    plans.splice(plans.begin(), plans, found);
    return found->second;
  }
  SPRUN_ASSIGN(auto plan, Plan::build(*onnx.graph, input_views, plan_options(pool), pool, packed));
  plans.emplace_front(key, plan);
  while (plans.size() > static_cast<size_t>(std::max(1, options.max_plans))) plans.pop_back();
  return plan;
}

std::vector<FfnDensity> Model::Impl::ffn_density() const {
  std::vector<FfnDensity> layers;
  const auto book = graph::DensityBook::of(packed);
  if (!book.ok()) return layers;
  for (const auto& layer : (*book)->records()) {
    layers.push_back({layer->name, layer->pattern, layer->expected, layer->measured(), layer->counter.rows()});
  }
  return layers;
}

}  // namespace sprun
