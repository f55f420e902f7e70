// Byte-pair encoding with a queue of possible merges.
#include "runtime/text/bpe.h"

#include <algorithm>

#include "runtime/text/json_vocab.h"
#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

uint64_t pair_key(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

// A token in the chain of a piece. Joined tokens leave the chain with id -1.
struct Link {
  int64_t id;
  int32_t before, after;
};

// A merge that was possible when it was queued: rank, then position in one number, so that order is
// one comparison.
struct Possible {
  uint64_t order;
  uint64_t key;
  int64_t result;

  bool operator<(const Possible& other) const {
    return order > other.order;
  }  // the smallest on top of the heap
  int32_t position() const { return static_cast<int32_t>(order & 0xFFFFFFFF); }
};

// "a b" or ["a", "b"]
bool split_merge(const Json& value, std::string_view* left, std::string_view* right) {
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    *left = value[0].get_ref<const std::string&>();
    *right = value[1].get_ref<const std::string&>();
    return true;
  }
  if (!value.is_string()) return false;
  const std::string_view text = value.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
    return false;
  *left = text.substr(0, space);
  *right = text.substr(space + 1);
  return true;
}

Result<std::vector<Merge>> read_merges(const Fields& fields, const Vocab& vocab,
                                       const std::string& prefix) {
  SPRUN_ASSIGN(const Json* list, fields.array("merges"));
  std::vector<Merge> merges;
  merges.reserve(list->size());
  for (const Json& value : *list) {
    const auto place = [&] {
      return fields.place_of("merges") + "[" + std::to_string(merges.size()) + "]";
    };
    std::string_view left, right;
    if (!split_merge(value, &left, &right))
      return unexpected(place(), "\"a b\" or [\"a\", \"b\"]", value);
    auto merge = named_merge(vocab, prefix, left, right, static_cast<uint32_t>(merges.size()));
    if (!merge.ok()) return merge.status().with_context(place());
    merges.push_back(*merge);
  }
  return merges;
}

}  // namespace

Result<Merge> named_merge(const Vocab& vocab, const std::string& continuing_prefix,
                          std::string_view left, std::string_view right, uint32_t rank) {
  std::string result(left);
  result += right.starts_with(continuing_prefix) ? right.substr(continuing_prefix.size()) : right;
  const auto a = vocab.id_of(left), b = vocab.id_of(right), c = vocab.id_of(result);
  if (a && b && c) return Merge{*a, *b, *c, rank};
  const std::string_view missing = !a ? left : !b ? right : std::string_view(result);
  return Status(Code::kBadModel, "token " + shown(missing) + " is not in the vocabulary");
}

Result<TokenModelPtr> BpeModel::create(Vocab vocab, const std::vector<Merge>& merges,
                                       BpeOptions options) {
  std::shared_ptr<BpeModel> model(new BpeModel(std::move(vocab), std::move(options)));
  const BpeOptions& o = model->options_;
  model->merges_ = FlatMap(merges.size());
  for (const Merge& m : merges) {
    model->merges_.insert(pair_key(m.left, m.right),
                          static_cast<uint64_t>(m.rank) << 32 | static_cast<uint64_t>(m.result));
  }
  if (!o.unk_token.empty()) {
    model->unk_id_ = model->vocab_.id_of(o.unk_token);
    if (!model->unk_id_)
      return Status(Code::kBadModel,
                    "unk_token " + shown(o.unk_token) + " is not in the vocabulary");
  }
  for (int b = 0; o.byte_fallback && b < 256; ++b) {
    model->byte_ids_.push_back(
        model->vocab_.id_of(byte_token(static_cast<uint8_t>(b))).value_or(-1));
  }
  return TokenModelPtr(std::move(model));
}

bool BpeModel::append_bytes(std::string_view character, std::vector<int64_t>* ids) const {
  if (byte_ids_.empty()) return false;
  const auto id_of = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (std::any_of(character.begin(), character.end(), [&](char c) { return id_of(c) < 0; }))
    return false;
  for (const char c : character) ids->push_back(id_of(c));
  return true;
}

