#include "tools/sprun/engine.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kernels/isa.h"
#include "runtime/session/model_impl.h"
#include "tools/sprun/console.h"
#include "tools/sprun/fill.h"
#include "tools/sprun/io/tensor_files.h"

namespace sprun::tools {
namespace {

std::string input_names(const Model& model) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : model.inputs()) names.push_back(spec.name);
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

// The tensors of every -i argument, by name.
Result<std::map<std::string, Tensor>> read_inputs(const Model& model,
                                                  const std::vector<std::string>& arguments) {
  std::map<std::string, Tensor> given;
  for (const std::string& argument : arguments) {
    SPRUN_ASSIGN(std::vector<NamedTensor> tensors, read_input_argument(argument, model.inputs()));
    for (NamedTensor& t : tensors) {
      const bool known = std::any_of(model.inputs().begin(), model.inputs().end(),
                                     [&](const TensorSpec& spec) { return spec.name == t.name; });
      if (!known) {
        return Status(Code::kBadInput, fmt::format("-i {}: the model has no input '{}'; it has: {}",
                                                   argument, t.name, input_names(model)));
      }
      if (!given.emplace(t.name, t.tensor).second) {
        return Status(Code::kBadInput,
                      fmt::format("-i {}: input '{}' is given twice", argument, t.name));
      }
    }
  }
  return given;
}

}  // namespace

void add_model_options(CLI::App& app, ModelArgs& args, bool with_precision) {
  app.add_option("MODEL", args.path, "The ONNX file")->required();
  app.add_option("--sparse", args.sparse,
                 "Sparse kernels: auto where they are expected to be faster, off, force wherever they can run");
  if (with_precision) {
    app.add_option("--precision", args.precision,
                   "Arithmetic of linear layers: f32 (as the file says), bf16, int8");
  }
  app.add_option("--isa", args.isa, "Highest instruction set to use; `sprun devices` lists them");
  app.add_option("--disable-pass", args.disabled_passes,
                 "Graph passes to leave out; `sprun explain` lists them")
      ->delimiter(',');
}

void add_input_options(CLI::App& app, InputArgs& args) {
  app.add_option("-i,--input", args.inputs,
                 "NAME=FILE.npy, FILE.npz, a folder of .npy files or an ONNX test_data_set folder; "
                 "may be repeated");
  app.add_option("--dim", args.dims,
                 "Sizes of symbolic dimensions, batch=1,seq=128; the start of a name is enough, unnamed ones are "
                 "INPUT[AXIS]. Defaults by name: "
                 "past 0, batch 1, sequence and length 128, channels 3, height and width 224");
  app.add_option("--fill", args.fill,
                 "Inputs that are not given: random (sensible for their kind), zeros, ones");
  app.add_option("--seed", args.seed, "Seed of random inputs");
}

Result<Loaded> load_model(const ModelArgs& args) {
  ModelOptions options;
  SPRUN_ASSIGN(options.precision, parse_precision(args.precision));
  SPRUN_ASSIGN(options.sparse, parse_sparse_mode(args.sparse));
  options.disabled_passes = args.disabled_passes;
  SPRUN_TRY(limit_isa(args.isa));
  const Progress progress("loading " + args.path);
  const auto start = std::chrono::steady_clock::now();
  SPRUN_ASSIGN(auto model, Model::load(args.path, options));
  return Loaded{std::move(model), ms_since(start)};
}

Result<std::vector<NamedTensor>> make_inputs(const Model& model, const InputArgs& args) {
  SPRUN_ASSIGN(const DimMap dims, parse_dims(args.dims));
  return make_inputs(model, args, dims);
}

Result<std::vector<NamedTensor>> make_inputs(const Model& model, const InputArgs& args,
                                             const DimMap& dims) {
  SPRUN_ASSIGN(auto given, read_inputs(model, args.inputs));
  FillOptions fill{.seed = args.seed, .limits = index_limits(*model.impl().onnx.graph)};
  SPRUN_ASSIGN(fill.fill, parse_fill(args.fill));
  SPRUN_ASSIGN(DimResolver resolver, DimResolver::create(model.inputs(), dims));
  std::vector<TensorSpec> missing;
  for (const TensorSpec& spec : model.inputs()) {
    if (const auto it = given.find(spec.name); it != given.end())
      resolver.learn(spec, it->second.shape());
    else missing.push_back(spec);
  }
  SPRUN_TRY(resolver.complete(missing));
  fill.total_length = std::max<int64_t>(resolver.total_length(), 1);
  std::vector<NamedTensor> inputs;
  for (const TensorSpec& spec : model.inputs()) {
    if (const auto it = given.find(spec.name); it != given.end()) {
      inputs.push_back({spec.name, it->second});
      continue;
    }
    SPRUN_ASSIGN(const Shape shape, resolver.shape_of(spec));
    SPRUN_ASSIGN(Tensor tensor, fill_tensor(spec, shape, fill));
    inputs.push_back({spec.name, std::move(tensor)});
  }
  return inputs;
}

Result<Session> bound_session(const std::shared_ptr<const Model>& model,
                              const std::vector<NamedTensor>& inputs, int num_threads) {
  SPRUN_ASSIGN(Session session, Session::create(model, {.num_threads = num_threads}));
  for (const NamedTensor& input : inputs)
    SPRUN_TRY(session.bind_input(input.name, input.tensor.view()));
  return session;
}

Result<double> timed_run(Session& session) {
  const RunOptions options{.stop = stop_token(), .deadline = {}};
  const auto start = std::chrono::steady_clock::now();
  SPRUN_TRY(session.run(options));
  return ms_since(start);
}

// VmHWM, because getrusage() also counts what a large parent had before it started this program.
int64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  }
  return 0;
}

Status limit_isa(const std::string& isa) {
  if (isa.empty()) return {};
  if (!kernels::limit(kernels::detected_isas(), isa)) {
    return {Code::kUsage, fmt::format("--isa '{}': expected one of {}", isa,
                                      fmt::join(kernels::isa_level_names(), ", "))};
  }
  if (setenv("SPRUN_MAX_ISA", isa.c_str(), 1) != 0)
    return {Code::kInternal, "cannot set SPRUN_MAX_ISA"};
  return {};
}

std::string isa_in_use() {
  const kernels::IsaSet allowed = kernels::available_isas();
  std::string_view best = kernels::isa_name(kernels::Isa::kScalar);
  for (const kernels::Isa isa : kernels::all_isas()) {
    if (allowed.contains(isa)) best = kernels::isa_name(isa);
  }
  return std::string(best);
}

}  // namespace sprun::tools
