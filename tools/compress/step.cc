#include "tools/compress/step.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>

namespace sprun::compress {
namespace {

constexpr std::array kKinds = {
#define SPRUN_COMPRESS_STEP(name, verbs) StepKind{#name, verbs, &accepts_##name, &make_##name},
#include "tools/compress/steps.def"
#undef SPRUN_COMPRESS_STEP
};

std::vector<std::string> verb_list() {
  std::vector<std::string> verbs;
  for (const StepKind& kind : kKinds) {
    std::string_view rest = kind.verbs;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find(' '), rest.size());
      const std::string verb(rest.substr(0, end));
      if (std::find(verbs.begin(), verbs.end(), verb) == verbs.end()) verbs.push_back(verb);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  return verbs;
}

const StepKind* kind_of(const RecipeItem& item) {
  const auto it = std::find_if(kKinds.begin(), kKinds.end(),
                               [&](const StepKind& kind) { return kind.accepts(item); });
  return it == kKinds.end() ? nullptr : &*it;
}

}  // namespace

std::span<const StepKind> step_kinds() { return kKinds; }

bool is_recipe_verb(std::string_view word) {
  const auto verbs = verb_list();
  return std::find(verbs.begin(), verbs.end(), word) != verbs.end();
}

std::string recipe_verbs() {
  std::string text;
  for (const std::string& verb : verb_list()) text += (text.empty() ? "" : ", ") + verb;
  return text;
}

Result<std::vector<std::unique_ptr<Step>>> make_steps(const Recipe& recipe) {
  std::vector<std::unique_ptr<Step>> steps;
  for (size_t first = 0; first < recipe.items.size();) {
    const StepKind* kind = kind_of(recipe.items[first]);
    if (kind == nullptr) {
      return Status(Code::kUsage, fmt::format("{} '{}' is not known", recipe.items[first].verb,
                                              recipe.items[first].spec));
    }
    size_t end = first + 1;
    while (end < recipe.items.size() && kind_of(recipe.items[end]) == kind) ++end;
    SPRUN_ASSIGN(auto step, kind->make({recipe.items.data() + first, end - first}, recipe.skip));
    steps.push_back(std::move(step));
    first = end;
  }
  return steps;
}

}  // namespace sprun::compress
