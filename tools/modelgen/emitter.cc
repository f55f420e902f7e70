#include "tools/modelgen/emitter.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tools/modelgen/weights.h"

namespace sprun::modelgen {

namespace {
Result<Tensor> int_tensor(const std::vector<int64_t>& values, const Shape& shape) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(DType::kS64, shape));
  std::copy(values.begin(), values.end(), tensor.mutable_view().as<int64_t>());
  return tensor;
}

Result<Tensor> transposed(const Tensor& matrix) {
  const int64_t rows = matrix.shape()[0], columns = matrix.shape()[1], size = dtype_size(matrix.dtype());
  SPRUN_ASSIGN(Tensor turned, Tensor::allocate(matrix.dtype(), Shape{columns, rows}));
  const auto* from = static_cast<const char*>(matrix.data());
  auto* to = turned.mutable_view().as<char>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(to + (c * rows + r) * size, from + (r * columns + c) * size, static_cast<size_t>(size));
    }
  }
  return turned;
}

std::vector<graph::DimInfo> declared(const std::vector<Emitter::Dim>& dims) {
  std::vector<graph::DimInfo> infos;
  for (const Emitter::Dim& dim : dims) {
    if (const auto* symbol = std::get_if<std::string>(&dim)) {
      infos.push_back({-1, *symbol});
    } else {
      infos.push_back({std::get<int64_t>(dim), ""});
    }
  }
  return infos;
}
}  // namespace

Result<graph::Graph> Emitter::finish() {
  if (!status_.ok()) return status_;
  return std::move(graph_);
}

std::string Emitter::scoped(const std::string& name, char separator) const {
  std::string path = scope_.empty() ? name : scope_ + "/" + name;
  std::replace(path.begin(), path.end(), '/', separator);
  return path;
}

// "/layers.0/att/Shape", then "/layers.0/att/Shape_1"
std::string Emitter::node_name(const char* type) {
  const std::string base = "/" + scoped(type, '/');
  const int count = names_taken_[base]++;
  return count == 0 ? base : base + "_" + std::to_string(count);
}

ValueId Emitter::fail(const Status& status) {
  if (status_.ok()) status_ = status;
  return graph::kNoValue;
}

ValueId Emitter::checked_constant(const std::string& name, Result<Tensor> tensor) {
  return tensor.ok() ? graph_.add_constant(name, std::move(*tensor)) : fail(tensor.status());
}

// --- interface and constants

ValueId Emitter::input(const std::string& name, DType dtype, const std::vector<Dim>& dims) {
  return graph_.add_input(name, dtype, declared(dims));
}

void Emitter::output(ValueId value, const std::string& name, const std::vector<Dim>& dims) {
  if (!status_.ok()) return;
  graph::Value& target = graph_.value(value);
  target.name = name;
  target.dtype = DType::kF32;
  target.declared = declared(dims);
  std::vector<ValueId> outputs(graph_.outputs().begin(), graph_.outputs().end());
  outputs.push_back(value);
  graph_.set_outputs(std::move(outputs));
}

void Emitter::output_first(ValueId value, const std::string& name, const std::vector<Dim>& dims) {
  output(value, name, dims);
  if (!status_.ok()) return;
  std::vector<ValueId> outputs(graph_.outputs().begin(), graph_.outputs().end());
  std::rotate(outputs.begin(), outputs.end() - 1, outputs.end());
  graph_.set_outputs(std::move(outputs));
}

ValueId Emitter::scalar(float value) {
  auto tensor = Tensor::allocate(DType::kF32, {});
  if (tensor.ok()) tensor->mutable_view().as<float>()[0] = value;
  return checked_constant(node_name("Constant") + "_output_0", std::move(tensor));
}

ValueId Emitter::scalar(int64_t value) {
  return checked_constant(node_name("Constant") + "_output_0", int_tensor({value}, {}));
}

ValueId Emitter::ints(const std::vector<int64_t>& values) {
  return checked_constant(node_name("Constant") + "_output_0",
                          int_tensor(values, Shape{static_cast<int64_t>(values.size())}));
}

ValueId Emitter::weight(const std::string& name, const Shape& shape, float mean, float deviation) {
  const std::string full = scoped(name, '.');
  return checked_constant(full, random_tensor(config_.seed, full, shape, mean, deviation));
}

ValueId Emitter::constant(const std::string& name, Tensor tensor) {
  return graph_.add_constant(scoped(name, '.'), std::move(tensor));
}

