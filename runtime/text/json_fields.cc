// Checked reading of JSON objects.
#include "runtime/text/json_fields.h"

#include "runtime/text/unicode.h"
#include "runtime/text/vocab.h"

namespace sprun::text {
namespace {

std::string kind_of(const Json& value) {
  if (value.is_string()) return shown(value.get_ref<const std::string&>());
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  if (value.is_object()) return "an object";
  if (value.is_null()) return "null";
  return value.dump();
}

}  // namespace

Status unexpected(const std::string& place, const std::string& expected, const Json& got) {
  return {Code::kBadModel,
          (place.empty() ? "file" : place) + ": expected " + expected + ", got " + kind_of(got)};
}

Result<Fields> Fields::of(const Json& value, std::string place) {
  if (!value.is_object()) return unexpected(place, "an object", value);
  return Fields(value, std::move(place));
}

const Json* Fields::find(const char* key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

Result<const Json*> Fields::need(const char* key) const {
  const Json* value = find(key);
  if (value == nullptr) return Status(Code::kBadModel, place_of(key) + ": missing");
  return value;
}

Result<Fields> Fields::object(const char* key) const {
  SPRUN_ASSIGN(const Json* value, need(key));
  return of(*value, place_of(key));
}

Result<const Json*> Fields::array(const char* key) const {
  SPRUN_ASSIGN(const Json* value, need(key));
  if (!value->is_array()) return unexpected(place_of(key), "an array", *value);
  return value;
}

Result<std::string> Fields::text(const char* key) const {
  SPRUN_ASSIGN(const Json* value, need(key));
  if (!value->is_string()) return unexpected(place_of(key), "a string", *value);
  return value->get<std::string>();
}

Result<std::string> Fields::text(const char* key, std::string fallback) const {
  return find(key) == nullptr ? Result<std::string>(std::move(fallback)) : text(key);
}

Result<bool> Fields::flag(const char* key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return unexpected(place_of(key), "true or false", *value);
  return value->get<bool>();
}

Result<int64_t> Fields::integer(const char* key, int64_t least, int64_t most) const {
  SPRUN_ASSIGN(const Json* value, need(key));
  // An unsigned number above int64 would wrap to a negative one, which is below `least` only by
  // luck.
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  if (!fits || value->get<int64_t>() < least || value->get<int64_t>() > most) {
    return unexpected(
        place_of(key),
        "a whole number from " + std::to_string(least) + " to " + std::to_string(most), *value);
  }
  return value->get<int64_t>();
}

Result<int64_t> Fields::integer(const char* key, int64_t least, int64_t most,
                                int64_t fallback) const {
  return find(key) == nullptr ? Result<int64_t>(fallback) : integer(key, least, most);
}

Result<std::string> Fields::character(const char* key, const std::string& fallback) const {
  SPRUN_ASSIGN(std::string value, text(key, fallback));
  if (count_chars(value) != 1) return unexpected(place_of(key), "one character", value);
  return value;
}

}  // namespace sprun::text
