// What the commands that execute a model share: options, loading, inputs.
//
//   ModelArgs model_args; InputArgs input_args;             // filled by CLI11
//   SPRUN_ASSIGN(Loaded loaded, load_model(model_args));
//   SPRUN_ASSIGN(std::vector<NamedTensor> inputs, make_inputs(*loaded.model, input_args));
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"
#include "tools/sprun/command.h"
#include "tools/sprun/dims.h"

namespace sprun::tools {

struct ModelArgs {
  std::string path, precision = "f32", isa, sparse = "auto";
  std::vector<std::string> disabled_passes;
};
struct InputArgs {
  std::vector<std::string> inputs, dims;
  std::string fill = "random";
  uint64_t seed = 0;
};

// MODEL, --isa, --sparse, --disable-pass and, unless the command takes a list of them, --precision.
void add_model_options(CLI::App& app, ModelArgs& args, bool with_precision = true);
// -i, --dim, --fill, --seed.
void add_input_options(CLI::App& app, InputArgs& args);

struct Loaded {
  std::shared_ptr<const Model> model;
  double load_ms = 0;
};
Result<Loaded> load_model(const ModelArgs& args);

// One tensor per model input, in model order: those of -i, and made-up ones for the rest.
// kBadInput for a name that the model does not have or that is given twice; kUsage for --dim.
Result<std::vector<NamedTensor>> make_inputs(const Model& model, const InputArgs& args);
// The same with sizes already parsed.
Result<std::vector<NamedTensor>> make_inputs(const Model& model, const InputArgs& args,
                                             const DimMap& dims);

// Session with every input bound. The tensors must outlive it.
Result<Session> bound_session(const std::shared_ptr<const Model>& model,
                              const std::vector<NamedTensor>& inputs, int num_threads);

// Runs once and returns the milliseconds it took.
Result<double> timed_run(Session& session);

// Peak resident memory of this process so far.
int64_t peak_rss_bytes();
// Sets the highest instruction set of this process, unless the name is empty. kUsage for an unknown
// name.
Status limit_isa(const std::string& isa);
// Name of the strongest instruction set in use.
std::string isa_in_use();

inline double ms_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace sprun::tools
