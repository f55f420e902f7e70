#include "tools/compress/report_rows.h"

#include <fmt/format.h>

namespace sprun::compress {
namespace {

std::string percent(int64_t part, int64_t whole) {
  return whole == 0
             ? "-"
             : fmt::format("{:.1f}%", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

template <class T>
std::string number(const std::optional<T>& value, const char* format) {
  return value ? fmt::format(fmt::runtime(format), *value) : "-";
}

std::string millions(int64_t value) {
  return fmt::format("{:.2f} M", static_cast<double>(value) / 1e6);
}
std::string megabytes(int64_t value) {
  return fmt::format("{:.1f} MB", static_cast<double>(value) / 1e6);
}

std::string size_text(const LayerSize& size) {
  return size.parameters() == 0 ? "-" : fmt::format("{}x{}", size.outputs, size.inputs);
}

std::string ratio(int64_t after, int64_t before) {
  return before == 0
             ? "-"
             : fmt::format("{:.3f}x", static_cast<double>(after) / static_cast<double>(before));
}

std::string latency_line(const LatencyReport& latency) {
  std::string text = fmt::format(
      "latency here: {:.3f} ms -> {:.3f} ms, {:.2f}x as fast (medians of {} runs in turns, spread "
      "{:.0f}% and {:.0f}%, {} threads, {})",
      latency.before_ms, latency.after_ms, latency.speedup(), latency.runs,
      100 * latency.before_spread, 100 * latency.after_spread, latency.threads, latency.shapes);
  if (latency.predicted_ms) text += fmt::format("; predicted {:.3f} ms", *latency.predicted_ms);
  return text;
}

}  // namespace

Rows layer_rows(const Report& report) {
  Rows rows = {{"layer", "size", "zeros", "MACs", "bytes", "error", "cosine", "ms", "was", "what"}};
  for (const LayerReport& layer : report.layers) {
    std::string what = layer.action;
    if (!layer.note.empty()) what += (what.empty() ? "(" : " (") + layer.note + ")";
    std::string size = size_text(layer.after);
    if (layer.after.parameters() != layer.before.parameters())
      size = size_text(layer.before) + " -> " + size;
    rows.push_back({layer.name, size, percent(layer.after.zeros, layer.after.parameters()),
                    ratio(layer.after.macs(), layer.before.macs()),
                    ratio(layer.after.bytes, layer.before.bytes), number(layer.error, "{:.4f}"),
                    number(layer.cosine, "{:.5f}"), number(layer.ms_after, "{:.3f}"),
                    number(layer.ms_before, "{:.3f}"), what});
  }
  return rows;
}

Rows output_rows(const Report& report) {
  Rows rows = {{"output", "cosine", "error", "KL nats", "same top", "NLL before", "NLL after"}};
  for (const OutputReport& output : report.outputs) {
    rows.push_back({output.name, fmt::format("{:.5f}", output.cosine),
                    fmt::format("{:.4f}", output.relative_error), number(output.kl, "{:.5f}"),
                    number(output.top1, "{:.4f}"), number(output.nll_before, "{:.4f}"),
                    number(output.nll_after, "{:.4f}")});
  }
  return rows;
}

std::vector<std::string> summary_lines(const Report& report) {
  const Report::Totals before = report.before(), after = report.after();
  std::vector<std::string> lines;
  lines.push_back(fmt::format(
      "linear layers: parameters {} -> {}, zeros {} -> {}, effective MACs a row {} -> {} ({})",
      millions(before.parameters), millions(after.parameters),
      percent(before.zeros, before.parameters), percent(after.zeros, after.parameters),
      millions(before.macs), millions(after.macs), ratio(after.macs, before.macs)));
  if (report.file_bytes_after > 0) {
    lines.push_back(fmt::format("file: {} -> {} (zeros are stored as zeros)",
                                megabytes(report.file_bytes_before),
                                megabytes(report.file_bytes_after)));
  }
  if (!report.calibration.empty()) {
    lines.push_back(fmt::format("calibration: {}, {} samples, judged on {}", report.calibration,
                                report.samples, report.held_out_samples));
  }
  if (report.latency) lines.push_back(latency_line(*report.latency));
  lines.push_back(
      fmt::format("took {:.1f} s, peak memory {}", report.seconds, megabytes(report.peak_bytes)));
  for (const std::string& warning : report.warnings) lines.push_back("WARNING: " + warning);
  return lines;
}

}  // namespace sprun::compress
