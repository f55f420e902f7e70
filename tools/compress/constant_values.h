// Constants of a graph as vectors and matrices of doubles, and back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// rows * cols float32 numbers, at any address.
Matrix read_floats(const void* data, int64_t rows, int64_t cols);
// A float32 tensor of that shape with the elements of m in row-major order.
Result<Tensor> float_tensor(const Matrix& m, const Shape& shape);
// New constants of a graph, their names made unique.
Result<graph::ValueId> add_matrix(graph::Graph& graph, const std::string& name, const Matrix& m);
Result<graph::ValueId> add_vector(graph::Graph& graph, const std::string& name, const Vector& v);
graph::ValueId add_ints(graph::Graph& graph, const std::string& name,
                        const std::vector<int64_t>& values);

// A node of ai.onnx with one output, both called `name` where that is free. Returns the output.
graph::ValueId add_operation(graph::Graph& graph, const std::string& name, const std::string& op,
                             int version, std::vector<graph::ValueId> inputs);

}  // namespace sprun::compress
