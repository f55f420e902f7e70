// The "decoder" stage of tokenizer.json. In kRaw mode tokens may hold parts of characters, so
// everything here works on bytes and looks at characters only where the token is whole UTF-8.
#include <functional>

#include "runtime/text/byte_chars.h"
#include "runtime/text/metaspace.h"
#include "runtime/text/pipeline.h"
#include "runtime/text/split.h"
#include "runtime/text/unicode.h"
#include "runtime/text/vocab.h"

namespace sprun::text {
namespace {

using Tokens = std::vector<std::string>;

class Step : public Decoder {
 public:
  using Function = std::function<Status(Tokens*, DecodeMode)>;
  explicit Step(Function function) : function_(std::move(function)) {}
  Status apply(Tokens* tokens, DecodeMode mode) const override { return function_(tokens, mode); }

 private:
  Function function_;
};

DecoderPtr step(Step::Function function) { return std::make_shared<Step>(std::move(function)); }

std::string joined(const Tokens& tokens) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  return all;
}

void replace_all(const std::string& from, const std::string& to, std::string* text) {
  // A literal pattern cannot fail.
  static_cast<void>(Pattern::literal(from).replace(to, text));
}

Result<DecoderPtr> make_byte_level(const Fields&, int) {
  return step([](Tokens* tokens, DecodeMode mode) {
    std::string bytes;
    for (const std::string& token : *tokens) {
      const auto decoded = is_valid_utf8(token) ? chars_to_bytes(token) : std::nullopt;
      bytes += decoded ? *decoded : token;  // added tokens are ordinary text
    }
    *tokens = {mode == DecodeMode::kRaw ? std::move(bytes) : repair_utf8(bytes)};
    return Status();
  });
}

Result<DecoderPtr> make_byte_fallback(const Fields&, int) {
  return step([](Tokens* tokens, DecodeMode mode) {
    Tokens out;
    std::string run;  // bytes of neighbouring byte tokens
    const auto end_run = [&] {
      if (run.empty()) return;
      if (mode == DecodeMode::kRaw || is_valid_utf8(run)) {
        out.push_back(run);
      } else {
        for (size_t i = 0; i < run.size(); ++i) out.emplace_back(kReplacementUtf8);
      }
      run.clear();
    };
    for (std::string& token : *tokens) {
      if (const auto byte = byte_of_token(token)) {
        run += static_cast<char>(*byte);
      } else {
        end_run();
        out.push_back(std::move(token));
      }
    }
    end_run();
    *tokens = std::move(out);
    return Status();
  });
}

// Byte tokens as they are, for models whose text is bytes.
Result<DecoderPtr> make_raw_bytes(const Fields&, int) {
  return step([](Tokens* tokens, DecodeMode) {
    for (std::string& token : *tokens) {
      if (const auto byte = byte_of_token(token)) token.assign(1, static_cast<char>(*byte));
    }
    return Status();
  });
}

// English signs and contractions lose the space that joining words put before them.
void close_up(std::string* token) {
  constexpr const char* kPairs[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                       {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                       {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                       {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& pair : kPairs) replace_all(pair[0], pair[1], token);
}

Result<DecoderPtr> make_word_piece(const Fields& fields, int) {
  SPRUN_ASSIGN(const std::string prefix, fields.text("prefix", "##"));
  SPRUN_ASSIGN(const bool cleanup, fields.flag("cleanup", true));
  return step([=](Tokens* tokens, DecodeMode) {
    for (size_t i = 0; i < tokens->size(); ++i) {
      std::string& token = (*tokens)[i];
      if (i > 0 && token.starts_with(prefix)) {
        token.erase(0, prefix.size());
      } else if (i > 0) {
        token.insert(0, 1, ' ');
      }
      if (cleanup) close_up(&token);
    }
    return Status();
  });
}

Result<DecoderPtr> make_metaspace(const Fields& fields, int) {
  SPRUN_ASSIGN(const Metaspace space, Metaspace::parse(fields));
  return step([=](Tokens* tokens, DecodeMode) {
    for (size_t i = 0; i < tokens->size(); ++i) {
      const bool first = i == 0 && space.prepend != Metaspace::Prepend::kNever;
      replace_all(space.mark, first ? "" : " ", &(*tokens)[i]);
    }
    return Status();
  });
}

Result<DecoderPtr> make_bpe(const Fields& fields, int) {
  SPRUN_ASSIGN(const std::string suffix, fields.text("suffix", "</w>"));
  return step([=](Tokens* tokens, DecodeMode) {
    for (size_t i = 0; i < tokens->size(); ++i)
      replace_all(suffix, i + 1 == tokens->size() ? "" : " ", &(*tokens)[i]);
    return Status();
  });
}

Result<DecoderPtr> make_fuse(const Fields&, int) {
  return step([](Tokens* tokens, DecodeMode) {
    *tokens = {joined(*tokens)};
    return Status();
  });
}

Result<DecoderPtr> make_replace(const Fields& fields, int) {
  SPRUN_ASSIGN(Pattern pattern, Pattern::parse(fields, "pattern"));
  SPRUN_ASSIGN(std::string content, fields.text("content"));
  return step([=](Tokens* tokens, DecodeMode) {
    for (std::string& token : *tokens) {
      if (is_valid_utf8(token)) SPRUN_TRY(pattern.replace(content, &token));
    }
    return Status();
  });
}

Result<DecoderPtr> make_strip(const Fields& fields, int) {
  SPRUN_ASSIGN(const std::string content, fields.character("content", " "));
  SPRUN_ASSIGN(const int64_t start, fields.integer("start", 0, 1 << 20, 0));
  SPRUN_ASSIGN(const int64_t stop, fields.integer("stop", 0, 1 << 20, 0));
  return step([=](Tokens* tokens, DecodeMode) {
    for (std::string& token : *tokens) {
      for (int64_t i = 0; i < start && token.starts_with(content); ++i)
        token.erase(0, content.size());
      for (int64_t i = 0; i < stop && token.ends_with(content); ++i)
        token.resize(token.size() - content.size());
    }
    return Status();
  });
}

Result<DecoderPtr> make_sequence(const Fields& fields, int depth);

constexpr Maker<DecoderPtr> kMakers[] = {
    {"BPEDecoder", make_bpe},       {"ByteFallback", make_byte_fallback},
    {"ByteLevel", make_byte_level}, {"Fuse", make_fuse},
    {"Metaspace", make_metaspace},  {"RawBytes", make_raw_bytes},
    {"Replace", make_replace},      {"Sequence", make_sequence},
    {"Strip", make_strip},          {"WordPiece", make_word_piece},
};

Result<DecoderPtr> make_sequence(const Fields& fields, int depth) {
  SPRUN_ASSIGN(const std::vector<DecoderPtr> parts, make_list(kMakers, fields, "decoders", depth));
  return step([parts](Tokens* tokens, DecodeMode mode) {
    for (const DecoderPtr& part : parts) SPRUN_TRY(part->apply(tokens, mode));
    return Status();
  });
}

}  // namespace

Result<DecoderPtr> make_decoder(const Json& value, const std::string& place) {
  return make_by_type(kMakers, value, place, 0);
}

}  // namespace sprun::text
