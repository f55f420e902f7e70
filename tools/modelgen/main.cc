// sprun-modelgen: writes a transformer with random weights as an ONNX file.
//
//   sprun-modelgen bert-mini bert-mini.onnx --int8 s8 --sparsity 0.8 --pattern 16x4
#include <CLI/CLI.hpp>

#include <iostream>
#include <map>

#include "graph/onnx/onnx_writer.h"
#include "tools/modelgen/modelgen.h"

namespace {

using sprun::Code;
using sprun::Result;
using sprun::Status;
using sprun::modelgen::Config;
using sprun::modelgen::Quantization;

// What the command line says on top of the preset.
struct Options {
  std::string preset, out, pattern = "unstructured", int8, ffn_kind;
  std::map<std::string, int64_t> sizes;
  int opset = 0, nbits = 0;
  uint64_t seed = 1;
  double sparsity = 0, active = -1;
  bool tied = false, untied = false, qdq = false, weight_only = false, per_channel = false, past = false, no_past = false, external_data = false;
};

void add_options(CLI::App& app, Options& o) {
  std::string names;
  for (const std::string& name : sprun::modelgen::preset_names()) names += (names.empty() ? "" : ", ") + name;
  app.add_option("preset", o.preset, "Model to start from: " + names)->required();
  app.add_option("out", o.out, "File to write")->required();
  for (const char* name : {"layers", "hidden", "heads", "kv-heads", "ffn", "vocab", "max-seq", "image", "patch",
                           "channels", "labels", "head-size", "score-inputs", "block"}) {
    app.add_option_function<int64_t>(
        std::string("--") + name, [&o, name](int64_t value) { o.sizes[name] = value; }, "Instead of the preset's");
  }
  app.add_option("--opset", o.opset, "11 to 20");
  app.add_option("--seed", o.seed, "Of the weights");
  app.add_option("--int8", o.int8, "Dynamic quantisation with weights of this type")->check(CLI::IsMember({"u8", "s8"}));
  app.add_flag("--qdq", o.qdq, "Static quantisation in Q/DQ form, attention included; weights s8 or as --int8 says");
  app.add_flag("--weight-only", o.weight_only, "8-bit weights behind DequantizeLinear, float activations; s8 or as --int8 says");
  app.add_flag("--per-channel", o.per_channel, "One weight scale per output instead of one per matrix");
  app.add_option("--sparsity", o.sparsity, "Share of weight blocks that are zero, 0 to 1");
  app.add_option("--pattern", o.pattern, "unstructured, ROWSxCOLS (outputs x inputs) or N:M");
  app.add_option("--nbits", o.nbits, "Linear layers as MatMulNBits with 4 or 8 bits, a scale per --block inputs");
  app.add_option("--ffn-kind", o.ffn_kind, "swiglu, geglu, reglu, relu, topk (statistical top-k on the gate) or spark");
  app.add_option("--active", o.active, "Wanted share of active hidden units: topk, spark, reglu, relu");
  app.add_flag("--tied", o.tied, "The head uses the embedding table");
  app.add_flag("--untied", o.untied, "The head has weights of its own");
  app.add_flag("--past", o.past, "With key/value cache");
  app.add_flag("--no-past", o.no_past, "Without key/value cache");
  app.add_flag("--external-data", o.external_data, "Weights in a second file, also when they are small");
}

Result<Config> config_of(const Options& o) {
  SPRUN_ASSIGN(Config config, sprun::modelgen::preset(o.preset));
  SPRUN_ASSIGN(config.pattern, sprun::modelgen::parse_pattern(o.pattern));
  const std::map<std::string, int64_t*> fields = {
      {"layers", &config.layers}, {"hidden", &config.hidden},   {"heads", &config.heads},
      {"ffn", &config.ffn},       {"vocab", &config.vocab},     {"max-seq", &config.max_seq},
      {"image", &config.image},   {"patch", &config.patch},     {"channels", &config.channels},
      {"labels", &config.labels}, {"kv-heads", &config.kv_heads}, {"head-size", &config.head_size},
      {"score-inputs", &config.score_inputs}, {"block", &config.block}};
  for (const auto& [name, value] : o.sizes) *fields.at(name) = value;
  if (o.sizes.contains("heads") && !o.sizes.contains("kv-heads")) config.kv_heads = config.heads;
  if (o.opset != 0) config.opset = o.opset;
  if (o.nbits != 0) config.nbits = o.nbits;
  if (!o.ffn_kind.empty()) {
    SPRUN_ASSIGN(config.ffn_kind, sprun::modelgen::parse_ffn(o.ffn_kind));
  }
  if (o.active >= 0) config.active = o.active;
  if (o.tied) config.tied = true;
  if (o.untied) config.tied = false;
  if (o.past) config.past = true;
  if (o.no_past) config.past = false;
  if (!o.int8.empty()) config.quantization = o.int8 == "u8" ? Quantization::kU8 : Quantization::kS8;
  config.qdq = o.qdq;
  config.weight_only = o.weight_only;
  if ((o.qdq || o.weight_only) && o.int8.empty()) config.quantization = Quantization::kS8;
  config.per_channel = o.per_channel;
  config.sparsity = o.sparsity;
  config.seed = o.seed;
  return config;
}

Status run(const Options& o) {
  SPRUN_ASSIGN(const Config config, config_of(o));
  SPRUN_ASSIGN(const sprun::graph::Graph graph, sprun::modelgen::generate(config));
  sprun::graph::WriteOptions options;
  options.producer_name = "sprun-modelgen";
  if (o.external_data) options.external = sprun::graph::WriteOptions::External::kAlways;
  return sprun::graph::write_onnx(graph, o.out, options);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes a transformer with random weights as an ONNX file.", "sprun-modelgen");
  Options options;
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const Status status = run(options);
  if (status.ok()) return 0;
  std::cerr << "sprun-modelgen: " << status.message() << '\n';
  return status.code() == Code::kResourceLimit ? 6 : status.code() == Code::kUsage ? 2 : 1;
}
