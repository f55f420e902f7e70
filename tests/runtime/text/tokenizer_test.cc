// Tokenizer: files of every kind, special tokens, streams, broken files, threads.
#include "sprun/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "tests/runtime/text/text_data.h"
#include "tests/support/own_path.h"

namespace sprun {
namespace {

using Ids = std::vector<int64_t>;

class TokenizerFiles : public testing::Test {
 protected:
  TokenizerFiles() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~TokenizerFiles() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << bytes;
  }
  Result<Tokenizer> load(const std::string& name = "") const {
    return Tokenizer::load(folder_ + "/" + name);
  }
  Status load_json(const std::string& json) const {
    write("tokenizer.json", json);
    return load("tokenizer.json").status();
  }

  std::string folder_ = testing_support::own_path("tokenizer");
};

std::string random_text(std::mt19937* rng, size_t length) {
  constexpr std::pair<int, int> kRanges[] = {{1, 0x7F},        {0x20, 0x7E},
                                             {0x80, 0x7FF},    {0x800, 0xD7FF},
                                             {0xE000, 0xFFFD}, {0x10000, 0x10FFFF}};
  std::string text;
  for (size_t i = 0; i < length; ++i) {
    const auto [low, high] = kRanges[(*rng)() % std::size(kRanges)];
    const auto c = static_cast<unsigned>(std::uniform_int_distribution<int>(low, high)(*rng));
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else if (c < 0x800) {
      text += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    } else if (c < 0x10000) {
      text += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
               static_cast<char>(0x80 | (c & 0x3F))};
    } else {
      text += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
               static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    }
  }
  return text;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int64_t id : ids) text += stream.push(id).value();
  return text + stream.flush();
}

// Vocabularies that can express every byte give back every text, whole and as a stream.
TEST_F(TokenizerFiles, RandomTextsSurvive) {
  std::mt19937 rng(20);
  std::vector<Tokenizer> tokenizers = {Tokenizer::bytes()};
  for (const char* name : {"gpt2_like", "llama3_like", "llama2_like", "gemma_like"}) {
    tokenizers.push_back(Tokenizer::load(golden_path(name)).value());
  }
  for (int i = 0; i < 100; ++i) {
    const std::string text = random_text(&rng, static_cast<size_t>(i));
    for (const Tokenizer& tokenizer : tokenizers) {
      if (text.find("new") != std::string::npos || text.find("\xE2\x96\x81") != std::string::npos)
        continue;
      const Ids ids = tokenizer.encode(text).value();
      EXPECT_EQ(tokenizer.decode(ids).value(), text) << tokenizer.description();
      EXPECT_EQ(streamed(tokenizer, ids), text) << tokenizer.description();
    }
  }
}

