// Least squares over the inputs that are left. Rows of W do not depend on each other: tasks take some each.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include <Eigen/Cholesky>

#include "tools/compress/block_choice.h"
#include "tools/compress/unit_choice.h"

namespace sprun::compress {
namespace {

constexpr int64_t kRows = 64;  // of W that one task takes
using ColumnMajor = Eigen::MatrixXd;
using Indices = std::vector<Eigen::Index>;

class Refitter {
 public:
  Refitter(const Matrix& w, const InputStatistics& inputs, const Vector& mean, const std::vector<bool>& keep)
      : w_(w), mean_(mean), covariance_(inputs.gram() / static_cast<double>(inputs.rows()) - mean * mean.transpose()) {
    for (size_t i = 0; i < keep.size(); ++i) (keep[i] ? kept_ : removed_).push_back(static_cast<Eigen::Index>(i));
    kept_covariance_ = covariance_(kept_, kept_);
  }

  Status factor(double damping) {
    const double mean = kept_covariance_.diagonal().mean();
    if (!(mean > 0)) return {};  // constant inputs explain nothing
    for (double tried = std::max(damping, 1e-10); tried <= 1; tried *= 10) {
      ColumnMajor damped = kept_covariance_;
      damped.diagonal().array() += tried * mean;
      factor_.compute(damped);
      solves_ = factor_.info() == Eigen::Success;
      if (solves_) return {};
    }
    return {Code::kBadInput, "the inputs of the layer on the calibration data have no Cholesky decomposition"};
  }

  Result<Refit> run(ThreadPool& pool) {
    Refit result;
    result.w = Matrix::Zero(w_.rows(), w_.cols());
    result.bias = Vector::Zero(w_.rows());
    std::vector<std::array<double, 3>> parts(static_cast<size_t>(block_count(w_.rows(), kRows)));
    cross_ = covariance_(removed_, kept_);
    pool.parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) parts[static_cast<size_t>(p)] = refit_rows(p * kRows, result);
    });
    double yy = 0, yv = 0, vv = 0;
    for (const auto& part : parts) yy += part[0], yv += part[1], vv += part[2];
    if (!std::isfinite(yy) || !std::isfinite(vv)) return Status(Code::kBadInput, "the refit gives no finite numbers");
    if (yy > 0) result.error = std::sqrt(std::max(yy - 2 * yv + vv, 0.0) / yy);
    if (yy > 0) result.cosine = vv > 0 ? yv / std::sqrt(yy * vv) : 0;
    return result;
  }

 private:
  // Rows [first, first + kRows) of the result; inner products of old and new outputs per row of data.
  std::array<double, 3> refit_rows(int64_t first, Refit& result) const {
    const int64_t count = std::min(kRows, w_.rows() - first);
    const ColumnMajor w = w_.middleRows(first, count);
    ColumnMajor kept = w(Eigen::all, kept_);
    if (solves_ && !removed_.empty()) {
      const ColumnMajor wanted = w(Eigen::all, removed_) * cross_;
      kept += factor_.solve(wanted.transpose()).transpose();
    }
    ColumnMajor v = ColumnMajor::Zero(count, w.cols());
    v(Eigen::all, kept_) = kept;
    result.w.middleRows(first, count) = v;
    const Vector before = w * mean_, without = v * mean_;
    result.bias.segment(first, count) = before - without;
    const ColumnMajor spread = w * covariance_;
    const ColumnMajor kept_spread = kept * kept_covariance_;
    const double means = before.squaredNorm();  // the new output has the same mean
    return {spread.cwiseProduct(w).sum() + means, spread.cwiseProduct(v).sum() + means,
            kept_spread.cwiseProduct(kept).sum() + means};
  }

  const Matrix& w_;
  const Vector& mean_;
  ColumnMajor covariance_, kept_covariance_, cross_;
  Indices kept_, removed_;
  Eigen::LLT<ColumnMajor> factor_;
  bool solves_ = false;
};

}  // namespace

Result<Refit> refit_reader(const Matrix& w, const InputStatistics& inputs, const Vector& mean,
                           const std::vector<bool>& keep, double damping, bool least_squares, ThreadPool& pool) {
  Refitter refitter(w, inputs, mean, keep);
  if (least_squares) SPRUN_TRY(refitter.factor(damping));
  return refitter.run(pool);
}

}  // namespace sprun::compress
