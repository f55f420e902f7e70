#include "tools/sprun/compare.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/base/half.h"

namespace sprun::tools {
namespace {

Status usage(const std::string& text) { return {Code::kUsage, text}; }

Result<double> parse_number(std::string_view text, std::string_view option) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0)) {
    return usage(fmt::format("{} '{}': expected a number that is not negative", option, text));
  }
  return value;
}

Status parse_tolerances(const std::vector<std::string>& args, std::string_view option,
                        double* general, std::map<std::string, double>* named) {
  for (const std::string& arg : args) {
    const size_t equals = arg.rfind('=');
    if (equals == std::string::npos) {
      SPRUN_ASSIGN(*general, parse_number(arg, option));
    } else {
      SPRUN_ASSIGN((*named)[arg.substr(0, equals)],
                   parse_number(std::string_view(arg).substr(equals + 1), option));
    }
  }
  return {};
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

std::string index_string(const Shape& shape, int64_t i) {
  std::vector<int64_t> index(static_cast<size_t>(shape.rank()));
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    index[static_cast<size_t>(axis)] = i % shape[axis];
    i /= shape[axis];
  }
  return fmt::format("[{}]", fmt::join(index, ","));
}

double largest_magnitude(const ConstTensorView& view) {
  double largest = 0;
  for (int64_t i = 0; i < view.num_elements(); ++i) {
    const double v = std::abs(element(view, i));
    if (std::isfinite(v)) largest = std::max(largest, v);
  }
  return largest;
}

// kMax and kScaled.
void compare_elements(const ConstTensorView& got, const ConstTensorView& want,
                      const Tolerance& tolerance, Comparison& result) {
  const double scale = tolerance.metric == Metric::kScaled ? largest_magnitude(want) : 0;
  int64_t wrong = 0, worst = 0;
  double worst_excess = -1;
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    const double g = element(got, i), w = element(want, i);
    if (same(g, w)) continue;
    const double diff = std::abs(g - w);
    if (!(diff <= result.max_abs_diff)) result.max_abs_diff = diff;
    const double allowed =
        tolerance.atol +
        tolerance.rtol * (tolerance.metric == Metric::kScaled ? scale : std::abs(w));
    if (diff <= allowed && std::isfinite(w)) continue;
    ++wrong;
    const double excess =
        std::isfinite(diff) ? diff - allowed : std::numeric_limits<double>::infinity();
    if (excess > worst_excess) {
      worst_excess = excess;
      worst = i;
    }
  }
  result.equal = wrong == 0;
  if (result.equal) return;
  const double g = element(got, worst), w = element(want, worst);
  const double allowed =
      tolerance.atol + tolerance.rtol * (tolerance.metric == Metric::kScaled ? scale : std::abs(w));
  result.detail = fmt::format(
      "{} of {} elements differ, worst at {}: got {:.9g}, expected {:.9g}, difference {:.3g}, "
      "allowed {:.3g}",
      wrong, got.num_elements(), index_string(got.shape, worst), g, w, std::abs(g - w), allowed);
}

void compare_top1(const ConstTensorView& got, const ConstTensorView& want, Comparison& result) {
  const int64_t width = got.shape.rank() > 0 ? got.shape.back() : 1;
  const int64_t rows = width > 0 ? got.num_elements() / width : 0;
  const auto top = [width](const ConstTensorView& view, int64_t row) {
    int64_t best = 0;
    for (int64_t i = 1; i < width; ++i) {
      if (element(view, row * width + i) > element(view, row * width + best)) best = i;
    }
    return best;
  };
  int64_t wrong = 0, first = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (top(got, row) != top(want, row) && wrong++ == 0) first = row;
  }
  result.equal = wrong == 0;
  if (result.equal) return;
  result.detail = fmt::format(
      "the largest element differs in {} of {} rows, first in row {}: got {}, expected {}", wrong,
      rows, first, top(got, first), top(want, first));
}

double cosine_of(const ConstTensorView& a, const ConstTensorView& b) {
  double dot = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    const double x = element(a, i), y = element(b, i);
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  if (aa == 0 && bb == 0) return 1;
  return dot / std::sqrt(aa * bb);
}

}  // namespace

