#include "graph/onnx/external_data.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

namespace sprun::graph {

namespace {
Status refused(const std::string& location, const std::string& why) {
  return {Code::kBadModel, "external data location '" + location + "' is refused: " + why};
}

// "a//b/./c" -> {a, b, c}
Result<std::vector<std::string>> split_location(const std::string& location) {
  if (location.empty()) return refused(location, "it is empty");
  if (location.front() == '/') return refused(location, "it is not relative to the model's folder");
  if (location.find('\0') != std::string::npos) return refused(location, "it holds a zero byte");
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= location.size();) {
    const size_t end = std::min(location.find('/', begin), location.size());
    std::string part = location.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return refused(location, "it leaves the model's folder");
    parts.push_back(std::move(part));
  }
  if (parts.empty()) return refused(location, "it names no file");
  return parts;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_;
};

bool is_symlink(int folder, const std::string& name) {
  struct stat info {};
  return fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode);
}
}  // namespace

Result<ExternalFile> ExternalFiles::open(const std::string& location) {
  if (auto it = opened_.find(location); it != opened_.end()) return it->second;
  SPRUN_ASSIGN(ExternalFile file, open_uncached(location));
  return opened_.emplace(location, std::move(file)).first->second;
}

// Opens one path component after the other relative to the last, never following a link: nothing that changes on disk
// meanwhile can lead outside.
Result<ExternalFile> ExternalFiles::open_uncached(const std::string& location) const {
  SPRUN_ASSIGN(const std::vector<std::string> parts, split_location(location));
  if (folder_.empty()) return ExternalFile{nullptr, "the model was not read from a file"};
  Descriptor at(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const int no_follow = allow_links_ ? 0 : O_NOFOLLOW;
  for (size_t i = 0; i < parts.size() && at.get() >= 0; ++i) {
    if (!allow_links_ && is_symlink(at.get(), parts[i])) return refused(location, "it passes through a symbolic link");
    const int kind = i + 1 < parts.size() ? O_DIRECTORY : O_NONBLOCK;
    const int next = openat(at.get(), parts[i].c_str(), O_RDONLY | O_CLOEXEC | no_follow | kind);
    if (next < 0 && errno == ELOOP) return refused(location, "it passes through a symbolic link");
    at.reset(next);
  }
  if (at.get() < 0) return ExternalFile{nullptr, std::system_category().message(errno)};
  struct stat info {};
  if (fstat(at.get(), &info) != 0 || !S_ISREG(info.st_mode)) return refused(location, "it is not a regular file");
  if (!allow_links_ && info.st_nlink > 1) {
    return refused(location, "the file has " + std::to_string(info.st_nlink) + " hard links");
  }
  auto map = FileMap::from_descriptor(at.release(), location);
  if (!map.ok()) return ExternalFile{nullptr, map.status().message()};
  return ExternalFile{std::move(*map), ""};
}

}  // namespace sprun::graph
