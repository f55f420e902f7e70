#include "runtime/base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <set>
#include <system_error>
#include <utility>

namespace sprun {

namespace {
struct Unfinished {
  std::mutex mutex;
  std::set<std::string> paths;
};
// Never destroyed: a thread that ends the process may still ask for it.
Unfinished& unfinished() {
  static auto* files = new Unfinished;
  return *files;
}

void forget(const std::string& temporary) {
  Unfinished& files = unfinished();
  const std::lock_guard lock(files.mutex);
  files.paths.erase(temporary);
}
}  // namespace

Result<AtomicFile> AtomicFile::create(const std::string& path) {
  static constinit std::atomic<unsigned> counter{0};
  std::string temporary = path + ".tmp" + std::to_string(getpid()) + "." + std::to_string(++counter);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) {
    return Status(Code::kUsage, "file '" + path + "' cannot be created: " + std::system_category().message(errno));
  }
  Unfinished& files = unfinished();
  const std::lock_guard lock(files.mutex);
  files.paths.insert(temporary);
  return AtomicFile(path, std::move(temporary), fd);
}

void AtomicFile::discard_unfinished() {
  Unfinished& files = unfinished();
  const std::lock_guard lock(files.mutex);
  for (const std::string& path : files.paths) unlink(path.c_str());
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_) {}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
  forget(temporary_);
}

Status AtomicFile::error(const char* what, int error_number) const {
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  return {full ? Code::kResourceLimit : Code::kUsage,
          "file '" + path_ + "' " + what + ": " + std::system_category().message(error_number)};
}

Status AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return error("cannot be written", errno);
    size_ += written;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

Status AtomicFile::pad_to(int64_t alignment) {
  return write(std::string(static_cast<size_t>((alignment - size_ % alignment) % alignment), '\0'));
}

Status AtomicFile::commit() {
  const int fd = std::exchange(fd_, -1);
  const bool closed = close(fd) == 0;
  forget(temporary_);
  if (closed && std::rename(temporary_.c_str(), path_.c_str()) == 0) return {};
  const int error_number = errno;
  unlink(temporary_.c_str());
  return error("cannot be written", error_number);
}

}  // namespace sprun
