// int8 linear layers in standard ONNX, as ONNX Runtime's quantisers write them.
#pragma once

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/int8_spec.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// Scale per output, symmetric: max |w| / 127. Outputs without weights get 1.
Vector int8_scales(const Matrix& w);
// w rounded to multiples of the scales, at most 127 of them.
Matrix round_to_int8(const Matrix& w, const Vector& scales);

struct ValueRange {
  float min = 0, max = 0;
};

// Why this layer cannot become int8 in this mode; empty when it can.
std::string int8_obstacle(const graph::Graph& graph, const LinearLayer& layer, Int8Mode mode);

// The nodes of an int8 layer:
//   kDynamic  q, s, z = DynamicQuantizeLinear(x);  y = Cast(MatMulInteger(q, W, z)) * (s * scale_w)
//   kStatic   y = MatMul(DequantizeLinear(QuantizeLinear(x)), DequantizeLinear(W, scale_w))
// residual: and the same once more, added, for r = x - DequantizeLinear(q) instead of x. The sum
// has 255 times finer steps for x, at the price of a second product.
struct Int8Form {
  Int8Mode mode = Int8Mode::kDynamic;
  ValueRange range = {};  // of x, for kStatic
  bool residual = false;
};

// Rewrites the layer. w: multiples of the scales. Layers with the same x share the nodes that
// quantise it. layer.node and layer.weight name the new product and its weight afterwards.
Status make_int8(graph::Graph& graph, LinearLayer& layer, const Matrix& w, const Vector& scales,
                 const Int8Form& form);

}  // namespace sprun::compress
