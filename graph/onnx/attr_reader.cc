#include "graph/onnx/attr_reader.h"

#include <onnx/onnx_pb.h>

#include <algorithm>

namespace sprun::graph {

using onnx::AttributeProto;

int attribute_type(const AttributeProto& proto) {
  if (proto.type() != AttributeProto::UNDEFINED) return proto.type();
  if (proto.has_f()) return AttributeProto::FLOAT;
  if (proto.has_i()) return AttributeProto::INT;
  if (proto.has_s()) return AttributeProto::STRING;
  if (proto.has_t()) return AttributeProto::TENSOR;
  if (proto.has_g()) return AttributeProto::GRAPH;
  if (proto.floats_size() > 0) return AttributeProto::FLOATS;
  if (proto.ints_size() > 0) return AttributeProto::INTS;
  if (proto.strings_size() > 0) return AttributeProto::STRINGS;
  return AttributeProto::UNDEFINED;
}

namespace {
Result<ReadAttr> from_tensor(Result<LoadedTensor> loaded, const std::string& name) {
  if (!loaded.ok()) return loaded.status().with_context("attribute '" + name + "'");
  if (loaded->state == LoadedTensor::State::kOk) return ReadAttr{Attr(std::move(loaded->tensor)), ""};
  const bool missing = loaded->state == LoadedTensor::State::kMissing;
  return ReadAttr{std::nullopt, "attribute '" + name + "' has " +
                                    (missing ? "external data that is missing: " : "") + loaded->reason};
}
}  // namespace

Result<ReadAttr> read_attr(const AttributeProto& proto, TensorLoader& loader) {
  switch (attribute_type(proto)) {
    case AttributeProto::FLOAT: return ReadAttr{Attr(proto.f()), ""};
    case AttributeProto::INT: return ReadAttr{Attr(static_cast<int64_t>(proto.i())), ""};
    case AttributeProto::STRING: return ReadAttr{Attr(proto.s()), ""};
    case AttributeProto::TENSOR: return from_tensor(loader.load(proto.t()), proto.name());
    case AttributeProto::SPARSE_TENSOR: return from_tensor(loader.load_sparse(proto.sparse_tensor()), proto.name());
    case AttributeProto::FLOATS:
      return ReadAttr{Attr(std::vector<float>(proto.floats().begin(), proto.floats().end())), ""};
    case AttributeProto::INTS:
      return ReadAttr{Attr(std::vector<int64_t>(proto.ints().begin(), proto.ints().end())), ""};
    case AttributeProto::STRINGS:
      return ReadAttr{Attr(std::vector<std::string>(proto.strings().begin(), proto.strings().end())), ""};
    default: break;
  }
  return ReadAttr{std::nullopt, "attribute '" + proto.name() + "' has type number " + std::to_string(proto.type())};
}

namespace {
template <class T>
Result<LoadedTensor> loaded_from(const T* data, const Shape& shape) {
  LoadedTensor loaded;
  loaded.dtype = dtype_of<T>();
  loaded.shape = shape;
  SPRUN_ASSIGN(loaded.tensor, Tensor::allocate(loaded.dtype, shape));
  std::copy_n(data, shape.num_elements(), loaded.tensor.mutable_view().as<T>());
  return loaded;
}
}  // namespace

Result<LoadedTensor> read_constant_attr(const AttributeProto& proto, TensorLoader& loader) {
  switch (attribute_type(proto)) {
    case AttributeProto::TENSOR: return loader.load(proto.t());
    case AttributeProto::SPARSE_TENSOR: return loader.load_sparse(proto.sparse_tensor());
    case AttributeProto::FLOAT: {
      const float value = proto.f();
      return loaded_from(&value, Shape{});
    }
    case AttributeProto::INT: {
      const int64_t value = proto.i();
      return loaded_from(&value, Shape{});
    }
    case AttributeProto::FLOATS: return loaded_from(proto.floats().data(), Shape{proto.floats_size()});
    case AttributeProto::INTS: {
      const std::vector<int64_t> values(proto.ints().begin(), proto.ints().end());
      return loaded_from(values.data(), Shape{proto.ints_size()});
    }
    default: break;
  }
  LoadedTensor unsupported;
  unsupported.state = LoadedTensor::State::kUnsupported;
  unsupported.reason = "attribute '" + proto.name() + "' has type number " + std::to_string(proto.type());
  return unsupported;
}

}  // namespace sprun::graph