// --- single ops

std::vector<ValueId> Emitter::op_n(const char* type, const std::vector<ValueId>& inputs, int outputs, Attrs attrs) {
  return node("", config_.opset, type, inputs, outputs, attrs);
}

ValueId Emitter::contrib_op(const char* type, const std::vector<ValueId>& inputs, Attrs attrs) {
  return node("com.microsoft", 1, type, inputs, 1, attrs)[0];
}

std::vector<ValueId> Emitter::node(const char* domain, int version, const char* type,
                                   const std::vector<ValueId>& inputs, int outputs, Attrs attrs) {
  if (!status_.ok()) return std::vector<ValueId>(static_cast<size_t>(outputs), graph::kNoValue);
  const std::string name = node_name(type);
  std::vector<std::string> output_names;
  for (int i = 0; i < outputs; ++i) output_names.push_back(name + "_output_" + std::to_string(i));
  const graph::NodeId id = graph_.add_node(domain, type, version, inputs, output_names);
  graph::Node& made = graph_.node(id);
  made.name = name;
  for (const auto& [key, value] : attrs) made.attrs.set(key, value);
  return made.outputs;
}

ValueId Emitter::op(const char* type, const std::vector<ValueId>& inputs, Attrs attrs) {
  return op_n(type, inputs, 1, attrs)[0];
}

ValueId Emitter::cast(ValueId x, DType dtype) { return op("Cast", {x}, {{"to", static_cast<int64_t>(dtype)}}); }

ValueId Emitter::transpose(ValueId x, const std::vector<int64_t>& perm) { return op("Transpose", {x}, {{"perm", perm}}); }

ValueId Emitter::concat(const std::vector<ValueId>& parts, int64_t axis) { return op("Concat", parts, {{"axis", axis}}); }

ValueId Emitter::slice(ValueId x, ValueId begin, ValueId end, int64_t axis) {
  const ValueId axes = ints({axis});
  return op("Slice", {x, begin, end, axes, ints({1})});
}

ValueId Emitter::unsqueeze(ValueId x, int64_t axis) {
  if (config_.opset < 13) return op("Unsqueeze", {x}, {{"axes", std::vector<int64_t>{axis}}});
  return op("Unsqueeze", {x, ints({axis})});
}

ValueId Emitter::squeeze(ValueId x, int64_t axis) {
  if (config_.opset < 13) return op("Squeeze", {x}, {{"axes", std::vector<int64_t>{axis}}});
  return op("Squeeze", {x, ints({axis})});
}

std::vector<ValueId> Emitter::split(ValueId x, const std::vector<int64_t>& sizes, int64_t axis) {
  const int parts = static_cast<int>(sizes.size());
  if (config_.opset < 13) return op_n("Split", {x}, parts, {{"axis", axis}, {"split", sizes}});
  return op_n("Split", {x, ints(sizes)}, parts, {{"axis", axis}});
}

ValueId Emitter::reshape_to(ValueId x, ValueId shape) {
  if (config_.opset < 14) return op("Reshape", {x, shape});
  return op("Reshape", {x, shape}, {{"allowzero", int64_t{0}}});
}

// --- common expressions

ValueId Emitter::dim(ValueId x, int64_t axis) {
  const ValueId shape = op("Shape", {x});
  return op("Gather", {shape, scalar(axis)}, {{"axis", int64_t{0}}});
}

// Newer tracing: Shape, Slice from `begin` (negative) to the next entry, Squeeze.
ValueId Emitter::last_dims_entry(ValueId x, int64_t begin) {
  const ValueId shape = op("Shape", {x});
  const ValueId axes = ints({0});
  const ValueId from = ints({begin});
  const ValueId to = ints({begin == -1 ? INT64_MAX : begin + 1});
  return squeeze(op("Slice", {shape, from, to, axes}), 0);
}

ValueId Emitter::shape_of(const std::vector<Size>& sizes) {
  std::vector<ValueId> parts;
  for (const Size& size : sizes) {
    const auto* at = std::get_if<At>(&size);
    parts.push_back(at ? unsqueeze(at->value, 0) : ints({std::get<int64_t>(size)}));
  }
  return concat(parts, 0);
}

ValueId Emitter::reshape(ValueId x, const std::vector<Size>& sizes) { return reshape_to(x, shape_of(sizes)); }