TEST_F(TokenizerFiles, BytesKeepEverythingAndDecodeToUtf8) {
  const Tokenizer tokenizer = Tokenizer::bytes();
  EXPECT_EQ(tokenizer.vocab_size(), 256);
  EXPECT_EQ(tokenizer.encode("a\xFF\x80").value(), (Ids{97, 255, 128}));
  EXPECT_EQ(tokenizer.decode(Ids{97, 0xE2, 0x82, 98, 0xE2}).value(),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  EXPECT_EQ(tokenizer.id_to_token(65), "<0x41>");
  EXPECT_FALSE(tokenizer.id_to_token(256));
  EXPECT_FALSE(tokenizer.id_to_token(-1));
  EXPECT_EQ(Tokenizer::load("bytes").value().vocab_size(), 256);
  write(
      "tokenizer.json",
      R"({"model":{"type":"ByteLevelIds"},"added_tokens":[{"id":256,"content":"<end>","special":true}]})");
  const Tokenizer named = load().value();
  EXPECT_EQ(named.encode("h<end>\xF0").value(), (Ids{104, 256, 240}));
  EXPECT_EQ(named.vocab_size(), 257);
  EXPECT_EQ(load_json(R"({"model":{"type":"ByteLevelIds"},"normalizer":{"type":"NFC"}})").code(),
            Code::kBadModel);
}

TEST_F(TokenizerFiles, StreamHoldsBackBegunCharacters) {
  StreamDecoder stream(Tokenizer::bytes());
  EXPECT_EQ(stream.push('a').value(), "a");
  EXPECT_EQ(stream.push(0xF0).value(), "");
  EXPECT_EQ(stream.push(0x9F).value(), "");
  EXPECT_EQ(stream.push(256).status().code(), Code::kBadInput);
  EXPECT_EQ(stream.push(0x98).value(), "");
  EXPECT_EQ(stream.push(0x80).value(), "\xF0\x9F\x98\x80");
  EXPECT_EQ(stream.push(0xE2).value(), "");
  EXPECT_EQ(stream.push('b').value(),
            "\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(stream.push(0xC3).value(), "");
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.flush(), "");
}

// The first word of a text has no space before it; a word after a prompt has.
TEST_F(TokenizerFiles, StreamContinuesItsContext) {
  for (const char* name : {"llama2_like", "t5_like", "bert_like", "old_bpe"}) {
    const Tokenizer tokenizer = Tokenizer::load(golden_path(name)).value();
    const Ids prompt = tokenizer.encode("the shells", false).value(),
              more = tokenizer.encode("the", false).value();
    StreamDecoder alone(tokenizer), after(tokenizer, prompt);
    std::string first, second;
    for (const int64_t id : more) {
      first += alone.push(id).value();
      second += after.push(id).value();
    }
    EXPECT_EQ(first, "the") << name;
    EXPECT_EQ(second, " the") << name;
  }
}

TEST_F(TokenizerFiles, UnknownIdsAreNamed) {
  const auto text = Tokenizer::bytes().decode(Ids{1, 2, 999});
  EXPECT_EQ(text.status().code(), Code::kBadInput);
  EXPECT_EQ(text.status().message(), "ids[2]: expected a token of the vocabulary, got 999");
}

TEST_F(TokenizerFiles, BrokenUtf8CountsAsReplacementCharacters) {
  const Tokenizer tokenizer = Tokenizer::load(golden_path("llama3_like")).value();
  EXPECT_EQ(tokenizer.encode("a\xC3(").value(), tokenizer.encode("a\xEF\xBF\xBD(").value());
}

TEST_F(TokenizerFiles, SpecialIdsComeFromConfigurationOrNames) {
  const std::string model = read_text(golden_path("llama3_like/tokenizer.json"));
  write("tokenizer.json", model);
  EXPECT_EQ(load().value().bos_id(), 0);
  EXPECT_EQ(load().value().eos_ids(), Ids{1});
  write("tokenizer_config.json",
        R"({"bos_token":{"content":"</s>"},"eos_token":"a","chat_template":[]})");
  write("generation_config.json", R"({"eos_token_id":[5,1]})");
  const Tokenizer named = load().value();
  EXPECT_EQ(named.bos_id(), 1);
  EXPECT_EQ(named.eos_ids(), (Ids{named.token_to_id("a").value(), 5, 1}));
  write("tokenizer_config.json", "{");
  EXPECT_EQ(load().status().code(), Code::kBadModel);
}

TEST_F(TokenizerFiles, BertVocabKnowsItsCase) {
  write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\nh\n##i\n");
  EXPECT_EQ(load().value().encode("Hello hi [SEP]").value(), (Ids{2, 4, 5, 6, 3, 3}));
  write("tokenizer_config.json", R"({"do_lower_case":false})");
  EXPECT_EQ(load().value().encode("Hello").value(), (Ids{2, 1, 3}));
  write("vocab.txt", "hello\nworld\n");
  EXPECT_EQ(load().status().code(), Code::kBadModel);
}

TEST_F(TokenizerFiles, Gpt2PairNeedsBothFiles) {
  write("vocab.json", R"({"a":0,"b":1,"ab":2,"model":3})");
  EXPECT_EQ(load().status().code(), Code::kBadModel);
  write("merges.txt", "#version: 0.2\na b\n");
  EXPECT_EQ(load().value().encode("abba").value(), (Ids{2, 1, 0}));
  write("merges.txt", "a b\na c\n");
  EXPECT_NE(
      load().status().message().find("merges.txt: line 2: token \"c\" is not in the vocabulary"),
      std::string::npos)
      << load().status().message();
}

TEST_F(TokenizerFiles, MissingFilesAreBadInput) {
  EXPECT_EQ(load().status().code(), Code::kBadInput);
  EXPECT_EQ(load("absent.json").status().code(), Code::kBadInput);
  EXPECT_EQ(Tokenizer::load(golden_path("normalizers.jsonl")).status().code(), Code::kBadInput);
}

TEST_F(TokenizerFiles, MessagesNameThePlace) {
  const auto ends_with = [this](const std::string& json, const std::string& end) {
    const Status status = load_json(json);
    EXPECT_EQ(status.code(), Code::kBadModel) << json;
    EXPECT_TRUE(status.message().ends_with(end)) << status.message();
  };
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}})",
            "model.merges[0]: token \"b\" is not in the vocabulary");
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[7]}})",
            "model.merges[0]: expected \"a b\" or [\"a\", \"b\"], got 7");
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})",
            "model.vocab[\"a\"]: expected an id from 0 to 4194303, got -1");
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":99999999999},"merges":[]}})", "got 99999999999");
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"u"}})",
            "model: unk_token \"u\" is not in the vocabulary");
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1}})", "got 0.1");
  ends_with(R"({"model":{"type":"Unigram","vocab":[["a",0]],"unk_id":3}})", "got 1");
  ends_with(
      R"({"model":{"type":"Odd"}})",
      "model.type: expected one of BPE, ByteLevelIds, Unigram, WordLevel, WordPiece, got \"Odd\"");
  ends_with(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"added_tokens":[{"id":1}]})",
            "added_tokens[0].content: missing");
  ends_with(
      R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"post_processor":{"type":"BertProcessing","cls":["a",0],"sep":["b",9]}})",
      "post_processor: id 9 is no token of the vocabulary");
}

