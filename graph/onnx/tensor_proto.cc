#include "graph/onnx/tensor_proto.h"

#include <onnx/onnx_pb.h>

#include <cstdint>
#include <new>

#include "graph/onnx/tensor_loader.h"
#include "runtime/base/file_map.h"

namespace sprun::graph {

DType dtype_of_onnx(int32_t data_type) {
  if (data_type <= 0 || data_type > static_cast<int32_t>(DType::kS4)) return DType::kUndefined;
  const auto dtype = static_cast<DType>(data_type);
  return dtype_size(dtype) > 0 ? dtype : DType::kUndefined;
}

std::string onnx_type_name(int32_t data_type) {
  switch (data_type) {
    case 0: return "undefined";
    case 14: return "complex64";
    case 15: return "complex128";
    case 17: return "float8e4m3fn";
    case 18: return "float8e4m3fnuz";
    case 19: return "float8e5m2";
    case 20: return "float8e5m2fnuz";
    case 23: return "float4e2m1";
    case 24: return "float8e8m0";
    case 25: return "uint2";
    case 26: return "int2";
    case 27: return "float6e2m3";
    case 28: return "float6e3m2";
    default: break;
  }
  const DType dtype = data_type == static_cast<int32_t>(DType::kString) ? DType::kString : dtype_of_onnx(data_type);
  return dtype == DType::kUndefined ? "type " + std::to_string(data_type) : std::string(dtype_name(dtype));
}

Result<NamedTensor> decode_tensor_proto(std::string_view bytes) try {
  onnx::TensorProto proto;
  if (bytes.size() > static_cast<size_t>(INT32_MAX) ||
      !proto.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Status(Code::kBadModel, "not a TensorProto");
  }
  TensorLoader loader({}, {}, nullptr, nullptr);
  SPRUN_ASSIGN(LoadedTensor loaded, loader.load(proto));
  if (loaded.state != LoadedTensor::State::kOk) return Status(Code::kBadModel, "unsupported: " + loaded.reason);
  return NamedTensor{proto.name(), std::move(loaded.tensor)};
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit, "no memory for a tensor");
}

Result<NamedTensor> read_tensor_proto_file(const std::string& path) {
  SPRUN_ASSIGN(const auto map, FileMap::open(path));
  auto tensor = decode_tensor_proto(map->bytes());
  if (!tensor.ok()) return tensor.status().with_context("file '" + path + "'");
  return tensor;
}

std::string raw_bytes_of(const ConstTensorView& tensor) {
  const auto count = static_cast<size_t>(tensor.num_elements());
  if (tensor.dtype != DType::kU4 && tensor.dtype != DType::kS4) {
    return {tensor.as<char>(), static_cast<size_t>(tensor.size_bytes())};
  }
  std::string raw((count + 1) / 2, '\0');
  for (size_t i = 0; i < count; ++i) {
    raw[i / 2] = static_cast<char>(raw[i / 2] | (tensor.as<char>()[i] & 0xf) << (i % 2 * 4));
  }
  return raw;
}

std::string encode_tensor_proto(const std::string& name, const ConstTensorView& tensor) {
  onnx::TensorProto proto;
  proto.set_name(name);
  proto.set_data_type(static_cast<int32_t>(tensor.dtype));
  for (int64_t dim : tensor.shape.dims()) proto.add_dims(dim);
  proto.set_raw_data(raw_bytes_of(tensor));
  return proto.SerializeAsString();
}

}  // namespace sprun::graph
