// The step that removes hidden neurons of feed-forward networks and heads of attention: "ffn:0.5", "heads:0.25".
//
// How many units each site loses follows from scores on the original model; which ones, and what its reading layer becomes,
// from what the compressed predecessors give. While values are walked through, units are only cut off by zero weights in the
// reading layer; all sites shrink together at the end.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "tools/compress/graph_edit.h"
#include "tools/compress/gram_product.h"
#include "tools/compress/kv_states.h"
#include "tools/compress/output_bias.h"
#include "tools/compress/step.h"
#include "tools/compress/unit_choice.h"
#include "tools/compress/unit_sites.h"

namespace sprun::compress {
namespace {

struct UnitItem {
  std::string text;  // as in the recipe
  std::string layers;
  UnitKind kind = UnitKind::kFfn;
  double part = 0;
  int64_t tile = 16;
  bool even = false, refit = true;
};

// A graph at one time, and where it has units.
struct Survey {
  ValueShapes shapes;
  std::vector<LinearLayer> layers;
  UnitSites found;
};

Status usage(std::string message) { return {Code::kUsage, std::move(message)}; }

Status parse_option(std::string_view word, UnitItem& item) {
  if (word == "even") return item.even = true, Status();
  if (word == "norefit") return item.refit = false, Status();
  if (word.starts_with("tile")) {
    const char* end = word.data() + word.size();
    const auto [at, error] = std::from_chars(word.data() + 4, end, item.tile);
    if (error == std::errc() && at == end && item.tile >= 1 && item.tile <= 1024) return {};
  }
  return usage(fmt::format("prune '{}': unknown option '{}'; there are even, norefit, tileN with N from 1 to 1024", item.text, word));
}

Result<UnitItem> parse_item(const RecipeItem& recipe) {
  UnitItem item{recipe.spec, recipe.layers};
  std::string_view rest = recipe.spec;
  item.kind = rest.starts_with("ffn:") ? UnitKind::kFfn : UnitKind::kHeads;
  if (item.kind == UnitKind::kHeads) item.tile = 1;
  rest.remove_prefix(rest.find(':') + 1);
  const size_t at = rest.find('@');
  std::string_view options = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
  const std::string_view number = rest.substr(0, at);
  const char* end = number.data() + number.size();
  const auto [stop, error] = std::from_chars(number.data(), end, item.part);
  if (error != std::errc() || stop != end || !(item.part >= 0 && item.part < 1))
    return usage(fmt::format("prune '{}': '{}' is not a number from 0 to below 1", item.text, number));
  if (at != std::string_view::npos && options.empty()) return usage(fmt::format("prune '{}': no option behind @", item.text));
  while (!options.empty()) {
    const size_t comma = std::min(options.find(','), options.size());
    SPRUN_TRY(parse_option(options.substr(0, comma), item));
    options.remove_prefix(std::min(comma + 1, options.size()));
  }
  return item;
}

// Attentions that stay as they are although nobody said so.
void warn_of_refused(const UnitItem& item, const UnitSites& found, Report& report) {
  if (item.kind != UnitKind::kHeads || found.refused.empty()) return;
  report.warnings.push_back(fmt::format("prune '{}': {} of {} attentions keep all heads; {}", item.text, found.refused.size(),
                                        found.refused.size() + found.sites.size(), found.refused.front()));
}

class UnitsStep : public Step {
 public:
  UnitsStep(std::vector<UnitItem> items, std::vector<std::string> skip) : items_(std::move(items)), skip_(std::move(skip)) {}

  Status check(const graph::Graph& graph, const Calibration& calibration) const override;
  Status run(StepContext& context) override;

 private:
  Result<std::unique_ptr<Survey>> survey(const UnitItem& item, const graph::Graph& graph, const Calibration& calibration,
                                         ThreadPool& pool) const;

