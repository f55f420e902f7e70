#include "tools/sprun/step_table.h"

#include <algorithm>
#include <map>
#include <string_view>

#include <fmt/format.h>

#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Row> group_by_op(const std::vector<Row>& steps) {
  std::map<std::pair<std::string, std::string>, Row> groups;
  for (const Row& step : steps) {
    auto [it, added] = groups.try_emplace({step.op, step.kernel}, step);
    Row& row = it->second;
    row.name = step.op;
    row.shape.clear();
    if (added) continue;
    row.steps += 1;
    row.us += step.us;
    row.flops += step.flops;
    row.bytes += step.bytes;
  }
  std::vector<Row> rows;
  for (auto& [key, row] : groups) rows.push_back(std::move(row));
  return rows;
}

double peak_gops_for(const Row& row, const PeakRates& peak) {
  const auto has = [&](std::string_view part) {
    return row.kernel.find(part) != std::string::npos;
  };
  if (has("s8") || has("u8") || has("int8")) return peak.int8_gops;
  if (has("bf16") && peak.bf16_gflops > 0) return peak.bf16_gflops;
  return peak.f32_gflops;
}

// Percent of the peak that bounds the step: its regime's, or the nearer one if it states none.
// Negative: no figures.
double percent_of_peak(const Row& row, const PeakRates& peak) {
  const double compute_peak = peak_gops_for(row, peak);
  const double compute = compute_peak > 0 ? 100 * row.gflops() / compute_peak : 0;
  const double memory = peak.read_gbytes > 0 ? 100 * row.gbytes() / peak.read_gbytes : 0;
  if (row.regime == "compute-bound" && row.flops > 0) return compute;
  if (row.regime == "bandwidth-bound" && row.bytes > 0) return memory;
  return row.flops > 0 || row.bytes > 0 ? std::max(compute, memory) : -1;
}

}  // namespace

double total_time(const std::vector<Row>& rows) {
  double total = 0;
  for (const Row& row : rows) total += row.us;
  return total;
}

std::vector<Row> shown_rows(const std::vector<Row>& steps, bool by_op, int top) {
  std::vector<Row> rows = by_op ? group_by_op(steps) : steps;
  if (by_op || top > 0) {
    std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.us > b.us; });
  }
  if (top > 0 && rows.size() > static_cast<size_t>(top)) rows.resize(static_cast<size_t>(top));
  return rows;
}

std::vector<std::vector<std::string>> table_of(const std::vector<Row>& rows, double total_us, const PeakRates& peak,
                                               const TableStyle& style) {
  std::vector<std::vector<std::string>> table(1);
  table[0] = {style.time, "share",  "GFLOP/s", "GB/s", "%peak", style.by_op ? "steps" : "step",
              "op", "kernel", "shape"};
  for (const Row& row : rows) {
    const double percent = percent_of_peak(row, peak);
    table.push_back({fmt::format("{:.1f}", row.us),
                     fmt::format("{:.1f}%", total_us > 0 ? 100 * row.us / total_us : 0),
                     row.flops > 0 ? fmt::format("{:.1f}", row.gflops()) : "",
                     row.bytes > 0 ? fmt::format("{:.1f}", row.gbytes()) : "",
                     percent >= 0 ? fmt::format("{:.0f}%", percent) : "",
                     style.by_op ? std::to_string(row.steps) : row.name, row.op,
                     row.kernel.empty() ? "(plain loop)" : row.kernel, row.shape});
  }
  return table;
}

Json rows_json(const std::vector<Row>& rows, double total_us, const PeakRates& peak) {
  Json json = Json::array();
  for (const Row& row : rows) {
    const double percent = percent_of_peak(row, peak);
    Json entry = {{"name", row.name},
                  {"op", row.op},
                  {"kernel", row.kernel},
                  {"regime", row.regime},
                  {"shape", row.shape},
                  {"count", row.steps},
                  {"us", round3(row.us)},
                  {"share", total_us > 0 ? row.us / total_us : 0},
                  {"flops", row.flops},
                  {"bytes", row.bytes},
                  {"gflops", round3(row.gflops())},
                  {"gbytes_per_s", round3(row.gbytes())}};
    if (percent >= 0) entry["percent_of_peak"] = round3(percent);
    json.push_back(std::move(entry));
  }
  return json;
}

std::string density_text(const std::vector<FfnDensity>& layers) {
  std::string text;
  for (const FfnDensity& layer : layers) {
    if (layer.measured < 0) continue;
    text += fmt::format("density {:.1f} % of {} rows{}  {}  {}\n", 100 * layer.measured, layer.rows,
                        layer.expected < 0 ? "" : fmt::format(", {:.1f} % expected", 100 * layer.expected),
                        layer.pattern, layer.name);
  }
  return text;
}

Json density_json(const std::vector<FfnDensity>& layers) {
  Json json = Json::array();
  for (const FfnDensity& layer : layers) {
    Json entry = {{"name", layer.name}, {"pattern", layer.pattern}, {"measured", layer.measured}, {"rows", layer.rows}};
    if (layer.expected >= 0) entry["expected"] = layer.expected;
    json.push_back(entry);
  }
  return json;
}

}  // namespace sprun::tools
