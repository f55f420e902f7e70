// The step that removes whole transformer layers: "layers:2" removes the two that change the residual stream least, by the mean
// over rows of 1 - cos(input, output) (block influence, arXiv 2403.03853).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <set>

#include <fmt/format.h>

#include "tools/compress/graph_edit.h"
#include "tools/compress/kv_states.h"
#include "tools/compress/step.h"
#include "tools/compress/transformer_layers.h"
#include "tools/compress/unit_choice.h"
#include "tools/compress/unit_sites.h"

namespace sprun::compress {
namespace {

struct LayersItem {
  std::string text, layers;
  int64_t count = 0;
};

struct Stack {
  std::vector<LinearLayer> linear;
  std::vector<TransformerLayer> layers;
  std::vector<size_t> removable;
};

Status usage(std::string message) { return {Code::kUsage, std::move(message)}; }

// Readers of the layer's output read its input instead; the name of a model output stays.
void bypass(graph::Graph& graph, const TransformerLayer& layer) {
  if (!graph.is_output(layer.out)) return graph.replace_uses(layer.out, layer.in);
  const graph::NodeId producer = graph.value(layer.out).producer;
  const graph::ValueId copy = add_simple_node(graph, producer, "Identity", {layer.in}, graph.value(layer.out).name + "_bypass");
  const graph::NodeId identity = graph.value(copy).producer;
  const auto& outputs = graph.node(producer).outputs;
  const auto slot = static_cast<size_t>(std::find(outputs.begin(), outputs.end(), layer.out) - outputs.begin());
  graph.node(identity).outputs[0] = graph::kNoValue;
  graph.value(copy).producer = graph::kNoNode;
  graph.move_output(producer, slot, identity, 0);
}

// A past that goes may be asked for its sizes, by masks for example: another one that stays has the same.
Status move_readers(graph::Graph& graph, graph::ValueId past, const std::vector<graph::ValueId>& staying) {
  const auto is_same = [](const graph::DimInfo& a, const graph::DimInfo& b) {
    return a.value == b.value && a.symbol == b.symbol;
  };
  const std::vector<graph::NodeId> users = graph.value(past).users;
  for (graph::NodeId n : users) {
    const auto& sizes = graph.value(past).declared;
    const auto other = std::find_if(staying.begin(), staying.end(), [&](graph::ValueId v) {
      const auto& own = graph.value(v).declared;
      return sizes && own && std::equal(sizes->begin(), sizes->end(), own->begin(), own->end(), is_same);
    });
    const graph::Node& node = graph.node(n);
    if (!node.is("Shape") || other == staying.end())
      return {Code::kBadModel, fmt::format("{} '{}' reads '{}'", node.op_type, node.name, graph.value(past).name)};
    graph.set_input(n, 0, *other);
  }
  return {};
}

// Takes the layers, the last first, out of the graph, with their keys and values. Ids of nodes change.
Status remove_layers(graph::Graph& graph, const std::vector<const TransformerLayer*>& layers) {
  std::set<graph::ValueId> gone, not_made;
  for (const TransformerLayer* layer : layers) {
    bypass(graph, *layer);
    for (const KvState& state : layer->states) {
      gone.insert(state.past);
      not_made.insert(state.present);
    }
  }
  std::vector<graph::ValueId> outputs, staying;
  for (graph::ValueId v : graph.outputs()) {
    if (!not_made.contains(v)) outputs.push_back(v);
  }
  for (const KvState& state : find_kv_states(graph)) {
    if (!gone.contains(state.past)) staying.push_back(state.past);
  }
  graph.set_outputs(outputs);
  SPRUN_TRY(remove_unused(graph));
  for (graph::ValueId past : gone) SPRUN_TRY(move_readers(graph, past, staying));
  if (!gone.empty()) graph = without_inputs(graph, gone);
  return {};
}

// Tries it on a copy where anything can be in the way.
Status can_go(const graph::Graph& graph, const TransformerLayer& layer) {
  if (layer.makes_outputs) return {Code::kBadModel, "layers make outputs of the model"};
  if (layer.states.empty()) return {};
  graph::Graph copy = graph;
  return remove_layers(copy, {&layer});
}

class LayersStep : public Step {
 public:
  LayersStep(std::vector<LayersItem> items, std::vector<std::string> skip) : items_(std::move(items)), skip_(std::move(skip)) {}

