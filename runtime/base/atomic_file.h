// AtomicFile: a file that appears under its name only when it is complete.
//
//   SPRUN_ASSIGN(AtomicFile file, AtomicFile::create("out.onnx"));
//   SPRUN_TRY(file.write(bytes));
//   return file.commit();                     // without commit() nothing is left behind
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sprun/status.h"

namespace sprun {

// Writes to a temporary file in the same folder; commit() renames it over `path`.
class AtomicFile {
 public:
  // kUsage if the folder does not exist or is not writable.
  static Result<AtomicFile> create(const std::string& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // kResourceLimit if the disk is full, kUsage for other errors.
  Status write(std::string_view bytes);
  // Writes zero bytes up to a multiple of `alignment`.
  Status pad_to(int64_t alignment);
  Status commit();
  // Removes the temporary files of all files that are being written in this process. For a process that is about to end
  // without running destructors; thread-safe.
  static void discard_unfinished();
  // Bytes written so far.
  int64_t size() const { return size_; }

 private:
  AtomicFile(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}
  Status error(const char* what, int error_number) const;

  std::string path_, temporary_;
  int fd_ = -1;
  int64_t size_ = 0;
};

}  // namespace sprun
