// Reader and writer of NumPy .npz archives (a zip file of .npy files).
#pragma once

#include <string>
#include <vector>

#include "sprun/session.h"
#include "sprun/status.h"

namespace sprun::tools {

// Every array of the archive under its name without ".npy", in file order. Entries of more than 64
// MiB may be compressed at most 200:1, and an archive may unpack to at most 64 GiB. kBadInput
// naming archive and entry.
Result<std::vector<NamedTensor>> read_npz(const std::string& path);

// Writes the arrays uncompressed. Replaces an existing file.
Status write_npz(const std::string& path, const std::vector<NamedTensor>& tensors);

}  // namespace sprun::tools
