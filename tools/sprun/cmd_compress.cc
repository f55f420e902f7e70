// sprun compress: a smaller, sparser or quantised model from a model, a recipe and calibration
// data.
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "runtime/base/atomic_file.h"
#include "tools/compress/compress.h"
#include "tools/compress/graph_runner.h"
#include "tools/compress/kv_states.h"
#include "tools/compress/report_rows.h"
#include "tools/compress/scan.h"
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
  std::vector<std::string>
      words;  // alternating: option, its argument, in the order of the command line
  std::vector<std::string> skip;
  std::string pattern = "16x4";  // for scan and target_speedup
  double target_speedup = 0;     // 0: none
  bool scan = false;
  CalibrationArgs calibration;
  double damping = 0.01;
  int threads = 0;
  bool no_measure = false;
};

// What the work begins with.
struct Task {
  graph::OnnxModel model;
  compress::Recipe recipe;
  compress::Calibration calibration;
  compress::Batch
      sample;  // to measure with: held-out, or made up, for the values hardly change the time
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
    SPRUN_ASSIGN(compress::RecipeItem item,
                 compress::parse_recipe_item(args.words[i], args.words[i + 1]));
    recipe.items.push_back(std::move(item));
  }
  recipe.skip.insert(recipe.skip.end(), args.skip.begin(), args.skip.end());
  return recipe;
}

