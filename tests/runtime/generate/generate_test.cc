// Session::generate: the same tokens as running the graph step by step, in every way of keeping the past; errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <numeric>

#include "sprun/sprun.h"
#include "tests/runtime/generate/group_query_decoder.h"
#include "tests/runtime/session/generated_model.h"
#include "tests/support/shared_files.h"

namespace sprun {
namespace {

using Ids = std::vector<int64_t>;

Session open(const std::string& path, int threads = 1) {
  return Session::create(Model::load(path).value(), {.num_threads = threads}).value();
}

Ids read_ids(const std::string& path) {
  std::ifstream file(path);
  return {std::istream_iterator<int64_t>(file), std::istream_iterator<int64_t>()};
}

// Logits after the last of `ids`, by one run over all of them: no cache, no steps.
std::vector<float> logits_at_once(Session& session, const Ids& ids) {
  std::vector<NamedTensor> inputs;
  const auto length = static_cast<int64_t>(ids.size());
  for (const TensorSpec& spec : session.model().inputs()) {
    Shape shape{1, length};
    if (spec.name.starts_with("past")) {
      shape = {};
      for (const DimSpec& dim : spec.dims) shape.push_back(dim.value);
      const int batch = shape.rank() == 5 ? 1 : 0;
      shape[batch] = 1;
      shape[batch + 2] = 0;
    }
    Tensor tensor = Tensor::zeros(spec.dtype, shape).value();
    for (int64_t i = 0; !spec.name.starts_with("past") && i < length; ++i) {
      const int64_t x = spec.name == "input_ids" ? ids[static_cast<size_t>(i)] : spec.name == "position_ids" ? i : 1;
      if (spec.dtype == DType::kS64) tensor.mutable_view().as<int64_t>()[i] = x;
      else tensor.mutable_view().as<int32_t>()[i] = static_cast<int32_t>(x);
    }
    inputs.push_back({spec.name, std::move(tensor)});
  }
  bind_all(session, inputs);
  session.run().value();
  const ConstTensorView logits = session.output("logits").value();
  const float* last = logits.as<float>() + logits.num_elements() - logits.shape.back();
  return {last, last + logits.shape.back()};
}

// The greedy choice of every token, each from a run over the whole text before it. Texts where two tokens are nearly equal
// are left out by the caller's seed.
void expect_greedy(Session& session, const Ids& prompt, const Ids& tokens) {
  Ids text = prompt;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<float> logits = logits_at_once(session, text);
    const auto best = std::max_element(logits.begin(), logits.end());
    const float got = logits[static_cast<size_t>(tokens[i])];
    EXPECT_GE(got, *best - 1e-4F * std::max(1.0F, std::abs(*best))) << "token " << i;
    text.push_back(tokens[i]);
  }
}

TEST(Generate, ContinuesARealModelAsItsSourceDoes) {
  SPRUN_NEED_SHARED("models/stories260k");
  const Ids expected = read_ids(shared_file("models/stories260k/expected_greedy.ids.txt"));
  ASSERT_EQ(expected.size(), 258U);
  for (const int threads : {1, 2}) {
    Session session = open(shared_file("models/stories260k/model.onnx"), threads);
    const GenerateResult result = session.generate(Ids{1}, {.max_new_tokens = 256}).value();
    EXPECT_TRUE(result.cached) << result.why_not;
    EXPECT_EQ(result.tokens, Ids(expected.begin() + 1, expected.begin() + 257));
  }
  Session plain = open(shared_file("models/stories260k/model_no_cache.onnx"));
  const GenerateResult result = plain.generate(Ids{1}, {.max_new_tokens = 100}).value();
  EXPECT_FALSE(result.cached);
  EXPECT_NE(result.why_not, "");
  EXPECT_EQ(result.tokens, Ids(expected.begin() + 1, expected.begin() + 101));
}

std::string own_model(const char* kind, const char* file) {
  return std::string(SPRUN_TEST_DATA) + "/../../tools/bytelm/" + kind + "/" + file;
}

TEST(Generate, TheSparkModelOfTheRepositoryWritesEnglish) {
  const std::string path = own_model("spark", "model.onnx");
  Session session = open(path, 2);
  const Tokenizer tokenizer = Tokenizer::load(own_model("spark", "")).value();
  const Ids prompt = tokenizer.encode("The people of the United").value();
  const GenerateResult result = session.generate(prompt, {.max_new_tokens = 48}).value();
  EXPECT_TRUE(result.cached) << result.why_not;
  const std::string text = tokenizer.decode(result.tokens).value();
  EXPECT_EQ(text.substr(0, 7), " States") << text;
  EXPECT_NE(text.find(" the "), std::string::npos) << text;
  Session plain = open(own_model("spark", "model_no_cache.onnx"));
  EXPECT_EQ(plain.generate(prompt, {.max_new_tokens = 12}).value().tokens,
            Ids(result.tokens.begin(), result.tokens.begin() + 12));
}

double total_us(const GenerateProfile::Phase& phase) {
  return std::accumulate(phase.steps.begin(), phase.steps.end(), 0.0,
                         [](double sum, const StepProfile& step) { return sum + step.duration_us; });
}

TEST(Generate, AProfileSaysWhereBothPhasesSpentTheirTime) {
  const Ids prompt = {84, 104, 101, 32, 115, 101, 97};
  const GenerateOptions options{.max_new_tokens = 9, .prefill_chunk = 4};
  for (const char* file : {"model.onnx", "model_no_cache.onnx"}) {
    Session session = open(own_model("spark", file));
    const GenerateResult plain = session.generate(prompt, options).value();
    EXPECT_EQ(session.generate_profile().prefill.runs + session.generate_profile().decode.runs, 0);
    session.set_profiling(true);
    const GenerateResult result = session.generate(prompt, options).value();
    EXPECT_EQ(result.tokens, plain.tokens);
    const GenerateProfile profile = session.generate_profile();
    EXPECT_EQ(profile.prefill.tokens, 7);
    EXPECT_EQ(profile.prefill.runs, 2);
    EXPECT_EQ(profile.decode.tokens, 8);
    EXPECT_EQ(profile.decode.runs, 8);
    for (const auto& [phase, ms] : {std::pair(&profile.prefill, result.prefill_ms), {&profile.decode, result.decode_ms}}) {
      EXPECT_GT(total_us(*phase), 0);
      EXPECT_LE(total_us(*phase), 1000 * ms);
      for (const FfnDensity& layer : phase->ffn) EXPECT_TRUE(layer.rows == 0 || (layer.measured > 0 && layer.measured < 1));
      for (const StepProfile& step : phase->steps) EXPECT_GE(step.bytes, 0) << step.name;
    }
    session.set_profiling(false);
    session.generate(prompt, {.max_new_tokens = 2}).value();
    EXPECT_EQ(session.generate_profile().decode.runs, 8);
  }
}

TEST(Generate, ASeedFixesWhatIsDrawn) {
  Session one = open(own_model("dense", "model.onnx"), 1), two = open(own_model("dense", "model.onnx"), 2);
  GenerateOptions options{.max_new_tokens = 40, .sampling = {.temperature = 1.0F, .top_p = 0.95F, .seed = 11}};
  const Ids prompt = {84, 104, 101, 32};
  const Ids first = one.generate(prompt, options).value().tokens;
  EXPECT_EQ(one.generate(prompt, options).value().tokens, first);
  EXPECT_EQ(two.generate(prompt, options).value().tokens, first);
  options.sampling.seed = 12;
  EXPECT_NE(one.generate(prompt, options).value().tokens, first);
  options.sampling.temperature = -1;
  EXPECT_EQ(one.generate(prompt, options).status().code(), Code::kUsage);
}

class EveryDecoder : public testing::TestWithParam<const char*> {};

TEST_P(EveryDecoder, GivesWhatOneRunOverTheWholeTextGives) {
  SPRUN_NEED_SHARED(std::string("models/") + GetParam());
  Session session = open(shared_file(std::string("models/") + GetParam()));
  const Ids prompt = {5, 17, 3, 99, 42, 8};
  const GenerateResult result = session.generate(prompt, {.max_new_tokens = 24}).value();
  EXPECT_EQ(result.tokens.size(), 24U);
  expect_greedy(session, prompt, result.tokens);
  const GenerateResult pieces = session.generate(prompt, {.max_new_tokens = 24, .prefill_chunk = 4}).value();
  EXPECT_EQ(pieces.tokens, result.tokens);
}

INSTANTIATE_TEST_SUITE_P(Shared, EveryDecoder,
                         testing::Values("stories260k/model.onnx", "exported-random/gpt2-past-op13/model.onnx",
                                         "exported-random/gemma-like-past-op14/model.onnx"));

modelgen::Config with_cache(const std::string& preset) {
  modelgen::Config config = modelgen::preset(preset).value();
  config.past = true;
  return config;
}

class Generated : public testing::TestWithParam<const char*> {};

TEST_P(Generated, GivesWhatOneRunOverTheWholeTextGives) {
  const GeneratedModel model(with_cache(GetParam()));
  Session session = open(model.path(), 2);
  const Ids prompt = {5, 17, 3, 99, 42, 8, 1};
  const GenerateResult result = session.generate(prompt, {.max_new_tokens = 16}).value();
  EXPECT_TRUE(result.cached) << result.why_not;
  EXPECT_GT(result.kv_bytes, 0);
  expect_greedy(session, prompt, result.tokens);
  for (const int64_t chunk : {1, 3}) {
    const auto pieces = session.generate(prompt, {.max_new_tokens = 16, .prefill_chunk = chunk}).value();
    EXPECT_EQ(pieces.tokens, result.tokens) << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Presets, Generated, testing::Values("gpt2-mini", "llama-mini", "spark-mini", "topk-mini", "reglu-mini"));

TEST(GenerateContrib, NodesThatHoldThePastKeepItInPlace) {
  std::vector<GroupQueryConfig> configs(6);
  configs[1].packed = true;
  configs[2].rotary = false;
  configs[3].window = 4;
  configs[4].kv_heads = 4;
  configs[5].fused = true;
  for (size_t i = 0; i < configs.size(); ++i) {
    SCOPED_TRACE(i);
    const GeneratedModel model(GroupQueryDecoder(configs[i]).graph());
    Session session = open(model.path());
    const Ids prompt = {5, 17, 3, 49, 42, 8};
    const GenerateResult result = session.generate(prompt, {.max_new_tokens = 12}).value();
    EXPECT_TRUE(result.cached) << result.why_not;
    expect_greedy(session, prompt, result.tokens);
    const auto pieces = session.generate(prompt, {.max_new_tokens = 12, .prefill_chunk = 2}).value();
    EXPECT_EQ(pieces.tokens, result.tokens);
  }
}

// Rounded keys and values change logits by little; whole texts may part ways where two tokens are nearly equal.
TEST(GenerateKv, SmallerTypesOfTheCacheTakeLessMemoryAndChooseMostlyTheSame) {
  const GeneratedModel model(with_cache("llama-mini"));
  Session session = open(model.path(), 2);
  const Ids prompt = {5, 17, 3, 99, 42, 8, 1};
  const GenerateResult exact = session.generate(prompt, {.max_new_tokens = 16}).value();
  for (const KvType type : {KvType::kBf16, KvType::kInt8}) {
    const auto result = session.generate(prompt, {.max_new_tokens = 16, .kv_type = type}).value();
    EXPECT_TRUE(result.cached) << result.why_not;
    EXPECT_LT(result.kv_bytes, exact.kv_bytes * 6 / 10);
    EXPECT_EQ(result.tokens[0], exact.tokens[0]);
    EXPECT_EQ(session.generate(prompt, {.max_new_tokens = 16, .kv_type = type}).value().tokens, result.tokens);
  }
}

class GenerateLimits : public testing::Test {
 protected:
  GenerateLimits() : model_(with_cache("spark-mini")), session_(open(model_.path())) {}
  GeneratedModel model_;
  Session session_;
  const Ids prompt_ = {1, 2, 3};
};

TEST_F(GenerateLimits, StopsAtAStopTokenOrWhenTheSinkSaysSo) {
  const Ids all = session_.generate(prompt_, {.max_new_tokens = 8}).value().tokens;
  const auto stopped = session_.generate(prompt_, {.max_new_tokens = 8, .stop_tokens = {all[2]}}).value();
  EXPECT_EQ(stopped.finish, FinishReason::kStopToken);
  EXPECT_EQ(stopped.tokens.back(), all[2]);
  Ids seen;
  const auto sunk = session_.generate(prompt_, {.max_new_tokens = 8}, [&](int64_t token) {
    seen.push_back(token);
    return seen.size() < 4;
  }).value();
  EXPECT_EQ(sunk.finish, FinishReason::kSink);
  EXPECT_EQ(seen, Ids(all.begin(), all.begin() + 4));
  EXPECT_EQ(sunk.tokens, seen);
}

TEST_F(GenerateLimits, ACancelledRunEndsWithinAToken) {
  std::stop_source source;
  int count = 0;
  const auto result = session_.generate(prompt_, {.max_new_tokens = 1000, .stop = source.get_token()}, [&](int64_t) {
    if (++count == 3) source.request_stop();
    return true;
  });
  EXPECT_EQ(result.status().code(), Code::kCancelled);
  EXPECT_EQ(count, 3);
  EXPECT_TRUE(session_.generate(prompt_, {.max_new_tokens = 2}).ok());
}

TEST_F(GenerateLimits, SaysWhatIsWrong) {
  EXPECT_EQ(session_.generate(Ids{}).status().code(), Code::kUsage);
  EXPECT_EQ(session_.generate(prompt_, {.max_new_tokens = 0}).status().code(), Code::kUsage);
  EXPECT_EQ(session_.generate(prompt_, {.prefill_chunk = 0}).status().code(), Code::kUsage);
  const Status unknown = session_.generate(Ids{1, 1 << 30}).status();
  EXPECT_EQ(unknown.code(), Code::kBadInput);
  EXPECT_NE(unknown.message().find("token 1 of the prompt is 1073741824"), std::string::npos) << unknown.message();
  EXPECT_EQ(session_.generate(Ids{-1}).status().code(), Code::kBadInput);
}

TEST(GenerateErrors, APromptLongerThanTheContextIsRefused) {
  SPRUN_NEED_SHARED("models/exported-random/gpt2-past-op13");
  Session session = open(shared_file("models/exported-random/gpt2-past-op13/model.onnx"));
  const Status status = session.generate(Ids(100000, 1)).status();
  EXPECT_EQ(status.code(), Code::kBadInput);
  EXPECT_NE(status.message().find("does not take"), std::string::npos) << status.message();
  EXPECT_TRUE(session.generate(Ids{1}, {.max_new_tokens = 4}).ok());
}

TEST(GenerateErrors, AStateThatNoOutputCarriesOnIsNamed) {
  GroupQueryConfig config;
  config.presents = false;
  const GeneratedModel model(GroupQueryDecoder(config).graph());
  const Status status = open(model.path()).generate(Ids{1}).status();
  EXPECT_EQ(status.code(), Code::kBadModel);
  EXPECT_NE(status.message().find("past_key_values.0.key"), std::string::npos) << status.message();
}

TEST(GenerateErrors, LogitsThatAreNoNumbersAreNamed) {
  GroupQueryConfig config;
  config.finite = false;
  const GeneratedModel model(GroupQueryDecoder(config).graph());
  const Status status = open(model.path()).generate(Ids{1}).status();
  EXPECT_EQ(status.code(), Code::kBadInput);
  EXPECT_NE(status.message().find('7'), std::string::npos) << status.message();
}

TEST(GenerateErrors, AModelThatIsNoDecoderSaysWhy) {
  const GeneratedModel model("bert-mini");
  const Status status = open(model.path()).generate(Ids{1}).status();
  EXPECT_EQ(status.code(), Code::kBadModel);
  EXPECT_NE(status.message().find("logits"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace sprun
