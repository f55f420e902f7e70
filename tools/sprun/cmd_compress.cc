// sprun compress: a smaller, sparser or quantised model from a model, a recipe and calibration data.
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "runtime/base/atomic_file.h"
#include "tools/compress/compress.h"
#include "tools/compress/report_rows.h"
#include "tools/sprun/calibration_files.h"
#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/io/npy.h"
#include "tools/sprun/latency.h"

namespace sprun::tools {
namespace {

constexpr double kMeasureSeconds = 4;
constexpr int64_t kMaxRecipeBytes = 1 << 20;

struct CompressArgs {
  std::string model, output, json, html, isa;
  std::vector<std::string> words;   // alternating: option, its argument, in the order of the command line
  std::vector<std::string> skip;
  CalibrationArgs calibration;
  double damping = 0.01;
  int threads = 0;
  bool no_measure = false;
};

Status add_file(const std::string& path, compress::Recipe& recipe) {
  SPRUN_ASSIGN(const std::vector<std::byte> bytes, read_file(path, kMaxRecipeBytes));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return compress::read_recipe(text, recipe).with_context(path);
}

Result<compress::Recipe> recipe_of(const CompressArgs& args) {
  compress::Recipe recipe;
  for (size_t i = 0; i + 1 < args.words.size(); i += 2) {
    if (args.words[i] == "recipe") {
      SPRUN_TRY(add_file(args.words[i + 1], recipe));
      continue;
    }
    SPRUN_ASSIGN(compress::RecipeItem item, compress::parse_recipe_item(args.words[i], args.words[i + 1]));
    recipe.items.push_back(std::move(item));
  }
  recipe.skip.insert(recipe.skip.end(), args.skip.begin(), args.skip.end());
  return recipe;
}

// Before hours of work: the result can be written, and not over the original.
Status check_output(const CompressArgs& args) {
  std::error_code error;
  if (std::filesystem::equivalent(args.model, args.output, error))
    return {Code::kUsage, "-o is the model itself; the original is never overwritten"};
  for (const std::string& path : {args.output, args.json, args.html}) {
    if (!path.empty() && path != "-") SPRUN_TRY(AtomicFile::create(path).status());
  }
  return {};
}

// "compressing 43%, 1:20 left: encoder.layer.3.fc1"
class TimeLeft {
 public:
  explicit TimeLeft(Progress& progress) : progress_(progress) {}
  void operator()(double done, const std::string& what) const {
    std::string left;
    if (done > 0.02) {
      const auto seconds = static_cast<int64_t>(ms_since(start_) / 1000 / done * (1 - done));
      left = fmt::format(", {}:{:02} left", seconds / 60, seconds % 60);
    }
    progress_.set_label(fmt::format("compressing {:.0f}%{}: {}", 100 * done, left, what));
  }

