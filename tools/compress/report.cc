#include "tools/compress/report.h"

#include <fmt/format.h>

#include "tools/compress/linear_layers.h"

namespace sprun::compress {
namespace {

using Json = nlohmann::ordered_json;

template <class Size>
Report::Totals sum(const std::vector<LayerReport>& layers, const Size& size) {
  Report::Totals totals;
  for (const LayerReport& layer : layers) {
    const LayerSize& s = size(layer);
    totals.parameters += s.parameters();
    totals.zeros += s.zeros;
    totals.macs += s.macs();
    totals.bytes += s.bytes;
  }
  return totals;
}

int64_t count_zeros(const graph::Graph& graph, const LinearLayer& layer) {
  if (!layer.obstacle.empty()) return 0;
  return (read_weight(graph, layer).array() == 0).count();
}

Json to_json(const LayerSize& size) {
  return {{"outputs", size.outputs}, {"inputs", size.inputs}, {"parameters", size.parameters()},
          {"zeros", size.zeros},     {"macs", size.macs()},   {"bytes", size.bytes}};
}

Json to_json(const Report::Totals& totals) {
  return {{"parameters", totals.parameters},
          {"zeros", totals.zeros},
          {"macs", totals.macs},
          {"bytes", totals.bytes}};
}

template <class T>
Json optional(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json to_json(const LayerReport& layer) {
  return {{"name", layer.name},
          {"weight", layer.weight},
          {"op", layer.op},
          {"action", layer.action},
          {"note", layer.note},
          {"before", to_json(layer.before)},
          {"after", to_json(layer.after)},
          {"relative_error", optional(layer.error)},
          {"cosine", optional(layer.cosine)},
          {"ms_before", optional(layer.ms_before)},
          {"ms_after", optional(layer.ms_after)},
          {"damping", layer.damping}};
}

Json to_json(const OutputReport& output) {
  return {{"name", output.name},
          {"cosine", output.cosine},
          {"relative_error", output.relative_error},
          {"kl", optional(output.kl)},
          {"top1_agreement", optional(output.top1)},
          {"nll_before", optional(output.nll_before)},
          {"nll_after", optional(output.nll_after)}};
}

Json to_json(const LatencyReport& latency) {
  return {{"before_ms", latency.before_ms},       {"after_ms", latency.after_ms},
          {"speedup", latency.speedup()},         {"before_spread", latency.before_spread},
          {"after_spread", latency.after_spread}, {"predicted_ms", optional(latency.predicted_ms)},
          {"slower", latency.is_slower()},        {"runs", latency.runs},
          {"threads", latency.threads},           {"shapes", latency.shapes}};
}

}  // namespace

LayerReport* Report::find(const std::string& name) {
  for (LayerReport& layer : layers) {
    if (layer.name == name) return &layer;
  }
  return nullptr;
}

Report::Totals Report::before() const {
  return sum(layers, [](const LayerReport& l) -> const LayerSize& { return l.before; });
}
Report::Totals Report::after() const {
  return sum(layers, [](const LayerReport& l) -> const LayerSize& { return l.after; });
}

Status list_layers(const graph::Graph& graph, Report& report) {
  SPRUN_ASSIGN(const std::vector<LinearLayer> layers, find_linear_layers(graph));
  for (const LinearLayer& layer : layers) {
    LayerReport entry;
    entry.name = layer.name;
    entry.weight = layer.weight_name;
    entry.op = layer.op;
    entry.before = {layer.n, layer.k, count_zeros(graph, layer),
                    graph.constant(layer.weight)->size_bytes()};
    entry.after = entry.before;
    entry.note = layer.obstacle;
    report.layers.push_back(std::move(entry));
  }
  return {};
}

Json report_json(const Report& report) {
  Json json = {
      {"model", report.model},
      {"result", report.result},
      {"recipe", Json::parse(report.recipe, nullptr, false)},
      {"calibration", report.calibration},
      {"samples", report.samples},
      {"held_out_samples", report.held_out_samples},
      {"seconds", report.seconds},
      {"peak_bytes", report.peak_bytes},
      {"file_bytes", {{"before", report.file_bytes_before}, {"after", report.file_bytes_after}}},
      {"linear_layers", {{"before", to_json(report.before())}, {"after", to_json(report.after())}}},
      {"layers", Json::array()},
      {"outputs", Json::array()},
      {"latency", report.latency ? to_json(*report.latency) : Json()},
      {"warnings", report.warnings}};
  for (const LayerReport& layer : report.layers) json["layers"].push_back(to_json(layer));
  for (const OutputReport& output : report.outputs) json["outputs"].push_back(to_json(output));
  return json;
}

}  // namespace sprun::compress
