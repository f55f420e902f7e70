#include "graph/ops/quant_util.h"

#include <algorithm>
#include <string>

namespace sprun::graph {

QuantRange quant_range(DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return {0, 255};
    case DType::kS8:
      return {-128, 127};
    case DType::kU16:
      return {0, 65535};
    case DType::kS16:
      return {-32768, 32767};
    case DType::kU4:
      return {0, 15};
    case DType::kS4:
      return {-8, 7};
    default:
      return {0, 0};
  }
}

namespace {
Status layout_error(const Shape& x, const Shape& scale, const std::string& why) {
  return {Code::kBadModel,
          "scale of shape " + scale.to_string() + " does not fit data of shape " + x.to_string() + ": " + why};
}

Result<QuantLayout> blocked_layout(QuantLayout q, const Shape& x, const Shape& scale, int axis, int64_t block_size) {
  if (scale.rank() != x.rank()) return layout_error(x, scale, "blocked scales need the rank of the data");
  const int64_t blocks = (q.size + block_size - 1) / block_size;
  for (int i = 0; i < x.rank(); ++i) {
    if (scale[i] != (i == axis ? blocks : x[i])) {
      return layout_error(x, scale,
                          "expected " + std::to_string(i == axis ? blocks : x[i]) + " on axis " + std::to_string(i) +
                              " for blocks of " + std::to_string(block_size));
    }
  }
  q.block = block_size;
  q.outer_stride = blocks * q.inner;
  q.axis_stride = q.inner;
  q.inner_stride = 1;
  return q;
}
}  // namespace

Result<QuantLayout> quant_layout(const Shape& x, const Shape& scale, int64_t axis, int64_t block_size) {
  if (block_size < 0) return layout_error(x, scale, "block_size is negative");
  if (scale.num_elements() == 1) {
    QuantLayout q;
    q.inner = x.num_elements();
    return q;
  }
  if (x.rank() == 1 && block_size == 0) axis = 0;  // nothing to choose; the default of 1 would be out of range
  SPRUN_ASSIGN(const int at, normalize_axis(axis, x.rank()));
  QuantLayout q;
  q.outer = x.num_elements(0, at);
  q.size = x[at];
  q.inner = x.num_elements(at + 1, x.rank());
  if (block_size > 0) return blocked_layout(q, x, scale, at, block_size);
  if (scale.rank() != 1 || scale[0] != q.size) {
    return layout_error(x, scale, "expected [" + std::to_string(q.size) + "] for axis " + std::to_string(at));
  }
  q.axis_stride = 1;
  return q;
}

}  // namespace sprun::graph