  std::vector<UnitItem> items_;
  std::vector<std::string> skip_;
};

bool has_layer(const UnitSite& site, const std::string& pattern) {
  const auto layers = site.layers();
  return std::any_of(layers.begin(), layers.end(), [&](const LinearLayer* layer) { return is_named(*layer, pattern); });
}

Result<std::unique_ptr<Survey>> UnitsStep::survey(const UnitItem& item, const graph::Graph& graph,
                                                  const Calibration& calibration, ThreadPool& pool) const {
  SPRUN_ASSIGN(ValueShapes shapes, ValueShapes::create(graph, calibration.batches.front(), pool));
  auto survey = std::make_unique<Survey>(Survey{std::move(shapes), {}, {}});
  SPRUN_ASSIGN(survey->layers, find_linear_layers(graph));
  survey->found = find_units(item.kind, graph, survey->shapes, survey->layers);
  const char* what = item.kind == UnitKind::kFfn ? "feed-forward network" : "attention";
  if (survey->found.sites.empty()) {
    std::string reasons;
    for (size_t i = 0; i < std::min<size_t>(survey->found.refused.size(), 4); ++i) reasons += "\n  " + survey->found.refused[i];
    return Status(Code::kBadModel, fmt::format("prune '{}': no {} can lose {}{}{}", item.text, what,
                                               item.kind == UnitKind::kFfn ? "neurons" : "heads", reasons.empty() ? "" : ":",
                                               reasons));
  }
  std::erase_if(survey->found.sites, [&](const UnitSite& site) { return !has_layer(site, item.layers); });
  if (survey->found.sites.empty())
    return usage(fmt::format("prune '{}': no {} has a layer called '{}'", item.text, what, item.layers));
  std::erase_if(survey->found.sites, [&](const UnitSite& site) {
    return std::any_of(skip_.begin(), skip_.end(), [&](const std::string& p) { return has_layer(site, p); });
  });
  return survey;
}

// Tries the surgery on a copy, with one unit less everywhere.
Status UnitsStep::check(const graph::Graph& graph, const Calibration& calibration) const {
  ThreadPool pool(1);
  for (const UnitItem& item : items_) {
    if (calibration.empty()) return usage(fmt::format("prune '{}' needs --calibration", item.text));
    SPRUN_ASSIGN(const auto survey, this->survey(item, graph, calibration, pool));
    SPRUN_TRY(check_names(survey->layers, skip_));
    graph::Graph copy = graph;
    for (const UnitSite& site : survey->found.sites) {
      std::vector<bool> keep(static_cast<size_t>(site.units), true);
      keep.back() = false;
      SPRUN_TRY(site.flow->remove(copy, keep).with_context(site.reader->name));
    }
    SPRUN_ASSIGN(const Batch fitted, fit_batch(calibration.batches.front(), input_names(graph), copy));
    const auto shrunk = ValueShapes::create(copy, fitted, pool);
    if (!shrunk.ok()) {
      return {Code::kBadModel, fmt::format("prune '{}': the graph cannot be rewritten: {}", item.text, shrunk.status().message())};
    }
  }
  return {};
}

// One item on one graph.
class UnitPruner {
 public:
  UnitPruner(StepContext& context, const UnitItem& item, Survey& survey)
      : context_(context), item_(item), sites_(survey.found.sites) {}

  Status run() {
    SPRUN_TRY(choose_counts());
    if (std::all_of(counts_.begin(), counts_.end(), [](int64_t count) { return count == 0; })) return {};
    SPRUN_TRY(cut_off());
    for (size_t s = 0; s < sites_.size(); ++s) {
      if (counts_[s] == 0) continue;
      SPRUN_TRY(sites_[s].flow->remove(context_.graph, keep_[s]).with_context(sites_[s].reader->name));
    }
    SPRUN_TRY(remove_unused(context_.graph));
    SPRUN_TRY(fit_calibration(input_names(context_.graph), context_.graph, context_.calibration));
    return fill_sizes();
  }

 private:
  std::vector<graph::ValueId> inputs() const {
    std::vector<graph::ValueId> values;
    for (const UnitSite& site : sites_) values.push_back(site.reader->x);
    return values;
  }

  std::vector<int64_t> counted_rows(size_t batch, const Tensor& x) const {
    return unmasked_rows(context_.graph, context_.calibration.batches[batch], x.shape());
  }

  Status choose_counts() {
    std::vector<Vector> scores;
    ActivationWalk walk(context_.graph, context_.calibration, context_.pool, inputs(), context_.stop);
    for (const UnitSite& site : sites_) {
      context_.progress(0.3 * static_cast<double>(scores.size()) / static_cast<double>(sites_.size()), site.reader->name);
      if (item_.even) {
        scores.push_back(Vector::Zero(site.units));
        continue;
      }
      ColumnMoments moments;
      SPRUN_TRY(walk.next([&](size_t batch, const Tensor& x) {
        moments.add(x, counted_rows(batch, x));
        return Status();
      }).with_context(site.reader->name));
      scores.push_back(unit_scores(moments, read_weight(context_.graph, *site.reader), site.unit, site.units));
      if (!scores.back().allFinite()) return {Code::kBadInput, site.reader->name + ": inputs are not finite on the calibration data"};
    }
    counts_ = removal_counts(scores, item_.part, item_.tile, item_.even);
    return {};
  }

