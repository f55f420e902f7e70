#include "tools/sprun/io/tensor_files.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "graph/onnx/tensor_proto.h"
#include "tools/sprun/io/npy.h"
#include "tools/sprun/io/npz.h"

namespace sprun::tools {
namespace {

namespace fs = std::filesystem;

Status bad(const std::string& text) { return {Code::kBadInput, text}; }

// The K of "<prefix>_K.pb"; nullopt for other names.
std::optional<size_t> pb_index(const std::string& file, std::string_view prefix) {
  std::string_view rest = file;
  if (!rest.starts_with(prefix) || !rest.ends_with(".pb")) return std::nullopt;
  rest.remove_prefix(prefix.size());
  rest.remove_suffix(3);
  size_t index = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), index);
  if (error != std::errc() || end != rest.data() + rest.size()) return std::nullopt;
  return index;
}

// Names in the folder, sorted. Empty if it cannot be read.
std::vector<std::string> list_folder(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A tensor's name as a file name.
std::string file_name_for(std::string name) {
  for (char& c : name) {
    if (c == '/' || c == '\\' || c == '\0') c = '_';
  }
  return name.empty() || name.front() == '.' ? "_" + name : name;
}

Result<std::vector<NamedTensor>> read_npy_folder(const std::string& dir,
                                                 const std::vector<std::string>& files,
                                                 std::span<const TensorSpec> specs) {
  std::vector<NamedTensor> tensors;
  for (const std::string& file : files) {
    if (!file.ends_with(".npy")) continue;
    SPRUN_ASSIGN(Tensor tensor, read_npy(dir + "/" + file));
    std::string name = file.substr(0, file.size() - 4);
    for (const TensorSpec& spec : specs) {
      if (file_name_for(spec.name) == name) name = spec.name;
    }
    tensors.push_back({std::move(name), std::move(tensor)});
  }
  return tensors;
}

// Older test data stores bfloat16 as uint16 tensors of the same bits.
Tensor bfloat16_from_bits(const Tensor& bits) {
  auto owner = std::make_shared<Tensor>(bits);
  void* data = owner->mutable_view().data;
  return Tensor::adopt(owner, data, DType::kBf16, bits.shape());
}

Result<std::vector<NamedTensor>> read_test_data_set(const std::string& dir,
                                                    const std::vector<std::string>& files,
                                                    std::string_view prefix,
                                                    std::span<const TensorSpec> specs) {
  std::vector<std::pair<size_t, std::string>> found;
  for (const std::string& file : files) {
    if (const auto index = pb_index(file, prefix)) found.emplace_back(*index, file);
  }
  std::sort(found.begin(), found.end());
  std::vector<NamedTensor> tensors;
  for (const auto& [index, file] : found) {
    SPRUN_ASSIGN(NamedTensor tensor, graph::read_tensor_proto_file(dir + "/" + file));
    auto spec = std::find_if(specs.begin(), specs.end(),
                             [&t = tensor](const TensorSpec& s) { return s.name == t.name; });
    if (spec == specs.end()) {
      if (index >= specs.size()) {
        return bad(
            fmt::format("{}/{}: the model has only {} tensors of this kind, none is named '{}'",
                        dir, file, specs.size(), tensor.name));
      }
      spec = specs.begin() + static_cast<ptrdiff_t>(index);
      tensor.name = spec->name;
    }
    const bool as_bits = spec->dtype == DType::kBf16 && tensor.tensor.dtype() == DType::kU16;
    if (as_bits) tensor.tensor = bfloat16_from_bits(tensor.tensor);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

Result<std::vector<NamedTensor>> read_tensors(const std::string& path, TensorRole role,
                                              std::span<const TensorSpec> specs) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return bad(path + ": no such file or folder");
  if (!fs::is_directory(status)) {
    if (path.ends_with(".npz")) return read_npz(path);
    return bad(path +
               ": expected a .npz file or a folder (a single array is given as NAME=FILE.npy)");
  }
  const std::vector<std::string> files = list_folder(path);
  const bool has_npy =
      std::any_of(files.begin(), files.end(), [](const auto& f) { return f.ends_with(".npy"); });
  if (has_npy) return read_npy_folder(path, files, specs);
  SPRUN_ASSIGN(
      std::vector<NamedTensor> tensors,
      read_test_data_set(path, files, role == TensorRole::kInput ? "input_" : "output_", specs));
  if (tensors.empty() && !specs.empty()) {
    return bad(fmt::format("{}: neither .npy files nor {}_K.pb files in this folder", path,
                           role == TensorRole::kInput ? "input" : "output"));
  }
  return tensors;
}

Result<std::vector<NamedTensor>> read_input_argument(const std::string& argument,
                                                     std::span<const TensorSpec> specs) {
  std::error_code error;
  const size_t equals = argument.find('=');
  if (equals == std::string::npos || fs::exists(argument, error)) {
    return read_tensors(argument, TensorRole::kInput, specs);
  }
  SPRUN_ASSIGN(Tensor tensor, read_npy(argument.substr(equals + 1)));
  return std::vector<NamedTensor>{{argument.substr(0, equals), std::move(tensor)}};
}

Status write_tensors(const std::string& path, const std::vector<NamedTensor>& tensors) {
  if (path.ends_with(".npz")) return write_npz(path, tensors);
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return bad(fmt::format("cannot create folder {}: {}", path, error.message()));
  for (const NamedTensor& t : tensors) {
    SPRUN_TRY(write_npy(path + "/" + file_name_for(t.name) + ".npy", t.tensor.view()));
  }
  return {};
}

}  // namespace sprun::tools
