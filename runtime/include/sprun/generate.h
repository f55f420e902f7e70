// Text generation: options and result of Session::generate.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/export.h"
#include "sprun/sampling.h"
#include "sprun/status.h"

namespace sprun {

// How a session keeps keys and values of past tokens. kInt8: one scale per token and head.
enum class KvType : uint8_t { kF32, kBf16, kInt8 };

SPRUN_API std::string_view kv_type_name(KvType type);
SPRUN_API Result<KvType> parse_kv_type(std::string_view name);  // "f32", "bf16", "int8"; kUsage otherwise

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  SamplingOptions sampling = {};          // greedy; its seed starts anew with each call
  std::vector<int64_t> stop_tokens = {};  // generation ends when one of these comes; it is part of the result
  KvType kv_type = KvType::kF32;
  // Tokens of the prompt that run at once, >= 1; longer prompts run in pieces. Fewer where the context is long: together at
  // most 2^23.
  int64_t prefill_chunk = 512;
  std::stop_token stop = {};                                           // looked at between steps of the plan
  std::optional<std::chrono::steady_clock::time_point> deadline = {};  // likewise
};

enum class FinishReason : uint8_t { kLength, kStopToken, kSink };

struct GenerateResult {
  std::vector<int64_t> tokens;  // new ones only
  FinishReason finish = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  double prefill_ms = 0;        // until the first new token is known
  double decode_ms = 0;         // all further tokens together
  double setup_ms = 0;          // planning and packing of weights, in neither of the two
  int64_t kv_bytes = 0;         // past keys and values of all tokens so far
  int64_t kv_committed_bytes = 0;  // memory taken for them: grows with the tokens, not with the context asked for
  // True if keys and values stay in place in memory of the session and one plan serves every token. Otherwise `why_not` says
  // why each step plans anew for its length.
  bool cached = false;
  std::string why_not;
};

// Gets each new token as soon as it is known; false ends the generation.
using TokenSink = std::function<bool(int64_t token)>;

}  // namespace sprun
