#include "graph/onnx/tensor_loader.h"

#include <onnx/onnx_pb.h>

#include <bit>
#include <charconv>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "graph/onnx/tensor_proto.h"

namespace sprun::graph {

static_assert(std::endian::native == std::endian::little, "raw_data is little endian");

namespace {
constexpr int64_t kCopyBytes = int64_t{1} << 20;
constexpr int64_t kMaxSparseBytes = int64_t{1} << 30;

bool is_4bit(DType dtype) { return dtype == DType::kU4 || dtype == DType::kS4; }

// Bytes of `count` elements in a file.
int64_t file_bytes(DType dtype, int64_t count) { return is_4bit(dtype) ? (count + 1) / 2 : count * dtype_size(dtype); }

Status tensor_error(const onnx::TensorProto& proto, const std::string& what) {
  return {Code::kBadModel, "tensor '" + proto.name() + "': " + what};
}

void unpack_4bit(const char* in, int64_t count, DType dtype, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    const auto nibble = static_cast<uint8_t>(static_cast<uint8_t>(in[i / 2]) >> (i % 2 * 4) & 0xf);
    out[i] = dtype == DType::kS4 && nibble >= 8 ? static_cast<uint8_t>(nibble | 0xf0) : nibble;
  }
}

// `raw` as a tensor. With an owner the bytes may be shared, which the owner then keeps alive.
Result<Tensor> tensor_from_raw(DType dtype, const Shape& shape, std::string_view raw,
                               const std::shared_ptr<const FileMap>& map) {
  const int64_t count = shape.num_elements();
  if (std::cmp_not_equal(raw.size(), file_bytes(dtype, count))) {
    return Status(Code::kBadModel, std::to_string(raw.size()) + " bytes of data, but " + std::string(dtype_name(dtype)) +
                                       shape.to_string() + " needs " + std::to_string(file_bytes(dtype, count)));
  }
  const auto address = reinterpret_cast<uintptr_t>(raw.data());
  const bool aligned = address % static_cast<uintptr_t>(dtype_size(dtype)) == 0;
  if (map && !is_4bit(dtype) && dtype != DType::kBool && (aligned || std::cmp_greater_equal(raw.size(), kCopyBytes))) {
    const auto offset = static_cast<int64_t>(raw.data() - map->data());
    auto owner = pin_range(map, offset, static_cast<int64_t>(raw.size()));
    return Tensor::adopt(std::move(owner), const_cast<char*>(raw.data()), dtype, shape, true);
  }
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(dtype, shape));
  auto* out = tensor.mutable_view().as<uint8_t>();
  if (is_4bit(dtype)) {
    unpack_4bit(raw.data(), count, dtype, out);
  } else if (dtype == DType::kBool) {
    // Any other byte than 0 and 1 would be undefined behaviour when read as bool.
    for (size_t i = 0; i < raw.size(); ++i) out[i] = raw[i] != 0;
  } else if (!raw.empty()) {
    std::memcpy(out, raw.data(), raw.size());
  }
  return tensor;
}

template <class T, class Field>
void convert_elements(const Field& field, TensorView out) {
  for (int i = 0; i < field.size(); ++i) out.as<T>()[i] = static_cast<T>(field[i]);
}

// The typed field of a dtype, converted; nullopt if it does not hold as many elements as the shape.
template <class T, class Field>
Result<std::optional<Tensor>> tensor_from_field(const Field& field, DType dtype, const Shape& shape) {
  if (field.size() != shape.num_elements()) return std::optional<Tensor>();
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(dtype, shape));
  convert_elements<T>(field, tensor.mutable_view());
  return std::optional<Tensor>(std::move(tensor));
}

// int32_data of 4-bit types holds one byte, that is two elements, per entry.
Result<std::optional<Tensor>> tensor_from_4bit_field(const onnx::TensorProto& proto, DType dtype, const Shape& shape) {
  if (proto.int32_data_size() != file_bytes(dtype, shape.num_elements())) return std::optional<Tensor>();
  std::string raw;
  for (int32_t pair : proto.int32_data()) raw.push_back(static_cast<char>(pair));
  SPRUN_ASSIGN(Tensor tensor, tensor_from_raw(dtype, shape, raw, nullptr));
  return std::optional<Tensor>(std::move(tensor));
}

