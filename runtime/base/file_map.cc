#include "runtime/base/file_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace sprun {

namespace {
Status file_error(const std::string& name, const std::string& what) {
  return {Code::kBadInput, "file '" + name + "': " + what};
}

std::string errno_text(int error) { return std::system_category().message(error); }

class Pin {
 public:
  Pin(std::shared_ptr<const FileMap> map, int64_t offset, int64_t size)
      : map_(std::move(map)), begin_(map_->data() + offset), size_(size) {}
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

  ~Pin() { drop_file_pages(begin_, size_); }

 private:
  std::shared_ptr<const FileMap> map_;
  const char* begin_;
  int64_t size_;
};
}  // namespace

Result<std::shared_ptr<const FileMap>> FileMap::open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return file_error(path, "cannot be opened: " + errno_text(errno));
  return from_descriptor(fd, path);
}

Result<std::shared_ptr<const FileMap>> FileMap::from_descriptor(int fd, const std::string& name) {
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return file_error(name, "is not a regular file");
  }
  void* data = nullptr;
  if (info.st_size > 0) {
    data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  }
  const int error = errno;
  close(fd);
  if (data == MAP_FAILED) return file_error(name, "cannot be mapped: " + errno_text(error));
  return std::shared_ptr<const FileMap>(new FileMap(static_cast<const char*>(data), info.st_size));
}

FileMap::~FileMap() {
  if (size_ > 0) munmap(const_cast<char*>(data_), static_cast<size_t>(size_));
}

void drop_file_pages(const void* data, int64_t size) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + static_cast<uintptr_t>(size)) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::shared_ptr<const void> pin_range(std::shared_ptr<const FileMap> map, int64_t offset, int64_t size) {
  return std::make_shared<const Pin>(std::move(map), offset, size);
}

}  // namespace sprun
