#include "tools/sprun/io/npy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "runtime/base/half.h"

namespace sprun::tools {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeader = 64 * 1024;
constexpr int64_t kMaxFileBytes = int64_t{1} << 36;

struct Descr {
  std::string_view code;  // without the byte-order mark
  DType dtype;
};
constexpr std::array kDescrs = {
    Descr{"b1", DType::kBool}, Descr{"i1", DType::kS8},  Descr{"u1", DType::kU8},
    Descr{"i2", DType::kS16},  Descr{"u2", DType::kU16}, Descr{"i4", DType::kS32},
    Descr{"u4", DType::kU32},  Descr{"i8", DType::kS64}, Descr{"u8", DType::kU64},
    Descr{"f2", DType::kF16},  Descr{"f4", DType::kF32}, Descr{"f8", DType::kF64},
    Descr{"V2", DType::kBf16},
};

struct Header {
  DType dtype = DType::kUndefined;
  bool fortran_order = false;
  Shape shape;
};

Status bad(const std::string& text) { return {Code::kBadInput, text}; }

// Reads the Python dictionary of a header. Accepts exactly the keys descr, fortran_order and shape,
// each once.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : rest_(text) {}

  Result<Header> parse() {
    SPRUN_TRY(expect('{'));
    while (!accept('}')) {
      SPRUN_ASSIGN(const std::string_view key, string_literal());
      SPRUN_TRY(expect(':'));
      SPRUN_TRY(entry(key));
      if (!accept(',')) {
        SPRUN_TRY(expect('}'));
        break;
      }
    }
    skip_space();
    if (!rest_.empty()) return bad("text after the header dictionary");
    if (seen_ != (kDescr | kOrder | kShape))
      return bad("header lacks descr, fortran_order or shape");
    return header_;
  }

 private:
  static constexpr unsigned kDescr = 1, kOrder = 2, kShape = 4;

  Status entry(std::string_view key) {
    const unsigned bit = key == "descr"           ? kDescr
                         : key == "fortran_order" ? kOrder
                         : key == "shape"         ? kShape
                                                  : 0u;
    if (bit == 0) return bad(fmt::format("unknown header key '{}'", key));
    if ((seen_ & bit) != 0) return bad(fmt::format("header key '{}' twice", key));
    seen_ |= bit;
    if (bit == kDescr) return descr();
    if (bit == kOrder) return order();
    return shape();
  }

  Status descr() {
    skip_space();
    if (!rest_.empty() && rest_.front() == '[') return bad("structured arrays are not supported");
    SPRUN_ASSIGN(std::string_view text, string_literal());
    const std::string_view whole = text;
    if (!text.empty() && text.front() == '>') {
      return bad(fmt::format("big-endian element type '{}' is not supported", whole));
    }
    if (!text.empty() && std::string_view("<|=").find(text.front()) != std::string_view::npos)
      text.remove_prefix(1);
    for (const Descr& d : kDescrs) {
      if (d.code == text) header_.dtype = d.dtype;
    }
    if (header_.dtype == DType::kUndefined)
      return bad(fmt::format("element type '{}' is not supported", whole));
    return {};
  }

  Status order() {
    skip_space();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (rest_.starts_with(word)) {
        header_.fortran_order = value;
        rest_.remove_prefix(word.size());
        return {};
      }
    }
    return bad("fortran_order is neither True nor False");
  }

  Status shape() {
    SPRUN_TRY(expect('('));
    std::vector<int64_t> dims;
    while (!accept(')')) {
      skip_space();
      int64_t dim = -1;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), dim);
      if (error != std::errc() || dim < 0) return bad("shape holds something that is not a size");
      rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
      if (rest_.starts_with('L')) rest_.remove_prefix(1);  // written by Python 2
      dims.push_back(dim);
      if (!accept(',')) {
        SPRUN_TRY(expect(')'));
        break;
      }
    }
    auto checked = Shape::checked(dims);
    if (!checked.ok()) return bad(checked.status().message());
    header_.shape = *checked;
    return {};
  }

  Result<std::string_view> string_literal() {
    skip_space();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"'))
      return bad("expected a quoted string");
    const size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) return bad("string without an end");
    const std::string_view text = rest_.substr(1, end - 1);
    if (text.find('\\') != std::string_view::npos) return bad("escape in a string");
    rest_.remove_prefix(end + 1);
    return text;
  }

  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n'))
      rest_.remove_prefix(1);
  }
  bool accept(char c) {
    skip_space();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  Status expect(char c) {
    return accept(c) ? Status() : bad(fmt::format("expected '{}' in the header", c));
  }

  std::string_view rest_;
  unsigned seen_ = 0;
  Header header_;
};

// Copies column-major elements to row-major.
void from_fortran(const std::byte* src, std::byte* dst, const Shape& shape, size_t size) {
  std::array<int64_t, kMaxRank> strides{};  // of the source
  int64_t stride = 1;
  for (int i = 0; i < shape.rank(); ++i) {
    strides[static_cast<size_t>(i)] = stride;
    stride *= shape[i];
  }
  std::array<int64_t, kMaxRank> index{};
  int64_t from = 0;
  for (int64_t n = shape.num_elements(); n > 0; --n) {
    std::memcpy(dst, src + static_cast<size_t>(from) * size, size);
    dst += size;
    for (int i = shape.rank() - 1; i >= 0; --i) {
      const auto axis = static_cast<size_t>(i);
      from += strides[axis];
      if (++index[axis] < shape[i]) break;
      from -= strides[axis] * shape[i];
      index[axis] = 0;
    }
  }
}

