#include "tools/sprun/io/json_cases.h"

#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "runtime/base/half.h"
#include "tools/sprun/io/npy.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::json;
using graph::Graph;
using graph::ValueId;

constexpr int64_t kMaxFileBytes = 64 << 20;

Status bad(const std::string& text) { return {Code::kBadInput, text}; }

DType dtype_named(std::string_view name) {
  for (DType dtype : {DType::kF32, DType::kU8, DType::kS8, DType::kU16, DType::kS16, DType::kS32,
                      DType::kS64, DType::kBool, DType::kF16, DType::kF64, DType::kU32, DType::kU64,
                      DType::kBf16, DType::kU4, DType::kS4}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return DType::kUndefined;
}

// Numbers may also be written as "NaN", "Infinity", "-Infinity", true and false.
double number(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number()) return value.get<double>();
  const std::string text = value.is_string() ? value.get<std::string>() : "NaN";
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

template <class T>
void store_all(const Json& data, T* out) {
  for (const Json& value : data) {
    if constexpr (std::is_same_v<T, Float16>) *out++ = to_float16(number(value));
    else if constexpr (std::is_same_v<T, BFloat16>) *out++ = to_bfloat16(number(value));
    else if (std::is_integral_v<T> && value.is_number_integer()) *out++ = value.get<T>();
    else *out++ = static_cast<T>(number(value));
  }
}

void fill(const Json& data, TensorView view) {
  switch (view.dtype) {
    case DType::kF32:
      return store_all(data, view.as<float>());
    case DType::kF64:
      return store_all(data, view.as<double>());
    case DType::kF16:
      return store_all(data, view.as<Float16>());
    case DType::kBf16:
      return store_all(data, view.as<BFloat16>());
    case DType::kBool:
      return store_all(data, view.as<bool>());
    case DType::kU4:
    case DType::kU8:
      return store_all(data, view.as<uint8_t>());
    case DType::kS4:
    case DType::kS8:
      return store_all(data, view.as<int8_t>());
    case DType::kU16:
      return store_all(data, view.as<uint16_t>());
    case DType::kS16:
      return store_all(data, view.as<int16_t>());
    case DType::kU32:
      return store_all(data, view.as<uint32_t>());
    case DType::kS32:
      return store_all(data, view.as<int32_t>());
    case DType::kU64:
      return store_all(data, view.as<uint64_t>());
    case DType::kS64:
      return store_all(data, view.as<int64_t>());
    case DType::kUndefined:
    case DType::kString:
      return;
  }
}

Result<Tensor> read_tensor(const Json& json) {
  const std::string type = json.at("type").get<std::string>();
  const DType dtype = dtype_named(type);
  if (dtype == DType::kUndefined) {
    return Status(Code::kNotSupported, "element type " + type + " is not supported");
  }
  SPRUN_ASSIGN(const Shape shape, Shape::checked(json.at("dims").get<std::vector<int64_t>>()));
  const Json& data = json.at("data");
  if (static_cast<int64_t>(data.size()) != shape.num_elements()) {
    return bad(fmt::format("{} elements for shape {}", data.size(), shape.to_string()));
  }
  SPRUN_ASSIGN(Tensor tensor, Tensor::zeros(dtype, shape));
  fill(data, tensor.mutable_view());
  return tensor;
}

Status add_attribute(const Json& json, graph::AttrMap& attrs) {
  const std::string name = json.at("name").get<std::string>();
  const std::string type = json.at("type").get<std::string>();
  const Json& data = json.at("data");
  if (type == "int") attrs.set(name, data.get<int64_t>());
  else if (type == "float") attrs.set(name, data.get<float>());
  else if (type == "string") attrs.set(name, data.get<std::string>());
  else if (type == "ints") attrs.set(name, data.get<std::vector<int64_t>>());
  else if (type == "floats") attrs.set(name, data.get<std::vector<float>>());
  else return bad(fmt::format("attribute '{}' has unknown type '{}'", name, type));
  return {};
}

std::vector<graph::DimInfo> declared(const Shape& shape) {
  std::vector<graph::DimInfo> dims;
  for (int64_t size : shape.dims()) dims.push_back({.value = size, .symbol = ""});
  return dims;
}

// Reads the tensors of `list`, with null for absent ones; names are prefix + position.
Result<std::vector<NamedTensor>> read_list(const Json& list, const std::string& prefix) {
  std::vector<NamedTensor> tensors;
  for (const Json& json : list) {
    const std::string name =
        json.at("data").is_null() ? "" : prefix + std::to_string(tensors.size());
    Tensor tensor;
    if (!name.empty()) {
      SPRUN_ASSIGN(tensor, read_tensor(json));
    }
    tensors.push_back({name, std::move(tensor)});
  }
  return tensors;
}

Result<JsonCase> read_case(const std::string& name, const Json& test, const Json& json) {
  JsonCase out;
  const std::string op = test.at("operator").get<std::string>();
  out.name = name;
  SPRUN_ASSIGN(out.inputs, read_list(json.at("inputs"), "input_"));
  SPRUN_ASSIGN(out.outputs, read_list(json.at("outputs"), "output_"));
  out.graph = std::make_unique<Graph>();
  std::vector<ValueId> inputs, outputs;
  for (const NamedTensor& t : out.inputs) {
    inputs.push_back(t.name.empty() ? graph::kNoValue
                                    : out.graph->add_input(t.name, t.tensor.dtype(),
                                                           declared(t.tensor.shape())));
  }
  std::vector<std::string> names;
  for (const NamedTensor& t : out.outputs) names.push_back(t.name);
  const Json opset = test.value("opset", Json::object());
  const std::string domain = opset.value("domain", "");
  const auto node = out.graph->add_node(domain == "ai.onnx" ? "" : domain, op,
                                        opset.value("version", 17), inputs, names);
  for (const Json& attr : test.value("attributes", Json::array())) {
    SPRUN_TRY(add_attribute(attr, out.graph->node(node).attrs));
  }
  for (size_t i = 0; i < out.outputs.size(); ++i) {
    const ValueId v = out.graph->node(node).output(i);
    if (v == graph::kNoValue) continue;
    out.graph->value(v).dtype = out.outputs[i].tensor.dtype();
    outputs.push_back(v);
  }
  out.graph->set_outputs(outputs);
  std::erase_if(out.inputs, [](const NamedTensor& t) { return t.name.empty(); });
  std::erase_if(out.outputs, [](const NamedTensor& t) { return t.name.empty(); });
  return out;
}

}  // namespace

Result<std::vector<JsonCase>> read_json_cases(const std::string& path) {
  SPRUN_ASSIGN(const std::vector<std::byte> bytes, read_file(path, kMaxFileBytes));
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  try {
    const Json file = Json::parse(text, text + bytes.size(), nullptr, true, true);
    std::vector<JsonCase> cases;
    for (const Json& test : file) {
      for (const Json& json : test.at("cases")) {
        const std::string name = fmt::format("{} / {} / {}", test.value("operator", ""),
                                             test.value("name", ""), json.value("name", ""));
        auto one = read_case(name, test, json);
        if (one.ok()) {
          cases.push_back(std::move(*one));
        } else {
          cases.emplace_back();
          cases.back().name = name;
          cases.back().problem = one.status();
        }
      }
    }
    return cases;
  } catch (const nlohmann::json::exception& e) {
    return bad(path + ": " + e.what());
  }
}

}  // namespace sprun::tools
