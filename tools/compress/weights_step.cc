// The step that changes single weights: zeros by a method of prune_methods.def, int8, or both at
// once.
//
// One pass over the linear layers in the order in which they run. Layers with the same input share
// its statistics; what a layer gets is what its compressed predecessors give. Of several items that
// match a layer the last of each verb counts. The layer that makes the model's output is pruned
// only where an item names it.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "tools/compress/gram_product.h"
#include "tools/compress/int8_input.h"
#include "tools/compress/int8_spec.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/prune.h"
#include "tools/compress/quantize.h"
#include "tools/compress/smoothing.h"
#include "tools/compress/step.h"

namespace sprun::compress {
namespace {

struct PruneItem {
  std::string layers;
  PruneSpec spec;
};
struct Int8Item {
  std::string layers;
  Int8Spec spec;
};

// What happens to one layer.
struct Work {
  LinearLayer layer;
  std::optional<PruneSpec> prune;
  std::optional<Int8Spec> int8;
  Int8Input input = {};  // for int8

  bool any() const { return prune || int8; }
  std::string action() const {
    std::string text = prune ? prune->text() : "";
    if (int8) text += (text.empty() ? "" : ", ") + input.text(*int8);
    return text;
  }
  // In units of a multiply-add; for the time left.
  double cost(double rows) const {
    const double n = static_cast<double>(layer.n), k = static_cast<double>(layer.k);
    return rows * n * k + 3 * n * k * k + k * k * k;
  }
};

// Layers that share their input.
struct Group {
  graph::ValueId x = graph::kNoValue;
  std::vector<Work> works;

  bool samples_inputs() const {
    return std::any_of(works.begin(), works.end(), [](const Work& work) {
      return work.int8 && (work.int8->smooth || work.int8->residual_above > 0);
    });
  }
};

class WeightsStep : public Step {
 public:
  WeightsStep(std::vector<PruneItem> prune, std::vector<Int8Item> int8,
              std::vector<std::string> skip)
      : prune_(std::move(prune)), int8_(std::move(int8)), skip_(std::move(skip)) {}

  Status check(const graph::Graph& graph, const Calibration& calibration) const override;
  Status run(StepContext& context) override;

 private:
  Result<std::vector<Group>> plan(const graph::Graph& graph, Report* report) const;
  void choose(const graph::Graph& graph, Work& work, std::string& note) const;
  bool is_skipped(const LinearLayer& layer) const {
    return std::any_of(skip_.begin(), skip_.end(),
                       [&](const std::string& p) { return is_named(layer, p); });
  }

  std::vector<PruneItem> prune_;
  std::vector<Int8Item> int8_;
  std::vector<std::string> skip_;
};

Status check_patterns(const std::vector<LinearLayer>& layers, const std::string& pattern) {
  if (pattern == "*") return {};
  for (const LinearLayer& layer : layers) {
    if (is_named(layer, pattern)) return {};
  }
  std::string names;
  for (size_t i = 0; i < std::min<size_t>(layers.size(), 8); ++i) {
    names += fmt::format("\n  {} with weight {}", layers[i].name, layers[i].weight_name);
  }
  if (layers.size() > 8) names += fmt::format("\n  and {} more", layers.size() - 8);
  return {Code::kUsage,
          fmt::format("no linear layer is called '{}'; there are:{}", pattern, names)};
}

void WeightsStep::choose(const graph::Graph& graph, Work& work, std::string& note) const {
  if (is_skipped(work.layer)) {
    note = "skipped";
    return;
  }
  for (const PruneItem& item : prune_) {
    if (!is_named(work.layer, item.layers)) continue;
    if (work.layer.is_head && item.layers == "*") note = "makes the output: pruned only when named";
    else work.prune = item.spec;
  }
  for (const Int8Item& item : int8_) {
    if (is_named(work.layer, item.layers)) work.int8 = item.spec;
  }
  if (work.any() && !work.layer.obstacle.empty()) {
    note = work.layer.obstacle;
    work.prune.reset();
    work.int8.reset();
  }
  if (work.int8) {
    note = int8_obstacle(graph, work.layer, work.int8->mode);
    if (!note.empty()) work.int8.reset();
  }
  if (work.prune && work.prune->sparsity == 0) work.prune.reset();
}

Result<std::vector<Group>> WeightsStep::plan(const graph::Graph& graph, Report* report) const {
  SPRUN_ASSIGN(const std::vector<LinearLayer> layers, find_linear_layers(graph));
  for (const PruneItem& item : prune_) SPRUN_TRY(check_patterns(layers, item.layers));
  for (const Int8Item& item : int8_) SPRUN_TRY(check_patterns(layers, item.layers));
  for (const std::string& pattern : skip_) SPRUN_TRY(check_patterns(layers, pattern));
  std::vector<Group> groups;
  for (const LinearLayer& layer : layers) {
    Work work{layer, {}, {}};
    std::string note;
    choose(graph, work, note);
    if (LayerReport* entry = report ? report->find(layer.name) : nullptr; entry && !note.empty())
      entry->note = note;
    if (!work.any()) continue;
    const auto it =
        std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.x == layer.x; });
    Group& group = it != groups.end() ? *it : groups.emplace_back(Group{layer.x, {}});
    group.works.push_back(std::move(work));
  }
  return groups;
}

