// Standard normal quantile.
//
// A rough start (error below 3e-4 down to p = 1e-300, our own rational least-squares fit) is corrected
// by Halley's steps on the distribution function, which erfc() gives to full precision in the lower
// tail.
#include <cmath>
#include <limits>

#include "kernels/topk/topk.h"

namespace sprun::kernels {
namespace {

constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kSqrtTwoPi = 2.50662827463100050242;

// Lower half: 0 < p <= 1/2, result <= 0. With t = sqrt(-2 ln p), -x is t less a small rational
// function of t.
double lower_start(double p) {
  const double t = std::sqrt(-2.0 * std::log(p));
  const double numerator = 2.62168801 + t * (1.44013043 + t * 0.05451436);
  const double denominator = 1.0 + t * (1.82063639 + t * (0.41426062 + t * 0.00849542));
  return numerator / denominator - t;
}

double lower_half(double p) {
  double x = lower_start(p);
  for (int i = 0; i < 2; ++i) {
    const double distribution = 0.5 * std::erfc(-x * kSqrtHalf);
    // (F(x) - p) / F'(x), and Halley's correction for F'' = -x F'.
    const double step = (distribution - p) * kSqrtTwoPi * std::exp(0.5 * x * x);
    x -= step / (1.0 + 0.5 * x * step);
  }
  return x;
}

}  // namespace

double gaussian_quantile(double p) {
  if (!(p >= 0.0 && p <= 1.0)) return std::numeric_limits<double>::quiet_NaN();
  if (p == 0.0) return -std::numeric_limits<double>::infinity();
  if (p == 1.0) return std::numeric_limits<double>::infinity();
  if (p == 0.5) return 0.0;
  return p < 0.5 ? lower_half(p) : -lower_half(1.0 - p);
}

double stat_top_k_z(int64_t k, int64_t d) {
  if (d <= 0 || k <= 0) return std::numeric_limits<double>::infinity();
  return -gaussian_quantile(static_cast<double>(k) / static_cast<double>(d));
}

}  // namespace sprun::kernels
