#include "graph/ops/integer_gemm.h"

#include <string>

namespace sprun::graph {

int64_t VectorParam::at(const BatchedGemm& g, int64_t entry, int64_t i) const {
  int64_t index = i * stride;
  for (int axis = g.batch.rank() - 1; axis >= 0; --axis) {
    index += entry % g.batch[axis] * batch[static_cast<size_t>(axis)];
    entry /= g.batch[axis];
  }
  return index;
}

Result<VectorParam> vector_param(const Shape& param, const BatchedGemm& g, bool rows) {
  VectorParam result;
  if (param.num_elements() == 1) return result;
  const int64_t size = rows ? g.m : g.n;
  const auto fail = [&] {
    return Status(Code::kBadModel, "scale or zero point of shape " + param.to_string() + " does not fit " +
                                       std::to_string(size) + (rows ? " rows" : " columns") + " in batch " +
                                       g.batch.to_string());
  };
  result.stride = 1;
  if (param.rank() == 1) {
    if (param[0] != size) return fail();
    return result;
  }
  Shape shape = param;  // the axis of size 1 goes away, then: batch axes + [size]
  const int gone = rows ? shape.rank() - 1 : shape.rank() - 2;
  if (shape.rank() < 2 || shape[gone] != 1) return fail();
  shape.erase(gone);
  if (shape.back() != size || shape.rank() - 1 > g.batch.rank()) return fail();
  int64_t stride = size;
  for (int i = shape.rank() - 2, axis = g.batch.rank() - 1; i >= 0; --i, --axis) {
    if (shape[i] != 1 && shape[i] != g.batch[axis]) return fail();
    result.batch[static_cast<size_t>(axis)] = shape[i] == 1 ? 0 : stride;
    stride *= shape[i];
  }
  return result;
}

}  // namespace sprun::graph
