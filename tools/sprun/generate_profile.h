// What `generate --profile` says: where the time of a token went, for the prompt and for the tokens after it.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "sprun/session.h"
#include "tools/sprun/peak.h"

namespace sprun::tools {

struct ProfileStyle {
  bool by_op = false;
  int top = 0;  // only the slowest; 0: all
};

std::string to_text(const GenerateProfile& profile, const PeakRates& peak, const ProfileStyle& style);
// {"peak", "prefill": {"tokens", "runs", "us_per_token", "steps" or "ops", "ffn_density"}, "decode": the same}
nlohmann::ordered_json to_json(const GenerateProfile& profile, const PeakRates& peak, const ProfileStyle& style);

}  // namespace sprun::tools
