// Recipes: what to do to a model, in order.
//
// On the command line an item is --VERB [LAYERS=]SPEC, in a file an object:
//   {"steps": [{"prune": "16x4:0.8@sparsegpt", "layers": "*ffn*"}, {"quantize": "int8"}], "skip":
//   ["*pooler*"]}
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/status.h"

namespace sprun::compress {

struct RecipeItem {
  std::string verb;          // "prune", "quantize", ..: the verbs of steps.def
  std::string layers = "*";  // name pattern, pattern.h matches()
  std::string spec;          // "4x1:0.9@sparsegpt"; its words belong to the step
};

struct Recipe {
  std::vector<RecipeItem> items;
  std::vector<std::string> skip;  // name patterns of layers that nothing touches
};

// "SPEC" or "LAYERS=SPEC". kUsage if a part is empty.
Result<RecipeItem> parse_recipe_item(std::string_view verb, std::string_view argument);
// Adds the items of a recipe file. kUsage for what is not a recipe.
Status read_recipe(std::string_view json, Recipe& recipe);
// The text that read_recipe() reads.
std::string recipe_json(const Recipe& recipe);

}  // namespace sprun::compress
