#include "graph/ops/window.h"

#include <algorithm>
#include <limits>
#include <string>

namespace sprun::graph {

namespace {

// Larger attribute values make no sense, and products of two of them with a size must fit in 64
// bits.
constexpr int64_t kMaxValue = std::numeric_limits<int32_t>::max();

Status bad(const std::string& text) { return {Code::kBadModel, text}; }

// Attribute `name` with `count` values in [min, kMaxValue]; `fallback` for each when absent.
Result<std::vector<int64_t>> values(const AttrMap& attrs, const char* name, size_t count,
                                    int64_t fallback, int64_t min) {
  const std::vector<int64_t>& given = attrs.get_ints(name);
  if (given.empty()) return std::vector<int64_t>(count, fallback);
  if (given.size() != count) {
    return bad(std::string(name) + " has " + std::to_string(given.size()) + " values, expected " +
               std::to_string(count));
  }
  for (int64_t v : given) {
    if (v < min || v > kMaxValue) return bad(std::string(name) + " holds " + std::to_string(v));
  }
  return given;
}

enum class AutoPad { kNotSet, kValid, kSameUpper, kSameLower };

Result<AutoPad> auto_pad(const AttrMap& attrs) {
  const std::string_view name = attrs.get_string("auto_pad", "NOTSET");
  if (name == "NOTSET" || name.empty()) return AutoPad::kNotSet;
  if (name == "VALID") return AutoPad::kValid;
  if (name == "SAME_UPPER") return AutoPad::kSameUpper;
  if (name == "SAME_LOWER") return AutoPad::kSameLower;
  return bad("auto_pad '" + std::string(name) + "' is unknown");
}

int64_t extent(const WindowAxis& a) { return (a.kernel - 1) * a.dilation + 1; }

void split_pad(WindowAxis* a, int64_t total, bool lower) {
  const int64_t small = total / 2;
  a->pad_begin = lower ? total - small : small;
  a->pad_end = total - a->pad_begin;
}

Status set_same_size(WindowAxis* a, bool lower) {
  a->out = (a->in + a->stride - 1) / a->stride;
  split_pad(a, std::max<int64_t>(0, (a->out - 1) * a->stride + extent(*a) - a->in), lower);
  return {};
}

Status set_out_size(WindowAxis* a, bool ceil_mode) {
  const int64_t room = a->in + a->pad_begin + a->pad_end - extent(*a);
  if (room < 0) {
    return bad("kernel of " + std::to_string(extent(*a)) + " is larger than the padded input of " +
               std::to_string(a->in + a->pad_begin + a->pad_end));
  }
  a->out = room / a->stride + 1;
  if (!ceil_mode || room % a->stride == 0) return {};
  // The last, partial window counts only if it starts before the padding at the end.
  if (a->out * a->stride < a->in + a->pad_begin) ++a->out;
  return {};
}

struct Attributes {
  std::vector<int64_t> strides, dilations, pads;
  AutoPad mode = AutoPad::kNotSet;
};

Result<Attributes> read_attributes(const AttrMap& attrs, const Shape& x,
                                   std::span<const int64_t> kernel) {
  const size_t n = kernel.size();
  if (x.rank() < 3 || x.rank() > 2 + kMaxSpatial || static_cast<size_t>(x.rank()) != n + 2) {
    return bad("input shape " + x.to_string() + " does not fit a kernel of " + std::to_string(n) +
               " axes; 1 to 3 spatial axes are supported");
  }
  for (int64_t k : kernel) {
    if (k < 1 || k > kMaxValue) return bad("kernel size " + std::to_string(k) + " is out of range");
  }
  Attributes result;
  SPRUN_ASSIGN(result.strides, values(attrs, "strides", n, 1, 1));
  SPRUN_ASSIGN(result.dilations, values(attrs, "dilations", n, 1, 1));
  SPRUN_ASSIGN(result.pads, values(attrs, "pads", 2 * n, 0, 0));
  SPRUN_ASSIGN(result.mode, auto_pad(attrs));
  return result;
}

WindowAxis make_axis(const Attributes& attributes, const Shape& x, std::span<const int64_t> kernel,
                     size_t i) {
  WindowAxis a;
  a.in = x[static_cast<int>(i) + 2];
  a.kernel = kernel[i];
  a.stride = attributes.strides[i];
  a.dilation = attributes.dilations[i];
  if (attributes.mode == AutoPad::kNotSet) {
    a.pad_begin = attributes.pads[i];
    a.pad_end = attributes.pads[i + kernel.size()];
  }
  return a;
}

// Multiplies *total by size; false if it gets larger than any tensor.
bool grow(int64_t* total, int64_t size) {
  if (size < 0 || (size > 0 && *total > kMaxElements / size)) return false;
  *total *= size;
  return true;
}

// The products of sizes must stay far from overflow before anybody multiplies them.
Status check_size(const Window& w) {
  int64_t in = 1, out = 1, kernel = 1;
  for (const WindowAxis& a : w.axis) {
    if (!grow(&in, a.in)) return bad("the input has too many elements");
    if (!grow(&out, a.out)) return bad("the output has too many elements");
    if (!grow(&kernel, a.kernel)) return bad("the kernel has too many elements");
  }
  return {};
}

}  // namespace

KernelRange kernel_range(const WindowAxis& axis, int64_t start, int64_t limit) {
  KernelRange range{0, axis.kernel};
  if (start < 0) range.begin = (-start + axis.dilation - 1) / axis.dilation;
  if (start + (axis.kernel - 1) * axis.dilation >= limit) {
    range.end = start >= limit ? 0 : (limit - 1 - start) / axis.dilation + 1;
  }
  range.begin = std::min(range.begin, axis.kernel);
  range.end = std::max(range.begin, range.end);
  return range;
}

Shape Window::out_shape(int64_t batch, int64_t channels) const {
  Shape shape{batch, channels};
  for (int i = kMaxSpatial - spatial; i < kMaxSpatial; ++i)
    shape.push_back(axis[static_cast<size_t>(i)].out);
  return shape;
}

Result<Window> make_window(const AttrMap& attrs, const Shape& x, std::span<const int64_t> kernel,
                           bool ceil_mode) {
  SPRUN_ASSIGN(const Attributes attributes, read_attributes(attrs, x, kernel));
  Window w;
  w.spatial = static_cast<int>(kernel.size());
  const size_t first = kMaxSpatial - kernel.size();
  for (size_t i = 0; i < kernel.size(); ++i) {
    WindowAxis& a = w.axis[first + i];
    a = make_axis(attributes, x, kernel, i);
    if (attributes.mode == AutoPad::kSameUpper || attributes.mode == AutoPad::kSameLower) {
      SPRUN_TRY(set_same_size(&a, attributes.mode == AutoPad::kSameLower));
    } else {
      SPRUN_TRY(set_out_size(&a, ceil_mode && attributes.mode == AutoPad::kNotSet));
    }
  }
  SPRUN_TRY(check_size(w));
  return w;
}

Result<Window> make_transposed_window(const AttrMap& attrs, const Shape& x,
                                      std::span<const int64_t> kernel) {
  SPRUN_ASSIGN(const Attributes attributes, read_attributes(attrs, x, kernel));
  const size_t n = kernel.size();
  SPRUN_ASSIGN(const std::vector<int64_t> extra, values(attrs, "output_padding", n, 0, 0));
  const std::vector<int64_t>& wanted = attrs.get_ints("output_shape");
  if (!wanted.empty() && wanted.size() != n && wanted.size() != n + 2) {
    return bad("output_shape has " + std::to_string(wanted.size()) + " values, expected " +
               std::to_string(n));
  }
  Window w;
  w.spatial = static_cast<int>(n);
  for (size_t i = 0; i < n; ++i) {
    WindowAxis& a = w.axis[kMaxSpatial - n + i];
    a = make_axis(attributes, x, kernel, i);
    const bool same =
        attributes.mode == AutoPad::kSameUpper || attributes.mode == AutoPad::kSameLower;
    if (a.in > kMaxElements / a.stride) return bad("the output has too many elements");
    const int64_t full = a.in == 0 ? 0 : (a.in - 1) * a.stride + extent(a) + extra[i];
    if (wanted.empty() && !same) {
      a.out = full - a.pad_begin - a.pad_end;
    } else {
      a.out = wanted.empty() ? a.in * a.stride : wanted[wanted.size() - n + i];
      if (a.out > kMaxElements)
        return bad("output size " + std::to_string(a.out) + " is out of range");
      // The half that gets the odd element is the beginning, except for SAME_UPPER.
      split_pad(&a, std::max<int64_t>(0, full - a.out), attributes.mode != AutoPad::kSameUpper);
    }
    if (a.out < 0) return bad("padding leaves a negative output size");
  }
  SPRUN_TRY(check_size(w));
  return w;
}

Result<std::vector<int64_t>> conv_kernel(const AttrMap& attrs, const Shape& weight) {
  if (weight.rank() < 3)
    return bad("weight must have at least 3 axes, got shape " + weight.to_string());
  const std::vector<int64_t> kernel(weight.dims().begin() + 2, weight.dims().end());
  const std::vector<int64_t>& given = attrs.get_ints("kernel_shape");
  if (!given.empty() && given != kernel) {
    return bad("kernel_shape does not agree with the weight shape " + weight.to_string());
  }
  return kernel;
}

}  // namespace sprun::graph