// One id per character, byte or unknown run.
std::vector<int64_t> BpeModel::characters(std::string_view piece) const {
  const bool plain = options_.continuing_prefix.empty() && options_.end_suffix.empty();
  std::vector<int64_t> ids;
  ids.reserve(piece.size());
  std::string spelled;
  bool after_unknown = false;
  for (size_t pos = 0; pos < piece.size();) {
    const std::string_view one = piece.substr(pos, char_length(piece[pos]));
    if (!plain) {
      spelled = pos > 0 ? options_.continuing_prefix : "";
      spelled += one;
      if (pos + one.size() == piece.size()) spelled += options_.end_suffix;
    }
    pos += one.size();
    if (const auto id = vocab_.id_of(plain ? one : std::string_view(spelled))) {
      ids.push_back(*id);
      after_unknown = false;
    } else if (append_bytes(plain ? one : std::string_view(spelled), &ids)) {
      after_unknown = false;
    } else if (unk_id_) {
      if (!(after_unknown && options_.fuse_unk)) ids.push_back(*unk_id_);
      after_unknown = true;
    }
  }
  return ids;
}

void BpeModel::merge(std::vector<int64_t>* ids) const {
  const auto n = static_cast<int32_t>(ids->size());
  std::vector<Link> chain(ids->size());
  std::vector<Possible> heap;
  const auto queue = [&](int32_t at) {
    const Link& left = chain[static_cast<size_t>(at)];
    const uint64_t key = pair_key(left.id, chain[static_cast<size_t>(left.after)].id);
    const uint64_t* found = merges_.find(key);
    if (found == nullptr) return;
    const uint64_t rank = *found >> 32;
    heap.push_back(
        {rank << 32 | static_cast<uint32_t>(at), key, static_cast<int64_t>(*found & 0xFFFFFFFF)});
    std::push_heap(heap.begin(), heap.end());
  };
  for (int32_t i = 0; i < n; ++i)
    chain[static_cast<size_t>(i)] = {(*ids)[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1};
  for (int32_t i = 0; i + 1 < n; ++i) queue(i);
  while (!heap.empty()) {
    const Possible best = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Link& left = chain[static_cast<size_t>(best.position())];
    if (left.id < 0 || left.after < 0) continue;
    Link& right = chain[static_cast<size_t>(left.after)];
    if (pair_key(left.id, right.id) != best.key)
      continue;  // one of them has joined another token meanwhile
    left.id = best.result;
    right.id = -1;
    left.after = right.after;
    if (left.after >= 0) {
      chain[static_cast<size_t>(left.after)].before = best.position();
      queue(best.position());
    }
    if (left.before >= 0) queue(left.before);
  }
  ids->clear();
  for (int32_t i = 0; i >= 0; i = chain[static_cast<size_t>(i)].after)
    ids->push_back(chain[static_cast<size_t>(i)].id);
}

Status BpeModel::encode(std::string_view piece, std::vector<int64_t>* ids) const {
  constexpr size_t kMaxPiece = size_t{1} << 30;  // positions have 32 bits
  if (piece.size() > kMaxPiece)
    return {Code::kResourceLimit, "text of more than 1 GiB in one piece"};
  if (options_.ignore_merges) {
    if (const auto id = vocab_.id_of(piece)) {
      ids->push_back(*id);
      return {};
    }
  }
  std::vector<int64_t> tokens = characters(piece);
  if (tokens.size() > 1) merge(&tokens);
  ids->insert(ids->end(), tokens.begin(), tokens.end());
  return {};
}

Result<TokenModelPtr> make_bpe(const Fields& fields, int) {
  BpeOptions options;
  SPRUN_ASSIGN(options.unk_token, fields.text("unk_token", ""));
  SPRUN_ASSIGN(options.continuing_prefix, fields.text("continuing_subword_prefix", ""));
  SPRUN_ASSIGN(options.end_suffix, fields.text("end_of_word_suffix", ""));
  SPRUN_ASSIGN(options.fuse_unk, fields.flag("fuse_unk", false));
  SPRUN_ASSIGN(options.byte_fallback, fields.flag("byte_fallback", false));
  SPRUN_ASSIGN(options.ignore_merges, fields.flag("ignore_merges", false));
  const Json* dropout = fields.find("dropout");
  if (dropout != nullptr && *dropout != 0) {
    return unexpected(fields.place_of("dropout"), "none: random tokens are for training", *dropout);
  }
  SPRUN_ASSIGN(Vocab vocab, read_vocab_object(fields));
  SPRUN_ASSIGN(const std::vector<Merge> merges,
               read_merges(fields, vocab, options.continuing_prefix));
  auto model = BpeModel::create(std::move(vocab), merges, std::move(options));
  return model.ok() ? model : Result<TokenModelPtr>(model.status().with_context(fields.place()));
}

}  // namespace sprun::text
