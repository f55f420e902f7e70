// Vocabularies that are not tokenizer.json: GPT-2's pair of files, BERT's list, a list of scored
// pieces. Each is turned into the stages that its family uses.
#include <algorithm>

#include "runtime/text/bpe.h"
#include "runtime/text/json_vocab.h"
#include "runtime/text/tokenizer_impl.h"
#include "runtime/text/unigram.h"
#include "runtime/text/word_piece.h"

namespace sprun::text {
namespace {

// Calls visit(line number from 1, line) without line ends; stops at the first error.
template <class Visit>
Status each_line(std::string_view text, const Visit& visit) {
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const Status status = visit(number, line);
    if (!status.ok()) return status.with_context("line " + std::to_string(number));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

Result<Merge> parse_merge(std::string_view line, const Vocab& vocab, size_t rank) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
    return Status(Code::kBadModel, "expected two tokens with a space between, got " + shown(line));
  }
  return named_merge(vocab, "", line.substr(0, space), line.substr(space + 1),
                     static_cast<uint32_t>(rank));
}

// Copies of GPT-2's file with a few mangled lines are about, and programs that read them leave
// these lines out. More than one in a hundred is an error, with the first.
Result<std::vector<Merge>> parse_merges(std::string_view text, const Vocab& vocab) {
  std::vector<Merge> merges;
  size_t bad = 0;
  Status first_bad;
  SPRUN_TRY(each_line(text, [&](int64_t number, std::string_view line) -> Status {
    if (line.empty() || (number == 1 && line.starts_with("#version"))) return {};
    const Result<Merge> merge = parse_merge(line, vocab, merges.size());
    if (merge.ok()) {
      merges.push_back(*merge);
    } else if (++bad == 1) {
      first_bad = merge.status().with_context("merges.txt: line " + std::to_string(number));
    }
    return {};
  }));
  if (bad * 100 > merges.size()) return first_bad;
  return merges;
}

// Adds each of the names that is in the model's vocabulary as a special token.
Status add_specials(std::initializer_list<const char*> names, Tokenizer::Impl* impl) {
  for (const char* name : names) {
    const auto id = impl->model->token_to_id(name);
    if (!id) continue;
    AddedToken token{.content = name, .id = *id, .special = true};
    SPRUN_TRY(impl->added.add(std::move(token)));
  }
  return impl->added.finish(impl->normalizer.get());
}

bool has_upper_case(const Vocab& vocab) {
  for (char c = 'A'; c <= 'Z'; ++c) {
    if (vocab.id_of(std::string_view(&c, 1))) return true;
  }
  return false;
}

// BertNormalizer with the settings of tokenizer_config.json; letter case by the vocabulary where it
// says nothing.
Result<Json> bert_normalizer(const Vocab& vocab, const Json& config) {
  Json normalizer = {{"type", "BertNormalizer"}};
  normalizer["lowercase"] = !has_upper_case(vocab);
  if (config.is_null()) return normalizer;
  SPRUN_ASSIGN(const Fields fields, Fields::of(config, "tokenizer_config.json"));
  constexpr const char* kNames[][2] = {{"do_lower_case", "lowercase"},
                                       {"strip_accents", "strip_accents"},
                                       {"tokenize_chinese_chars", "handle_chinese_chars"}};
  for (const auto& [theirs, ours] : kNames) {
    if (const Json* value = fields.find(theirs)) normalizer[ours] = *value;
  }
  return normalizer;
}

}  // namespace

Result<ImplPtr> load_gpt2(const Json& vocab_json, const std::string& merges_text) {
  const auto impl = std::make_shared<Tokenizer::Impl>();
  SPRUN_ASSIGN(Vocab vocab, read_vocab(vocab_json, "vocab.json"));
  SPRUN_ASSIGN(const std::vector<Merge> merges, parse_merges(merges_text, vocab));
  SPRUN_ASSIGN(impl->model, BpeModel::create(std::move(vocab), merges, {}));
  SPRUN_ASSIGN(
      impl->pre_tokenizer,
      make_pre_tokenizer({{"type", "ByteLevel"}, {"add_prefix_space", false}}, "pre_tokenizer"));
  SPRUN_ASSIGN(impl->decoder, make_decoder({{"type", "ByteLevel"}}, "decoder"));
  SPRUN_TRY(add_specials({"<|endoftext|>"}, impl.get()));
  return impl;
}

Result<ImplPtr> load_piece_list(const Json& pieces) {
  const auto impl = std::make_shared<Tokenizer::Impl>();
  if (pieces.empty()) return Status(Code::kBadModel, "expected pieces, got none");
  int64_t unk_id = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].is_array() && !pieces[i].empty() && pieces[i][0] == "<unk>")
      unk_id = static_cast<int64_t>(i);
  }
  SPRUN_ASSIGN(impl->model, unigram_from_list(pieces, "pieces", unk_id, false));
  constexpr const char* kMark = "\xE2\x96\x81";
  const Json steps =
      Json::array({{{"type", "NFKC"}},
                   {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kMark}},
                   {{"type", "Prepend"}, {"prepend", kMark}}});
  SPRUN_ASSIGN(impl->normalizer,
               make_normalizer({{"type", "Sequence"}, {"normalizers", steps}}, "normalizer"));
  SPRUN_ASSIGN(impl->decoder, make_decoder({{"type", "Metaspace"}}, "decoder"));
  return impl;
}

Result<ImplPtr> load_bert_vocab(const std::string& text, const Json& config) {
  const auto impl = std::make_shared<Tokenizer::Impl>();
  Vocab vocab;
  SPRUN_TRY(each_line(text, [&](int64_t number, std::string_view line) {
    return vocab.add(std::string(line), number - 1);
  }));
  const auto cls = vocab.id_of("[CLS]"), sep = vocab.id_of("[SEP]");
  if (!cls || !sep || !vocab.id_of("[UNK]")) {
    return Status(Code::kBadModel,
                  "expected a token a line with [UNK], [CLS] and [SEP] among them, got " +
                      std::to_string(vocab.size()) + " lines without all three");
  }
  SPRUN_ASSIGN(const Json normalizer, bert_normalizer(vocab, config));
  SPRUN_ASSIGN(impl->normalizer, make_normalizer(normalizer, "tokenizer_config.json"));
  SPRUN_ASSIGN(impl->pre_tokenizer,
               make_pre_tokenizer({{"type", "BertPreTokenizer"}}, "pre_tokenizer"));
  SPRUN_ASSIGN(impl->decoder, make_decoder({{"type", "WordPiece"}}, "decoder"));
  impl->model = std::make_shared<WordPieceModel>(std::move(vocab), WordPieceOptions());
  impl->around = {*cls, std::nullopt, *sep};
  SPRUN_TRY(add_specials({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, impl.get()));
  return impl;
}

}  // namespace sprun::text
