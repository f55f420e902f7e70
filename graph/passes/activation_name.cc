#include "graph/passes/activation_name.h"

#include "graph/ir/pattern.h"

namespace sprun::graph {

std::string activation_name(const Node& node) {
  if (node.is("Relu")) return "relu";
  if (node.is("Tanh")) return "tanh";
  if (node.is("Sigmoid")) return "sigmoid";
  if (node.is("Gelu")) return node.attrs.get_string("approximate", "none") == "tanh" ? "gelu_tanh" : "gelu_erf";
  if (node.is("com.microsoft", "Gelu")) return "gelu_erf";
  if (node.is("com.microsoft", "FastGelu") && node.input(1) == kNoValue) return "gelu_tanh";
  if (!node.is("com.microsoft", "QuickGelu")) return "";
  const float alpha = node.attrs.get_float("alpha", 1.702F);
  if (alpha == 1.0F) return "silu";
  return nearly(static_cast<double>(alpha), 1.702) ? "quick_gelu" : "";
}

}  // namespace sprun::graph
