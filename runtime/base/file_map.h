// FileMap: a regular file mapped read-only. Tensors that point into a mapping keep it alive through pin_range(), and
// their pages go back to the system when the last of them is gone.
//
//   SPRUN_ASSIGN(auto map, FileMap::open("model.onnx"));
//   Tensor t = Tensor::adopt(pin_range(map, offset, bytes), const_cast<char*>(map->data() + offset), dtype, shape);
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "sprun/status.h"

namespace sprun {

// Immutable; safe to share between threads. Changing or truncating the file while it is mapped is not supported: reads
// of pages that vanished end the process, as with any mapped file.
class FileMap {
 public:
  // Follows symbolic links. kBadInput if the file cannot be opened, is not a regular file or cannot be mapped.
  static Result<std::shared_ptr<const FileMap>> open(const std::string& path);
  // The same for an open descriptor, which is closed in every case. `name` is for messages.
  static Result<std::shared_ptr<const FileMap>> from_descriptor(int fd, const std::string& name);

  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;
  ~FileMap();

  const char* data() const { return data_; }
  int64_t size() const { return size_; }
  std::string_view bytes() const { return {data_, static_cast<size_t>(size_)}; }

 private:
  FileMap(const char* data, int64_t size) : data_(data), size_(size) {}

  const char* data_;
  int64_t size_;
};

// The whole pages of [data, data + size), which lies in a read-only file mapping, stop counting as resident memory of
// the process; they are read again from the file when somebody still needs them.
void drop_file_pages(const void* data, int64_t size);

// Keeps `map` alive. When the last copy is released, the whole pages inside [offset, offset + size) stop counting as
// resident memory of the process; they are read again from the file when somebody still needs them.
// Precondition: the range lies inside the file.
std::shared_ptr<const void> pin_range(std::shared_ptr<const FileMap> map, int64_t offset, int64_t size);

}  // namespace sprun