Result<std::optional<Tensor>> tensor_from_fields(const onnx::TensorProto& proto, DType dtype, const Shape& shape) {
  switch (dtype) {
    case DType::kF32: return tensor_from_field<float>(proto.float_data(), dtype, shape);
    case DType::kF64: return tensor_from_field<double>(proto.double_data(), dtype, shape);
    case DType::kS64: return tensor_from_field<int64_t>(proto.int64_data(), dtype, shape);
    case DType::kU32: return tensor_from_field<uint32_t>(proto.uint64_data(), dtype, shape);
    case DType::kU64: return tensor_from_field<uint64_t>(proto.uint64_data(), dtype, shape);
    case DType::kS32: return tensor_from_field<int32_t>(proto.int32_data(), dtype, shape);
    case DType::kS16:
    case DType::kU16:
    case DType::kF16:
    case DType::kBf16: return tensor_from_field<uint16_t>(proto.int32_data(), dtype, shape);
    case DType::kS8:
    case DType::kU8: return tensor_from_field<uint8_t>(proto.int32_data(), dtype, shape);
    case DType::kBool: return tensor_from_field<bool>(proto.int32_data(), dtype, shape);
    case DType::kU4:
    case DType::kS4: return tensor_from_4bit_field(proto, dtype, shape);
    case DType::kUndefined:
    case DType::kString: break;
  }
  return Status(Code::kInternal, "no field for this element type");
}

// The index of the cut that replaced raw_data, if any.
std::optional<uint64_t> cut_index(const onnx::TensorProto& proto) {
  const auto& unknown = proto.unknown_fields();
  for (int i = unknown.field_count() - 1; i >= 0; --i) {
    const auto& field = unknown.field(i);
    if (field.number() == static_cast<int>(kCutField) && field.type() == google::protobuf::UnknownField::TYPE_VARINT) {
      return field.varint();
    }
  }
  return std::nullopt;
}

// Keys of external_data. Others (checksum, hints of other runtimes) do not matter for reading.
struct ExternalInfo {
  std::string location;
  int64_t offset = 0;
  std::optional<int64_t> length;
};

Result<int64_t> parse_size(const onnx::TensorProto& proto, const std::string& key, const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [ptr, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || ptr != end || value < 0) {
    return tensor_error(proto, "external data has " + key + " '" + text + "', expected a number of bytes");
  }
  return value;
}

Result<ExternalInfo> external_info(const onnx::TensorProto& proto) {
  ExternalInfo info;
  std::set<std::string> seen;
  for (const auto& entry : proto.external_data()) {
    if (!seen.insert(entry.key()).second) return tensor_error(proto, "external data key '" + entry.key() + "' twice");
    if (entry.key() == "location") {
      info.location = entry.value();
    } else if (entry.key() == "offset") {
      SPRUN_ASSIGN(info.offset, parse_size(proto, "offset", entry.value()));
    } else if (entry.key() == "length") {
      SPRUN_ASSIGN(info.length, parse_size(proto, "length", entry.value()));
    }
  }
  return info;
}

Result<Shape> shape_of(const onnx::TensorProto& proto) {
  auto shape = Shape::checked({proto.dims().data(), static_cast<size_t>(proto.dims_size())});
  if (!shape.ok()) return shape.status().with_context("tensor '" + proto.name() + "'");
  return shape;
}
}  // namespace

Result<LoadedTensor> TensorLoader::load(const onnx::TensorProto& proto) {
  LoadedTensor loaded;
  loaded.dtype = dtype_of_onnx(proto.data_type());
  if (loaded.dtype == DType::kUndefined || proto.has_segment()) {
    loaded.state = LoadedTensor::State::kUnsupported;
    loaded.reason = proto.has_segment() ? "segmented tensor" : "element type " + onnx_type_name(proto.data_type());
    return loaded;
  }
  SPRUN_ASSIGN(loaded.shape, shape_of(proto));
  if (proto.data_location() == onnx::TensorProto::EXTERNAL) return load_external(proto, std::move(loaded));

  const std::optional<uint64_t> index = cut_index(proto);
  if (index && proto.has_raw_data()) return tensor_error(proto, "raw_data twice");
  if (index || proto.has_raw_data()) {
    auto tensor = index ? load_cut(loaded, *index) : tensor_from_raw(loaded.dtype, loaded.shape, proto.raw_data(), nullptr);
    if (!tensor.ok()) return tensor.status().with_context("tensor '" + proto.name() + "'");
    loaded.tensor = std::move(*tensor);
    return loaded;
  }
  SPRUN_ASSIGN(std::optional<Tensor> tensor, tensor_from_fields(proto, loaded.dtype, loaded.shape));
  if (!tensor) {
    return tensor_error(proto, "the number of elements in its data is not that of " +
                                   std::string(dtype_name(loaded.dtype)) + loaded.shape.to_string());
  }
  loaded.tensor = std::move(*tensor);
  return loaded;
}

Result<Tensor> TensorLoader::load_cut(const LoadedTensor& loaded, uint64_t index) const {
  if (index >= cuts_.size()) return Status(Code::kBadModel, "bad reference to raw data");
  const ByteRange range = cuts_[index];
  return tensor_from_raw(loaded.dtype, loaded.shape, bytes_.substr(range.offset, range.size), map_);
}

