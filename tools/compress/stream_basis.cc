#include "tools/compress/stream_basis.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <Eigen/Eigenvalues>

#include "tools/compress/constant_values.h"
#include "tools/compress/gram_product.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;
using Kind = StreamTerm::Kind;

namespace {

// Covariances of fewer rows than this times the width are poor.
constexpr int64_t kRowsPerDimension = 4;

// Rows of x free of their mean, and of length 1 when asked for.
Result<Tensor> prepare_rows(const Tensor& x, int64_t width, bool subtract_mean, bool normalise) {
  SPRUN_ASSIGN(Tensor rows, Tensor::allocate(DType::kF32, x.shape()));
  const float* from = x.as<float>();
  float* to = rows.mutable_view().as<float>();
  for (int64_t r = 0; r < x.num_elements() / width; ++r, from += width, to += width) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < width; ++i) sum += double{from[i]};
    const double mean = subtract_mean ? sum / static_cast<double>(width) : 0;
    for (int64_t i = 0; i < width; ++i)
      squares += (double{from[i]} - mean) * (double{from[i]} - mean);
    const double scale = normalise && squares > 0 ? 1 / std::sqrt(squares) : 1;
    for (int64_t i = 0; i < width; ++i)
      to[i] = static_cast<float>((double{from[i]} - mean) * scale);
  }
  return rows;
}

Matrix without_mean(Matrix m) {
  const Eigen::RowVectorXd mean = m.colwise().mean();
  m.rowwise() -= mean;
  return m;
}

Result<StreamBasis> basis_of(const StreamPoint& point, const Matrix& gram, int64_t kept) {
  if (!point.keeps_mean) return principal_basis(gram, point.subtracts_mean, kept);
  SPRUN_ASSIGN(const StreamBasis basis, principal_basis(gram, true, kept - 1));
  return with_mean(basis);
}

class Estimation {
 public:
  Estimation(StepContext& context, const ResidualStream& stream, const std::vector<int64_t>& kept,
             bool shared)
      : context_(context),
        stream_(stream),
        kept_(kept),
        shared_(shared),
        graph_(context.graph),
        bases_(stream.points.size()) {}

  Result<std::vector<StreamBasis>> run() {
    SPRUN_ASSIGN(GramProduct gram, GramProduct::create(context_.pool));
    const std::vector<ValueId> values = list_values();
    ActivationWalk walk(graph_, context_.calibration, context_.pool, values, context_.stop);
    InputStatistics pooled;
    size_t at = 0;
    for (size_t p = 0; p < stream_.points.size(); ++p) {
      const StreamPoint& point = stream_.points[p];
      if (point.is_last) continue;
      for (; values[at] != point.value; ++at) SPRUN_TRY(check_width(walk, point));
      ++at;
      context_.progress(
          kMeasurePart * static_cast<double>(p) / static_cast<double>(stream_.points.size()),
          point.name);
      InputStatistics own(shared_ ? 0 : point.width);
      if (shared_ && pooled.k() == 0) pooled = InputStatistics(point.width);
      SPRUN_TRY(measure(walk, gram, point, shared_ ? pooled : own).with_context(point.name));
      if (shared_) continue;
      warn_of_few_rows(point, own.rows());
      SPRUN_ASSIGN(bases_[p], basis_of(point, own.gram(), kept_[p]));
      SPRUN_TRY(project(point, bases_[p]));
    }
    if (shared_) SPRUN_TRY(share(pooled));
    return std::move(bases_);
  }

 private:
  // What the walk computes: of every point the terms whose width only shows then, and its value.
  std::vector<ValueId> list_values() const {
    std::vector<ValueId> values;
    std::set<ValueId> seen;
    for (const StreamPoint& point : stream_.points) {
      if (point.is_last) continue;
      for (const StreamTerm& term : point.terms) {
        if (term.kind == Kind::kOther && term.value != point.value &&
            seen.insert(term.value).second)
          values.push_back(term.value);
      }
      values.push_back(point.value);
    }
    return values;
  }

  static Status check_width(ActivationWalk& walk, const StreamPoint& point) {
    return walk.next([&](size_t, const Tensor& x) -> Status {
      if (x.dtype() == DType::kF32 && x.shape().rank() > 0 && x.shape().back() == point.width)
        return {};
      return {Code::kBadModel, fmt::format("the sum '{}' has a term {}, not of the width {}",
                                           point.name, x.shape().to_string(), point.width)};
    });
  }

