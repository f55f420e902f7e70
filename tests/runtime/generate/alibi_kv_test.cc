// Decoders with ALiBi, keys and values kept as f32, bf16 and int8: given the same text before it, the first choice of nearly
// every step is that of a run in f32 over the whole text.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "sprun/sprun.h"
#include "tests/runtime/generate/alibi_decoder.h"
#include "tests/runtime/session/generated_model.h"

namespace sprun {
namespace {

using Ids = std::vector<int64_t>;

// The first choice after `ids`, by one run over all of them without a past.
int64_t choice_at_once(Session& session, const Ids& ids) {
  std::vector<NamedTensor> inputs;
  for (const TensorSpec& spec : session.model().inputs()) {
    if (spec.name.starts_with("past")) {
      inputs.push_back({spec.name, Tensor::zeros(DType::kF32, {1, spec.dims[1].value, 0, spec.dims[3].value}).value()});
      continue;
    }
    Tensor tensor = Tensor::allocate(DType::kS64, {1, static_cast<int64_t>(ids.size())}).value();
    for (size_t i = 0; i < ids.size(); ++i) tensor.mutable_view().as<int64_t>()[i] = spec.name == "input_ids" ? ids[i] : 1;
    inputs.push_back({spec.name, std::move(tensor)});
  }
  bind_all(session, inputs);
  session.run().value();
  const ConstTensorView logits = session.output("logits").value();
  const float* end = logits.as<float>() + logits.num_elements();
  const float* begin = end - logits.shape.back();
  return std::max_element(begin, end) - begin;
}

class AlibiKv : public testing::TestWithParam<AlibiDecoder::Form> {};

TEST_P(AlibiKv, ChoosesAsFloat32DoesGivenTheSameText) {
  const GeneratedModel model(AlibiDecoder(GetParam()).graph());
  Session session = Session::create(Model::load(model.path()).value(), {.num_threads = 1}).value();
  Session whole = Session::create(Model::load(model.path()).value(), {.num_threads = 1}).value();
  const GeneratedModel flat_model(AlibiDecoder(GetParam(), 0).graph());
  Session flat = Session::create(Model::load(flat_model.path()).value(), {.num_threads = 1}).value();
  const Ids prompts[] = {{5, 17, 3, 49, 42, 8}, {90, 1, 33}, {7, 7, 61, 12, 2, 80, 44, 29, 30}};
  constexpr int kTokens = 64;
  for (const KvType type : {KvType::kF32, KvType::kBf16, KvType::kInt8}) {
    int same = 0, without_slopes = 0, steps = 0;
    std::set<int64_t> seen;
    for (const Ids& prompt : prompts) {
      const GenerateResult result = session.generate(prompt, {.max_new_tokens = kTokens, .kv_type = type}).value();
      ASSERT_TRUE(result.cached) << result.why_not;
      ASSERT_EQ(result.tokens.size(), kTokens);
      Ids text = prompt;
      for (const int64_t token : result.tokens) {
        same += choice_at_once(whole, text) == token;
        without_slopes += choice_at_once(flat, text) == token;
        ++steps;
        seen.insert(token);
        text.push_back(token);
      }
    }
    EXPECT_GE(seen.size(), 8) << "a text that says nothing";
    EXPECT_GE(same * 100, steps * (type == KvType::kF32 ? 100 : 95)) << same << " of " << steps << ", type " << static_cast<int>(type);
    EXPECT_LT(without_slopes * 100, steps * 90) << "the slopes hardly matter here";
    RecordProperty("without_slopes", without_slopes);
    RecordProperty("same_" + std::to_string(static_cast<int>(type)), same);
  }
}

// The table of positions has 73 MiB: the past is still kept in place, and every step costs the same.
TEST(LongContext, TablesOfPositionsMayBeLarge) {
  const GeneratedModel model(AlibiDecoder(AlibiDecoder::Form::kSines).graph());
  Session session = Session::create(Model::load(model.path()).value(), {.num_threads = 1}).value();
  Session whole = Session::create(Model::load(model.path()).value(), {.num_threads = 1}).value();
  const Ids prompt = {5, 17, 3, 49, 42, 8};
  const Ids expected = session.generate(prompt, {.max_new_tokens = 12}).value().tokens;
  const GenerateResult result = session.generate(prompt, {.max_new_tokens = 300000, .stop_tokens = {expected.back()}}).value();
  EXPECT_TRUE(result.cached) << result.why_not;
  Ids text = prompt;
  for (const int64_t token : result.tokens) {
    EXPECT_EQ(choice_at_once(whole, text), token);
    text.push_back(token);
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, AlibiKv, testing::Values(AlibiDecoder::Form::kBloom, AlibiDecoder::Form::kMpt),
                         [](const auto& form) { return form.param == AlibiDecoder::Form::kBloom ? "Bloom" : "Mpt"; });

}  // namespace
}  // namespace sprun
