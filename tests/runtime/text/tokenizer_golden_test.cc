// Whole tokenizers against the reference implementation, and the real ones beside the repository.
#include <gtest/gtest.h>

#include <sstream>

#include "sprun/tokenizer.h"
#include "tests/runtime/text/text_data.h"

namespace sprun {
namespace {

using Ids = std::vector<int64_t>;

Tokenizer load(const std::string& path) {
  auto tokenizer = Tokenizer::load(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return std::move(tokenizer).value();
}

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, GivesWhatTheReferenceGives) {
  const Tokenizer tokenizer = load(golden_path(GetParam()));
  for (const Json& line : read_json_lines(golden_path(GetParam()) + "/golden.jsonl")) {
    const std::string shown = line.dump(-1, ' ', true);
    if (line.contains("text")) {
      const std::string text = line["text"];
      EXPECT_EQ(tokenizer.encode(text).value(), line["ids"].get<Ids>()) << shown;
      EXPECT_EQ(tokenizer.encode(text, false).value(), line["plain"].get<Ids>()) << shown;
    }
    const Ids ids = line["ids"];
    EXPECT_EQ(tokenizer.decode(ids).value(), line["decoded"].get<std::string>()) << shown;
    EXPECT_EQ(tokenizer.decode(ids, false).value(), line["decoded_all"].get<std::string>())
        << shown;
  }
}

// Parts of a stream are the text; only the number of U+FFFD for broken bytes may differ.
TEST_P(TokenizerGolden, StreamsTheSameText) {
  const Tokenizer tokenizer = load(golden_path(GetParam()));
  for (const Json& line : read_json_lines(golden_path(GetParam()) + "/golden.jsonl")) {
    for (const bool skip : {true, false}) {
      const std::string whole = line[skip ? "decoded" : "decoded_all"];
      StreamDecoder stream(tokenizer, {}, skip);
      std::string text;
      for (const int64_t id : line["ids"].get<Ids>()) {
        const std::string part = stream.push(id).value();
        EXPECT_NO_THROW(static_cast<void>(Json(part).dump()));  // each part is UTF-8
        text += part;
      }
      text += stream.flush();
      if (whole.find("\xEF\xBF\xBD") == std::string::npos) {
        EXPECT_EQ(text, whole) << line.dump(-1, ' ', true);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values("gpt2_like", "llama3_like", "roberta_like", "llama2_like",
                                         "gemma_like", "old_bpe", "prefixed_bpe", "bert_like",
                                         "word_level", "t5_like", "unigram_bytes"),
                         [](const auto& param_info) { return std::string(param_info.param); });

void expect_goldens(const Tokenizer& tokenizer, const std::string& path, size_t lines) {
  const std::vector<Json> goldens = read_json_lines(path);
  EXPECT_EQ(goldens.size(), lines);
  for (const Json& line : goldens) {
    EXPECT_EQ(tokenizer.encode(line["text"].get<std::string>()).value(), line["ids"].get<Ids>())
        << line.dump(-1, ' ', true);
  }
}

TEST(RealTokenizer, BertByTokenizerJsonAndByVocab) {
  const std::string folder = shared_path("tokenizers/bert-base-uncased");
  SPRUN_NEEDS_SHARED(folder);
  const Tokenizer by_json = load(folder), by_vocab = load(folder + "/vocab.txt");
  expect_goldens(by_json, folder + "/golden.jsonl", 196);
  expect_goldens(by_vocab, folder + "/golden.jsonl", 196);
  EXPECT_EQ(by_json.vocab_size(), 30522);
  EXPECT_EQ(by_vocab.decode(Ids{101, 2292, 2033, 102}).value(), "let me");
  EXPECT_TRUE(by_vocab.is_special(103));
  EXPECT_FALSE(by_json.bos_id());
}

TEST(RealTokenizer, Gpt2ByPair) {
  const std::string folder = shared_path("tokenizers/gpt2");
  SPRUN_NEEDS_SHARED(folder);
  const Tokenizer tokenizer = load(folder);
  expect_goldens(tokenizer, folder + "/golden.jsonl", 196);
  for (const Json& line : read_json_lines(folder + "/golden.jsonl")) {
    EXPECT_EQ(tokenizer.decode(line["ids"].get<Ids>()).value(), line["text"].get<std::string>());
  }
  EXPECT_EQ(tokenizer.eos_ids(), Ids{50256});
  EXPECT_EQ(tokenizer.encode("a<|endoftext|>b").value(), (Ids{64, 50256, 65}));
  EXPECT_EQ(load(folder + "/merges.txt").vocab_size(), 50257);
}

TEST(RealTokenizer, UnigramByPieceList) {
  const std::string folder = shared_path("models/use-lite");
  SPRUN_NEEDS_SHARED(folder);
  expect_goldens(load(folder), folder + "/tokenizer_golden.jsonl", 210);
}

Ids read_ids(std::istream& in) {
  Ids ids;
  for (int64_t id = 0; in >> id;) ids.push_back(id);
  return ids;
}

TEST(RealTokenizer, Stories260kBothWays) {
  const std::string folder = shared_path("models/stories260k");
  SPRUN_NEEDS_SHARED(folder);
  const Tokenizer tokenizer = load(folder);
  EXPECT_EQ(tokenizer.vocab_size(), 512);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  std::istringstream greedy(read_text(folder + "/expected_greedy.ids.txt"));
  const Ids ids = read_ids(greedy);
  std::string text = read_text(folder + "/expected_greedy.txt");
  text.pop_back();  // the newline at the end of the file
  EXPECT_EQ(tokenizer.decode(ids).value(), text);
  EXPECT_EQ(tokenizer.encode(text).value(), ids);
  StreamDecoder stream(tokenizer, Ids{1});
  std::string streamed;
  for (size_t i = 1; i < ids.size(); ++i) streamed += stream.push(ids[i]).value();
  EXPECT_EQ(streamed + stream.flush(), text);
}

// Stories sampled from a model need not be in the tokens that encoding would choose, so only
// decoding is compared.
TEST(RealTokenizer, Stories260kDecodesSamples) {
  const std::string folder = shared_path("models/stories260k");
  SPRUN_NEEDS_SHARED(folder);
  const Tokenizer tokenizer = load(folder);
  std::istringstream lines(read_text(folder + "/dense_samples.ids.txt"));
  std::string all;
  size_t stories = 0, tokens = 0, chosen = 0;
  for (std::string line; std::getline(lines, line); ++stories) {
    std::istringstream in(line);
    const Ids ids = read_ids(in);
    const std::string text = tokenizer.decode(ids).value();
    const Ids again = tokenizer.encode(text).value();
    EXPECT_EQ(tokenizer.decode(again).value(), text);
    chosen += again == ids;
    tokens += ids.size();
    all += (stories > 0 ? "<|story|>\n" : "") + text + "\n";
  }
  EXPECT_EQ(stories, 120u);
  EXPECT_EQ(tokens, 26166u);
  EXPECT_EQ(all, read_text(folder + "/dense_samples.txt"));
  RecordProperty("stories_in_chosen_tokens", std::to_string(chosen));
}

}  // namespace
}  // namespace sprun
