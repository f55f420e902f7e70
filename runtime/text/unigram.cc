// Unigram by Viterbi over byte positions.
#include "runtime/text/unigram.h"

#include <algorithm>
#include <limits>

#include "runtime/text/unicode.h"

namespace sprun::text {

// The best way to reach a position: its last token begins at `begin`.
struct UnigramModel::Best {
  double score = -std::numeric_limits<double>::infinity();
  size_t begin = 0;
  bool reached = false;
  bool unknown = false;
  int64_t id = 0;

  void offer(double offered, size_t from, int64_t token, bool is_unknown) {
    if (reached && offered <= score) return;
    *this = {offered, from, true, is_unknown, token};
  }
};

UnigramModel::UnigramModel(Vocab vocab, std::vector<double> scores, std::optional<int64_t> unk_id,
                           bool byte_fallback)
    : vocab_(std::move(vocab)),
      scores_(std::move(scores)),
      unk_id_(unk_id),
      byte_fallback_(byte_fallback) {
  // What SentencePiece takes off for an unknown character.
  constexpr double kPenalty = 10;
  unk_score_ = (scores_.empty() ? 0 : *std::min_element(scores_.begin(), scores_.end())) - kPenalty;
  for (int64_t id = 0; id < vocab_.size(); ++id) {
    const auto token = vocab_.token_of(id);
    if (token && vocab_.id_of(*token) == id) trie_.add(*token, id);
  }
}

std::vector<UnigramModel::Best> UnigramModel::best_ways(std::string_view piece) const {
  std::vector<Best> best(piece.size() + 1);
  best[0].score = 0;
  for (size_t at = 0; at < piece.size();) {
    const size_t length = char_length(piece[at]);
    const double so_far = best[at].score;
    bool has_char = false;
    trie_.prefixes(piece.substr(at), [&](size_t bytes, int64_t id) {
      best[at + bytes].offer(so_far + scores_[static_cast<size_t>(id)], at, id, id == unk_id_);
      has_char |= bytes == length;
    });
    if (!has_char) best[at + length].offer(so_far + unk_score_, at, unk_id_.value_or(-1), true);
    at += length;
  }
  return best;
}

Status UnigramModel::append_unknown(std::string_view part, std::vector<int64_t>* ids) const {
  const size_t before = ids->size();
  bool complete = byte_fallback_;
  for (size_t i = 0; complete && i < part.size(); ++i) {
    const auto id = vocab_.id_of(byte_token(static_cast<uint8_t>(part[i])));
    complete = id.has_value();
    if (id) ids->push_back(*id);
  }
  if (complete) return {};
  ids->resize(before);
  if (!unk_id_)
    return {Code::kBadInput,
            "the vocabulary cannot express " + shown(part) + " and has no unknown token"};
  ids->push_back(*unk_id_);
  return {};
}

Status UnigramModel::encode(std::string_view piece, std::vector<int64_t>* ids) const {
  const std::vector<Best> best = best_ways(piece);
  // From the end to the begin; unknown neighbours become one part.
  struct Part {
    size_t begin, end;
    int64_t id;
    bool unknown;
  };
  std::vector<Part> parts;
  for (size_t end = piece.size(); end > 0; end = best[end].begin) {
    const Best& b = best[end];
    if (b.unknown && !parts.empty() && parts.back().unknown) {
      parts.back().begin = b.begin;
    } else {
      parts.push_back({b.begin, end, b.id, b.unknown});
    }
  }
  for (size_t i = parts.size(); i-- > 0;) {
    const std::string_view part = piece.substr(parts[i].begin, parts[i].end - parts[i].begin);
    if (!parts[i].unknown) {
      ids->push_back(parts[i].id);
    } else {
      SPRUN_TRY(append_unknown(part, ids));
    }
  }
  return {};
}

Result<TokenModelPtr> unigram_from_list(const Json& list, const std::string& place,
                                        std::optional<int64_t> unk_id, bool byte_fallback) {
  Vocab vocab;
  std::vector<double> scores(list.size());
  // From the end: of a piece listed twice the last one is used, the others only name it.
  for (size_t i = list.size(); i-- > 0;) {
    const Json& entry = list[i];
    const auto here = [&] { return place + "[" + std::to_string(i) + "]"; };
    const bool good = entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
                      (entry[1].is_number() || entry[1].is_null());
    if (!good) return unexpected(here(), "[piece, score]", entry);
    const Status added =
        vocab.add_name(entry[0].get_ref<const std::string&>(), static_cast<int64_t>(i));
    if (!added.ok()) return added.with_context(here());
    scores[i] = entry[1].is_null() ? 0 : entry[1].get<double>();
  }
  if (unk_id && *unk_id >= static_cast<int64_t>(scores.size())) {
    return Status(Code::kBadModel, place + ": expected more than " + std::to_string(*unk_id) +
                                       " pieces, the unknown token is one, got " +
                                       std::to_string(scores.size()));
  }
  return TokenModelPtr(
      std::make_shared<UnigramModel>(std::move(vocab), std::move(scores), unk_id, byte_fallback));
}

Result<TokenModelPtr> make_unigram(const Fields& fields, int) {
  SPRUN_ASSIGN(const Json* list, fields.array("vocab"));
  SPRUN_ASSIGN(const bool byte_fallback, fields.flag("byte_fallback", false));
  std::optional<int64_t> unk_id;
  if (fields.find("unk_id") != nullptr) {
    SPRUN_ASSIGN(unk_id, fields.integer("unk_id", 0, kMaxId));
  }
  return unigram_from_list(*list, fields.place_of("vocab"), unk_id, byte_fallback);
}

}  // namespace sprun::text