// Damaged files are errors or other tokenizers, never a crash.
TEST_F(TokenizerFiles, DamagedFilesDoNotCrash) {
  std::mt19937 rng(21);
  const std::string text = "The quick <s> brown f\xC3\xB6x new 123 \xE6\x9D\xB1";
  for (const char* name : {"gpt2_like", "llama2_like", "t5_like", "bert_like"}) {
    const std::string good = read_text(golden_path(name) + "/tokenizer.json");
    for (int i = 0; i < 60; ++i) {
      std::string bad = good;
      const size_t at = rng() % bad.size();
      if (i % 3 == 0) {
        bad.resize(at);
      } else if (i % 3 == 1) {
        bad[at] = "{}[],:\"0-e\\"[rng() % 11];
      } else {
        bad.erase(at, 1 + rng() % 40);
      }
      write("tokenizer.json", bad);
      const auto tokenizer = load();
      if (!tokenizer.ok()) continue;
      const auto ids = tokenizer->encode(text);
      if (ids.ok()) static_cast<void>(streamed(*tokenizer, *ids));
    }
  }
}

std::string llama2c_piece(float score, const std::string& piece, int32_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &score, 4);
  std::memcpy(bytes.data() + 4, &length, 4);
  return bytes + piece;
}

TEST_F(TokenizerFiles, Llama2cByScores) {
  std::string file = std::string("\4\0\0\0", 4);
  const std::pair<float, std::string> pieces[] = {
      {0.f, "<unk>"},  {0.f, "\n<s>\n"}, {0.f, "\n</s>\n"}, {0.f, "<0xC3>"},
      {0.f, "<0xB6>"}, {-3.f, " "},      {-4.f, "a"},       {-5.f, "b"},
      {-1.f, "ab"},    {-2.f, " a"},     {-1.f, "ba"}};
  for (const auto& [score, piece] : pieces)
    file += llama2c_piece(score, piece, static_cast<int32_t>(piece.size()));
  write("tokenizer.bin", file);
  const Tokenizer tokenizer = load().value();
  EXPECT_EQ(tokenizer.encode("ab").value(), (Ids{1, 5, 8}));      // "ab" before " a"
  EXPECT_EQ(tokenizer.encode("aba").value(), (Ids{1, 5, 8, 6}));  // equal scores: the left one
  EXPECT_EQ(tokenizer.encode("\xC3\xB6").value(), (Ids{1, 5, 3, 4}));
  EXPECT_EQ(tokenizer.encode("").value(), Ids{1});
  EXPECT_EQ(tokenizer.decode(Ids{1, 9, 5, 8, 2}).value(), "a ab");
  EXPECT_EQ(tokenizer.eos_ids(), Ids{2});
  for (size_t size = 0; size < file.size(); ++size) {
    write("tokenizer.bin", file.substr(0, size));
    const auto cut = load();
    EXPECT_TRUE(cut.ok() || cut.status().code() == Code::kBadModel) << size;
  }
  write("tokenizer.bin", file + llama2c_piece(0, "x", 1 << 30));
  EXPECT_TRUE(
      load().status().message().ends_with("piece 11: expected a length of 1 to 1, got 1073741824"))
      << load().status().message();
}

TEST_F(TokenizerFiles, LongTextsAreNotQuadratic) {
  const std::string text(200'000, 'x');
  for (const char* name : {"gpt2_like", "llama2_like", "t5_like"}) {
    const Tokenizer tokenizer = Tokenizer::load(golden_path(name)).value();
    const Ids ids = tokenizer.encode(text).value();
    EXPECT_GE(ids.size(), 1u);
    EXPECT_GE(tokenizer.encode(std::string(200'000, ' ')).value().size(), 1u);
  }
}

TEST_F(TokenizerFiles, ManyThreadsMayEncode) {
  const Tokenizer tokenizer = Tokenizer::load(golden_path("llama3_like")).value();
  const std::string text = "The quick brown fox, 12345! don't \xE6\x9D\xB1\xE4\xBA\xAC";
  const Ids expected = tokenizer.encode(text).value();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) EXPECT_EQ(tokenizer.encode(text).value(), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace sprun
