// The tokenizer file of llama2.c: int32 length of the longest piece, then per piece float32 score,
// int32 length, bytes. Ids 0, 1 and 2 are the unknown token, begin and end. Pieces hold real
// spaces; <0xNN> are bytes.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "runtime/text/bpe.h"
#include "runtime/text/tokenizer_impl.h"

namespace sprun::text {
namespace {

constexpr int64_t kNumSpecial = 3;
constexpr int32_t kMaxPieceBytes = 512;

struct Piece2c {
  std::string text;
  float score;
};

// Reads little-endian values; false at the end of the bytes.
template <class T>
bool take(std::string_view* bytes, T* value) {
  if (bytes->size() < sizeof(T)) return false;
  std::memcpy(value, bytes->data(), sizeof(T));
  bytes->remove_prefix(sizeof(T));
  return true;
}

Result<std::vector<Piece2c>> read_pieces(std::string_view bytes) {
  int32_t longest = 0;
  if (!take(&bytes, &longest) || longest < 1 || longest > kMaxPieceBytes) {
    return Status(Code::kBadModel,
                  "expected the length of the longest piece, 1 to 512, got " +
                      (bytes.empty() && longest == 0 ? "a shorter file" : std::to_string(longest)));
  }
  std::vector<Piece2c> pieces;
  while (!bytes.empty()) {
    const std::string place = "piece " + std::to_string(pieces.size());
    Piece2c piece;
    int32_t length = 0;
    if (!take(&bytes, &piece.score) || !take(&bytes, &length)) {
      return Status(Code::kBadModel, place + ": the file ends in its score or length");
    }
    // Writers count the longest piece in characters, so the bytes may be more.
    if (length < 1 || length > kMaxPieceBytes || static_cast<size_t>(length) > bytes.size()) {
      return Status(Code::kBadModel,
                    place + ": expected a length of 1 to " +
                        std::to_string(std::min<size_t>(kMaxPieceBytes, bytes.size())) + ", got " +
                        std::to_string(length));
    }
    if (!std::isfinite(piece.score))
      return Status(Code::kBadModel, place + ": expected a score, got no finite number");
    piece.text = bytes.substr(0, static_cast<size_t>(length));
    bytes.remove_prefix(static_cast<size_t>(length));
    pieces.push_back(std::move(piece));
  }
  if (static_cast<int64_t>(pieces.size()) <= kNumSpecial) {
    return Status(Code::kBadModel,
                  "expected more than 3 pieces, got " + std::to_string(pieces.size()));
  }
  return pieces;
}

// Position among the different scores, best first: equal scores have equal ranks.
std::vector<uint32_t> ranks_of(const std::vector<Piece2c>& pieces) {
  std::vector<size_t> order(pieces.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return pieces[a].score > pieces[b].score; });
  std::vector<uint32_t> ranks(pieces.size());
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && pieces[order[i]].score != pieces[order[i - 1]].score) ++rank;
    ranks[order[i]] = rank;
  }
  return ranks;
}

// Two pieces merge if together they are a piece; the score of that piece decides the order.
std::vector<Merge> merges_of(const std::vector<Piece2c>& pieces, const Vocab& vocab) {
  const std::vector<uint32_t> ranks = ranks_of(pieces);
  std::vector<Merge> merges;
  for (size_t i = kNumSpecial; i < pieces.size(); ++i) {
    const std::string_view all = pieces[i].text;
    const auto result = vocab.id_of(all);
    if (byte_of_token(all) || result != static_cast<int64_t>(i)) continue;
    for (size_t cut = 1; cut < all.size(); ++cut) {
      const auto left = vocab.id_of(all.substr(0, cut)), right = vocab.id_of(all.substr(cut));
      if (left && right) merges.push_back({*left, *right, *result, ranks[i]});
    }
  }
  return merges;
}

}  // namespace

Result<ImplPtr> load_llama2c(const std::string& bytes) {
  SPRUN_ASSIGN(const std::vector<Piece2c> pieces, read_pieces(bytes));
  const auto impl = std::make_shared<Tokenizer::Impl>();
  Vocab vocab;
  for (size_t i = 0; i < pieces.size(); ++i) {
    SPRUN_TRY(vocab.add_name(pieces[i].text,
                             static_cast<int64_t>(i)));  // a piece listed twice keeps its first id
  }
  const std::vector<Merge> merges = merges_of(pieces, vocab);
  BpeOptions options;
  options.byte_fallback = true;
  SPRUN_ASSIGN(impl->model, BpeModel::create(std::move(vocab), merges, options));
  for (int64_t id = 0; id < kNumSpecial; ++id) {
    AddedToken token{.content = pieces[static_cast<size_t>(id)].text, .id = id, .special = true};
    SPRUN_TRY(impl->added.add(std::move(token)));
  }
  SPRUN_TRY(impl->added.finish(nullptr));
  SPRUN_ASSIGN(impl->normalizer,
               make_normalizer({{"type", "Prepend"}, {"prepend", " "}}, "normalizer"));
  const Json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const Json decoders = Json::array({{{"type", "RawBytes"}}, {{"type", "Fuse"}}, strip});
  SPRUN_ASSIGN(impl->decoder,
               make_decoder({{"type", "Sequence"}, {"decoders", decoders}}, "decoder"));
  impl->around = {1, std::nullopt};
  impl->bos_id = 1;
  impl->eos_ids = {2};
  return impl;
}

}  // namespace sprun::text