Result<Metric> parse_metric(std::string_view name) {
  if (name == "max") return Metric::kMax;
  if (name == "scaled") return Metric::kScaled;
  if (name == "cosine") return Metric::kCosine;
  if (name == "top1") return Metric::kTop1;
  return usage(fmt::format("--metric '{}': expected max, scaled, cosine or top1", name));
}

double element(const ConstTensorView& view, int64_t i) {
  switch (view.dtype) {
    case DType::kF32:
      return double{view.as<float>()[i]};
    case DType::kF64:
      return view.as<double>()[i];
    case DType::kF16:
      return double{to_float(view.as<Float16>()[i])};
    case DType::kBf16:
      return double{to_float(view.as<BFloat16>()[i])};
    case DType::kBool:
    case DType::kU4:
    case DType::kU8:
      return view.as<uint8_t>()[i];
    case DType::kS4:
    case DType::kS8:
      return view.as<int8_t>()[i];
    case DType::kU16:
      return view.as<uint16_t>()[i];
    case DType::kS16:
      return view.as<int16_t>()[i];
    case DType::kU32:
      return view.as<uint32_t>()[i];
    case DType::kS32:
      return view.as<int32_t>()[i];
    case DType::kU64:
      return static_cast<double>(view.as<uint64_t>()[i]);
    case DType::kS64:
      return static_cast<double>(view.as<int64_t>()[i]);
    case DType::kUndefined:
    case DType::kString:
      break;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

Comparison compare_tensors(const std::string& name, const ConstTensorView& got,
                           const ConstTensorView& want, const Tolerance& tolerance) {
  Comparison result;
  result.name = name;
  if (got.dtype != want.dtype || !(got.shape == want.shape)) {
    result.detail =
        fmt::format("got {}{}, expected {}{}", dtype_name(got.dtype), got.shape.to_string(),
                    dtype_name(want.dtype), want.shape.to_string());
    return result;
  }
  if (dtype_size(got.dtype) == 0) {
    result.detail = fmt::format("element type {} cannot be compared", dtype_name(got.dtype));
    return result;
  }
  Comparison elementwise = result;
  compare_elements(got, want, tolerance, elementwise);
  result.max_abs_diff = elementwise.max_abs_diff;
  result.cosine = cosine_of(got, want);
  switch (tolerance.metric) {
    case Metric::kMax:
    case Metric::kScaled:
      result.equal = elementwise.equal;
      result.detail = elementwise.detail;
      break;
    case Metric::kCosine:
      result.equal = result.cosine >= tolerance.min_cosine;
      if (!result.equal) {
        result.detail = fmt::format("cosine {:.7f}, at least {} expected; {}", result.cosine,
                                    tolerance.min_cosine, elementwise.detail);
      }
      break;
    case Metric::kTop1:
      compare_top1(got, want, result);
      break;
  }
  return result;
}

Result<Tolerances> Tolerances::create(const ToleranceArgs& args) {
  Tolerances tolerances;
  SPRUN_ASSIGN(tolerances.general_.metric, parse_metric(args.metric));
  tolerances.general_.min_cosine = args.min_cosine;
  SPRUN_TRY(parse_tolerances(args.rtol, "--rtol", &tolerances.general_.rtol, &tolerances.rtol_));
  SPRUN_TRY(parse_tolerances(args.atol, "--atol", &tolerances.general_.atol, &tolerances.atol_));
  return tolerances;
}

Tolerance Tolerances::for_output(const std::string& name) const {
  Tolerance tolerance = general_;
  if (const auto it = rtol_.find(name); it != rtol_.end()) tolerance.rtol = it->second;
  if (const auto it = atol_.find(name); it != atol_.end()) tolerance.atol = it->second;
  return tolerance;
}

Status Tolerances::check_names(std::span<const std::string> outputs) const {
  for (const auto* named : {&rtol_, &atol_}) {
    for (const auto& [name, value] : *named) {
      if (std::find(outputs.begin(), outputs.end(), name) == outputs.end()) {
        return usage(fmt::format("tolerance for '{}': there is no such output; there are: {}", name,
                                 fmt::join(outputs, ", ")));
      }
    }
  }
  return {};
}

}  // namespace sprun::tools
