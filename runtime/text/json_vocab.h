// Vocabularies as JSON objects: {"token": id, ...}.
#pragma once

#include "runtime/text/json_fields.h"
#include "runtime/text/vocab.h"

namespace sprun::text {

// kBadModel: not an object of whole numbers, or broken as Vocab::add says.
Result<Vocab> read_vocab(const Json& object, const std::string& place);
// The member "vocab".
Result<Vocab> read_vocab_object(const Fields& fields);

}  // namespace sprun::text
