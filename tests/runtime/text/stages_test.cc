// Each normalizer, pre-tokenizer and decoder against the reference implementation
// (tests/runtime/text/make_goldens.py).
#include <gtest/gtest.h>

#include "runtime/text/pipeline.h"
#include "tests/runtime/text/text_data.h"

namespace sprun::text {
namespace {

TEST(TextStages, NormalizersGiveWhatTheReferenceGives) {
  for (const Json& golden : read_json_lines(golden_path("normalizers.jsonl"))) {
    const auto normalizer = make_normalizer(golden["config"], "normalizer");
    ASSERT_TRUE(normalizer.ok()) << normalizer.status().message();
    for (const Json& example : golden["cases"]) {
      std::string text = example[0];
      const Status status = (*normalizer)->apply(&text);
      ASSERT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(text, example[1].get<std::string>())
          << golden["config"].dump().substr(0, 200) << "\n"
          << example.dump(-1, ' ', true);
    }
  }
}

TEST(TextStages, PreTokenizersGiveWhatTheReferenceGives) {
  for (const Json& golden : read_json_lines(golden_path("pre_tokenizers.jsonl"))) {
    const auto pre_tokenizer = make_pre_tokenizer(golden["config"], "pre_tokenizer");
    ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status().message();
    for (const Json& example : golden["cases"]) {
      std::vector<Piece> pieces{{example[0], true}};
      const Status status = (*pre_tokenizer)->apply(&pieces);
      ASSERT_TRUE(status.ok()) << status.message();
      Json texts = Json::array();
      for (const Piece& piece : pieces) texts.push_back(piece.text);
      EXPECT_EQ(texts, example[1]) << golden["config"].dump().substr(0, 200) << "\n"
                                   << example.dump(-1, ' ', true);
    }
  }
}

TEST(TextStages, DecodersGiveWhatTheReferenceGives) {
  for (const Json& golden : read_json_lines(golden_path("decoders.jsonl"))) {
    const auto decoder = make_decoder(golden["config"], "decoder");
    ASSERT_TRUE(decoder.ok()) << decoder.status().message();
    for (const Json& example : golden["cases"]) {
      std::vector<std::string> tokens = example[0];
      const Status status = (*decoder)->apply(&tokens, DecodeMode::kFinal);
      ASSERT_TRUE(status.ok()) << status.message();
      std::string text;
      for (const std::string& token : tokens) text += token;
      EXPECT_EQ(text, example[1].get<std::string>()) << golden["config"].dump() << "\n"
                                                     << example.dump(-1, ' ', true);
    }
  }
}

// The place in the file and what was expected there.
TEST(TextStages, ErrorsNameThePlace) {
  const auto message = [](const char* json) {
    return make_pre_tokenizer(Json::parse(json), "pre_tokenizer").status().message();
  };
  EXPECT_EQ(
      message(
          R"({"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"Split","pattern":{"Regex":"(a"}}]})"),
      "pre_tokenizer.pretokenizers[1].pattern.Regex: regular expression \"(a\", byte 2: missing "
      "closing parenthesis");
  EXPECT_NE(message(R"({"type":"Sequence","pretokenizers":[{"type":"Odd"}]})")
                .find("pre_tokenizer.pretokenizers[0].type: expected one of"),
            std::string::npos);
  EXPECT_EQ(message(R"({"type":"Digits","individual_digits":3})"),
            "pre_tokenizer.individual_digits: expected true or false, got 3");
  EXPECT_EQ(message(R"({"type":"Split","pattern":{"Regex":"[a&&[^b]]"}})"),
            "pre_tokenizer.pattern.Regex: regular expression \"[a&&[^b]]\", byte 2: sets inside [] "
            "are not supported");
  EXPECT_EQ(message("[1]"), "pre_tokenizer: expected an object, got an array of 1");
  EXPECT_EQ(message("{}"), "pre_tokenizer.type: missing");
}

TEST(TextStages, NestingHasALimit) {
  Json value = {{"type", "Digits"}};
  for (int i = 0; i < 1000; ++i)
    value = {{"type", "Sequence"}, {"pretokenizers", Json::array({std::move(value)})}};
  EXPECT_EQ(make_pre_tokenizer(value, "pre_tokenizer").status().code(), Code::kBadModel);
}

TEST(TextStages, PatternsThatBacktrackTooMuchAreAnError) {
  const auto split =
      make_pre_tokenizer(Json::parse(R"({"type":"Split","pattern":{"Regex":"(a+)+b"}})"), "p");
  ASSERT_TRUE(split.ok());
  std::vector<Piece> pieces{{std::string(60, 'a') + "cb", true}};
  EXPECT_EQ((*split)->apply(&pieces).code(), Code::kResourceLimit);
}

}  // namespace
}  // namespace sprun::text
