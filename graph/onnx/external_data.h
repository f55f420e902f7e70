// Files that hold the external data of a model. Locations come from an untrusted file, so they must stay inside the
// model's folder: relative, no "..", no symbolic link on the way, a regular file with one name only.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/file_map.h"
#include "sprun/status.h"

namespace sprun::graph {

// A file, or why it is not there.
struct ExternalFile {
  std::shared_ptr<const FileMap> map;  // nullptr if missing
  std::string missing_reason;
};

// Opens each file once. Not thread-safe.
class ExternalFiles {
 public:
  // Locations are relative to `folder`. An empty folder means that there is none (a model in memory): every file is
  // missing then. `allow_links` accepts symbolic and hard links (download caches of trusted sources use them).
  ExternalFiles(std::string folder, bool allow_links) : folder_(std::move(folder)), allow_links_(allow_links) {}

  // kBadModel if the location is not allowed. A file that does not exist or is not readable is no error.
  Result<ExternalFile> open(const std::string& location);

 private:
  Result<ExternalFile> open_uncached(const std::string& location) const;

  std::string folder_;
  bool allow_links_;
  std::map<std::string, ExternalFile> opened_;
};

}  // namespace sprun::graph