ValueId Emitter::split_heads(ValueId x, int64_t heads, int64_t size) {
  const ValueId batch = dim(x, 0);
  const ValueId length = dim(x, 1);
  return reshape(x, {At{batch}, At{length}, heads, size});
}

ValueId Emitter::merge_heads(ValueId x) {
  const ValueId turned = transpose(x, {0, 2, 1, 3});
  const ValueId batch = dim(turned, 0);
  const ValueId length = dim(turned, 1);
  return reshape(turned, {At{batch}, At{length}, config_.hidden});
}

ValueId Emitter::expand(ValueId x, const std::vector<Size>& sizes) {
  const ValueId wanted = reshape_to(shape_of(sizes), ints({-1}));
  Tensor one_tensor;
  if (auto one = int_tensor({1}, Shape{1}); one.ok()) one_tensor = std::move(*one);
  const ValueId ones = op("ConstantOfShape", {op("Shape", {wanted})}, {{"value", one_tensor}});
  const ValueId keep = op("Equal", {wanted, op("Mul", {ones, scalar(int64_t{-1})})});
  return op("Expand", {x, op("Where", {keep, ones, wanted})});
}

ValueId Emitter::embedding(const std::string& name, ValueId ids, int64_t rows, int64_t columns, float deviation) {
  const Scope scope(*this, name);
  const std::string full = scoped("weight", '.');
  auto table = random_tensor(config_.seed, full, Shape{rows, columns}, 0, deviation);
  if (!table.ok()) return fail(table.status());
  if (config_.quantization == Quantization::kNone) return op("Gather", {graph_.add_constant(full, *table), ids});
  // The tool quantises tables as it does activations: unsigned, one scale.
  auto q = quantize_weight(*table, Quantization::kU8, false);
  if (!q.ok()) return fail(q.status());
  const ValueId values = op("Gather", {graph_.add_constant(full + "_quantized", q->values), ids});
  return op("DequantizeLinear", {values, graph_.add_constant(full + "_scale", q->scale),
                                 graph_.add_constant(full + "_zero_point", q->zero_point)});
}

Result<Tensor> Emitter::linear_weight(const std::string& name, int64_t inputs, int64_t outputs, float gain,
                                      bool prunable) {
  const float deviation = gain / std::sqrt(static_cast<float>(inputs));
  SPRUN_ASSIGN(Tensor tensor, random_tensor(config_.seed, name, Shape{inputs, outputs}, 0, deviation));
  if (prunable && (config_.sparsity > 0 || config_.pattern.m > 0)) prune(&tensor, config_.pattern, config_.sparsity);
  return tensor;
}

ValueId Emitter::matmul(const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain,
                        bool prunable) {
  if (!status_.ok()) return graph::kNoValue;
  const Scope scope(*this, name);
  const std::string full = scoped("weight", '.');
  auto tensor = linear_weight(full, inputs, outputs, gain, prunable);
  return tensor.ok() ? product_with(full, x, std::move(*tensor)) : fail(tensor.status());
}

ValueId Emitter::product_with(const std::string& full_name, ValueId x, Tensor weight) {
  if (config_.qdq) return op("MatMul", {through_codes(x), dequantized_weight(full_name, weight, 1)});
  if (config_.weight_only) return op("MatMul", {x, dequantized_weight(full_name, weight, 1)});
  if (config_.quantization != Quantization::kNone) return int8_matmul(full_name, x, weight);
  if (config_.nbits != 0) return nbits_matmul(full_name, x, weight);
  return op("MatMul", {x, graph_.add_constant(full_name, std::move(weight))});
}

ValueId Emitter::matmul_by_table(const std::string& name, const std::string& embedding, ValueId x, int64_t rows,
                                 int64_t columns, float deviation) {
  if (!status_.ok()) return graph::kNoValue;
  const std::string table_name = scoped(embedding + "/weight", '.');
  const Scope scope(*this, name);
  if (config_.quantization == Quantization::kNone && config_.nbits == 0) {
    return op("MatMul", {x, transpose(graph_.find_value(table_name), {1, 0})});
  }
  // Quantisers fold the transposition and store the codes of the head on their own.
  auto table = random_tensor(config_.seed, table_name, Shape{rows, columns}, 0, deviation);
  if (table.ok()) table = transposed(*table);
  return table.ok() ? product_with(scoped("weight", '.'), x, std::move(*table)) : fail(table.status());
}

