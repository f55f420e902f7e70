// Comparing tensors with expected ones.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/session.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun::tools {

// kMax:    |got - want| <= atol + rtol |want| for every element
// kScaled: |got - want| <= atol + rtol max|want| for every element
// kCosine: cosine of the whole tensors >= min_cosine
// kTop1:   the largest element of each row (last axis) at the same place
// NaN equals NaN, infinities equal themselves. Type and shape must be the same.
enum class Metric { kMax, kScaled, kCosine, kTop1 };
Result<Metric> parse_metric(std::string_view name);

struct Tolerance {
  Metric metric = Metric::kMax;
  double rtol = 1e-3, atol = 1e-5;
  double min_cosine = 0.9999;
};

struct Comparison {
  std::string name;
  bool equal = false;
  double max_abs_diff = 0;  // NaN if only one of them is NaN somewhere
  double cosine = 1;
  // "3 of 128 elements differ, worst at [0,17]: got 0.5, expected 0.25, difference 0.25, allowed
  // 0.001"
  std::string detail;
};
Comparison compare_tensors(const std::string& name, const ConstTensorView& got,
                           const ConstTensorView& want, const Tolerance& tolerance);

// "1e-3" sets the general value, "logits=1e-4" that of one output. kUsage.
struct ToleranceArgs {
  std::vector<std::string> rtol, atol;
  std::string metric = "max";
  double min_cosine = 0.9999;
};
class Tolerances {
 public:
  static Result<Tolerances> create(const ToleranceArgs& args);
  Tolerance for_output(const std::string& name) const;
  // kUsage if a name is not among `outputs`.
  Status check_names(std::span<const std::string> outputs) const;

 private:
  Tolerance general_;
  std::map<std::string, double> rtol_, atol_;
};

// Element i as a double.
double element(const ConstTensorView& view, int64_t i);

}  // namespace sprun::tools