 private:
  Progress& progress_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

Status write_text(const std::string& path, const std::string& text) {
  SPRUN_ASSIGN(AtomicFile file, AtomicFile::create(path));
  SPRUN_TRY(file.write(text));
  return file.commit();
}

void add_warnings(const compress::Calibration& calibration, compress::Report& report) {
  if (calibration.source.starts_with("random"))
    report.warnings.push_back("random calibration: neither the weights nor the errors say anything about real data");
  if (calibration.held_out_is_seen)
    report.warnings.push_back("one sample: the outputs are judged on the data that the methods have seen");
  if (report.latency && report.latency->is_slower())
    report.warnings.push_back(fmt::format("the result is slower than the original here ({:.2f}x)", report.latency->speedup()));
}

Status show(const CompressArgs& args, const compress::Report& report) {
  if (args.json != "-") {
    SPRUN_TRY(print(format_table(compress::layer_rows(report))));
    if (!report.outputs.empty()) SPRUN_TRY(print("\n" + format_table(compress::output_rows(report))));
    std::string lines = "\n";
    for (const std::string& line : compress::summary_lines(report)) lines += line + "\n";
    SPRUN_TRY(print(lines));
  }
  if (!args.html.empty()) SPRUN_TRY(write_text(args.html, compress::report_html(report)));
  return args.json.empty() ? Status() : write_json(args.json, compress::report_json(report));
}

Result<graph::OnnxModel> read_model(const std::string& path) {
  SPRUN_ASSIGN(graph::OnnxModel model, graph::read_onnx(path));
  SPRUN_TRY(graph::unsupported_status(model).with_context(path));
  SPRUN_TRY(graph::missing_data_status(model).with_context(path));
  return model;
}

// The file and the ".data" beside it.
int64_t model_bytes(const std::string& path) {
  int64_t total = 0;
  for (const std::string& name : {path, path + ".data"}) {
    std::error_code error;
    const auto size = std::filesystem::file_size(name, error);
    if (!error) total += static_cast<int64_t>(size);
  }
  return total;
}

Result<compress::LatencyReport> measure(const CompressArgs& args, const std::vector<NamedTensor>& inputs) {
  const Progress progress("measuring");
  SPRUN_ASSIGN(auto before, Model::load(args.model));
  SPRUN_ASSIGN(auto after, Model::load(args.output));
  return compare_latency(before, after, inputs, args.threads, kMeasureSeconds);
}

// Inputs to measure with: a held-out sample, or made up: the values hardly change the time.
Result<std::vector<NamedTensor>> sample_inputs(const CompressArgs& args, const graph::Graph& graph,
                                               const compress::Calibration& calibration) {
  if (!calibration.held_out.empty()) return first_sample(graph, calibration);
  SPRUN_ASSIGN(auto model, Model::load(args.model));
  InputArgs made_up;
  made_up.dims = args.calibration.dims;
  return make_inputs(*model, made_up);
}

Result<compress::Report> compress_file(const CompressArgs& args, std::vector<NamedTensor>& inputs,
                                       compress::Calibration& calibration) {
  SPRUN_ASSIGN(const compress::Recipe recipe, recipe_of(args));
  Progress progress("compressing");
  SPRUN_ASSIGN(graph::OnnxModel model, read_model(args.model));
  SPRUN_ASSIGN(calibration, load_calibration(*model.graph, args.calibration));
  if (!args.no_measure) {
    SPRUN_ASSIGN(inputs, sample_inputs(args, *model.graph, calibration));
  }
  ThreadPool pool(args.threads);
  const compress::CompressOptions options{.damping = args.damping, .stop = stop_token(), .progress = TimeLeft(progress)};
  SPRUN_ASSIGN(compress::Report report, compress_model(model, recipe, calibration, pool, options));
  if (interrupted()) return Status(Code::kCancelled, "interrupted");
  report.model = std::filesystem::path(args.model).filename().string();
  report.result = args.output;
  progress.set_label("writing " + args.output);
  SPRUN_TRY(write_compressed(model, args.output, report));
  report.file_bytes_before = model_bytes(args.model);
  report.file_bytes_after = model_bytes(args.output);
  return report;
}

Status run_compress(const CompressArgs& args) {
  SPRUN_TRY(limit_isa(args.isa));
  SPRUN_TRY(check_output(args));
  if (args.calibration.source == "random") message("warning: random calibration data, as asked for");
  std::vector<NamedTensor> inputs;
  compress::Calibration calibration;
  SPRUN_ASSIGN(compress::Report report, compress_file(args, inputs, calibration));
  if (!args.no_measure) {
    SPRUN_ASSIGN(report.latency, measure(args, inputs));
  }
  report.peak_bytes = peak_rss_bytes();
  add_warnings(calibration, report);
  for (const std::string& warning : report.warnings) message("warning: " + warning);
  return show(args, report);
}

// Options of recipes keep the order of the command line across options: each appends its words when it is read.
void add_recipe_option(CLI::App& app, const std::shared_ptr<CompressArgs>& args, const std::string& word,
                       const std::string& help) {
  const auto append = [args, word](const std::string& value) {
    args->words.push_back(word);
    args->words.push_back(value);
  };
  app.add_option_function<std::string>("--" + word, append, help)->trigger_on_parse();
}

}  // namespace

Action setup_compress(CLI::App& app) {
  auto args = std::make_shared<CompressArgs>();
  app.add_option("MODEL", args->model, "The ONNX file; never changed")->required();
  app.add_option("-o,--output", args->output, "The ONNX file to write")->required();
  add_recipe_option(app, args, "prune",
                    "[LAYERS=]PATTERN:SPARSITY[@METHOD] or [LAYERS=]N:M[@METHOD]. PATTERN: unstructured or "
                    "OUTPUTSxINPUTS (16x4, 4x1, 1x4). METHOD: sparsegpt (the default), wanda, magnitude. LAYERS: names "
                    "with * and ?; the last match of a layer counts; all but the output layer if left out. Or smaller "
                    "matrices: ffn:PART or heads:PART[@even,tileN,norefit], layers:COUNT");
  add_recipe_option(app, args, "slice",
                    "SHARE[,shared]: rotate the residual stream and drop this share of its dimensions (SliceGPT); shared: one "
                    "rotation for all layers, no shortcuts; needs calibration");
  add_recipe_option(app, args, "quantize", "[LAYERS=]int8, int8:dynamic (the same) or int8:static (needs calibration)");
  add_recipe_option(app, args, "recipe", "JSON file with the same words: {\"steps\": [{\"prune\": \"16x4:0.8\", "
                                         "\"layers\": \"*ffn*\"}, {\"quantize\": \"int8\"}], \"skip\": [\"*head*\"]}");
  app.add_option("--skip", args->skip, "Names of layers to leave alone, with * and ?");
  app.add_option("--calibration", args->calibration.source,
                 "FILE.npz or folder of .npy: an array per input, samples along the first axis; a folder of .npz, one "
                 "per shape; or random (only for trying things out)");
  app.add_option("--samples", args->calibration.samples,
                 "Samples to learn from; an eighth of all (1 to 64, the last ones) is kept to judge the result")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--dim", args->calibration.dims, "Sizes for random calibration and for measuring without data, seq=128");
  app.add_option("--seed", args->calibration.seed, "Seed of random calibration");
  app.add_option("--damping", args->damping, "Part of the mean diagonal added to covariances; raised where it must be")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")->check(CLI::Range(0, 1024));
  app.add_option("--isa", args->isa, "Highest instruction set to use");
  app.add_flag("--no-measure", args->no_measure, "Do not measure latency before and after");
  app.add_option("--json", args->json, "Write the report as JSON to FILE, or - for standard output");
  app.add_option("--html", args->html, "Write the report as a page to FILE");
  return [args] { return run_compress(*args); };
}

}  // namespace sprun::tools
