#include "tools/sprun/weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <string_view>

#include "graph/ops/op_util.h"
#include "runtime/base/half.h"

namespace sprun::tools {
namespace {

using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::ValueId;

// A linear op, the inputs that may be weights, and for each the input with its zero point (-1:
// none).
struct LinearOp {
  std::string_view domain, name;
  std::array<int, 2> weights, zero_points;
};
constexpr std::array kLinearOps = {
    LinearOp{"", "MatMul", {0, 1}, {-1, -1}},
    LinearOp{"", "Gemm", {0, 1}, {-1, -1}},
    LinearOp{"", "Einsum", {0, 1}, {-1, -1}},
    LinearOp{"", "Conv", {1, -1}, {-1, -1}},
    LinearOp{"", "ConvTranspose", {1, -1}, {-1, -1}},
    LinearOp{"", "MatMulInteger", {0, 1}, {2, 3}},
    LinearOp{"", "ConvInteger", {1, -1}, {3, -1}},
    LinearOp{"", "QLinearMatMul", {0, 3}, {2, 5}},
    LinearOp{"", "QLinearConv", {3, -1}, {5, -1}},
    LinearOp{"com.microsoft", "FusedMatMul", {0, 1}, {-1, -1}},
    LinearOp{"com.microsoft", "Attention", {1, -1}, {-1, -1}},
    LinearOp{"com.microsoft", "QAttention", {1, -1}, {7, -1}},
    LinearOp{"com.microsoft", "DynamicQuantizeMatMul", {1, -1}, {3, -1}},
    LinearOp{"com.microsoft", "MatMulIntegerToFloat", {1, -1}, {5, -1}},
    LinearOp{"com.microsoft", "QGemm", {3, -1}, {5, -1}},
};

const LinearOp* find_linear(const Node& node) {
  for (const LinearOp& op : kLinearOps) {
    if (node.is(op.domain, op.name)) return &op;
  }
  return nullptr;
}

// The bits of element i, sign-extended for signed integers so that zero points compare as numbers.
int64_t integer_at(const Tensor& t, int64_t i) {
  const auto* bytes = static_cast<const std::byte*>(t.data());
  const auto read = [&]<class T>(T) {
    T value;
    std::memcpy(&value, bytes + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    return static_cast<int64_t>(value);
  };
  switch (t.dtype()) {
    case DType::kS8:
    case DType::kS4:
      return read(int8_t{});
    case DType::kU8:
    case DType::kU4:
      return read(uint8_t{});
    case DType::kS16:
      return read(int16_t{});
    case DType::kU16:
      return read(uint16_t{});
    case DType::kS32:
      return read(int32_t{});
    default:
      return read(int64_t{});
  }
}

int64_t count_zero_floats(const Tensor& t) {
  const auto* bytes = static_cast<const std::byte*>(t.data());
  const auto count = [&]<class T>(T sign_bit) {
    int64_t zeros = 0;
    for (int64_t i = 0; i < t.num_elements(); ++i) {
      T bits;
      std::memcpy(&bits, bytes + static_cast<size_t>(i) * sizeof(T), sizeof(T));
      zeros += static_cast<T>(bits & static_cast<T>(~sign_bit)) == 0;
    }
    return zeros;
  };
  switch (dtype_size(t.dtype())) {
    case 2:
      return count(uint16_t{0x8000});
    case 4:
      return count(uint32_t{0x80000000});
    default:
      return count(uint64_t{0x8000000000000000});
  }
}

// Zero point i of a scalar or vector; the axis of a vector is the one with as many elements.
int64_t count_zeros(const Tensor& t, const Tensor* zero_point) {
  if (is_float(t.dtype())) return count_zero_floats(t);
  if (!is_integer(t.dtype())) return 0;
  int64_t inner = std::max<int64_t>(t.num_elements(), 1), channels = 1;
  if (zero_point != nullptr && zero_point->num_elements() > 1) {
    for (int axis = t.shape().rank() - 1; axis >= 0; --axis) {
      if (t.shape()[axis] != zero_point->num_elements()) continue;
      channels = t.shape()[axis];
      inner = t.shape().num_elements(axis + 1, t.shape().rank());
      break;
    }
  }
  int64_t zeros = 0;
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    const int64_t channel = channels > 1 ? i / inner % channels : 0;
    const int64_t zero = zero_point == nullptr || zero_point->num_elements() == 0
                             ? 0
                             : integer_at(*zero_point, channel);
    zeros += integer_at(t, i) == zero;
  }
  return zeros;
}

struct Source {
  ValueId value = kNoValue;
  const Tensor* zero_point = nullptr;
  bool turned = false;  // by a Transpose of a matrix
};

// The constant behind v, through nodes that keep the elements.
Source constant_behind(const Graph& g, ValueId v) {
  Source source{v, nullptr, false};
  for (int depth = 0; depth < 8 && source.value != kNoValue; ++depth) {
    if (g.constant(source.value) != nullptr) return source;
    const Node* node = g.producer(source.value);
    if (node == nullptr) break;
    const bool dequantize = node->is("DequantizeLinear");
    const bool moves =
        node->is("Transpose") || node->is("Reshape") || node->is("Cast") || node->is("Identity");
    if (!dequantize && !moves) break;
    if (dequantize) source.zero_point = g.constant(node->input(2));
    if (node->is("Transpose")) source.turned = !source.turned;
    source.value = node->input(0);
  }
  return {};
}

// True when the weight of input `input` lies as [N, K].
bool outputs_first(const Node& node, int input) {
  if (node.is("Gemm")) return node.attrs.get_int(input == 0 ? "transA" : "transB", 0) == (input == 0 ? 0 : 1);
  if (node.is("com.microsoft", "QGemm")) return node.attrs.get_int("transB", 0) == 1;
  if (node.is("com.microsoft", "FusedMatMul") && input == 1) return node.attrs.get_int("transB", 0) == 1;
  const bool conv = node.op_type.find("Conv") != std::string::npos;
  return conv || input == 0;
}

std::optional<graph::WeightZeros> patterns_of(const Source& source, const Tensor& t, const Node& node, int input) {
  const bool conv = node.op_type.find("Conv") != std::string::npos;
  if (t.num_elements() == 0 || (!conv && t.shape().rank() != 2)) return std::nullopt;
  if (!is_float(t.dtype()) && t.dtype() != DType::kS8 && t.dtype() != DType::kU8) return std::nullopt;
  if (t.dtype() == DType::kF64) return std::nullopt;
  const bool first = outputs_first(node, input) != source.turned;
  const int64_t n = first ? t.shape()[0] : t.shape()[1], k = t.num_elements() / n;
  graph::WeightConstant weight = {&t, n, k, first ? k : 1, first ? 1 : n};
  std::vector<int32_t> zeros;
  if (source.zero_point != nullptr) {
    for (int64_t i = 0; i < source.zero_point->num_elements(); ++i) {
      zeros.push_back(static_cast<int32_t>(integer_at(*source.zero_point, i)));
    }
    if (zeros.size() != 1 && static_cast<int64_t>(zeros.size()) != n) return std::nullopt;
  }
  return graph::measure_zeros({weight, zeros});
}

}  // namespace

std::vector<LinearWeight> linear_weights(const Graph& graph) {
  std::vector<LinearWeight> weights;
  std::set<ValueId> seen;
  for (graph::NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.node(n);
    const LinearOp* op = node.dead ? nullptr : find_linear(node);
    if (op == nullptr) continue;
    for (size_t k = 0; k < op->weights.size(); ++k) {
      if (op->weights[k] < 0) continue;
      Source source = constant_behind(graph, node.input(static_cast<size_t>(op->weights[k])));
      if (source.value == kNoValue || !seen.insert(source.value).second) continue;
      if (source.zero_point == nullptr && op->zero_points[k] >= 0) {
        source.zero_point = graph.constant(node.input(static_cast<size_t>(op->zero_points[k])));
      }
      const Tensor& t = *graph.constant(source.value);
      if (t.shape().rank() < 2) continue;
      weights.push_back({graph.value(source.value).name, node.op_type, t.dtype(), t.shape(),
                         count_zeros(t, source.zero_point),
                         patterns_of(source, t, node, op->weights[k])});
    }
  }
  return weights;
}

}  // namespace sprun::tools
