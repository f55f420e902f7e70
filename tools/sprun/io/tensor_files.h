// Named tensors from and to whatever the user points at: .npy files, .npz archives, folders of .npy
// files, and ONNX test_data_set folders.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"

namespace sprun::tools {

enum class TensorRole { kInput, kOutput };

// The tensors of `path`:
//   FILE.npz   every array, by its name
//   DIR        NAME.npy files by file name; otherwise an ONNX test_data_set folder: input_K.pb (or
//   output_K.pb for
//              kOutput) by the name stored in the file if a spec has it, else the K-th spec
// kBadInput: missing, malformed, more .pb files than specs.
Result<std::vector<NamedTensor>> read_tensors(const std::string& path, TensorRole role,
                                              std::span<const TensorSpec> specs);

// One `-i` argument: NAME=FILE.npy, or a path for read_tensors.
Result<std::vector<NamedTensor>> read_input_argument(const std::string& argument,
                                                     std::span<const TensorSpec> specs);

// Writes FILE.npz, or NAME.npy files into a folder that is created when missing. '/' and '\' in
// names become '_'.
Status write_tensors(const std::string& path, const std::vector<NamedTensor>& tensors);

}  // namespace sprun::tools
