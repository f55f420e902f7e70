// The pruning methods against plain double implementations that are derived another way: SparseGPT
// by explicit elimination from the inverse of H instead of a Cholesky factor.
#include "tools/compress/prune.h"

#include <gtest/gtest.h>

#include <Eigen/LU>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/tools/compress/test_util.h"
#include "tools/compress/inverse_factor.h"
#include "tools/compress/quantize.h"

namespace sprun::compress {
namespace {

struct Case {
  int64_t n, k;
  const char* spec;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.n << "x" << c.k << " " << c.spec;
}

constexpr Case kSparseGptCases[] = {{16, 24, "unstructured:0.5"},
                                    {12, 300, "unstructured:0.7"},
                                    {24, 64, "4x1:0.5"},
                                    {30, 130, "4x1:0.9"},
                                    {8, 160, "1x4:0.5"},
                                    {32, 140, "16x4:0.6"},
                                    {33, 131, "16x4:0.5"},
                                    {40, 96, "32x32:0.5"},
                                    {7, 128, "2:4"},
                                    {5, 129, "1:4"},
                                    {6, 200, "4:8"},
                                    {1, 1, "unstructured:0.5"},
                                    {10, 256, "16x1:0"}};

// What removing columns S of a row costs, and what it does to the rest, from the inverse of what
// remains of H.
class Naive {
 public:
  Naive(const Matrix& h, double damping, const PruneSpec& spec, Matrix& w) : spec_(spec), w_(w) {
    const int64_t k = h.rows();
    Matrix inverse = (h + damping * h.diagonal().mean() * Matrix::Identity(k, k)).inverse();
    for (int64_t j = 0; j < k; ++j) {
      inverses_.push_back(inverse);  // of H without the columns before j
      inverse -= (inverse.col(j) / inverse(j, j) * inverse.row(j)).eval();
    }
  }

  void run() {
    const Pattern& p = spec_.pattern;
    const int64_t unit = p.is_n_of_m() ? p.of : p.cols,
                  panel = std::max<int64_t>(128 - 128 % unit, unit);
    int64_t done = 0;
    for (int64_t first = 0; first < w_.cols(); first += panel) {
      const int64_t end = std::min(first + panel, w_.cols());
      Matrix zero = Matrix::Zero(w_.rows(), w_.cols());
      if (!p.is_n_of_m()) done = choose_blocks(first, end, done, zero);
      for (int64_t j = first; j < end; ++j) {
        if (p.is_n_of_m() && j % p.of == 0) choose_groups(j, std::min(j + p.of, end), zero);
        for (int64_t r = 0; r < w_.rows(); ++r) {
          if (zero(r, j) == 0) continue;
          w_.row(r).tail(w_.cols() - j) -=
              w_(r, j) / inverses_[j](j, j) * inverses_[j].row(j).tail(w_.cols() - j);
          w_(r, j) = 0;
        }
      }
    }
  }

 private:
  double cost(int64_t row, int64_t first, int64_t count) const {
    const Matrix inverse = inverses_[first].block(first, first, count, count);
    const auto w = w_.row(row).segment(first, count);
    return w.dot((inverse.inverse() * w.transpose()).transpose());
  }

  int64_t choose_blocks(int64_t first, int64_t end, int64_t done, Matrix& zero) const {
    const Pattern& p = spec_.pattern;
    struct Block {
      double cost;
      int64_t row, col;
    };
    std::vector<Block> blocks;
    for (int64_t r = 0; r < w_.rows(); r += p.rows) {
      for (int64_t c = first; c < end; c += p.cols) {
        double sum = 0;
        for (int64_t i = r; i < std::min(r + p.rows, w_.rows()); ++i)
          sum += cost(i, c, std::min(p.cols, end - c));
        blocks.push_back({sum, r, c});
      }
    }
    const int64_t up = (w_.rows() + p.rows - 1) / p.rows, across = (end + p.cols - 1) / p.cols;
    const int64_t target = std::llround(spec_.sparsity * static_cast<double>(up * across));
    std::sort(blocks.begin(), blocks.end(),
              [](const Block& a, const Block& b) { return a.cost < b.cost; });
    for (int64_t b = 0; b < target - done; ++b) {
      for (int64_t r = blocks[b].row; r < std::min(blocks[b].row + p.rows, w_.rows()); ++r) {
        for (int64_t c = blocks[b].col; c < std::min(blocks[b].col + p.cols, end); ++c)
          zero(r, c) = 1;
      }
    }
    return target;
  }

  void choose_groups(int64_t first, int64_t end, Matrix& zero) const {
    for (int64_t r = 0; r < w_.rows(); ++r) {
      std::vector<int64_t> order(static_cast<size_t>(end - first));
      std::iota(order.begin(), order.end(), first);
      std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return w_(r, a) * w_(r, a) / inverses_[a](a, a) < w_(r, b) * w_(r, b) / inverses_[b](b, b);
      });
      for (int64_t i = 0; i < end - first - spec_.pattern.kept; ++i) zero(r, order[i]) = 1;
    }
  }

