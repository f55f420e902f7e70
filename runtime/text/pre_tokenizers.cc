// The "pre_tokenizer" stage of tokenizer.json.
#include <functional>

#include "runtime/text/byte_chars.h"
#include "runtime/text/metaspace.h"
#include "runtime/text/pipeline.h"
#include "runtime/text/split.h"
#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

// Words with a leading space, numbers, other signs, white space but for the space before a word:
// GPT-2's parts.
constexpr char kGpt2Words[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// A pre-tokenizer that looks at each piece by itself and appends what becomes of it.
class EachPiece : public PreTokenizer {
 public:
  using Function = std::function<Status(Piece, std::vector<Piece>*)>;
  explicit EachPiece(Function function) : function_(std::move(function)) {}
  Status apply(std::vector<Piece>* pieces) const override {
    std::vector<Piece> out;
    out.reserve(pieces->size());
    for (Piece& piece : *pieces) {
      if (!piece.text.empty()) SPRUN_TRY(function_(std::move(piece), &out));
    }
    *pieces = std::move(out);
    return {};
  }

 private:
  Function function_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<PreTokenizerPtr> parts) : parts_(std::move(parts)) {}
  Status apply(std::vector<Piece>* pieces) const override {
    for (const PreTokenizerPtr& part : parts_) SPRUN_TRY(part->apply(pieces));
    return {};
  }

 private:
  std::vector<PreTokenizerPtr> parts_;
};

PreTokenizerPtr each_piece(EachPiece::Function function) {
  return std::make_shared<EachPiece>(std::move(function));
}

void append_parts(const Piece& piece, const std::vector<Range>& parts, std::vector<Piece>* out) {
  for (const Range& part : parts) {
    out->push_back(
        {piece.text.substr(part.begin, part.end - part.begin), piece.at_start && part.begin == 0});
  }
}

// Splits at characters for which `is` holds.
template <class Is>
PreTokenizerPtr at_chars(const Is& is, SplitBehavior behavior) {
  return each_piece([=](const Piece& piece, std::vector<Piece>* out) {
    append_parts(piece, split(piece.text.size(), matching_chars(piece.text, is), behavior), out);
    return Status();
  });
}

PreTokenizerPtr at_pattern(Pattern pattern, SplitBehavior behavior, bool inverted) {
  return each_piece([pattern = std::move(pattern), behavior, inverted](const Piece& piece,
                                                                       std::vector<Piece>* out) {
    std::vector<Range> matches;
    SPRUN_TRY(pattern.find_all(piece.text, &matches));
    append_parts(piece, split(piece.text.size(), matches, behavior, inverted), out);
    return Status();
  });
}

Result<PreTokenizerPtr> make_byte_level(const Fields& fields, int) {
  SPRUN_ASSIGN(const bool add_space, fields.flag("add_prefix_space", true));
  SPRUN_ASSIGN(const bool use_regex, fields.flag("use_regex", true));
  SPRUN_ASSIGN(const Regex words, Regex::compile(kGpt2Words));
  return each_piece([=](Piece piece, std::vector<Piece>* out) {
    if (add_space && piece.text[0] != ' ') piece.text.insert(0, 1, ' ');
    const size_t first = out->size();
    if (use_regex) {
      std::vector<Range> matches;
      SPRUN_TRY(words.find_all(piece.text, &matches));
      append_parts(piece, split(piece.text.size(), matches, SplitBehavior::kIsolated), out);
    } else {
      out->push_back(std::move(piece));
    }
    for (size_t i = first; i < out->size(); ++i) (*out)[i].text = bytes_to_chars((*out)[i].text);
    return Status();
  });
}

Result<PreTokenizerPtr> make_whitespace_split(const Fields&, int) {
  return at_chars(is_whitespace, SplitBehavior::kRemoved);
}

