#include "tools/sprun/io/npz.h"

#include <zip.h>

#include <cstddef>
#include <memory>
#include <set>
#include <string_view>

#include <fmt/format.h>

#include "tools/sprun/io/npy.h"

namespace sprun::tools {
namespace {

constexpr zip_uint64_t kFreeSize = zip_uint64_t{64} << 20;  // entries up to here may have any ratio
constexpr zip_uint64_t kMaxRatio = 200;
constexpr zip_uint64_t kMaxTotal = zip_uint64_t{64} << 30;
constexpr zip_uint16_t kFirstOfJanuary1980 = 1 << 5 | 1;  // the earliest date of the format
constexpr std::string_view kSuffix = ".npy";

Status bad(const std::string& text) { return {Code::kBadInput, text}; }

struct ZipDiscard {
  void operator()(zip_t* zip) const { zip_discard(zip); }
};
using ZipPtr = std::unique_ptr<zip_t, ZipDiscard>;

Result<ZipPtr> open_zip(const std::string& path, int flags) {
  int code = 0;
  ZipPtr zip(zip_open(path.c_str(), flags, &code));
  if (zip) return zip;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  Status status = bad(fmt::format("{}: {}", path, zip_error_strerror(&error)));
  zip_error_fini(&error);
  return status;
}

Result<std::vector<std::byte>> read_entry(zip_t* zip, zip_uint64_t index, const zip_stat_t& info) {
  if (info.size > kFreeSize && info.size / kMaxRatio > info.comp_size) {
    return bad(fmt::format("unpacks {} bytes to {}, more than {}:1", info.comp_size, info.size,
                           kMaxRatio));
  }
  struct FileClose {
    void operator()(zip_file_t* file) const { zip_fclose(file); }
  };
  const std::unique_ptr<zip_file_t, FileClose> file(zip_fopen_index(zip, index, 0));
  if (!file) return bad(zip_strerror(zip));
  std::vector<std::byte> bytes(info.size);
  zip_uint64_t done = 0;
  while (done < info.size) {
    const zip_int64_t n = zip_fread(file.get(), bytes.data() + done, info.size - done);
    if (n <= 0) return bad("cannot be unpacked (damaged or cut off)");
    done += static_cast<zip_uint64_t>(n);
  }
  std::byte extra;
  if (zip_fread(file.get(), &extra, 1) != 0) return bad("damaged: wrong length or checksum");
  return bytes;
}

}  // namespace

Result<std::vector<NamedTensor>> read_npz(const std::string& path) {
  SPRUN_ASSIGN(const ZipPtr zip, open_zip(path, ZIP_RDONLY));
  std::vector<NamedTensor> tensors;
  std::set<std::string> names;
  zip_uint64_t total = 0;
  const zip_int64_t count = zip_get_num_entries(zip.get(), 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<zip_uint64_t>(i);
    zip_stat_t info;
    if (zip_stat_index(zip.get(), index, 0, &info) != 0 || info.name == nullptr ||
        (info.valid & (ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE)) !=
            (ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE)) {
      return bad(fmt::format("{}: entry {} has no name or size", path, i));
    }
    std::string name = info.name;
    if (!name.ends_with(kSuffix))
      return bad(fmt::format("{}: entry '{}' is not a .npy file", path, name));
    name.resize(name.size() - kSuffix.size());
    if (!names.insert(name).second) return bad(fmt::format("{}: array '{}' twice", path, name));
    if (info.size > kMaxTotal - total)
      return bad(fmt::format("{}: unpacks to more than {} bytes", path, kMaxTotal));
    total += info.size;
    const std::string where = path + ":" + name;
    auto bytes = read_entry(zip.get(), index, info);
    if (!bytes.ok()) return bytes.status().with_context(where);
    SPRUN_ASSIGN(Tensor tensor, parse_npy(*bytes, where));
    tensors.push_back({std::move(name), std::move(tensor)});
  }
  return tensors;
}

Status write_npz(const std::string& path, const std::vector<NamedTensor>& tensors) {
  SPRUN_ASSIGN(ZipPtr zip, open_zip(path, ZIP_CREATE | ZIP_TRUNCATE));
  std::vector<std::vector<std::byte>> files;  // must live until zip_close
  files.reserve(tensors.size());
  for (const NamedTensor& t : tensors) {
    SPRUN_ASSIGN(std::vector<std::byte> bytes, npy_bytes(t.tensor.view()));
    files.push_back(std::move(bytes));
    zip_source_t* source =
        zip_source_buffer(zip.get(), files.back().data(), files.back().size(), 0);
    const zip_int64_t index = source == nullptr ? -1
                                                : zip_file_add(zip.get(), (t.name + ".npy").c_str(),
                                                               source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      if (source != nullptr) zip_source_free(source);
      return bad(fmt::format("cannot add '{}' to {}: {}", t.name, path, zip_strerror(zip.get())));
    }
    zip_set_file_compression(zip.get(), static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0);
    // The same arrays are the same file, whenever it is written.
    zip_file_set_dostime(zip.get(), static_cast<zip_uint64_t>(index), 0, kFirstOfJanuary1980, 0);
  }
  if (zip_close(zip.get()) != 0)
    return bad(fmt::format("cannot write {}: {}", path, zip_strerror(zip.get())));
  (void)zip.release();  // closed
  return {};
}

}  // namespace sprun::tools