  Status measure(ActivationWalk& walk, GramProduct& gram, const StreamPoint& point,
                 InputStatistics& statistics) {
    return walk.next([&](size_t batch, const Tensor& x) -> Status {
      if (x.dtype() != DType::kF32 || x.shape().rank() < 1 || x.shape().back() != point.width)
        return {Code::kBadModel, fmt::format("a value {} where float32 of width {} belongs",
                                             x.shape().to_string(), point.width)};
      SPRUN_ASSIGN(const Tensor rows, prepare_rows(x, point.width, point.subtracts_mean,
                                                   shared_ || stream_.is_post_norm));
      return gram.add(rows,
                      unmasked_rows(context_.graph, context_.calibration.batches[batch], x.shape()),
                      statistics);
    });
  }

  // From here on everything sees the part of the point that its basis keeps.
  Status project(const StreamPoint& point, const StreamBasis& basis) {
    if (basis.q.cols() == basis.q.rows()) return {};
    SPRUN_ASSIGN(const ValueId weight,
                 add_matrix(graph_, "projection", basis.q * basis.q.transpose()));
    const ValueId projected =
        add_operation(graph_, "projected", "MatMul", 13, {point.value, weight});
    graph_.replace_uses(point.value, projected);
    graph_.set_input(graph_.value(projected).producer, 0, point.value);
    return {};
  }

  void warn_of_few_rows(const StreamPoint& point, int64_t rows) {
    if (warned_ || rows >= kRowsPerDimension * point.width) return;
    warned_ = true;
    context_.report.warnings.push_back(
        fmt::format("slice: {} rows of calibration data for {} dimensions; {} a dimension or more "
                    "give a better choice",
                    rows, point.width, kRowsPerDimension));
  }

  Status share(const InputStatistics& pooled) {
    const auto first = std::find_if(stream_.points.begin(), stream_.points.end(),
                                    [](const auto& p) { return !p.is_last; });
    const int64_t kept = kept_[static_cast<size_t>(first - stream_.points.begin())];
    warn_of_few_rows(*first, pooled.rows());
    SPRUN_ASSIGN(const StreamBasis basis, basis_of(*first, pooled.gram(), kept));
    for (size_t p = 0; p < bases_.size(); ++p) {
      if (!stream_.points[p].is_last) bases_[p] = basis;
    }
    return {};
  }

  StepContext& context_;
  const ResidualStream& stream_;
  const std::vector<int64_t>& kept_;
  bool shared_, warned_ = false;
  Graph graph_;  // the original with projections
  std::vector<StreamBasis> bases_;
};

}  // namespace

Result<StreamBasis> principal_basis(const Matrix& gram, bool subtracts_mean, int64_t kept) {
  const double trace = gram.trace();
  if (!(trace > 0) || !std::isfinite(trace))
    return Status(Code::kBadInput, "the calibration data gives only zeros here");
  Matrix m = gram;
  if (subtracts_mean) {  // push the direction of the mean, eigenvalue 0, below all others
    m = without_mean(without_mean(m).transpose());
    m.array() -= trace / static_cast<double>(m.rows());
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(m);
  if (solver.info() != Eigen::Success) return Status(Code::kInternal, "no eigenvalues found");
  StreamBasis basis;
  basis.q = solver.eigenvectors().rowwise().reverse().leftCols(kept);
  const Vector falling = solver.eigenvalues().reverse();
  basis.energy = std::min(1.0, falling.head(kept).cwiseMax(0).sum() / falling.cwiseMax(0).sum());
  return basis;
}

StreamBasis with_mean(const StreamBasis& basis) {
  const Eigen::Index width = basis.q.rows(), kept = basis.q.cols() + 1;
  Matrix joined(width, kept);
  joined.leftCols(kept - 1) = basis.q;
  joined.col(kept - 1).setConstant(1 / std::sqrt(static_cast<double>(width)));
  // The reflection that turns the last unit vector into the direction of ones.
  Vector mirror = Vector::Constant(kept, -1 / std::sqrt(static_cast<double>(kept)));
  mirror(kept - 1) += 1;
  const double squared = mirror.squaredNorm();
  if (squared > 0) joined -= (2 / squared) * (joined * mirror) * mirror.transpose();
  return {joined, basis.energy};
}

Result<std::vector<StreamBasis>> estimate_bases(StepContext& context, const ResidualStream& stream,
                                                const std::vector<int64_t>& kept, bool shared) {
  return Estimation(context, stream, kept, shared).run();
}

}  // namespace sprun::compress