// Before hours of work: the result can be written, and not over the original.
Status check_output(const CompressArgs& args) {
  if (args.output.empty()) return args.scan ? Status() : Status(Code::kUsage, "-o FILE is needed");
  std::error_code error;
  if (std::filesystem::equivalent(args.model, args.output, error))
    return {Code::kUsage, "-o is the model itself; the original is never overwritten"};
  for (const std::string& path : {args.output, args.json, args.html}) {
    if (!path.empty() && path != "-" && !is_stream(path)) SPRUN_TRY(AtomicFile::create(path).status());
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

void add_warnings(const compress::Calibration& calibration, compress::Report& report) {
  if (calibration.source.starts_with("random"))
    report.warnings.push_back(
        "random calibration: neither the weights nor the errors say anything about real data");
  if (calibration.held_out_is_seen)
    report.warnings.push_back(
        "one sample: the outputs are judged on the data that the methods have seen");
  if (report.latency && report.latency->is_slower())
    report.warnings.push_back(fmt::format("the result is slower than the original here ({:.2f}x)",
                                          report.latency->speedup()));
}

// Files first: a command that fails prints no results.
Status show(const CompressArgs& args, const compress::Report& report) {
  if (!args.html.empty()) SPRUN_TRY(write_text(args.html, compress::report_html(report)));
  if (!args.json.empty()) SPRUN_TRY(write_json(args.json, compress::report_json(report)));
  if (args.json == "-") return {};
  std::string text = format_table(compress::layer_rows(report));
  if (!report.outputs.empty()) text += "\n" + format_table(compress::output_rows(report));
  text += "\n";
  for (const std::string& line : compress::summary_lines(report)) text += line + "\n";
  return print(text);
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

std::vector<NamedTensor> named(const Model& model, const compress::Batch& sample) {
  std::vector<NamedTensor> inputs;
  for (size_t i = 0; i < sample.inputs.size(); ++i)
    inputs.push_back({model.inputs()[i].name, sample.inputs[i]});
  return inputs;
}

Result<compress::LatencyReport> measure(const CompressArgs& args, const Task& task) {
  const Progress progress("measuring");
  SPRUN_ASSIGN(auto before, Model::load(args.model));
  SPRUN_ASSIGN(auto after, Model::load(args.output));
  std::vector<std::string> names;
  for (const TensorSpec& spec : before->inputs()) names.push_back(spec.name);
  SPRUN_ASSIGN(const compress::Batch sample,
               compress::fit_batch(task.sample, names, *task.model.graph));
  return compare_latency({before, named(*before, task.sample)}, {after, named(*after, sample)},
                         args.threads, kMeasureSeconds);
}

Result<compress::Batch> made_up_sample(const CompressArgs& args) {
  SPRUN_ASSIGN(auto model, Model::load(args.model));
  InputArgs made_up;
  made_up.dims = args.calibration.dims;
  SPRUN_ASSIGN(const std::vector<NamedTensor> inputs, make_inputs(*model, made_up));
  compress::Batch sample{{}, 1};
  for (const NamedTensor& input : inputs) sample.inputs.push_back(input.tensor);
  return sample;
}

Result<Task> prepare(const CompressArgs& args) {
  Task task;
  SPRUN_ASSIGN(task.recipe, recipe_of(args));
  SPRUN_ASSIGN(task.model, read_model(args.model));
  CalibrationArgs calibration = args.calibration;
  if (calibration.tokenizer.empty())
    calibration.tokenizer = std::filesystem::absolute(args.model).parent_path().string();
  SPRUN_ASSIGN(task.calibration, load_calibration(*task.model.graph, calibration));
  if (!task.calibration.held_out.empty()) {
    SPRUN_ASSIGN(task.sample, first_sample(*task.model.graph, task.calibration));
  } else if (!args.no_measure || args.scan || args.target_speedup > 0) {
    SPRUN_ASSIGN(task.sample, made_up_sample(args));
  }
  return task;
}

Result<compress::ScanOptions> scan_options(const CompressArgs& args, const TimeLeft& progress) {
  compress::ScanOptions options;
  SPRUN_TRY(compress::parse_scan(args.pattern, options));
  options.skip = args.skip;
  options.damping = args.damping;
  options.stop = stop_token();
  options.progress = progress;
  return options;
}

Status show_scan(const CompressArgs& args, const std::vector<compress::ScanLayer>& layers) {
  if (!args.json.empty()) {
    SPRUN_TRY(write_json(args.json, {{"model", args.model},
                                     {"pattern", args.pattern},
                                     {"layers", compress::scan_json(layers)}}));
  }
  return args.json == "-" ? Status() : print(format_table(compress::scan_rows(layers)));
}

// The steps that reach the speed-up, before those of the user: of two that match a layer the last
// counts.
Status add_target(const CompressArgs& args, Task& task, ThreadPool& pool,
                  const compress::ScanOptions& options) {
  SPRUN_ASSIGN(const auto layers, compress::scan_layers(*task.model.graph, task.calibration,
                                                        task.sample, pool, options));
  SPRUN_ASSIGN(compress::GraphRunner runner,
               compress::GraphRunner::create(*task.model.graph, pool, SparseMode::kAuto));
  std::vector<ConstTensorView> inputs;
  for (const Tensor& t : task.sample.inputs) inputs.push_back(t.view());
  SPRUN_ASSIGN(const double model_ms, runner.time_ms(inputs, stop_token()));
  SPRUN_ASSIGN(const compress::Recipe found,
               compress::recipe_for_speedup(layers, model_ms, args.target_speedup, options));
  task.recipe.items.insert(task.recipe.items.begin(), found.items.begin(), found.items.end());
  return {};
}

Result<compress::Report> compress_file(const CompressArgs& args, Task& task, ThreadPool& pool,
                                       Progress& progress) {
  std::optional<double> saved_ms;
  compress::CompressOptions options{
      .damping = args.damping, .stop = stop_token(), .progress = TimeLeft(progress)};
  if (!args.no_measure) {
    options.sample = &task.sample;
    options.saved_ms = &saved_ms;
  }
  SPRUN_ASSIGN(compress::Report report,
               compress_model(task.model, task.recipe, task.calibration, pool, options));
  if (interrupted()) return Status(Code::kCancelled, "interrupted");
  report.model = std::filesystem::path(args.model).filename().string();
  report.result = args.output;
  progress.set_label("writing " + args.output);
  SPRUN_TRY(write_compressed(task.model, args.output, report));
  report.file_bytes_before = model_bytes(args.model);
  report.file_bytes_after = model_bytes(args.output);
  if (args.no_measure) return report;
  SPRUN_ASSIGN(report.latency, measure(args, task));
  if (saved_ms) report.latency->predicted_ms = std::max(report.latency->before_ms - *saved_ms, 0.0);
  return report;
}

Status run_compress(const CompressArgs& args) {
  SPRUN_TRY(limit_isa(args.isa));
  SPRUN_TRY(check_output(args));
  if (args.calibration.source == "random")
    message("warning: random calibration data, as asked for");
  auto progress = std::make_unique<Progress>("compressing");
  ThreadPool pool(args.threads);
  SPRUN_ASSIGN(Task task, prepare(args));
  SPRUN_ASSIGN(const compress::ScanOptions scan, scan_options(args, TimeLeft(*progress)));
  if (args.scan) {
    SPRUN_ASSIGN(const auto layers, compress::scan_layers(*task.model.graph, task.calibration,
                                                          task.sample, pool, scan));
    progress.reset();
    return show_scan(args, layers);
  }
  if (args.target_speedup > 0) SPRUN_TRY(add_target(args, task, pool, scan));
  SPRUN_ASSIGN(compress::Report report, compress_file(args, task, pool, *progress));
  progress.reset();
  report.peak_bytes = peak_rss_bytes();
  add_warnings(task.calibration, report);
  for (const std::string& warning : report.warnings) message("warning: " + warning);
  return show(args, report);
}

// Options of recipes keep the order of the command line across options: each appends its words when
// it is read.
void add_recipe_option(CLI::App& app, const std::shared_ptr<CompressArgs>& args,
                       const std::string& word, const std::string& help) {
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
  app.add_option("-o,--output", args->output, "The ONNX file to write");
  add_recipe_option(
      app, args, "prune",
      "[LAYERS=]PATTERN:SPARSITY[@METHOD] or [LAYERS=]N:M[@METHOD]. PATTERN: unstructured or "
      "OUTPUTSxINPUTS (16x4, 4x1, 1x4). METHOD: sparsegpt (the default), wanda, magnitude. LAYERS: "
      "names "
      "with * and ?; the last match of a layer counts; all but the output layer if left out. Or "
      "smaller matrices: ffn:PART or heads:PART[@even,tileN,norefit], layers:COUNT");
  add_recipe_option(app, args, "slice",
                    "SHARE[,shared]: rotate the residual stream and drop this share of its "
                    "dimensions (SliceGPT); shared: one rotation for all layers, no shortcuts; "
                    "needs calibration");
  add_recipe_option(app, args, "quantize",
                    "[LAYERS=]int8[:WORDS], with commas between: dynamic (the default) or static "
                    "(needs calibration); smooth or smoothPOWER: scale channels so that they are "
                    "easier to round (SmoothQuant, needs calibration); residual: round twice, with "
                    "a second product for what is left, or residualBOUND: only in layers where "
                    "rounding the input costs more (0.02: 2 % of the output, needs calibration)");
  add_recipe_option(app, args, "recipe",
                    "JSON file with the same words: {\"steps\": [{\"prune\": \"16x4:0.8\", "
                    "\"layers\": \"*ffn*\"}, {\"quantize\": \"int8\"}], \"skip\": [\"*head*\"]}");
  app.add_option("--skip", args->skip, "Names of layers to leave alone, with * and ?");
  app.add_option("--calibration", args->calibration.source,
                 "FILE.npz or folder of .npy: an array per input, samples along the first axis; a "
                 "folder of .npz, one "
                 "per shape; FILE.txt: a sample a line, by the tokenizer; or random (only for "
                 "trying things out)");
  app.add_option("--samples", args->calibration.samples,
                 "Samples to learn from; an eighth of all (1 to 64, the last ones) is kept to "
                 "judge the result")
      ->check(CLI::Range(1, 1 << 24));
  app.add_option("--dim", args->calibration.dims,
                 "Sizes for random calibration and for measuring without data, seq=128");
  app.add_option("--seed", args->calibration.seed, "Seed of random calibration");
  app.add_option(
      "--tokenizer", args->calibration.tokenizer,
      "File or folder of the tokenizer for calibration with text; the model's folder if left out");
  app.add_option("--length", args->calibration.length, "Most tokens of a sample of text")
      ->check(CLI::Range(1, 1 << 20));
  app.add_flag("--scan", args->scan,
               "Change nothing: print error and time of each layer alone at 50, 75 and 90 % zeros");
  app.add_option("--target-speedup", args->target_speedup,
                 "Choose the zeros of each layer by --scan so that the model gets this many times "
                 "as fast here")
      ->check(CLI::Range(1.0, 1000.0));
  app.add_option("--pattern", args->pattern, "PATTERN[@METHOD] for --scan and --target-speedup");
  app.add_option("--damping", args->damping,
                 "Part of the mean diagonal added to covariances; raised where it must be")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")
      ->check(CLI::Range(0, 1024));
  app.add_option("--isa", args->isa, "Highest instruction set to use");
  app.add_flag("--no-measure", args->no_measure, "Do not measure latency before and after");
  app.add_option("--json", args->json,
                 "Write the report as JSON to FILE, or - for standard output");
  app.add_option("--html", args->html, "Write the report as a page to FILE");
  return [args] { return run_compress(*args); };
}

}  // namespace sprun::tools