Status WeightsStep::check(const graph::Graph& graph, const Calibration& calibration) const {
  SPRUN_ASSIGN(const std::vector<Group> groups, plan(graph, nullptr));
  if (!calibration.empty()) return {};
  for (const Group& group : groups) {
    for (const Work& work : group.works) {
      if (work.prune &&
          find_prune_method(work.prune->method)->needs == PruneMethod::Needs::kInputs) {
        return {
            Code::kUsage,
            fmt::format(
                "{} needs --calibration; without data only magnitude can prune ({}@magnitude)",
                work.prune->method, work.prune->text().substr(0, work.prune->text().find('@')))};
      }
      if (work.int8 && work.int8->needs_data())
        return {Code::kUsage, work.int8->text() + " needs --calibration"};
    }
  }
  return {};
}

// Below this many rows per input a covariance is mostly noise.
constexpr int64_t kFewRows = 4;

PruneMethod::Needs find_needs(const Work& work) {
  return work.prune ? find_prune_method(work.prune->method)->needs : PruneMethod::Needs::kNothing;
}

// Runs the groups; owns what they share.
class Pass {
 public:
  Pass(StepContext& context, std::vector<Group> groups)
      : context_(context), groups_(std::move(groups)) {
    for (const Group& group : groups_) {
      for (const Work& work : group.works) total_cost_ += work.cost(rows_per_layer());
    }
  }

  Status run() {
    SPRUN_ASSIGN(GramProduct gram, GramProduct::create(context_.pool));
    std::vector<graph::ValueId> inputs;
    for (const Group& group : groups_) inputs.push_back(group.x);
    ActivationWalk walk(context_.graph, context_.calibration, context_.pool, std::move(inputs),
                        context_.stop);
    for (Group& group : groups_) {
      const bool has_data = !context_.calibration.empty();
      InputStatistics statistics(has_data ? group.works[0].layer.k : 0);
      InputSample sample(statistics.k(), context_.calibration.samples());
      SPRUN_TRY(walk.next([&](size_t number, const Tensor& x) {
                      const Batch& batch = context_.calibration.batches[number];
                      const auto rows = unmasked_rows(context_.graph, batch, x.shape());
                      if (group.samples_inputs()) sample.add(x, batch.samples, rows);
                      return gram.add(x, rows, statistics);
                    })
                    .with_context(group.works[0].layer.name));
      SPRUN_TRY(prepare_inputs(group, sample).with_context(group.works[0].layer.name));
      for (Work& work : group.works) {
        if (context_.stop.stop_requested()) return {Code::kCancelled, "interrupted"};
        context_.progress(done_cost_ / total_cost_, work.layer.name);
        SPRUN_TRY(compress(work, statistics).with_context(work.layer.name));
        done_cost_ += work.cost(rows_per_layer());
      }
    }
    return fold_scales();
  }

 private:
  double rows_per_layer() const {
    return 128 * static_cast<double>(context_.calibration.samples());
  }

  // Layers of one int8 form share the scales of their input.
  Status prepare_inputs(Group& group, const InputSample& sample) {
    std::vector<Int8Spec> done;
    for (const Work& first : group.works) {
      if (!first.int8 || std::find(done.begin(), done.end(), *first.int8) != done.end()) continue;
      const Int8Spec spec = *first.int8;
      done.push_back(spec);
      std::vector<Work*> alike;
      std::vector<LinearLayer*> layers;
      for (Work& work : group.works) {
        if (work.int8 != spec) continue;
        alike.push_back(&work);
        layers.push_back(&work.layer);
      }
      SPRUN_ASSIGN(const Int8Input input,
                   prepare_int8_input(context_.graph, layers, spec, sample, context_.pool));
      for (Work* work : alike) work->input = input;
      if (input.divided == graph::kNoValue) continue;
      std::vector<std::string> names;
      for (const LinearLayer* layer : layers) names.push_back(layer->name);
      divided_.emplace_back(input.divided, std::move(names));
    }
    return {};
  }

