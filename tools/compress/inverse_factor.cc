// With both orders of indices reversed, H = L L^T has a lower factor; reversed back it is an upper
// factor M with H = M M^T. Then H^{-1} = M^{-T} M^{-1}, so U = M^{-1}: one Cholesky decomposition
// and one triangular inverse, and H^{-1} itself is never made.
#include "tools/compress/inverse_factor.h"

#include <algorithm>

#include <Eigen/Cholesky>

namespace sprun::compress {
namespace {

constexpr int64_t kColumns = 64;  // of the inverse that one task computes

using ColumnMajor = Eigen::MatrixXd;

ColumnMajor reversed_and_damped(const Matrix& h, double added) {
  ColumnMajor r = h.reverse();
  for (int64_t i = 0; i < r.rows(); ++i) r(i, i) = r(i, i) == 0 ? 1 : r(i, i) + added;
  return r;
}

// Lower triangle of the inverse of L, written reversed: u = reverse(L^{-1}).
void invert(const ColumnMajor& l, ThreadPool& pool, Matrix& u) {
  const int64_t k = l.rows();
  u.setZero(k, k);
  pool.parallel_for((k + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kColumns, count = std::min(kColumns, k - first),
                    rest = k - first;
      ColumnMajor x = ColumnMajor::Zero(rest, count);
      x.topRows(count).setIdentity();
      l.bottomRightCorner(rest, rest).triangularView<Eigen::Lower>().solveInPlace(x);
      u.block(0, rest - count, rest, count) = x.reverse();
    }
  });
}

}  // namespace

Result<InverseFactor> inverse_factor(const Matrix& h, double damping, ThreadPool& pool) {
  const double mean = h.diagonal().mean();
  for (double tried = damping; tried <= 1; tried = tried > 0 ? tried * 10 : 1e-6) {
    ColumnMajor r = reversed_and_damped(h, tried * mean);
    const Eigen::LLT<Eigen::Ref<ColumnMajor>> decomposition(r);
    if (decomposition.info() != Eigen::Success) continue;
    InverseFactor result;
    result.damping = tried;
    invert(r, pool, result.u);
    if (result.u.allFinite()) return result;
  }
  return Status(Code::kBadInput,
                "the inputs of the layer on the calibration data have no Cholesky decomposition");
}

}  // namespace sprun::compress
