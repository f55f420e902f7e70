// Which tokens begin and end a sequence: by tokenizer_config.json and generation_config.json, else
// by usual names.
#include <algorithm>
#include <filesystem>

#include "runtime/text/tokenizer_impl.h"

namespace sprun::text {
namespace {

constexpr const char* kBeginNames[] = {"<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>",
                                       "[BOS]"};
constexpr const char* kEndNames[] = {"</s>",       "<|endoftext|>", "<|end_of_text|>",
                                     "<|eot_id|>", "<|im_end|>",    "<|end|>",
                                     "<eos>",      "<end_of_turn>", "[EOS]"};

void add_end(std::optional<int64_t> id, Tokenizer::Impl* impl) {
  if (id && std::find(impl->eos_ids.begin(), impl->eos_ids.end(), *id) == impl->eos_ids.end())
    impl->eos_ids.push_back(*id);
}

// Null if the folder has no such file.
Result<Json> optional_json(const std::string& folder, const char* name) {
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return Json();
  return parse_json(path.string());
}

// A token named by a string, or by an object with "content".
std::optional<int64_t> named_token(const Json& config, const char* key,
                                   const Tokenizer::Impl& impl) {
  const auto found = config.find(key);
  if (found == config.end()) return std::nullopt;
  const Json* name = &*found;
  if (name->is_object() && name->contains("content")) name = &(*name)["content"];
  return name->is_string() ? impl.id_of(name->get_ref<const std::string&>()) : std::nullopt;
}

void add_ids(const Json& ids, Tokenizer::Impl* impl) {
  if (ids.is_number_unsigned() && ids.get<uint64_t>() <= static_cast<uint64_t>(kMaxId))
    add_end(ids.get<int64_t>(), impl);
  if (!ids.is_array()) return;
  for (const Json& id : ids) {
    if (id.is_number_unsigned()) add_ids(id, impl);
  }
}

}  // namespace

Status find_special_ids(const std::string& folder, Tokenizer::Impl* impl) {
  SPRUN_ASSIGN(const Json tokenizer, optional_json(folder, "tokenizer_config.json"));
  if (tokenizer.is_object()) {
    impl->bos_id = named_token(tokenizer, "bos_token", *impl);
    add_end(named_token(tokenizer, "eos_token", *impl), impl);
  }
  SPRUN_ASSIGN(const Json generation, optional_json(folder, "generation_config.json"));
  if (generation.is_object() && generation.contains("eos_token_id"))
    add_ids(generation["eos_token_id"], impl);
  const auto special = [&](const char* name) {
    const auto id = impl->added.vocab().id_of(name);
    return id && impl->added.is_special(*id) ? id : std::nullopt;
  };
  for (const char* name : kBeginNames) {
    if (!impl->bos_id) impl->bos_id = special(name);
  }
  if (!impl->eos_ids.empty()) return {};
  for (const char* name : kEndNames) add_end(special(name), impl);
  return {};
}

}  // namespace sprun::text
