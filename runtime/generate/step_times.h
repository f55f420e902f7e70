// StepTimes: adds up the step times of the many runs of a generation.
#pragma once

#include <vector>

#include "sprun/session.h"

namespace sprun {

class StepTimes {
 public:
  // What is added from now on goes to `phase`, which must outlive its use here.
  void begin(GenerateProfile::Phase* phase) { phase_ = phase; }
  // Where the executor writes the steps of the next run.
  std::vector<StepProfile>& latest() { return latest_; }
  // Adds the latest run. Plans for different numbers of tokens meet in steps of the same name, op and kernel.
  void add();

 private:
  GenerateProfile::Phase* phase_ = nullptr;
  std::vector<StepProfile> latest_;
};

// The density of what was counted between two readings of the same model's layers.
std::vector<FfnDensity> density_between(const std::vector<FfnDensity>& before, const std::vector<FfnDensity>& after);

}  // namespace sprun