  Status check(const graph::Graph& graph, const Calibration& calibration) const override {
    ThreadPool pool(1);
    for (const LayersItem& item : items_) {
      if (calibration.empty()) return usage(fmt::format("prune '{}' needs --calibration", item.text));
      SPRUN_ASSIGN(const auto stack, survey(item, graph, calibration, pool));
      SPRUN_TRY(check_names(stack->linear, skip_));
    }
    return {};
  }

  Status run(StepContext& context) override {
    for (const LayersItem& item : items_) {
      SPRUN_ASSIGN(const auto stack, survey(item, context.graph, context.calibration, context.pool));
      if (item.count > 0) SPRUN_TRY(remove_least(item, *stack, context));
    }
    return {};
  }

 private:
  Result<std::unique_ptr<Stack>> survey(const LayersItem& item, const graph::Graph& graph, const Calibration& calibration,
                                        ThreadPool& pool) const;
  Status remove_least(const LayersItem& item, const Stack& stack, StepContext& context) const;

  std::vector<LayersItem> items_;
  std::vector<std::string> skip_;
};

Result<std::unique_ptr<Stack>> LayersStep::survey(const LayersItem& item, const graph::Graph& graph,
                                                  const Calibration& calibration, ThreadPool& pool) const {
  SPRUN_ASSIGN(const ValueShapes shapes, ValueShapes::create(graph, calibration.batches.front(), pool));
  auto stack = std::make_unique<Stack>();
  SPRUN_ASSIGN(stack->linear, find_linear_layers(graph));
  auto found = find_transformer_layers(graph, shapes, stack->linear);
  SPRUN_TRY(found.status().with_context(fmt::format("prune '{}'", item.text)));
  stack->layers = std::move(*found);
  std::string obstacle;
  for (size_t i = 0; i < stack->layers.size(); ++i) {
    const TransformerLayer& layer = stack->layers[i];
    const auto has = [&](const std::string& p) {
      return std::any_of(layer.linear.begin(), layer.linear.end(), [&](const LinearLayer* l) { return is_named(*l, p); });
    };
    if (!has(item.layers) || std::any_of(skip_.begin(), skip_.end(), has)) continue;
    const Status status = can_go(graph, layer);
    if (status.ok()) stack->removable.push_back(i);
    else obstacle = status.message();
  }
  const auto most = static_cast<int64_t>(std::min(stack->removable.size(), stack->layers.size() - 1));
  if (item.count <= most) return stack;
  const std::string text = fmt::format("prune '{}': the model has {} layers, of which {} can be removed{}", item.text,
                                       stack->layers.size(), most, obstacle.empty() ? "" : "; " + obstacle);
  return Status(obstacle.empty() ? Code::kUsage : Code::kBadModel, text);
}

// Mean of 1 - cos(x, y) over rows; rows of zeros count as unchanged.
class Influence {
 public:
  void add(const Tensor& x, const Tensor& y, std::span<const int64_t> counted) {
    const int64_t k = x.shape().back(), total = x.num_elements() / std::max<int64_t>(k, 1);
    const int64_t count = counted.empty() ? total : static_cast<int64_t>(counted.size());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = counted.empty() ? i : counted[static_cast<size_t>(i)];
      const Vector a = Eigen::Map<const Eigen::VectorXf>(float_row(x, row, k, first_), k).cast<double>();
      const Vector b = Eigen::Map<const Eigen::VectorXf>(float_row(y, row, k, second_), k).cast<double>();
      const double norms = a.norm() * b.norm();
      if (norms > 0) sum_ += 1 - a.dot(b) / norms;
    }
    rows_ += count;
  }
  double mean() const { return rows_ == 0 ? 0 : sum_ / static_cast<double>(rows_); }

