// sprun generate: continues a text or a token sequence with a decoder model.
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/io/npy.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

struct GenerateArgs {
  ModelArgs model;
  std::vector<int64_t> tokens, stop_tokens;
  std::string tokens_file, kv = "f32", json;
  int64_t max_new_tokens = 128, prefill_chunk = 512;
  double deadline_ms = 0;
  int threads = 0;
  bool explain = false;
};

Result<std::vector<int64_t>> read_token_file(const std::string& path) {
  SPRUN_ASSIGN(const Tensor tensor, read_npy(path));
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    if (tensor.dtype() == DType::kS64) {
      tokens.push_back(tensor.as<int64_t>()[i]);
    } else if (tensor.dtype() == DType::kS32) {
      tokens.push_back(tensor.as<int32_t>()[i]);
    } else {
      return Status(Code::kBadInput, fmt::format("{}: tokens are {}, expected int64 or int32", path,
                                                 dtype_name(tensor.dtype())));
    }
  }
  return tokens;
}

Result<std::vector<int64_t>> read_prompt(const GenerateArgs& args) {
  if (args.tokens.empty() == args.tokens_file.empty()) {
    return Status(Code::kUsage, "expected one of --tokens and --tokens-file");
  }
  if (!args.tokens.empty()) return args.tokens;
  return read_token_file(args.tokens_file);
}

double tokens_per_second(double tokens, double ms) { return ms > 0 ? 1000.0 * tokens / ms : 0; }

std::string_view finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength: return "length";
    case FinishReason::kStopToken: return "stop token";
    case FinishReason::kSink: return "stopped";
  }
  return "unknown";
}

double prefill_rate(const GenerateResult& result) {
  return tokens_per_second(static_cast<double>(result.prompt_tokens), result.prefill_ms);
}

double decode_rate(const GenerateResult& result) {
  return tokens_per_second(static_cast<double>(result.tokens.size()) - 1, result.decode_ms);
}

std::string summary(const GenerateArgs& args, const GenerateResult& result, int threads) {
  std::string text = fmt::format(
      "prefill  {} tokens  {:.1f} tokens/s  {:.2f} ms\n"
      "decode   {} tokens  {:.1f} tokens/s  {:.2f} ms  (end: {})\n"
      "memory   {:.1f} KiB of keys and values ({}), {}\n"
      "setup    {:.1f} ms  {} thread{}, {}, {}\n",
      result.prompt_tokens, prefill_rate(result), result.prefill_ms, result.tokens.size(), decode_rate(result),
      result.decode_ms, finish_name(result.finish), static_cast<double>(result.kv_bytes) / 1024.0, args.kv,
      result.cached ? "kept in place" : "planned anew for each length", result.setup_ms, threads,
      threads == 1 ? "" : "s", args.model.precision, isa_in_use());
  if (!result.cached) text += "note     " + result.why_not + "\n";
  return text;
}

Json to_json(const GenerateArgs& args, const GenerateResult& result, int threads) {
  return {{"model", args.model.path},
          {"precision", args.model.precision},
          {"isa", isa_in_use()},
          {"threads", threads},
          {"prompt_tokens", result.prompt_tokens},
          {"tokens", result.tokens},
          {"finish", finish_name(result.finish)},
          {"prefill_ms", result.prefill_ms},
          {"prefill_tokens_per_s", prefill_rate(result)},
          {"decode_ms", result.decode_ms},
          {"decode_tokens_per_s", decode_rate(result)},
          {"setup_ms", result.setup_ms},
          {"kv_type", args.kv},
          {"kv_bytes", result.kv_bytes},
          {"cached", result.cached},
          {"why_not_cached", result.why_not}};
}

Status generate(const GenerateArgs& args) {
  std::vector<int64_t> prompt;
  if (!args.explain) {
    SPRUN_ASSIGN(prompt, read_prompt(args));
  }
  GenerateOptions options;
  options.max_new_tokens = args.max_new_tokens;
  options.stop_tokens = args.stop_tokens;
  options.prefill_chunk = args.prefill_chunk;
  options.stop = stop_token();
  SPRUN_ASSIGN(options.kv_type, parse_kv_type(args.kv));
  SPRUN_ASSIGN(const Loaded loaded, load_model(args.model));
  SPRUN_ASSIGN(Session session, Session::create(loaded.model, {.num_threads = args.threads}));
  if (args.explain) {
    SPRUN_ASSIGN(const std::string text, session.explain_generate(options));
    return print(text);
  }
  if (args.deadline_ms > 0) {
    options.deadline = std::chrono::steady_clock::now() +
                       std::chrono::microseconds(static_cast<int64_t>(1000 * args.deadline_ms));
  }
  const bool stream = args.json != "-";
  Status written;
  const auto show = [&](int64_t token) {
    if (stream) written = print(fmt::format("{} ", token));
    return written.ok();
  };
  const auto result = session.generate(prompt, options, show);
  if (stream) SPRUN_TRY(print("\n"));
  SPRUN_TRY(written);
  SPRUN_TRY(result.status());
  if (stream) message(summary(args, *result, session.num_threads()));
  if (!args.json.empty()) return write_json(args.json, to_json(args, *result, session.num_threads()));
  return {};
}

}  // namespace

Action setup_generate(CLI::App& app) {
  auto args = std::make_shared<GenerateArgs>();
  add_model_options(app, args->model);
  app.add_option("--tokens", args->tokens, "The prompt as token ids: 1,2,3")->delimiter(',');
  app.add_option("--tokens-file", args->tokens_file, "The prompt as token ids: FILE.npy of int64 or int32");
  app.add_option("--max-new-tokens", args->max_new_tokens, "Most tokens to generate")->check(CLI::PositiveNumber);
  app.add_option("--stop-tokens", args->stop_tokens, "End after one of these tokens")->delimiter(',');
  app.add_option("--kv", args->kv, "Type of cached keys and values: f32, bf16 or int8");
  app.add_option("--prefill-chunk", args->prefill_chunk, "Tokens of the prompt that run at once")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")->check(CLI::Range(0, 1024));
  app.add_option("--deadline", args->deadline_ms, "Give up after this many milliseconds (exit code 7)")
      ->check(CLI::PositiveNumber);
  app.add_flag("--explain", args->explain, "Print how a step of one token runs, instead of generating");
  app.add_option("--json", args->json, "Write tokens and figures as JSON to FILE, or - for standard output");
  return [args] { return generate(*args); };
}

}  // namespace sprun::tools
