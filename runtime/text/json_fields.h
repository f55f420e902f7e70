// Checked reading of JSON objects: what is missing or of another kind becomes kBadModel with its
// place in the file.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/status.h"

namespace sprun::text {

using Json = nlohmann::json;

// "PLACE: expected WHAT, got an array of 3"
Status unexpected(const std::string& place, const std::string& expected, const Json& got);

// One JSON object and its place ("model.vocab"). Views the object; null members count as absent.
class Fields {
 public:
  static Result<Fields> of(const Json& value, std::string place);

  const std::string& place() const { return place_; }
  std::string place_of(const std::string& key) const {
    return place_.empty() ? key : place_ + "." + key;
  }
  const Json* find(const char* key) const;

  Result<const Json*> need(const char* key) const;
  Result<Fields> object(const char* key) const;
  Result<const Json*> array(const char* key) const;
  Result<std::string> text(const char* key) const;
  Result<std::string> text(const char* key, std::string fallback) const;
  Result<bool> flag(const char* key, bool fallback) const;
  // Within [least, most].
  Result<int64_t> integer(const char* key, int64_t least, int64_t most) const;
  Result<int64_t> integer(const char* key, int64_t least, int64_t most, int64_t fallback) const;
  // Exactly one character, as UTF-8.
  Result<std::string> character(const char* key, const std::string& fallback) const;

 private:
  Fields(const Json& object, std::string place) : object_(&object), place_(std::move(place)) {}
  const Json* object_;
  std::string place_;
};

// A row of a table of component types: the "type" in the file and what builds it.
template <class Built>
struct Maker {
  std::string_view type;
  Result<Built> (*make)(const Fields& fields, int depth);
};

// Components nest ("Sequence"); deeper than this is refused.
inline constexpr int kMaxDepth = 8;

// Builds the component that `value` describes by the row of its "type".
template <class Built, size_t n>
Result<Built> make_by_type(const Maker<Built> (&makers)[n], const Json& value,
                           const std::string& place, int depth) {
  if (depth > kMaxDepth)
    return Status(Code::kBadModel, place + ": nested deeper than " + std::to_string(kMaxDepth));
  SPRUN_ASSIGN(const Fields fields, Fields::of(value, place));
  SPRUN_ASSIGN(const std::string type, fields.text("type"));
  std::string known;
  for (const Maker<Built>& maker : makers) {
    if (maker.type == type) return maker.make(fields, depth);
    known += (known.empty() ? "" : ", ") + std::string(maker.type);
  }
  return Status(Code::kBadModel,
                fields.place_of("type") + ": expected one of " + known + ", got \"" + type + "\"");
}

// The components listed under `key` of a "Sequence".
template <class Built, size_t n>
Result<std::vector<Built>> make_list(const Maker<Built> (&makers)[n], const Fields& fields,
                                     const char* key, int depth) {
  SPRUN_ASSIGN(const Json* list, fields.array(key));
  std::vector<Built> built;
  for (const Json& value : *list) {
    const std::string place = fields.place_of(key) + "[" + std::to_string(built.size()) + "]";
    SPRUN_ASSIGN(Built one, make_by_type(makers, value, place, depth + 1));
    built.push_back(std::move(one));
  }
  return built;
}

}  // namespace sprun::text
