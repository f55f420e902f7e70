#include "runtime/generate/step_times.h"

#include <algorithm>
#include <cstddef>

namespace sprun {

namespace {

bool same_step(const StepProfile& a, const StepProfile& b) {
  return a.name == b.name && a.op == b.op && a.kernel == b.kernel;
}

}  // namespace

void StepTimes::add() {
  std::vector<StepProfile>& steps = phase_->steps;
  ++phase_->runs;
  for (size_t s = 0; s < latest_.size(); ++s) {
    const StepProfile& step = latest_[s];
    // Nearly always the same plan as before: the same place.
    auto at = s < steps.size() && same_step(steps[s], step) ? steps.begin() + static_cast<std::ptrdiff_t>(s) : steps.end();
    if (at == steps.end() && phase_->runs > 1) {
      at = std::find_if(steps.begin(), steps.end(), [&](const StepProfile& other) { return same_step(other, step); });
    }
    if (at == steps.end()) {
      steps.push_back(step);
      continue;
    }
    at->shape = step.shape;
    at->duration_us += step.duration_us;
    at->flops += step.flops;
    at->bytes += step.bytes;
  }
}

std::vector<FfnDensity> density_between(const std::vector<FfnDensity>& before, const std::vector<FfnDensity>& after) {
  std::vector<FfnDensity> layers = after;
  for (size_t i = 0; i < std::min(before.size(), after.size()); ++i) {
    const int64_t rows = after[i].rows - before[i].rows;
    const auto sum = [](const FfnDensity& layer) { return layer.measured * static_cast<double>(layer.rows); };
    layers[i].measured = rows > 0 ? (sum(after[i]) - sum(before[i])) / static_cast<double>(rows) : -1;
    layers[i].rows = rows;
  }
  return layers;
}

}  // namespace sprun
