#include "graph/ops/matmul_util.h"

#include <algorithm>
#include <string>

namespace sprun::graph {
namespace {

// An operand as a stack of matrices: sizes, strides and batch axes, after transposition.
struct Operand {
  Shape batch;
  BatchStrides batch_strides{};
  int64_t rows = 1, cols = 1, row_stride = 0, col_stride = 0;
};

// trans_batch: memory is [R, batch.., C] and means [batch.., R, C].
Operand as_matrices(const Shape& shape, bool trans, bool trans_batch) {
  const auto strides = row_major_strides(shape);
  const int rank = shape.rank();
  const auto stride = [&strides](int axis) { return strides[static_cast<size_t>(axis)]; };
  Operand op;
  const int row_axis = trans_batch && rank > 2 ? 0 : rank - 2;
  for (int axis = 0; axis < rank - 1; ++axis) {
    if (axis == row_axis) continue;
    op.batch_strides[static_cast<size_t>(op.batch.rank())] = stride(axis);
    op.batch.push_back(shape[axis]);
  }
  op.rows = shape[row_axis];
  op.row_stride = stride(row_axis);
  op.cols = shape[rank - 1];
  op.col_stride = stride(rank - 1);
  if (trans) {
    std::swap(op.rows, op.cols);
    std::swap(op.row_stride, op.col_stride);
  }
  return op;
}

BatchStrides align_batch(const Operand& op, const Shape& batch) {
  BatchStrides strides{};
  const int offset = batch.rank() - op.batch.rank();
  for (int i = 0; i < op.batch.rank(); ++i) {
    strides[static_cast<size_t>(i + offset)] = op.batch[i] == 1 ? 0 : op.batch_strides[static_cast<size_t>(i)];
  }
  return strides;
}

Status bad_shapes(const Shape& a, const Shape& b, const char* why) {
  return {Code::kBadModel, "matrix product of " + a.to_string() + " and " + b.to_string() + ": " + why};
}

}  // namespace

Result<MatMulShapes> plan_matmul(const Shape& a, const Shape& b, const MatMulFlags& flags) {
  if (a.rank() == 0 || b.rank() == 0) return bad_shapes(a, b, "operands need at least one axis");
  const bool a_vector = a.rank() == 1, b_vector = b.rank() == 1;
  const Operand left =
      a_vector ? as_matrices({1, a[0]}, false, false) : as_matrices(a, flags.trans_a, flags.trans_batch_a);
  const Operand right =
      b_vector ? as_matrices({b[0], 1}, false, false) : as_matrices(b, flags.trans_b, flags.trans_batch_b);
  if (left.cols != right.rows) {
    return bad_shapes(
        a, b, ("inner sizes " + std::to_string(left.cols) + " and " + std::to_string(right.rows) + " differ").c_str());
  }
  MatMulShapes result;
  BatchedGemm& g = result.gemm;
  SPRUN_ASSIGN(g.batch, broadcast_shapes(left.batch, right.batch));
  g.m = left.rows;
  g.n = right.cols;
  g.k = left.cols;
  g.a_row = left.row_stride;
  g.a_col = left.col_stride;
  g.b_row = right.row_stride;
  g.b_col = right.col_stride;
  g.a_batch = align_batch(left, g.batch);
  g.b_batch = align_batch(right, g.batch);
  g.c_row = g.n;
  int64_t stride = g.m * g.n;
  for (int i = g.batch.rank() - 1; i >= 0; --i) {
    g.c_batch[static_cast<size_t>(i)] = stride;
    stride *= g.batch[i];
  }
  std::array<int64_t, kMaxRank + 2> dims{};
  size_t rank = 0;
  for (int64_t dim : g.batch.dims()) dims[rank++] = dim;
  if (!a_vector) dims[rank++] = g.m;
  if (!b_vector) dims[rank++] = g.n;
  SPRUN_ASSIGN(result.out, Shape::checked({dims.data(), rank}));
  return result;
}

BatchOffsets batch_offsets(const BatchedGemm& gemm, int64_t index) {
  BatchOffsets at;
  for (int i = gemm.batch.rank() - 1; i >= 0; --i) {
    const auto axis = static_cast<size_t>(i);
    const int64_t coordinate = index % gemm.batch[i];
    index /= gemm.batch[i];
    at.a += coordinate * gemm.a_batch[axis];
    at.b += coordinate * gemm.b_batch[axis];
    at.c += coordinate * gemm.c_batch[axis];
  }
  return at;
}

void fold_batch_into_rows(BatchedGemm& gemm) {
  while (gemm.batch.rank() > 0) {
    const int last = gemm.batch.rank() - 1;
    const auto axis = static_cast<size_t>(last);
    const int64_t size = gemm.batch[last];
    if (size != 1) {
      const bool fits =
          gemm.b_batch[axis] == 0 &&
          (gemm.m == 1 || (gemm.a_batch[axis] == gemm.m * gemm.a_row && gemm.c_batch[axis] == gemm.m * gemm.c_row));
      if (!fits) return;
      if (gemm.m == 1) {
        gemm.a_row = gemm.a_batch[axis];
        gemm.c_row = gemm.c_batch[axis];
      }
      gemm.m *= size;
    }
    gemm.batch.erase(last);
  }
}

}  // namespace sprun::graph
