#include "tools/sprun/generate_profile.h"

#include <vector>

#include <fmt/format.h>

#include "tools/sprun/console.h"
#include "tools/sprun/stats.h"
#include "tools/sprun/step_table.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

// Means of a token.
std::vector<Row> rows_of(const GenerateProfile::Phase& phase) {
  std::vector<Row> rows;
  const double part = phase.tokens > 0 ? 1.0 / static_cast<double>(phase.tokens) : 0;
  for (const StepProfile& p : phase.steps) {
    rows.push_back({p.name, p.op, p.kernel, p.regime, p.shape, 1, part * p.duration_us, part * p.flops, part * p.bytes});
  }
  return rows;
}

std::string phase_text(std::string_view name, const GenerateProfile::Phase& phase, const PeakRates& peak,
                       const ProfileStyle& style) {
  if (phase.tokens == 0) return fmt::format("{}: no token\n", name);
  const std::vector<Row> steps = rows_of(phase);
  const double total_us = total_time(steps);
  return fmt::format("{}: {} tokens in {} runs, {:.1f} us of steps a token\n", name, phase.tokens, phase.runs, total_us) +
         format_table(table_of(shown_rows(steps, style.by_op, style.top), total_us, peak,
                               {.by_op = style.by_op, .time = "us/token"})) +
         density_text(phase.ffn);
}

Json phase_json(const GenerateProfile::Phase& phase, const PeakRates& peak, const ProfileStyle& style) {
  const std::vector<Row> steps = rows_of(phase);
  const double total_us = total_time(steps);
  return {{"tokens", phase.tokens},
          {"runs", phase.runs},
          {"us_per_token", round3(total_us)},
          {style.by_op ? "ops" : "steps", rows_json(shown_rows(steps, style.by_op, style.top), total_us, peak)},
          {"ffn_density", density_json(phase.ffn)}};
}

}  // namespace

std::string to_text(const GenerateProfile& profile, const PeakRates& peak, const ProfileStyle& style) {
  return phase_text("prefill", profile.prefill, peak, style) + "\n" + phase_text("decode", profile.decode, peak, style) +
         "peak  " + to_text(peak) + "\n";
}

Json to_json(const GenerateProfile& profile, const PeakRates& peak, const ProfileStyle& style) {
  return {{"peak", to_json(peak)},
          {"prefill", phase_json(profile.prefill, peak, style)},
          {"decode", phase_json(profile.decode, peak, style)}};
}

}  // namespace sprun::tools
