// Reader and writer of NumPy .npy files for files from anywhere: strict grammar, every size checked
// before use.
//
//   Result<Tensor> ids = tools::read_npy("ids.npy");
//
// Element types: bool, (u)int8 to (u)int64, float16, float32, float64, little-endian. A two-byte
// void type ("V2") is bfloat16, as the ml_dtypes package writes it. Fortran order is transposed to
// row-major while reading. Structured, object, string, complex and big-endian arrays are refused by
// name.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun::tools {

// The array in `bytes`, which must be one whole .npy file. kBadInput with `what` as context.
Result<Tensor> parse_npy(std::span<const std::byte> bytes, const std::string& what);
// kBadInput if the file is missing, is not a regular file or is malformed.
Result<Tensor> read_npy(const std::string& path);

// The .npy file of a tensor. bfloat16 is written as float32, 4-bit integers as 8-bit ones: NumPy
// has neither. kNotSupported for strings.
Result<std::vector<std::byte>> npy_bytes(const ConstTensorView& view);
Status write_npy(const std::string& path, const ConstTensorView& view);

// Contents of a regular file, at most max_bytes long. kBadInput.
Result<std::vector<std::byte>> read_file(const std::string& path, int64_t max_bytes);
// Creates or replaces a file. kBadInput when it cannot be written.
Status write_file(const std::string& path, std::span<const std::byte> bytes);

}  // namespace sprun::tools