Result<Header> read_header(std::span<const std::byte> bytes, size_t* data_offset) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return bad("not a .npy file");
  }
  const auto at = [&](size_t i) { return std::to_integer<size_t>(bytes[i]); };
  const size_t major = at(6);
  if (major < 1 || major > 3) return bad(fmt::format("unknown .npy version {}", major));
  size_t prefix = 10;
  size_t length = at(8) | (at(9) << 8);
  if (major >= 2) {
    prefix = 12;
    if (bytes.size() < prefix) return bad("cut off inside the header");
    length |= (at(10) << 16) | (at(11) << 24);
  }
  if (length > kMaxHeader)
    return bad(fmt::format("header of {} bytes, at most {} are allowed", length, kMaxHeader));
  if (length > bytes.size() - prefix) return bad("cut off inside the header");
  *data_offset = prefix + length;
  return HeaderParser({reinterpret_cast<const char*>(bytes.data()) + prefix, length}).parse();
}

std::string_view descr_of(DType dtype) {
  if (dtype == DType::kBf16) return "f4";
  if (dtype == DType::kU4) return "u1";
  if (dtype == DType::kS4) return "i1";
  for (const Descr& d : kDescrs) {
    if (d.dtype == dtype) return d.code;
  }
  return {};
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

Result<Tensor> parse_npy(std::span<const std::byte> bytes, const std::string& what) {
  size_t offset = 0;
  auto header = read_header(bytes, &offset);
  if (!header.ok()) return header.status().with_context(what);
  const int64_t elements = header->shape.num_elements();
  const auto size = static_cast<size_t>(dtype_size(header->dtype));
  const auto have = static_cast<int64_t>(bytes.size() - offset);
  if (elements * static_cast<int64_t>(size) != have) {  // no overflow: elements <= 2^40
    return bad(fmt::format("{}: shape {} of {} needs {} bytes, the file holds {}", what,
                           header->shape.to_string(), dtype_name(header->dtype),
                           elements * static_cast<int64_t>(size), have));
  }
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(header->dtype, header->shape));
  auto* dst = tensor.mutable_view().as<std::byte>();
  const std::byte* src = bytes.data() + offset;
  if (header->fortran_order && header->shape.rank() > 1) {
    from_fortran(src, dst, header->shape, size);
  } else if (have > 0) {
    std::memcpy(dst, src, static_cast<size_t>(have));
  }
  if (header->dtype == DType::kBool) {
    for (int64_t i = 0; i < have; ++i) dst[i] = std::byte{dst[i] != std::byte{0}};
  }
  return tensor;
}

Result<Tensor> read_npy(const std::string& path) {
  SPRUN_ASSIGN(const std::vector<std::byte> bytes, read_file(path, kMaxFileBytes));
  return parse_npy(bytes, path);
}

Result<std::vector<std::byte>> npy_bytes(const ConstTensorView& view) {
  const std::string_view code = descr_of(view.dtype);
  if (code.empty()) {
    return Status(Code::kNotSupported,
                  fmt::format("element type {} cannot be written as .npy", dtype_name(view.dtype)));
  }
  std::string shape;
  for (int64_t dim : view.shape.dims()) shape += fmt::format("{}, ", dim);
  if (view.shape.rank() > 1) shape.resize(shape.size() - 2);
  if (view.shape.rank() == 1) shape.resize(shape.size() - 1);
  std::string header = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                                   code[1] == '1' ? '|' : '<', code, shape);
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const bool widen = view.dtype == DType::kBf16;
  const auto elements = static_cast<size_t>(view.num_elements());
  const size_t data_bytes = widen ? elements * 4 : static_cast<size_t>(view.size_bytes());
  std::vector<std::byte> out(10 + header.size() + data_bytes);
  std::memcpy(out.data(), kMagic.data(), kMagic.size());
  out[6] = std::byte{1};
  out[8] = static_cast<std::byte>(header.size() & 0xff);
  out[9] = static_cast<std::byte>(header.size() >> 8);
  std::memcpy(out.data() + 10, header.data(), header.size());
  std::byte* data = out.data() + 10 + header.size();
  if (!widen) {
    if (data_bytes > 0) std::memcpy(data, view.data, data_bytes);
    return out;
  }
  for (size_t i = 0; i < elements; ++i) {
    const float value = to_float(view.as<BFloat16>()[i]);
    std::memcpy(data + i * 4, &value, 4);
  }
  return out;
}

Status write_npy(const std::string& path, const ConstTensorView& view) {
  SPRUN_ASSIGN(const std::vector<std::byte> bytes, npy_bytes(view));
  return write_file(path, bytes);
}

Result<std::vector<std::byte>> read_file(const std::string& path, int64_t max_bytes) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return bad(fmt::format("{}: {}", path, std::strerror(errno)));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode))
    return bad(path + ": not a regular file");
  if (info.st_size > max_bytes) {
    return bad(fmt::format("{}: {} bytes, at most {} are read", path,
                           static_cast<int64_t>(info.st_size), max_bytes));
  }
  std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::read(fd.get(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return bad(fmt::format("{}: {}", path, std::strerror(errno)));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

Status write_file(const std::string& path, std::span<const std::byte> bytes) {
  const FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (fd.get() < 0) return bad(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(fd.get(), bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return bad(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
    done += static_cast<size_t>(n);
  }
  return {};
}

}  // namespace sprun::tools
