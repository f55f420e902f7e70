#include "tools/compress/recipe.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/compress/step.h"

namespace sprun::compress {
namespace {

using Json = nlohmann::ordered_json;

Status bad(std::string message) { return {Code::kUsage, "recipe: " + std::move(message)}; }

Status check_keys(const Json& object, std::initializer_list<std::string_view> allowed,
                  std::string_view where) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(allowed.begin(), allowed.end(), key) == allowed.end())
      return bad(fmt::format("unknown word '{}' {}", key, where));
  }
  return {};
}

Result<RecipeItem> item_of(const Json& object) {
  if (!object.is_object()) return bad("each step must be an object such as {\"prune\": \"2:4\"}");
  RecipeItem item;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) return bad(fmt::format("'{}' must be a text", key));
    if (key == "layers") {
      item.layers = value.get<std::string>();
    } else if (!is_recipe_verb(key)) {
      return bad(fmt::format("unknown word '{}' in a step; there are {}", key, recipe_verbs()));
    } else if (!item.verb.empty()) {
      return bad(fmt::format("'{}' and '{}' in one step", item.verb, key));
    } else {
      item.verb = key;
      item.spec = value.get<std::string>();
    }
  }
  if (item.verb.empty() || item.spec.empty() || item.layers.empty())
    return bad("a step says nothing to do");
  return item;
}

}  // namespace

Result<RecipeItem> parse_recipe_item(std::string_view verb, std::string_view argument) {
  RecipeItem item;
  item.verb = verb;
  const size_t equals = argument.rfind('=');
  if (equals != std::string_view::npos) item.layers = argument.substr(0, equals);
  item.spec = equals == std::string_view::npos ? argument : argument.substr(equals + 1);
  if (item.layers.empty() || item.spec.empty()) {
    return Status(Code::kUsage, fmt::format("--{} '{}': expected [LAYERS=]WHAT", verb, argument));
  }
  return item;
}

Status read_recipe(std::string_view json, Recipe& recipe) {
  const Json root = Json::parse(json, nullptr, false, true);
  if (root.is_discarded() || !root.is_object()) return bad("not a JSON object");
  SPRUN_TRY(check_keys(root, {"steps", "skip"}, "at the top; there are steps, skip"));
  if (root.contains("steps")) {
    if (!root["steps"].is_array()) return bad("'steps' must be a list");
    for (const Json& step : root["steps"]) {
      SPRUN_ASSIGN(RecipeItem item, item_of(step));
      recipe.items.push_back(std::move(item));
    }
  }
  if (root.contains("skip")) {
    if (!root["skip"].is_array()) return bad("'skip' must be a list");
    for (const Json& name : root["skip"]) {
      if (!name.is_string()) return bad("'skip' must be a list of texts");
      recipe.skip.push_back(name.get<std::string>());
    }
  }
  return {};
}

std::string recipe_json(const Recipe& recipe) {
  Json root = {{"steps", Json::array()}};
  for (const RecipeItem& item : recipe.items) {
    Json step = {{item.verb, item.spec}};
    if (item.layers != "*") step["layers"] = item.layers;
    root["steps"].push_back(std::move(step));
  }
  if (!recipe.skip.empty()) root["skip"] = recipe.skip;
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sprun::compress
