// The matrices of the compressor: double precision, row-major, W[N outputs, K inputs].
#pragma once

#include <cstdint>

#include <Eigen/Core>

namespace sprun::compress {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

}  // namespace sprun::compress
