// sprun explain: the plan of a model for given shapes, in words.
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"

namespace sprun::tools {
namespace {

struct ExplainArgs {
  ModelArgs model;
  InputArgs input;
  int threads = 0;
  std::string json;
};

Status explain(const ExplainArgs& args) {
  SPRUN_ASSIGN(const Loaded loaded, load_model(args.model));
  SPRUN_ASSIGN(const std::vector<NamedTensor> inputs, make_inputs(*loaded.model, args.input));
  SPRUN_ASSIGN(Session session, bound_session(loaded.model, inputs, args.threads));
  SPRUN_ASSIGN(std::string text, session.explain());
  if (!text.ends_with('\n')) text += '\n';
  if (args.json != "-") SPRUN_TRY(print(text));
  if (args.json.empty()) return {};
  nlohmann::ordered_json lines = nlohmann::ordered_json::array();
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start);
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return write_json(args.json, {{"model", args.model.path},
                                {"precision", args.model.precision},
                                {"isa", isa_in_use()},
                                {"threads", session.num_threads()},
                                {"explain", lines}});
}

}  // namespace

Action setup_explain(CLI::App& app) {
  auto args = std::make_shared<ExplainArgs>();
  add_model_options(app, args->model);
  add_input_options(app, args->input);
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")
      ->check(CLI::Range(0, 1024));
  app.add_option("--json", args->json, "Write the lines as JSON to FILE, or - for standard output");
  return [args] { return explain(*args); };
}

}  // namespace sprun::tools