  const PruneSpec& spec_;
  Matrix& w_;
  std::vector<Matrix> inverses_;
};

double agreement(const Matrix& a, const Matrix& b) {
  return static_cast<double>(((a.array() == 0) == (b.array() == 0)).count()) /
         static_cast<double>(a.size());
}

class SparseGpt : public testing::TestWithParam<Case> {};

TEST_P(SparseGpt, AgreesWithExplicitElimination) {
  const Case& c = GetParam();
  ThreadPool pool(2);
  const InputStatistics inputs = statistics_of(random_inputs(2 * c.k + 5, c.k, 3));
  PruneProblem problem{
      parse_prune_spec(std::string(c.spec) + "@sparsegpt").value(), &inputs, 0.01, {}, &pool};
  const Matrix original = random_matrix(c.n, c.k, 4);
  Matrix got = original, want = original;
  PruneOutcome outcome;
  prune_sparsegpt(problem, got, outcome).value();
  Naive(inputs.gram(), 0.01, problem.spec, want).run();
  EXPECT_GE(agreement(got, want), 0.999);
  EXPECT_LE((got - want).cwiseAbs().maxCoeff(), 1e-3 * want.cwiseAbs().maxCoeff());
  EXPECT_EQ(outcome.damping, 0.01);
}

INSTANTIATE_TEST_SUITE_P(Patterns, SparseGpt, testing::ValuesIn(kSparseGptCases));

TEST(SparseGpt, RoundsInTheSamePassAndKeepsZeros) {
  ThreadPool pool(1);
  const InputStatistics inputs = statistics_of(random_inputs(300, 96, 5));
  const Matrix original = random_matrix(20, 96, 6);
  PruneProblem problem{parse_prune_spec("unstructured:0.5@sparsegpt").value(), &inputs, 0.01,
                       int8_scales(original), &pool};
  Matrix joint = original;
  PruneOutcome outcome;
  prune_sparsegpt(problem, joint, outcome).value();
  EXPECT_TRUE(outcome.rounded);
  EXPECT_EQ((joint.array() == 0).count() >= joint.size() / 2, true);
  const Matrix codes = problem.int8_scale->cwiseInverse().asDiagonal() * joint;
  EXPECT_LE((codes - codes.array().round().matrix()).cwiseAbs().maxCoeff(), 1e-9);
  EXPECT_LE(codes.cwiseAbs().maxCoeff(), 127.001);

  problem.int8_scale.reset();
  Matrix after = original;
  prune_sparsegpt(problem, after, outcome).value();
  after = round_to_int8(after, int8_scales(original));
  EXPECT_LE(output_error(inputs, original, joint, pool).relative,
            1.02 * output_error(inputs, original, after, pool).relative);
}

TEST(SparseGpt, InputsThatAreAlwaysZeroAndSingularInputsAreFine) {
  ThreadPool pool(1);
  Matrix x = random_inputs(20, 48, 7);  // fewer rows than columns
  x.col(5).setZero();
  const InputStatistics inputs = statistics_of(x);
  PruneProblem problem{
      parse_prune_spec("unstructured:0.5@sparsegpt").value(), &inputs, 0, {}, &pool};
  Matrix w = random_matrix(8, 48, 8);
  PruneOutcome outcome;
  prune_sparsegpt(problem, w, outcome).value();
  EXPECT_TRUE(w.allFinite());
  EXPECT_EQ(w.col(5).cwiseAbs().maxCoeff(), 0);
  EXPECT_GT(outcome.damping, 0);  // without any the factor does not exist
}

TEST(InverseFactor, ItsSquareIsTheInverse) {
  ThreadPool pool(2);
  for (const int64_t k : {1, 2, 63, 64, 65, 131}) {
    const Matrix x = random_inputs(3 * k, k, 9), h = x.transpose() * x;
    const InverseFactor factor = inverse_factor(h, 0, pool).value();
    const Matrix identity = factor.u.transpose() * factor.u * h;
    EXPECT_LE((identity - Matrix::Identity(k, k)).cwiseAbs().maxCoeff(), 1e-8) << k;
    EXPECT_TRUE(factor.u.isUpperTriangular());
  }
}

