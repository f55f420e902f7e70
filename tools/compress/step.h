// Steps: the rewrites of a graph that a recipe is made of.
//
// A step is one file that defines
//   bool accepts_<name>(const RecipeItem& item)       whether the item is its business
//   Result<std::unique_ptr<Step>> make_<name>(std::span<const RecipeItem> items, std::span<const
//   std::string> skip)
// and one line in steps.def. Neighbouring items that one kind accepts come together, as one step.
// make reports every mistake of the items that can be seen without a model (kUsage).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"
#include "tools/compress/recipe.h"
#include "tools/compress/report.h"

namespace sprun::compress {

struct StepContext {
  graph::Graph& graph;       // rewritten in place; names of inputs and outputs stay
  Calibration& calibration;  // empty if there is none; steps that change inputs fit it (kv_states.h)
  ThreadPool& pool;
  Report& report;  // has an entry per linear layer; steps update or add entries
  std::stop_token stop = {};
  double damping = 0.01;  // for methods that invert covariances
  // Part of the step that is done, 0 to 1, and what is being done.
  std::function<void(double done, const std::string& what)> progress = [](double,
                                                                          const std::string&) {};
};

class Step {
 public:
  virtual ~Step() = default;
  // Mistakes that show with the model: patterns without a match (kUsage), a graph that does not
  // allow it (kBadModel). Nothing has been computed yet.
  virtual Status check(const graph::Graph& graph, const Calibration& calibration) const = 0;
  // Looks at context.stop at least once a second on average and returns kCancelled.
  virtual Status run(StepContext& context) = 0;
};

struct StepKind {
  std::string_view name, verbs;  // verbs: separated by spaces
  bool (*accepts)(const RecipeItem& item);
  Result<std::unique_ptr<Step>> (*make)(std::span<const RecipeItem> items,
                                        std::span<const std::string> skip);
};

#define SPRUN_COMPRESS_STEP(name, verbs)                                       \
  bool accepts_##name(const RecipeItem& item);                                 \
  Result<std::unique_ptr<Step>> make_##name(std::span<const RecipeItem> items, \
                                            std::span<const std::string> skip);
#include "tools/compress/steps.def"
#undef SPRUN_COMPRESS_STEP

std::span<const StepKind> step_kinds();
bool is_recipe_verb(std::string_view word);
std::string recipe_verbs();  // "prune, quantize"

// The steps of a recipe. kUsage naming the item that nothing accepts, or what is wrong with it.
Result<std::vector<std::unique_ptr<Step>>> make_steps(const Recipe& recipe);

}  // namespace sprun::compress
