// SparseGPT (arXiv 2301.00774): columns are eliminated from left to right; what a weight loses is
// made up for, as well as linear algebra can, by the columns to its right. With H = X^T X and U^T U
// = (H + damping)^{-1}:
//
//   for panels of columns:
//     choose the zeros of the panel
//     for column i of the panel:  e = (w_i - q_i) / U_ii;  W[:, j] -= e U_ij for j > i
//
// q_i is w_i with the chosen elements zero and the others rounded if asked for. Scores: a block of
// one column costs w^2 / U_ii^2 per row. A block of columns S costs ||U_SS^{-T} w_S||^2, because
// the inverse of what remains of H from the first column of S on is U_R^T U_R. Blocks are chosen
// over all rows of a panel, N:M groups per row when their first column is reached. Rows do not
// depend on each other once the zeros are chosen, so tasks take rows.
#include <algorithm>
#include <cmath>

#include "tools/compress/block_choice.h"
#include "tools/compress/inverse_factor.h"
#include "tools/compress/prune.h"

namespace sprun::compress {
namespace {

constexpr int64_t kPanel = 128;
constexpr int64_t kRowsPerTask = 16;

class SparseGpt {
 public:
  SparseGpt(const PruneProblem& problem, const Matrix& u, Matrix& w)
      : problem_(problem), pattern_(problem.spec.pattern), u_(u), w_(w) {
    const int64_t step = pattern_.is_n_of_m() ? pattern_.of : pattern_.cols;
    panel_ = std::max<int64_t>(kPanel - kPanel % step, step);
  }

  void run() {
    for (int64_t first = 0; first < w_.cols(); first += panel_) {
      begin_ = first;
      end_ = std::min(first + panel_, w_.cols());
      zero_.setZero(w_.rows(), end_ - begin_);
      if (!pattern_.is_n_of_m()) choose_blocks();
      problem_.pool->parallel_for(block_count(w_.rows(), kRowsPerTask), 1,
                                  [this](int64_t begin, int64_t end, int) {
                                    const int64_t from = begin * kRowsPerTask;
                                    eliminate(from, std::min(end * kRowsPerTask, w_.rows()) - from);
                                  });
    }
  }

 private:
  using Flags = Eigen::Matrix<uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  // Squares of rows of V = W_S U_SS^{-1}, added up per row: that is what removing S costs.
  void score_columns(int64_t first, int64_t count, int64_t row, int64_t rows,
                     Matrix& scores) const {
    const auto triangle = u_.block(first, first, count, count).triangularView<Eigen::Upper>();
    Matrix v = w_.block(row, first, rows, count);
    if (count == 1) v /= u_(first, first);
    else triangle.solveInPlace<Eigen::OnTheRight>(v);
    scores.block(row, (first - begin_) / pattern_.cols, rows, 1) = v.rowwise().squaredNorm();
  }

  void choose_blocks() {
    const int64_t across = block_count(end_ - begin_, pattern_.cols);
    Matrix scores(w_.rows(), across);
    problem_.pool->parallel_for(w_.rows(), 64, [&](int64_t row, int64_t row_end, int) {
      for (int64_t c = begin_; c < end_; c += pattern_.cols) {
        score_columns(c, std::min(pattern_.cols, end_ - c), row, row_end - row, scores);
      }
    });
    const std::vector<double> sums = block_scores(scores, {.rows = pattern_.rows});
    // Rounded so that the parts of all panels add up to that of the layer.
    const auto blocks_up_to = [&](int64_t column) {
      const int64_t blocks =
          block_count(w_.rows(), pattern_.rows) * block_count(column, pattern_.cols);
      return std::llround(problem_.spec.sparsity * static_cast<double>(blocks));
    };
    const auto chosen = smallest(sums, blocks_up_to(end_) - blocks_up_to(begin_));
    for (int64_t r = 0; r < w_.rows(); ++r) {
      for (int64_t c = 0; c < end_ - begin_; ++c) {
        zero_(r, c) = chosen[static_cast<size_t>(r / pattern_.rows * across + c / pattern_.cols)];
      }
    }
  }

  // Zeros of the N:M group of this row that begins at `first`.
  void choose_group(int64_t row, int64_t first) {
    const int64_t size = std::min(pattern_.of, end_ - first);
    std::vector<double> scores(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      const double v = w_(row, first + i) / u_(first + i, first + i);
      scores[static_cast<size_t>(i)] = v * v;
    }
    const auto zero = smallest(scores, std::max<int64_t>(size - pattern_.kept, 0));
    for (int64_t i = 0; i < size; ++i)
      zero_(row, first - begin_ + i) = zero[static_cast<size_t>(i)];
  }

  double replaced(int64_t row, int64_t column) const {
    if (zero_(row, column - begin_)) return 0;
    const double value = w_(row, column);
    if (!problem_.int8_scale) return value;
    const double scale = (*problem_.int8_scale)[row];
    return scale > 0 ? std::clamp(std::nearbyint(value / scale), -127.0, 127.0) * scale : 0;
  }

  void eliminate(int64_t row, int64_t rows) {
    const int64_t width = end_ - begin_, rest = w_.cols() - end_;
    Matrix errors(rows, width);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = begin_; c < end_; ++c) {
        if (pattern_.is_n_of_m() && c % pattern_.of == 0) choose_group(row + r, c);
        double& weight = w_(row + r, c);
        const double kept = replaced(row + r, c), error = (weight - kept) / u_(c, c);
        weight = kept;
        errors(r, c - begin_) = error;
        const int64_t right = end_ - c - 1;
        if (error != 0)
          w_.row(row + r).segment(c + 1, right) -= error * u_.row(c).segment(c + 1, right);
      }
    }
    if (rest > 0)
      w_.block(row, end_, rows, rest).noalias() -= errors * u_.block(begin_, end_, width, rest);
  }

  const PruneProblem& problem_;
  const Pattern& pattern_;
  const Matrix& u_;
  Matrix& w_;
  Flags zero_;
  int64_t panel_ = 0, begin_ = 0, end_ = 0;
};

}  // namespace

Status prune_sparsegpt(const PruneProblem& problem, Matrix& w, PruneOutcome& outcome) {
  const Matrix& h = problem.inputs->gram();
  SPRUN_ASSIGN(const InverseFactor factor, inverse_factor(h, problem.damping, *problem.pool));
  outcome.damping = factor.damping;
  for (int64_t j = 0; j < h.cols(); ++j) {
    if (h(j, j) == 0) w.col(j).setZero();  // an input that is always zero needs no weights
  }
  SparseGpt(problem, factor.u, w).run();
  outcome.rounded = problem.int8_scale.has_value();
  return {};
}

}  // namespace sprun::compress
