// Scalar reference of row normalisation, in double.
#include <cmath>

#include "kernels/norm/norm_types.h"

namespace sprun::kernels {

namespace {

double value(const RowNormArgs& a, int64_t r, int64_t c) {
  float v = a.x[r * a.n + c];
  if (a.residual != nullptr) v += a.residual[r % a.residual_rows * a.n + c];
  if (a.bias != nullptr) v += a.bias[c];
  return static_cast<double>(v);
}

void run_row(const RowNormArgs& a, int64_t r, bool rms) {
  double mean = 0;
  for (int64_t c = 0; c < a.n && !rms; ++c) mean += value(a, r, c) / static_cast<double>(a.n);
  double square = 0;
  for (int64_t c = 0; c < a.n; ++c) square += (value(a, r, c) - mean) * (value(a, r, c) - mean);
  const double inv_std =
      1.0 / std::sqrt(square / static_cast<double>(a.n) + static_cast<double>(a.epsilon));
  for (int64_t c = 0; c < a.n; ++c) {
    const double v = value(a, r, c);
    if (a.sum != nullptr) a.sum[r * a.n + c] = static_cast<float>(v);
    const double gamma = a.gamma == nullptr ? 1.0 : static_cast<double>(a.gamma[c]);
    const double beta = a.beta == nullptr ? 0.0 : static_cast<double>(a.beta[c]);
    a.y[r * a.n + c] = static_cast<float>((v - mean) * inv_std * gamma + beta);
  }
  if (a.mean != nullptr) a.mean[r] = static_cast<float>(mean);
  if (a.inv_std != nullptr) a.inv_std[r] = static_cast<float>(inv_std);
}

void layer_norm(const RowNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) run_row(args, r, false);
}

void rms_norm(const RowNormArgs& args, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) run_row(args, r, true);
}

}  // namespace

extern constinit const RowNormKernel row_norm_ref = {layer_norm, rms_norm};

}  // namespace sprun::kernels
