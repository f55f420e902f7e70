#include "tools/compress/pattern.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "tools/compress/prune.h"

namespace sprun::compress {
namespace {

constexpr int64_t kMaxSize = 64;

Status usage(std::string message) { return {Code::kUsage, std::move(message)}; }

std::optional<int64_t> parse_size(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value >= 1 && value <= kMaxSize ? std::optional(value) : std::nullopt;
}

struct Pair {
  int64_t first, second;
};
std::optional<Pair> parse_pair(std::string_view text, char separator) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return std::nullopt;
  const auto first = parse_size(text.substr(0, at)), second = parse_size(text.substr(at + 1));
  return first && second ? std::optional(Pair{*first, *second}) : std::nullopt;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string Pattern::name() const {
  if (is_n_of_m()) return fmt::format("{}:{}", kept, of);
  if (rows == 1 && cols == 1) return "unstructured";
  return fmt::format("{}x{}", rows, cols);
}

Result<Pattern> parse_pattern(std::string_view text) {
  if (text == "unstructured") return Pattern{};
  if (const auto pair = parse_pair(text, 'x')) return Pattern{pair->first, pair->second, 0, 0};
  const auto pair = parse_pair(text, ':');
  if (pair && pair->first < pair->second) return Pattern{1, 1, pair->first, pair->second};
  return usage(fmt::format(
      "pattern '{}': expected unstructured, OUTPUTSxINPUTS such as 16x4, or KEPT:GROUP such as 2:4",
      text));
}

std::string PruneSpec::text() const {
  if (pattern.is_n_of_m()) return pattern.name() + "@" + method;
  return fmt::format("{}:{}@{}", pattern.name(), sparsity, method);
}

Result<PruneSpec> parse_prune_spec(std::string_view text) {
  PruneSpec spec;
  std::string_view rest = text;
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    spec.method = rest.substr(at + 1);
    rest = rest.substr(0, at);
  }
  if (find_prune_method(spec.method) == nullptr) {
    return usage(fmt::format("prune '{}': unknown method '{}'; there are {}", text, spec.method,
                             prune_method_names()));
  }
  if (const auto n_of_m = parse_pair(rest, ':')) {
    SPRUN_ASSIGN(spec.pattern, parse_pattern(rest));
    spec.sparsity = 1 - static_cast<double>(n_of_m->first) / static_cast<double>(n_of_m->second);
    return spec;
  }
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos) {
    return usage(
        fmt::format("prune '{}': expected PATTERN:SPARSITY[@METHOD] or N:M[@METHOD]", text));
  }
  SPRUN_ASSIGN(spec.pattern, parse_pattern(rest.substr(0, colon)));
  const auto sparsity = parse_number(rest.substr(colon + 1));
  if (!sparsity || !(*sparsity >= 0 && *sparsity < 1)) {
    return usage(fmt::format("prune '{}': sparsity '{}' is not a number from 0 to below 1", text,
                             rest.substr(colon + 1)));
  }
  spec.sparsity = *sparsity;
  return spec;
}

bool matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace sprun::compress