Result<LoadedTensor> TensorLoader::load_external(const onnx::TensorProto& proto, LoadedTensor loaded) {
  if (external_ == nullptr) return tensor_error(proto, "external data is not allowed here");
  SPRUN_ASSIGN(const ExternalInfo info, external_info(proto));
  auto file = external_->open(info.location);
  if (!file.ok()) return file.status().with_context("tensor '" + proto.name() + "'");
  const int64_t needed = file_bytes(loaded.dtype, loaded.shape.num_elements());
  if (info.length && *info.length != needed) {
    return tensor_error(proto, "external data has length " + std::to_string(*info.length) + ", but " +
                                   std::string(dtype_name(loaded.dtype)) + loaded.shape.to_string() + " needs " +
                                   std::to_string(needed));
  }
  loaded.file = info.location;
  if (!file->map) {
    loaded.state = LoadedTensor::State::kMissing;
    loaded.reason = file->missing_reason;
    return loaded;
  }
  if (needed > file->map->size() || info.offset > file->map->size() - needed) {
    return tensor_error(proto, "external data at offset " + std::to_string(info.offset) + ", length " +
                                   std::to_string(needed) + " ends behind file '" + info.location + "' of " +
                                   std::to_string(file->map->size()) + " bytes");
  }
  const auto raw = file->map->bytes().substr(static_cast<size_t>(info.offset), static_cast<size_t>(needed));
  auto tensor = tensor_from_raw(loaded.dtype, loaded.shape, raw, file->map);
  if (!tensor.ok()) return tensor.status().with_context("tensor '" + proto.name() + "'");
  loaded.tensor = std::move(*tensor);
  return loaded;
}

namespace {
// indices [nnz] (into the flattened tensor) or [nnz, rank].
Status scatter_values(const onnx::SparseTensorProto& proto, const Tensor& values, const Tensor& indices, Tensor* dense) {
  const Shape& shape = dense->shape();
  const int64_t nnz = values.num_elements();
  const bool linear = indices.shape().rank() == 1;
  const bool fits = linear ? indices.num_elements() == nnz
                           : indices.shape() == Shape({nnz, static_cast<int64_t>(shape.rank())});
  if (values.shape().rank() != 1 || indices.dtype() != DType::kS64 || !fits) {
    return tensor_error(proto.values(), "sparse values of shape " + values.shape().to_string() +
                                            " and indices of shape " + indices.shape().to_string() + " do not fit");
  }
  const auto size = static_cast<size_t>(dtype_size(values.dtype()));
  const int axes = linear ? 1 : shape.rank();
  for (int64_t i = 0; i < nnz; ++i) {
    int64_t at = 0;
    for (int axis = 0; axis < axes; ++axis) {
      int64_t index = 0;  // memcpy: the data may be unaligned inside a file
      std::memcpy(&index, indices.as<char>() + (i * axes + axis) * 8, sizeof(index));
      const int64_t limit = linear ? shape.num_elements() : shape[axis];
      if (index < 0 || index >= limit) return tensor_error(proto.values(), "sparse index is out of range");
      at = at * limit + index;
    }
    std::memcpy(dense->mutable_view().as<char>() + at * static_cast<int64_t>(size),
                values.as<char>() + i * static_cast<int64_t>(size), size);
  }
  return {};
}
}  // namespace

Result<LoadedTensor> TensorLoader::load_sparse(const onnx::SparseTensorProto& proto) {
  SPRUN_ASSIGN(LoadedTensor values, load(proto.values()));
  SPRUN_ASSIGN(LoadedTensor indices, load(proto.indices()));
  if (values.state != LoadedTensor::State::kOk) return values;
  if (indices.state != LoadedTensor::State::kOk) return tensor_error(proto.values(), "sparse indices have no data");
  auto shape = Shape::checked({proto.dims().data(), static_cast<size_t>(proto.dims_size())});
  if (!shape.ok()) return shape.status().with_context("sparse tensor '" + proto.values().name() + "'");
  if (shape->num_elements() > kMaxSparseBytes / dtype_size(values.dtype)) {
    return Status(Code::kResourceLimit, "sparse tensor '" + proto.values().name() + "' of shape " + shape->to_string() +
                                            " is over 1 GiB when dense");
  }
  LoadedTensor dense;
  dense.dtype = values.dtype;
  dense.shape = *shape;
  SPRUN_ASSIGN(dense.tensor, Tensor::zeros(dense.dtype, dense.shape));
  SPRUN_TRY(scatter_values(proto, values.tensor, indices.tensor, &dense.tensor));
  return dense;
}

}  // namespace sprun::graph
