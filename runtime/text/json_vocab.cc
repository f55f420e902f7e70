// Vocabularies as JSON objects.
#include "runtime/text/json_vocab.h"

namespace sprun::text {

Result<Vocab> read_vocab(const Json& object, const std::string& place) {
  if (!object.is_object()) return unexpected(place, "an object of ids", object);
  Vocab vocab;
  for (const auto& [token, id] : object.items()) {
    const bool fits =
        id.is_number_unsigned() && id.get<uint64_t>() <= static_cast<uint64_t>(kMaxId);
    if (!fits)
      return unexpected(place + "[" + shown(token) + "]",
                        "an id from 0 to " + std::to_string(kMaxId), id);
    const Status added = vocab.add(token, id.get<int64_t>());
    if (!added.ok()) return added.with_context(place);
  }
  return vocab;
}

Result<Vocab> read_vocab_object(const Fields& fields) {
  SPRUN_ASSIGN(const Json* object, fields.need("vocab"));
  return read_vocab(*object, fields.place_of("vocab"));
}

}  // namespace sprun::text