 private:
  std::vector<float> first_, second_;
  double sum_ = 0;
  int64_t rows_ = 0;
};

Result<std::vector<double>> influences(const Stack& stack, StepContext& context) {
  std::vector<graph::ValueId> values{stack.layers.front().in};
  for (const TransformerLayer& layer : stack.layers) values.push_back(layer.out);
  ActivationWalk walk(context.graph, context.calibration, context.pool, values, context.stop);
  std::vector<Tensor> before(context.calibration.batches.size());
  std::vector<double> found;
  for (size_t i = 0; i < values.size(); ++i) {
    Influence influence;
    SPRUN_TRY(walk.next([&](size_t batch, const Tensor& value) {
      const auto rows = unmasked_rows(context.graph, context.calibration.batches[batch], value.shape());
      if (i > 0) influence.add(before[batch], value, rows);
      SPRUN_ASSIGN(before[batch], Tensor::copy_of(value.view()));
      return Status();
    }));
    context.progress(static_cast<double>(i) / static_cast<double>(values.size()), fmt::format("layer {}", i));
    if (i > 0) found.push_back(influence.mean());
    if (i > 0 && !std::isfinite(found.back()))
      return Status(Code::kBadInput, fmt::format("the output of layer {} is not finite on the calibration data", i));
  }
  return found;
}

Status LayersStep::remove_least(const LayersItem& item, const Stack& stack, StepContext& context) const {
  SPRUN_ASSIGN(const std::vector<double> influence, influences(stack, context));
  std::vector<size_t> order = stack.removable;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return influence[a] < influence[b]; });
  order.resize(static_cast<size_t>(item.count));
  std::sort(order.rbegin(), order.rend());  // the last first: the input of one is the output of the one before
  std::vector<const TransformerLayer*> least;
  for (size_t i : order) least.push_back(&stack.layers[i]);
  const std::vector<std::string> inputs = input_names(context.graph);
  SPRUN_TRY(remove_layers(context.graph, least));
  SPRUN_TRY(fit_calibration(inputs, context.graph, context.calibration));
  for (size_t i = 0; i < stack.layers.size(); ++i) {
    const bool gone = std::find(order.begin(), order.end(), i) != order.end();
    for (const LinearLayer* linear : stack.layers[i].linear) {
      LayerReport* entry = context.report.find(linear->name);
      if (entry == nullptr) continue;
      if (linear == stack.layers[i].linear.front())
        entry->note = fmt::format("layer {} of {}, influence {:.4f}", i + 1, stack.layers.size(), influence[i]);
      if (!gone) continue;
      entry->action += (entry->action.empty() ? "" : "; ") + item.text;
      entry->after = {};
    }
  }
  return {};
}

}  // namespace

bool accepts_layers(const RecipeItem& item) { return item.verb == "prune" && item.spec.starts_with("layers:"); }

Result<std::unique_ptr<Step>> make_layers(std::span<const RecipeItem> items, std::span<const std::string> skip) {
  std::vector<LayersItem> parsed;
  for (const RecipeItem& recipe : items) {
    LayersItem item{recipe.spec, recipe.layers, 0};
    const std::string number = recipe.spec.substr(recipe.spec.find(':') + 1);
    const auto [at, error] = std::from_chars(number.data(), number.data() + number.size(), item.count);
    if (error != std::errc() || at != number.data() + number.size() || item.count < 0)
      return usage(fmt::format("prune '{}': '{}' is not a number of layers", recipe.spec, number));
    parsed.push_back(std::move(item));
  }
  return std::unique_ptr<Step>(std::make_unique<LayersStep>(std::move(parsed), std::vector<std::string>(skip.begin(), skip.end())));
}

}  // namespace sprun::compress
