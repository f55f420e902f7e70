#include "tools/sprun/fill.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <numbers>
#include <set>

#include <fmt/format.h>

#include "runtime/base/half.h"

namespace sprun::tools {
namespace {

using graph::Graph;
using graph::Node;
using graph::ValueId;

// SplitMix64 and Box-Muller: the standard distributions differ between libraries.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t limit) {
    return static_cast<int64_t>(bits() % static_cast<uint64_t>(std::max<int64_t>(limit, 1)));
  }
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  uint64_t state_;
};

// Sets every element to value(i), converted to the element type.
Status set_elements(TensorView view, const std::function<double(int64_t)>& value) {
  const int64_t n = view.num_elements();
  const auto set = [&]<class T>(T* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(value(i));
  };
  switch (view.dtype) {
    case DType::kF32:
      set(view.as<float>());
      return {};
    case DType::kF64:
      set(view.as<double>());
      return {};
    case DType::kS4:
    case DType::kS8:
      set(view.as<int8_t>());
      return {};
    case DType::kU4:
    case DType::kU8:
      set(view.as<uint8_t>());
      return {};
    case DType::kS16:
      set(view.as<int16_t>());
      return {};
    case DType::kU16:
      set(view.as<uint16_t>());
      return {};
    case DType::kS32:
      set(view.as<int32_t>());
      return {};
    case DType::kU32:
      set(view.as<uint32_t>());
      return {};
    case DType::kS64:
      set(view.as<int64_t>());
      return {};
    case DType::kU64:
      set(view.as<uint64_t>());
      return {};
    case DType::kBool:
      set(view.as<bool>());
      return {};
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) view.as<Float16>()[i] = to_float16(value(i));
      return {};
    case DType::kBf16:
      for (int64_t i = 0; i < n; ++i) view.as<BFloat16>()[i] = to_bfloat16(value(i));
      return {};
    case DType::kString:
    case DType::kUndefined:
      break;
  }
  return {Code::kNotSupported,
          fmt::format("element type {} cannot be filled", dtype_name(view.dtype))};
}

uint64_t hash_name(std::string_view name) {  // FNV-1a: inputs of one run get different streams
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

Status fill_random(const TensorSpec& spec, TensorView view, const FillOptions& options) {
  std::string name = spec.name;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  Random random(options.seed * 0x2545f4914f6cdd1du ^ hash_name(spec.name));
  const auto known = options.limits.find(spec.name);
  const int64_t limit = known == options.limits.end() ? -1 : known->second;
  if (contains(name, "mask")) return set_elements(view, [](int64_t) { return 1.0; });
  if (is_float(spec.dtype)) return set_elements(view, [&](int64_t) { return random.normal(); });
  if (contains(name, "position")) {
    const int64_t last = view.shape.rank() > 0 ? std::max<int64_t>(view.shape.back(), 1) : 1;
    const int64_t wrap = limit > 0 ? std::min(limit, last) : last;
    return set_elements(view, [=](int64_t i) { return static_cast<double>(i % last % wrap); });
  }
  if (contains(name, "token_type") || contains(name, "segment"))
    return set_elements(view, [](int64_t) { return 0.0; });
  if (limit > 0)
    return set_elements(view, [&](int64_t) { return static_cast<double>(random.below(limit)); });
  if (contains(name, "seqlens")) {
    return set_elements(view,
                        [&](int64_t) { return static_cast<double>(options.total_length - 1); });
  }
  if (contains(name, "total_seq")) {
    return set_elements(view, [&](int64_t) { return static_cast<double>(options.total_length); });
  }
  if (spec.dtype == DType::kBool) return set_elements(view, [](int64_t) { return 0.0; });
  const int64_t range = contains(name, "id") || contains(name, "token") ? 100 : 2;
  return set_elements(view, [&](int64_t) { return static_cast<double>(random.below(range)); });
}

// The table rows that node limits its input `index_input` to; -1 if it does not use it as an index.
int64_t table_rows(const Graph& g, const Node& node, size_t index_input) {
  const auto rows = [&](size_t table_input) -> int64_t {
    const Tensor* table = g.constant(node.input(table_input));
    return table != nullptr && table->shape().rank() > 0 ? table->shape()[0] : -1;
  };
  if (node.is("Gather"))
    return index_input == 1 && node.attrs.get_int("axis", 0) == 0 ? rows(0) : -1;
  if (node.is("com.microsoft", "EmbedLayerNormalization") ||
      node.is("sprun", "EmbedLayerNormalization")) {
    if (index_input == 0) return rows(2);
    if (index_input == 1) return rows(4);
    if (index_input == 8) return rows(3);
  }
  return -1;
}

bool keeps_values(const Node& node, size_t input) {
  if (input != 0) return false;
  for (std::string_view type : {"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
                                "Transpose", "Slice", "Expand"}) {
    if (node.is(type)) return true;
  }
  return false;
}

int64_t index_limit_of(const Graph& g, ValueId input) {
  int64_t limit = -1;
  std::vector<ValueId> work = {input};
  std::set<ValueId> seen(work.begin(), work.end());
  while (!work.empty()) {
    const ValueId v = work.back();
    work.pop_back();
    for (graph::NodeId user : g.value(v).users) {
      const Node& node = g.node(user);
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        if (node.inputs[i] != v) continue;
        const int64_t rows = table_rows(g, node, i);
        if (rows > 0) limit = limit < 0 ? rows : std::min(limit, rows);
        const ValueId out = node.output(0);
        if (keeps_values(node, i) && out != graph::kNoValue && seen.insert(out).second)
          work.push_back(out);
      }
    }
  }
  return limit;
}

}  // namespace

Result<Fill> parse_fill(std::string_view name) {
  if (name == "random") return Fill::kRandom;
  if (name == "zeros") return Fill::kZeros;
  if (name == "ones") return Fill::kOnes;
  return Status(Code::kUsage, fmt::format("--fill '{}': expected random, zeros or ones", name));
}

std::map<std::string, int64_t> index_limits(const Graph& graph) {
  std::map<std::string, int64_t> limits;
  for (ValueId input : graph.inputs()) {
    if (!is_integer(graph.value(input).dtype)) continue;
    const int64_t limit = index_limit_of(graph, input);
    if (limit > 0) limits[graph.value(input).name] = limit;
  }
  return limits;
}

Result<Tensor> fill_tensor(const TensorSpec& spec, const Shape& shape, const FillOptions& options) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::zeros(spec.dtype, shape));
  if (options.fill == Fill::kOnes) {
    SPRUN_TRY(set_elements(tensor.mutable_view(), [](int64_t) {
                return 1.0;
              }).with_context("input " + spec.name));
  }
  if (options.fill == Fill::kRandom) {
    SPRUN_TRY(fill_random(spec, tensor.mutable_view(), options).with_context("input " + spec.name));
  }
  return tensor;
}

}  // namespace sprun::tools