  // Only now: the walk has kept values from before.
  Status fold_scales() {
    for (const auto& [value, layers] : divided_) {
      SPRUN_ASSIGN(const bool folded, fold_channel_scale(context_.graph, value));
      for (const std::string& name : layers) {
        LayerReport* entry = context_.report.find(name);
        if (entry != nullptr)
          entry->note += folded ? ", folded into what makes the input" : ", by a Mul";
      }
    }
    return {};
  }

  Status compress(Work& work, const InputStatistics& of_x) {
    const Int8Input& input = work.input;
    const InputStatistics divided =
        input.scale ? of_x.divided_by(*input.scale, input.range.min, input.range.max)
                    : InputStatistics();
    const InputStatistics& statistics = input.scale ? divided : of_x;
    Matrix original = read_weight(context_.graph, work.layer);
    if (input.scale) original = original * input.scale->asDiagonal();
    Matrix w = original;
    PruneOutcome outcome;
    Vector scales;
    if (work.int8) scales = int8_scales(w);
    if (work.prune) {
      PruneProblem problem{*work.prune, &statistics, context_.damping, {}, &context_.pool};
      if (work.int8) problem.int8_scale = scales;
      SPRUN_TRY(find_prune_method(work.prune->method)->run(problem, w, outcome));
    }
    if (work.int8 && !outcome.rounded) {
      scales = int8_scales(w);
      w = round_to_int8(w, scales);
    }
    fill_report(work, original, w, statistics, outcome);
    if (!work.int8) return write_weight(context_.graph, work.layer, w);
    return make_int8(context_.graph, work.layer, w, scales,
                     {work.int8->mode, {statistics.min(), statistics.max()}, input.residual});
  }

  void fill_report(const Work& work, const Matrix& original, const Matrix& w,
                   const InputStatistics& statistics, const PruneOutcome& outcome) {
    LayerReport* entry = context_.report.find(work.layer.name);
    if (entry == nullptr) return;
    entry->action += (entry->action.empty() ? "" : "; ") + work.action();
    entry->after.zeros = (w.array() == 0).count();
    if (work.int8) entry->after.bytes = w.size() + 4 * w.rows();
    entry->damping = outcome.damping;
    if (outcome.damping > context_.damping)
      entry->note = fmt::format("needed damping {:g}", outcome.damping);
    if (!work.input.note.empty())
      entry->note += (entry->note.empty() ? "" : ", ") + work.input.note;
    if (statistics.rows() == 0) return;
    if (statistics.rows() < kFewRows * statistics.k() &&
        find_needs(work) == PruneMethod::Needs::kInputs) {
      entry->note += fmt::format("{}only {} rows to learn from", entry->note.empty() ? "" : ", ",
                                 statistics.rows());
    }
    const OutputError error = output_error(statistics, original, w, context_.pool);
    entry->error = error.relative;
    entry->cosine = error.cosine;
  }

  StepContext& context_;
  std::vector<Group> groups_;
  // Inputs of smoothed layers, and the names of those.
  std::vector<std::pair<graph::ValueId, std::vector<std::string>>> divided_;
  double total_cost_ = 0, done_cost_ = 0;
};

Status WeightsStep::run(StepContext& context) {
  SPRUN_ASSIGN(std::vector<Group> groups, plan(context.graph, &context.report));
  if (groups.empty()) return {};
  return Pass(context, std::move(groups)).run();
}

}  // namespace

bool accepts_weights(const RecipeItem& item) {
  if (item.verb == "quantize") return true;
  return item.verb == "prune";
}

Result<std::unique_ptr<Step>> make_weights(std::span<const RecipeItem> items,
                                           std::span<const std::string> skip) {
  std::vector<PruneItem> prune;
  std::vector<Int8Item> int8;
  for (const RecipeItem& item : items) {
    if (item.verb == "prune") {
      SPRUN_ASSIGN(PruneSpec spec, parse_prune_spec(item.spec));
      prune.push_back({item.layers, std::move(spec)});
    } else {
      SPRUN_ASSIGN(const Int8Spec spec, parse_int8_spec(item.spec));
      int8.push_back({item.layers, spec});
    }
  }
  return std::unique_ptr<Step>(std::make_unique<WeightsStep>(
      std::move(prune), std::move(int8), std::vector<std::string>(skip.begin(), skip.end())));
}

}  // namespace sprun::compress