TEST(Wanda, KeepsTheLargestProductsOfEachOutput) {
  ThreadPool pool(1);
  const Matrix x = random_inputs(64, 40, 10);
  const InputStatistics inputs = statistics_of(x);
  const Matrix original = random_matrix(12, 40, 11);
  const Vector norms = x.colwise().norm();
  for (const auto& [text, kept] : {std::pair{"unstructured:0.5@wanda", 20}, {"2:4@wanda", 2}}) {
    PruneProblem problem{parse_prune_spec(text).value(), &inputs, 0.01, {}, &pool};
    Matrix w = original;
    PruneOutcome outcome;
    prune_wanda(problem, w, outcome).value();
    const int64_t span = kept == 2 ? 4 : 40;
    for (int64_t r = 0; r < w.rows(); ++r) {
      for (int64_t first = 0; first < 40; first += span) {
        double lost = 0, left = 1e30;
        int64_t count = 0;
        for (int64_t j = first; j < first + span; ++j) {
          const double score = std::abs(original(r, j)) * norms[j];
          EXPECT_TRUE(w(r, j) == 0 || w(r, j) == original(r, j));
          count += w(r, j) != 0;
          (w(r, j) == 0 ? lost : left) =
              w(r, j) == 0 ? std::max(lost, score) : std::min(left, score);
        }
        EXPECT_EQ(count, kept);
        EXPECT_LE(lost, left * (1 + 1e-5));
      }
    }
  }
}

TEST(Magnitude, ZeroesWholeBlocksWithTheSmallestNorms) {
  ThreadPool pool(1);
  PruneProblem problem{parse_prune_spec("4x1:0.75@magnitude").value(), nullptr, 0, {}, &pool};
  const Matrix original = random_matrix(18, 10, 12);  // two rows in the last blocks
  Matrix w = original;
  PruneOutcome outcome;
  prune_magnitude(problem, w, outcome).value();
  double lost = 0, left = 1e30;
  int64_t zeros = 0;
  for (int64_t r = 0; r < 18; r += 4) {
    for (int64_t c = 0; c < 10; ++c) {
      const int64_t rows = std::min<int64_t>(4, 18 - r);
      const double before = original.block(r, c, rows, 1).squaredNorm(),
                   after = w.block(r, c, rows, 1).squaredNorm();
      EXPECT_TRUE(after == 0 || after == before);
      zeros += after == 0;
      (after == 0 ? lost : left) = after == 0 ? std::max(lost, before) : std::min(left, before);
    }
  }
  EXPECT_EQ(zeros, 38);  // round(0.75 * 50) = 37.5
  EXPECT_LE(lost, left);
}

TEST(Methods, AtEqualSparsityEachUsesMoreOfTheDataAndLosesLess) {
  ThreadPool pool(1);
  const InputStatistics inputs = statistics_of(random_inputs(600, 128, 13));
  const Matrix original = random_matrix(64, 128, 14);
  std::vector<double> errors;
  for (const char* method : {"magnitude", "wanda", "sparsegpt"}) {
    PruneProblem problem{parse_prune_spec(std::string("unstructured:0.6@") + method).value(),
                         &inputs,
                         0.01,
                         {},
                         &pool};
    Matrix w = original;
    PruneOutcome outcome;
    find_prune_method(method)->run(problem, w, outcome).value();
    errors.push_back(output_error(inputs, original, w, pool).relative);
  }
  EXPECT_LT(errors[1], errors[0]);
  EXPECT_LT(errors[2], errors[1]);
}

TEST(OutputError, IsThatOfTheProducts) {
  ThreadPool pool(2);
  const Matrix x = random_inputs(100, 30, 15), w = random_matrix(150, 30, 16);
  const Matrix v = w + 0.1 * random_matrix(150, 30, 17);
  const OutputError error = output_error(statistics_of(x), w, v, pool);
  const Matrix a = x * w.transpose(), b = x * v.transpose();
  EXPECT_NEAR(error.relative, (a - b).norm() / a.norm(), 1e-5);
  EXPECT_NEAR(error.cosine, a.cwiseProduct(b).sum() / (a.norm() * b.norm()), 1e-5);
}

TEST(PruneSpec, RefusesWhatMakesNoSense) {
  for (const char* text :
       {"", "4x1", "4x1:1", "4x1:-0.1", "4x1:nan", "0x1:0.5", "4x:0.5", "4:2", "65x1:0.5",
        "4x1:0.5@best", "dense:0.5", "4x1:0.5x", "2:4:0.5@", "99999999999999999999x1:0.5"}) {
    const auto spec = parse_prune_spec(text);
    EXPECT_EQ(spec.ok() ? Code::kOk : spec.status().code(), Code::kUsage) << text;
  }
  EXPECT_EQ(parse_prune_spec("2:4@wanda").value().text(), "2:4@wanda");
  EXPECT_EQ(parse_prune_spec("1x1:0.5").value().text(), "unstructured:0.5@sparsegpt");
  EXPECT_EQ(parse_prune_spec("16x4:0.8@magnitude").value().text(), "16x4:0.8@magnitude");
}

TEST(Matches, LikeAShell) {
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("*query*", "/layer.0/query/MatMul"));
  EXPECT_TRUE(matches("/layer.?/*/MatMul", "/layer.0/a/b/MatMul"));
  EXPECT_FALSE(matches("query", "/layer.0/query/MatMul"));
  EXPECT_FALSE(matches("*query", "query2"));
  EXPECT_TRUE(matches("a*b*c", "aXbYbZc"));
}

}  // namespace
}  // namespace sprun::compress
