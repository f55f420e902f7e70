// Tokenizer::load: finds the file, reads it, hands it to its format.
#include <algorithm>
#include <filesystem>
#include <new>

#include "runtime/base/file_map.h"
#include "runtime/text/tokenizer_impl.h"
#include "runtime/text/unicode.h"
#include "runtime/text/vocab.h"

namespace sprun {
namespace text {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// "tokenizer.bin", or the only file tok*.bin; empty if there is none or more than one.
fs::path find_llama2c(const fs::path& folder) {
  if (is_file(folder / "tokenizer.bin")) return folder / "tokenizer.bin";
  std::error_code error;
  fs::path found;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with("tok") || !name.ends_with(".bin")) continue;
    if (!found.empty()) return {};
    found = it->path();
  }
  return found;
}

// The file in the folder that load() takes.
Result<fs::path> find_in(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "vocab.json", "vocab.txt"}) {
    if (is_file(folder / name)) return folder / name;
  }
  fs::path bin = find_llama2c(folder);
  if (!bin.empty()) return bin;
  return Status(Code::kBadInput, "folder " + folder.string() +
                                     ": expected tokenizer.json, vocab.json, vocab.txt, "
                                     "tokenizer.bin or one tok*.bin, found none");
}

Result<ImplPtr> load_json(const fs::path& path) {
  SPRUN_ASSIGN(const Json root, parse_json(path.string()));
  if (root.is_array()) return load_piece_list(root);
  // "model" is also a word of GPT-2's vocabulary.
  if (root.is_object() && root.contains("model") && root["model"].is_object())
    return load_tokenizer_json(root);
  const fs::path merges = path.parent_path() / "merges.txt";
  if (!is_file(merges)) {
    return Status(
        Code::kBadModel,
        "expected a tokenizer with a \"model\", a list of pieces, or a vocabulary with merges.txt "
        "beside it, got none of them");
  }
  SPRUN_ASSIGN(const std::string text, read_file(merges.string()));
  return load_gpt2(root, text);
}

Result<ImplPtr> load_text(const fs::path& path) {
  if (path.filename() == "merges.txt") return load_json(path.parent_path() / "vocab.json");
  SPRUN_ASSIGN(const std::string vocab, read_file(path.string()));
  Json config;
  const fs::path settings = path.parent_path() / "tokenizer_config.json";
  if (is_file(settings)) {
    SPRUN_ASSIGN(config, parse_json(settings.string()));
  }
  return load_bert_vocab(vocab, config);
}

Result<ImplPtr> load_file(const fs::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".json") return load_json(path);
  if (extension == ".txt") return load_text(path);
  if (extension == ".bin") {
    SPRUN_ASSIGN(const std::string bytes, read_file(path.string()));
    return load_llama2c(bytes);
  }
  return Status(Code::kBadInput,
                "expected a folder or a file .json, .txt or .bin, got \"" + extension + "\"");
}

Result<ImplPtr> load_path(const fs::path& given) {
  std::error_code error;
  fs::path path = given;
  if (fs::is_directory(given, error)) {
    SPRUN_ASSIGN(path, find_in(given));
  }
  auto loaded = load_file(path);
  if (!loaded.ok()) return loaded.status().with_context(path.string());
  Tokenizer::Impl& impl = **loaded;
  impl.description = std::string(impl.model->name()) + " from " + path.string();
  if (!impl.bos_id && impl.eos_ids.empty())
    SPRUN_TRY(find_special_ids(path.parent_path().string(), &impl));
  return loaded;
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
  SPRUN_ASSIGN(const std::shared_ptr<const FileMap> map, FileMap::open(path));
  if (map->size() > kMaxFileBytes) {
    return Status(Code::kResourceLimit, path + ": expected at most 64 MiB, got " +
                                            std::to_string(map->size()) + " bytes");
  }
  return std::string(map->bytes());
}

Result<Json> parse_json(const std::string& path) {
  SPRUN_ASSIGN(const std::string bytes, read_file(path));
  try {
    return Json::parse(bytes);
  } catch (const Json::exception& error) {
    return Status(Code::kBadModel, path + ": " + repair_utf8(error.what()));
  }
}

}  // namespace text

Result<Tokenizer> Tokenizer::load(const std::string& path) try {
  std::error_code error;
  if (path == "bytes" && !std::filesystem::exists(path, error)) return bytes();
  SPRUN_ASSIGN(const text::ImplPtr impl, text::load_path(path));
  return Tokenizer(impl);
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit, path + ": no memory for the tokenizer");
} catch (const std::exception& error) {
  return Status(Code::kInternal, path + ": " + error.what());
}

}  // namespace sprun
