#include "tools/sprun/dims.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sprun::tools {
namespace {

constexpr size_t kMaxListLength = 1000;

Status usage(const std::string& text) { return {Code::kUsage, text}; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// "7", "1..4", "32..128+32", "128..1024*2".
Status append_range(std::string_view text, std::vector<int64_t>& out) {
  const Status error = usage(
      fmt::format("'{}' is not a size or a range such as 1..4, 32..128+32, 128..1024*2", text));
  const size_t dots = text.find("..");
  if (dots == std::string_view::npos) {
    const auto value = parse_int(text);
    if (!value) return error;
    out.push_back(*value);
    return {};
  }
  std::string_view last_text = text.substr(dots + 2);
  int64_t step = 1;
  bool multiply = false;
  if (const size_t op = last_text.find_first_of("+*"); op != std::string_view::npos) {
    const auto parsed = parse_int(last_text.substr(op + 1));
    multiply = last_text[op] == '*';
    if (!parsed || *parsed < (multiply ? 2 : 1)) return error;
    step = *parsed;
    last_text = last_text.substr(0, op);
  }
  const auto first = parse_int(text.substr(0, dots));
  const auto last = parse_int(last_text);
  if (!first || !last || (multiply && *first == 0)) return error;
  for (int64_t value = *first; value <= *last;) {
    if (out.size() == kMaxListLength)
      return usage(fmt::format("'{}' makes more than {} sizes", text, kMaxListLength));
    out.push_back(value);
    if (multiply ? value > *last / step : value > *last - step) break;
    value = multiply ? value * step : value + step;
  }
  return {};
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.push_back(trim(text.substr(0, at)));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// How a dimension is called on the command line.
std::string dim_name(const TensorSpec& spec, size_t axis) {
  const DimSpec& dim = spec.dims[axis];
  return dim.symbol.empty() ? fmt::format("{}[{}]", spec.name, axis) : dim.symbol;
}

// Names of the terms of a sum; numbers are left out.
std::vector<std::string> terms_of(const std::string& symbol) {
  std::vector<std::string> names;
  for (std::string_view term : split(symbol, '+')) {
    if (!parse_int(term)) names.emplace_back(term);
  }
  return names;
}

struct DefaultRule {
  std::string_view part;
  int64_t size;
};
constexpr std::array kDefaults = {
    DefaultRule{"past", 0},     DefaultRule{"batch", 1},    DefaultRule{"seq", 128},
    DefaultRule{"len", 128},    DefaultRule{"tokens", 128}, DefaultRule{"channel", 3},
    DefaultRule{"height", 224}, DefaultRule{"width", 224},
};

std::optional<int64_t> default_size(const std::string& name) {
  const std::string text = lower(name);
  for (const DefaultRule& rule : kDefaults) {
    if (text.find(rule.part) != std::string::npos) return rule.size;
  }
  if (text == "n" || text == "b") return 1;
  if (text == "s" || text == "l") return 128;
  return text == "p" ? std::optional<int64_t>(0) : std::nullopt;
}

// Names that exporters number: s10 and u3 of torch.export, unk__7 of tf2onnx, dynamic_axes_1, dim_0.
bool is_numbered(const std::string& name) {
  constexpr std::array<std::string_view, 7> kPrefixes = {"s", "u", "unk__", "dynamic_axes_", "dim", "dim_", "axis_"};
  const size_t digits = name.find_last_not_of("0123456789") + 1;
  return digits < name.size() &&
         std::find(kPrefixes.begin(), kPrefixes.end(), std::string_view(name).substr(0, digits)) != kPrefixes.end();
}

std::optional<int64_t> default_unnamed(const TensorSpec& spec, size_t axis) {
  if (axis == 0) return 1;
  if (axis == 1 && spec.dims.size() == 2 && is_integer(spec.dtype)) return 128;
  return std::nullopt;
}

bool is_total(const std::string& name) {
  return lower(name).find("total") != std::string::npos || name == "t";
}
bool is_past(const std::string& name) {
  return lower(name).find("past") != std::string::npos || name == "p";
}
bool is_sequence(const std::string& name) {
  return (lower(name).find("seq") != std::string::npos || name == "s") && !is_total(name);
}

// The dimension called `name`, or else those that begin with it: seq for sequence_length. Sums are called in full.
std::vector<std::string> names_meant(const std::set<std::string>& known, const std::string& name) {
  if (known.contains(name)) return {name};
  std::vector<std::string> meant;
  for (const std::string& candidate : known) {
    if (candidate.starts_with(name) && candidate.find('+') == std::string::npos) meant.push_back(candidate);
  }
  return meant;
}

}  // namespace

Result<std::vector<int64_t>> parse_int_list(const std::string& text) {
  std::vector<int64_t> out;
  for (std::string_view part : split(text, ',')) SPRUN_TRY(append_range(part, out));
  return out;
}

Result<DimLists> parse_dim_lists(const std::vector<std::string>& arguments) {
  DimLists lists;
  for (const std::string& argument : arguments) {
    bool first = true;
    for (std::string_view part : split(argument, ',')) {
      const size_t equals = part.rfind('=');
      if (equals == std::string_view::npos && first) {
        return usage(fmt::format("--dim '{}': expected NAME=SIZE", argument));
      }
      first = false;
      if (equals != std::string_view::npos) {
        const std::string name(trim(part.substr(0, equals)));
        if (name.empty()) return usage(fmt::format("--dim '{}': expected NAME=SIZE", argument));
        for (const auto& [other, sizes] : lists) {
          if (other == name) return usage(fmt::format("--dim: '{}' is given twice", name));
        }
        lists.emplace_back(name, std::vector<int64_t>());
        part = trim(part.substr(equals + 1));
      }
      SPRUN_TRY(
          append_range(part, lists.back().second).with_context("--dim " + lists.back().first));
    }
  }
  return lists;
}

Result<DimMap> parse_dims(const std::vector<std::string>& arguments) {
  SPRUN_ASSIGN(const DimLists lists, parse_dim_lists(arguments));
  DimMap dims;
  for (const auto& [name, sizes] : lists) {
    if (sizes.size() != 1)
      return usage(fmt::format("--dim {}: one size expected, got {}", name, sizes.size()));
    dims[name] = sizes.front();
  }
  return dims;
}

Result<DimResolver> DimResolver::create(std::span<const TensorSpec> inputs, DimMap given) {
  std::set<std::string> known;
  for (const TensorSpec& spec : inputs) {
    for (size_t axis = 0; axis < spec.dims.size(); ++axis) {
      if (spec.dims[axis].value >= 0) continue;
      const std::string name = dim_name(spec, axis);
      known.insert(name);
      for (const std::string& term : terms_of(name)) known.insert(term);
    }
  }
  DimResolver resolver;
  for (const auto& [name, size] : given) {
    const std::vector<std::string> meant = names_meant(known, name);
    if (meant.size() != 1) {
      return usage(fmt::format("--dim {}: {}; there are: {}", name,
                               meant.empty() ? "no input has this dimension" : "the start of more than one dimension",
                               known.empty() ? "none, every size is fixed" : fmt::format("{}", fmt::join(known, ", "))));
    }
    if (!resolver.sizes_.emplace(meant[0], size).second) return usage("--dim " + meant[0] + " is given twice");
  }
  return resolver;
}

void DimResolver::learn(const TensorSpec& spec, const Shape& shape) {
  if (static_cast<int>(spec.dims.size()) != shape.rank()) return;  // binding will refuse it
  for (size_t axis = 0; axis < spec.dims.size(); ++axis) {
    const DimSpec& dim = spec.dims[axis];
    if (dim.value < 0 && !dim.symbol.empty())
      sizes_.emplace(dim.symbol, shape[static_cast<int>(axis)]);
  }
}

std::optional<int64_t> DimResolver::evaluate(const std::string& symbol) const {
  if (const auto it = sizes_.find(symbol); it != sizes_.end()) return it->second;
  int64_t sum = 0;
  for (std::string_view term : split(symbol, '+')) {
    std::optional<int64_t> value = parse_int(term);
    if (!value) {
      const auto it = sizes_.find(std::string(term));
      if (it == sizes_.end()) return std::nullopt;
      value = it->second;
    }
    sum += *value;
    if (sum > kMaxElements) return std::nullopt;
  }
  return sum;
}

Status DimResolver::complete(std::span<const TensorSpec> unfilled_inputs) {
  std::set<std::string> unset, totals;
  for (const TensorSpec& spec : unfilled_inputs) {
    for (size_t axis = 0; axis < spec.dims.size(); ++axis) {
      const DimSpec& dim = spec.dims[axis];
      const std::string name = dim_name(spec, axis);
      if (dim.value >= 0 || evaluate(name)) continue;
      if (dim.symbol.empty()) {
        if (const auto size = default_unnamed(spec, axis)) sizes_[name] = *size;
        else unset.insert(name);
        continue;
      }
      for (const std::string& term : terms_of(name)) {
        if (sizes_.contains(term)) continue;
        if (is_total(term)) totals.insert(term);
        else if (const auto by_name = default_size(term)) sizes_[term] = *by_name;
        else if (const auto by_place = default_unnamed(spec, axis); by_place && is_numbered(name)) sizes_[term] = *by_place;
        else unset.insert(term);
      }
    }
  }
  if (!unset.empty()) {
    return usage(fmt::format("no size known for {}; give it with --dim {}=SIZE",
                             fmt::join(unset, ", "), *unset.begin()));
  }
  const int64_t total_size = total_length();
  for (const std::string& total : totals) sizes_[total] = total_size;
  return {};
}

int64_t DimResolver::total_length() const {
  int64_t past = 0, sequence = 0;
  for (const auto& [name, size] : sizes_) {
    if (is_past(name)) past = size;
    else if (is_sequence(name)) sequence = size;
  }
  return past + sequence;
}

Result<Shape> DimResolver::shape_of(const TensorSpec& spec) const {
  if (!spec.has_shape) {
    return usage(fmt::format(
        "input '{}': the model does not give its rank; pass the tensor with -i", spec.name));
  }
  std::vector<int64_t> dims;
  for (size_t axis = 0; axis < spec.dims.size(); ++axis) {
    const std::string name = dim_name(spec, axis);
    const auto size =
        spec.dims[axis].value >= 0 ? spec.dims[axis].value : evaluate(name).value_or(-1);
    if (size < 0) return usage(fmt::format("input '{}': no size for {}", spec.name, name));
    dims.push_back(size);
  }
  auto shape = Shape::checked(dims);
  if (!shape.ok())
    return Status(Code::kResourceLimit,
                  fmt::format("input '{}': {}", spec.name, shape.status().message()));
  return shape;
}

}  // namespace sprun::tools