  // Readers ignore the units that go.
  Status cut_off() {
    SPRUN_ASSIGN(GramProduct gram, GramProduct::create(context_.pool));
    ActivationWalk walk(context_.graph, context_.calibration, context_.pool, inputs(), context_.stop);
    keep_.resize(sites_.size());
    rows_.resize(sites_.size());
    for (size_t s = 0; s < sites_.size(); ++s) {
      const UnitSite& site = sites_[s];
      if (context_.stop.stop_requested()) return {Code::kCancelled, "interrupted"};
      context_.progress(0.3 + 0.7 * static_cast<double>(s) / static_cast<double>(sites_.size()), site.reader->name);
      ColumnMoments moments;
      InputStatistics statistics(site.reader->k);
      SPRUN_TRY(walk.next([&](size_t batch, const Tensor& x) {
        if (counts_[s] == 0) return Status();
        const auto rows = counted_rows(batch, x);
        moments.add(x, rows);
        return gram.add(x, rows, statistics);
      }).with_context(site.reader->name));
      if (counts_[s] > 0) SPRUN_TRY(cut_site(s, moments, statistics).with_context(site.reader->name));
    }
    return {};
  }

  Status cut_site(size_t s, const ColumnMoments& moments, const InputStatistics& statistics) {
    const UnitSite& site = sites_[s];
    if (moments.rows == 0) return {Code::kBadInput, "the calibration data has no rows that count"};
    rows_[s] = moments.rows;
    const Matrix w = read_weight(context_.graph, *site.reader);
    keep_[s] = keep_highest(unit_scores(moments, w, site.unit, site.units), counts_[s]);
    std::vector<bool> keep_input;
    for (int32_t unit : site.unit) keep_input.push_back(keep_[s][static_cast<size_t>(unit)]);
    SPRUN_ASSIGN(const Refit refit, refit_reader(w, statistics, moments.mean(), keep_input, context_.damping, item_.refit,
                                                 context_.pool));
    LinearLayer layer = *site.reader;
    SPRUN_TRY(write_weight(context_.graph, layer, refit.w));
    SPRUN_TRY(add_output_bias(context_.graph, layer, refit.bias));
    if (LayerReport* entry = context_.report.find(layer.name)) {
      entry->error = refit.error;
      entry->cosine = refit.cosine;
    }
    return {};
  }

  Status fill_sizes() {
    SPRUN_ASSIGN(const auto layers, find_linear_layers(context_.graph));
    for (size_t s = 0; s < sites_.size(); ++s) {
      if (counts_[s] == 0) continue;
      for (const UnitFlow::Cut& cut : sites_[s].flow->cuts()) {
        LayerReport* entry = context_.report.find(cut.layer->name);
        const auto now = std::find_if(layers.begin(), layers.end(), [&](const LinearLayer& l) { return l.node == cut.layer->node; });
        if (entry == nullptr || now == layers.end()) continue;
        entry->action += (entry->action.empty() ? "" : "; ") + item_.text;
        const int64_t zeros = (read_weight(context_.graph, *now).array() == 0).count();
        entry->after = {now->n, now->k, zeros, context_.graph.constant(now->weight)->size_bytes()};
        if (!cut.outputs) entry->note = kept_text(s);
      }
    }
    return {};
  }

  std::string kept_text(size_t s) const {
    const UnitSite& site = sites_[s];
    std::string text = fmt::format("{} of {} {} kept", site.units - counts_[s], site.units, site.unit_name);
    if (item_.refit && rows_[s] < site.reader->k) {
      text += fmt::format("; only {} rows of data for {} inputs: the error on other data is larger", rows_[s], site.reader->k);
    }
    return text;
  }

  StepContext& context_;
  const UnitItem& item_;
  std::vector<UnitSite>& sites_;
  std::vector<int64_t> counts_;         // units that go, per site
  std::vector<std::vector<bool>> keep_;  // per site and unit
  std::vector<int64_t> rows_;            // of data, per site
};

Status UnitsStep::run(StepContext& context) {
  const auto progress = context.progress;
  for (size_t i = 0; i < items_.size(); ++i) {
    context.progress = [&](double done, const std::string& what) {
      progress((static_cast<double>(i) + done) / static_cast<double>(items_.size()), what);
    };
    SPRUN_ASSIGN(const auto survey, this->survey(items_[i], context.graph, context.calibration, context.pool));
    if (items_[i].part > 0 && items_[i].layers == "*" && skip_.empty())
      warn_of_refused(items_[i], survey->found, context.report);
    if (items_[i].part > 0 && !survey->found.sites.empty()) SPRUN_TRY(UnitPruner(context, items_[i], *survey).run());
  }
  context.progress = progress;
  return {};
}

}  // namespace

bool accepts_units(const RecipeItem& item) {
  return item.verb == "prune" && (item.spec.starts_with("ffn:") || item.spec.starts_with("heads:"));
}

Result<std::unique_ptr<Step>> make_units(std::span<const RecipeItem> items, std::span<const std::string> skip) {
  std::vector<UnitItem> parsed;
  for (const RecipeItem& item : items) {
    SPRUN_ASSIGN(UnitItem one, parse_item(item));
    parsed.push_back(std::move(one));
  }
  return std::unique_ptr<Step>(std::make_unique<UnitsStep>(std::move(parsed), std::vector<std::string>(skip.begin(), skip.end())));
}

}  // namespace sprun::compress
