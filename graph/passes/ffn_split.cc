#include "graph/passes/ffn_split.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "runtime/base/packed_cache.h"

namespace sprun::graph {

namespace {

// A constant of a layer, the shape to cut it in and the axis of the layer's outputs.
struct Part {
  ValueId* value = nullptr;
  int axis = 0;
  Shape shape, made;  // perhaps another than the constant's own; of the part
};

// The constants of a layer that have something for each output; false if one has another shape than it should.
bool find_parts(const Graph& graph, FfnLayerMatch& layer, std::vector<Part>& parts) {
  const bool nbits = layer.form == "nbits";
  for (ValueId* v : {&layer.weight, &layer.scale, &layer.zero, &layer.bias}) {
    const Tensor* tensor = *v == kNoValue ? nullptr : graph.constant(*v);
    if (*v == kNoValue || (tensor && tensor->num_elements() == 1 && v != &layer.weight)) continue;
    if (tensor == nullptr) return false;
    Part part{v, 0, tensor->shape(), tensor->shape()};
    if (part.shape.rank() < 1) return false;
    if (nbits) {  // outputs come first in all its constants, some of them flat
      if (part.shape[0] % layer.n != 0) return false;
      part.shape = Shape{layer.n, tensor->num_elements() / layer.n};
    } else if (part.shape.rank() == 2) {
      part.axis = layer.trans ? 0 : 1;
    }
    if (part.shape.rank() > 2 || part.shape[part.axis] != layer.n) return false;
    part.made[part.axis] = part.made[part.axis] / layer.n * layer.width;
    parts.push_back(part);
  }
  return true;
}

// Plans of one model get one tensor, so that they share what is packed of it.
Result<Tensor> shared_columns(const Tensor& tensor, const Part& part, const FfnLayerMatch& layer, PassContext& ctx) {
  const Tensor whole = tensor.reshaped(part.shape);
  const auto cut = [&]() -> Result<Tensor> {
    SPRUN_ASSIGN(const Tensor made, tensor_columns(whole, part.axis, layer.column, layer.width));
    return made.reshaped(part.made);
  };
  if (ctx.packed == nullptr) return cut();
  const std::string key = fmt::format("ffn_split:{}:{}:{}:{}", tensor.id(), part.axis, layer.column, layer.width);
  SPRUN_ASSIGN(const PackedBlob blob, ctx.packed->get(key, [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(Tensor made, cut());
    return PackedBlob{std::make_shared<Tensor>(std::move(made)), 0};  // of no bytes: the cache moves nothing
  }));
  return *std::static_pointer_cast<Tensor>(blob.data);
}

}  // namespace

Result<Tensor> tensor_columns(const Tensor& tensor, int axis, int64_t begin, int64_t width) {
  Shape shape = tensor.shape();
  const int64_t outer = shape.num_elements(0, axis), all = shape[axis];
  const int64_t inner = shape.num_elements(axis + 1, shape.rank()) * dtype_size(tensor.dtype());
  shape[axis] = width;
  const auto* from = static_cast<const char*>(tensor.data()) + begin * inner;
  if (outer == 1) {
    auto owner = std::make_shared<const Tensor>(tensor);
    return Tensor::adopt(owner, const_cast<char*>(from), tensor.dtype(), shape, tensor.is_file_backed());  // NOLINT
  }
  SPRUN_ASSIGN(Tensor made, Tensor::allocate(tensor.dtype(), shape));
  auto* to = made.mutable_view().as<char>();
  for (int64_t row = 0; row < outer; ++row) {
    std::memcpy(to + row * width * inner, from + row * all * inner, static_cast<size_t>(width * inner));
  }
  return made;
}

std::optional<FfnLayerMatch> split_layer(Graph& graph, const FfnLayerMatch& layer, PassContext& ctx) {
  FfnLayerMatch made = layer;
  std::vector<Part> parts;
  if (layer.n < 1 || !find_parts(graph, made, parts)) return std::nullopt;
  std::vector<Tensor> tensors;
  for (const Part& part : parts) {
    auto tensor = shared_columns(*graph.constant(*part.value), part, layer, ctx);
    if (!tensor.ok()) return std::nullopt;
    tensors.push_back(std::move(*tensor));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    const Tensor& tensor = tensors[i];
    const std::string name = fmt::format("{}/{}:{}", graph.value(*parts[i].value).name, layer.column, layer.column + layer.width);
    *parts[i].value = graph.add_constant(graph.unique_name(name), tensor);
  }
  made.n = layer.width;
  made.column = 0;
  return made;
}

}  // namespace sprun::graph