// Runs of word characters and runs of other signs; white space goes.
Result<PreTokenizerPtr> make_whitespace(const Fields&, int) {
  return each_piece([](const Piece& piece, std::vector<Piece>* out) {
    enum class Kind { kSpace, kWord, kOther };
    size_t begin = 0;
    Kind before = Kind::kSpace;
    std::vector<Range> parts;
    for (size_t pos = 0; pos < piece.text.size();) {
      const size_t at = pos;
      const char32_t c = next_char(piece.text, &pos);
      const Kind kind = is_word(c) ? Kind::kWord : is_whitespace(c) ? Kind::kSpace : Kind::kOther;
      if (kind == before) continue;
      if (before != Kind::kSpace) parts.push_back({begin, at});
      begin = at;
      before = kind;
    }
    if (before != Kind::kSpace) parts.push_back({begin, piece.text.size()});
    append_parts(piece, parts, out);
    return Status();
  });
}

Result<PreTokenizerPtr> make_punctuation(const Fields& fields, int) {
  SPRUN_ASSIGN(const SplitBehavior behavior, parse_behavior(fields, SplitBehavior::kIsolated));
  return at_chars(is_punctuation, behavior);
}

Result<PreTokenizerPtr> make_bert(const Fields&, int) {
  std::vector<PreTokenizerPtr> parts = {at_chars(is_whitespace, SplitBehavior::kRemoved),
                                        at_chars(is_punctuation, SplitBehavior::kIsolated)};
  return PreTokenizerPtr(std::make_shared<Sequence>(std::move(parts)));
}

Result<PreTokenizerPtr> make_digits(const Fields& fields, int) {
  SPRUN_ASSIGN(const bool each, fields.flag("individual_digits", false));
  return at_chars(is_number, each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

Result<PreTokenizerPtr> make_delimiter_split(const Fields& fields, int) {
  SPRUN_ASSIGN(std::string delimiter, fields.character("delimiter", " "));
  return at_pattern(Pattern::literal(std::move(delimiter)), SplitBehavior::kRemoved, false);
}

Result<PreTokenizerPtr> make_split(const Fields& fields, int) {
  SPRUN_ASSIGN(Pattern pattern, Pattern::parse(fields, "pattern"));
  SPRUN_ASSIGN(const SplitBehavior behavior, parse_behavior(fields, SplitBehavior::kIsolated));
  SPRUN_ASSIGN(const bool invert, fields.flag("invert", false));
  return at_pattern(std::move(pattern), behavior, invert);
}

Result<PreTokenizerPtr> make_metaspace(const Fields& fields, int) {
  SPRUN_ASSIGN(const Metaspace space, Metaspace::parse(fields));
  SPRUN_ASSIGN(const bool cut, fields.flag("split", true));
  const Pattern mark = Pattern::literal(space.mark);
  return each_piece([=](Piece piece, std::vector<Piece>* out) {
    SPRUN_TRY(Pattern::literal(" ").replace(space.mark, &piece.text));
    const bool wanted = space.prepend == Metaspace::Prepend::kAlways ||
                        (space.prepend == Metaspace::Prepend::kFirst && piece.at_start);
    if (wanted && !piece.text.starts_with(space.mark)) piece.text.insert(0, space.mark);
    std::vector<Range> matches;
    if (cut) SPRUN_TRY(mark.find_all(piece.text, &matches));
    append_parts(piece, split(piece.text.size(), matches, SplitBehavior::kMergedWithNext), out);
    return Status();
  });
}

Result<PreTokenizerPtr> make_sequence(const Fields& fields, int depth);

constexpr Maker<PreTokenizerPtr> kMakers[] = {
    {"BertPreTokenizer", make_bert},
    {"ByteLevel", make_byte_level},
    {"CharDelimiterSplit", make_delimiter_split},
    {"Digits", make_digits},
    {"Metaspace", make_metaspace},
    {"Punctuation", make_punctuation},
    {"Sequence", make_sequence},
    {"Split", make_split},
    {"Whitespace", make_whitespace},
    {"WhitespaceSplit", make_whitespace_split},
};

Result<PreTokenizerPtr> make_sequence(const Fields& fields, int depth) {
  SPRUN_ASSIGN(std::vector<PreTokenizerPtr> parts,
               make_list(kMakers, fields, "pretokenizers", depth));
  return PreTokenizerPtr(std::make_shared<Sequence>(std::move(parts)));
}

}  // namespace

Result<PreTokenizerPtr> make_pre_tokenizer(const Json& value, const std::string& place) {
  return make_by_type(kMakers, value, place, 0);
}

}  // namespace sprun::text