ValueId Emitter::nbits_matmul(const std::string& name, ValueId x, const Tensor& weight) {
  auto w = quantize_blocks(weight, config_.nbits, config_.block);
  if (!w.ok()) return fail(w.status());
  const std::vector<ValueId> inputs = {x, graph_.add_constant(name + "_Q" + std::to_string(config_.nbits), w->values),
                                       graph_.add_constant(name + "_scales", w->scale)};
  return contrib_op("MatMulNBits", inputs,
                    {{"K", weight.shape()[0]}, {"N", weight.shape()[1]}, {"bits", int64_t{config_.nbits}},
                     {"block_size", config_.block}});
}

ValueId Emitter::product(ValueId a, ValueId b) {
  if (!config_.qdq) return op("MatMul", {a, b});
  const ValueId left = through_codes(a);
  return op("MatMul", {left, through_codes(b)});
}

ValueId Emitter::through_codes(ValueId x) {
  if (!status_.ok()) return graph::kNoValue;
  if (const auto it = dequantized_.find(x); it != dequantized_.end()) return it->second;
  constexpr float kUnitRange = 4.5f;  // of a normal value of deviation 1, seven in a million lie outside
  const auto given = ranges_.find(x);
  const Range range = given == ranges_.end() ? Range{-kUnitRange, kUnitRange} : given->second;
  const float scale = (range.high - range.low) / 255.0f;
  auto zero = Tensor::allocate(DType::kU8, {});
  if (!zero.ok()) return fail(zero.status());
  zero->mutable_view().as<uint8_t>()[0] = static_cast<uint8_t>(std::nearbyint(-range.low / scale));
  const ValueId scale_value = scalar(scale);
  const ValueId zero_value = checked_constant(node_name("Constant") + "_output_0", std::move(zero));
  const ValueId codes = op("QuantizeLinear", {x, scale_value, zero_value});
  return dequantized_[x] = op("DequantizeLinear", {codes, scale_value, zero_value});
}

ValueId Emitter::dequantized_weight(const std::string& name, const Tensor& weight, int64_t channel_axis) {
  // [K, N] is quantised with channels as columns, whatever way it is stored afterwards.
  auto w = quantize_weight(weight, config_.quantization, config_.per_channel);
  if (!w.ok()) return fail(w.status());
  if (channel_axis == 0) {
    auto turned = transposed(w->values);
    if (!turned.ok()) return fail(turned.status());
    w->values = std::move(*turned);
  }
  const std::vector<ValueId> inputs = {graph_.add_constant(name + "_quantized", std::move(w->values)),
                                       graph_.add_constant(name + "_scale", std::move(w->scale)),
                                       graph_.add_constant(name + "_zero_point", std::move(w->zero_point))};
  if (!config_.per_channel) return op("DequantizeLinear", inputs);
  return op("DequantizeLinear", inputs, {{"axis", channel_axis}});
}

const Emitter::Quantized& Emitter::quantized(ValueId x) {
  auto it = quantized_.find(x);
  if (it == quantized_.end()) {
    const std::vector<ValueId> q = op_n("DynamicQuantizeLinear", {x}, 3);
    it = quantized_.emplace(x, Quantized{q[0], q[1], q[2]}).first;
  }
  return it->second;
}

ValueId Emitter::int8_matmul(const std::string& name, ValueId x, const Tensor& weight) {
  auto w = quantize_weight(weight, config_.quantization, config_.per_channel);
  if (!w.ok()) return fail(w.status());
  const Quantized input = quantized(x);
  const ValueId sums = op("MatMulInteger", {input.values, graph_.add_constant(name + "_quantized", w->values),
                                            input.zero_point, graph_.add_constant(name + "_zero_point", w->zero_point)});
  const ValueId real = cast(sums, DType::kF32);
  const ValueId scales = op("Mul", {input.scale, graph_.add_constant(name + "_scale", w->scale)});
  return op("Mul", {real, scales});
}

ValueId Emitter::linear(const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain,
                        bool prunable) {
  const ValueId product = matmul(name, x, inputs, outputs, gain, prunable);
  const Scope scope(*this, name);
  return op("Add", {weight("bias", Shape{outputs}, 0, 0.1f), product});
}

