// Settings of "Metaspace", which writes spaces as a visible mark; the same object serves to split
// and to decode.
#pragma once

#include <string>

#include "runtime/text/json_fields.h"

namespace sprun::text {

struct Metaspace {
  enum class Prepend { kAlways, kFirst, kNever };

  std::string mark;  // one character, usually U+2581
  Prepend prepend = Prepend::kAlways;

  static Result<Metaspace> parse(const Fields& fields);
};

}  // namespace sprun::text