ValueId Emitter::gemm(const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain, bool prunable,
                      bool transposed_weight) {
  const bool dynamic = config_.quantization != Quantization::kNone && !config_.qdq;
  if (dynamic) return linear(name, x, inputs, outputs, gain, prunable);
  const Scope scope(*this, name);
  const std::string full = scoped("weight", '.');
  auto tensor = linear_weight(full, inputs, outputs, gain, prunable);
  if (!tensor.ok()) return fail(tensor.status());
  ValueId w = graph::kNoValue;
  if (config_.qdq) {
    x = through_codes(x);
    w = dequantized_weight(full, *tensor, transposed_weight ? 0 : 1);
  } else {
    w = checked_constant(full, transposed_weight ? transposed(*tensor) : std::move(tensor));
  }
  const ValueId bias = weight("bias", Shape{outputs}, 0, 0.1f);
  if (!transposed_weight) return op("Gemm", {x, w, bias}, {{"alpha", 1.0f}, {"beta", 1.0f}});
  return op("Gemm", {x, w, bias}, {{"alpha", 1.0f}, {"beta", 1.0f}, {"transB", int64_t{1}}});
}

ValueId Emitter::layer_norm(const std::string& name, ValueId x, int64_t size, float epsilon) {
  const Scope scope(*this, name);
  const ValueId scale = weight("weight", Shape{size}, 1, 0.1f);
  const ValueId bias = weight("bias", Shape{size}, 0, 0.1f);
  if (config_.opset >= 17) {
    return op("LayerNormalization", {x, scale, bias}, {{"axis", int64_t{-1}}, {"epsilon", epsilon}});
  }
  const std::vector<int64_t> axes{-1};
  const ValueId mean = op("ReduceMean", {x}, {{"axes", axes}});
  const ValueId centred = op("Sub", {x, mean});
  const ValueId square = op("Pow", {centred, scalar(2.0f)});
  const ValueId variance = op("ReduceMean", {square}, {{"axes", axes}});
  const ValueId deviation = op("Sqrt", {op("Add", {variance, scalar(epsilon)})});
  return op("Add", {op("Mul", {op("Div", {centred, deviation}), scale}), bias});
}

ValueId Emitter::rms_norm(const std::string& name, ValueId x, int64_t size, float epsilon) {
  const Scope scope(*this, name);
  x = cast(x, DType::kF32);
  const ValueId square = op("Pow", {x, scalar(2.0f)});
  const ValueId mean = reduce_mean(square);
  const ValueId root = op("Sqrt", {op("Add", {mean, scalar(epsilon)})});
  const ValueId normed = op("Mul", {x, op("Div", {scalar(1.0f), root})});
  return op("Mul", {weight("weight", Shape{size}, 1, 0.1f), normed});
}

ValueId Emitter::reduce_mean(ValueId x) {
  if (config_.opset >= 18) return op("ReduceMean", {x, ints({-1})}, {{"keepdims", int64_t{1}}});
  return op("ReduceMean", {x}, {{"axes", std::vector<int64_t>{-1}}, {"keepdims", int64_t{1}}});
}

ValueId Emitter::gelu_erf(ValueId x) {
  const ValueId erf = op("Erf", {op("Div", {x, scalar(std::sqrt(2.0f))})});
  const ValueId doubled = op("Mul", {x, op("Add", {erf, scalar(1.0f)})});
  const ValueId y = op("Mul", {doubled, scalar(0.5f)});
  set_range(y, {-0.17f, 4.5f});  // its minimum is -0.1700
  return y;
}

ValueId Emitter::gelu_tanh(ValueId x) {
  if (config_.opset >= 20) return op("Gelu", {x}, {{"approximate", std::string("tanh")}});
  const ValueId half = op("Mul", {x, scalar(0.5f)});
  const ValueId cube = op("Mul", {op("Pow", {x, scalar(3.0f)}), scalar(0.044715f)});
  const ValueId inner = op("Mul", {op("Add", {x, cube}), scalar(0.7978845608f)});  // sqrt(2 / pi)
  return op("Mul", {half, op("Add", {op("Tanh", {inner}), scalar(1.0f)})});
}

ValueId Emitter::silu(ValueId x) { return op("Mul", {x, op("Sigmoid", {x})}); }

ValueId Emitter::softmax(ValueId x) {
  // Before opset 13 every axis from this one on is reduced: the exporter names the last of the four.
  const ValueId y = op("Softmax", {x}, {{"axis", config_.opset < 13 ? int64_t{3} : int64_t{-1}}});
  set_range(y, {0.0f, 1.0f});
  return y;
}

}  // namespace sprun::modelgen
