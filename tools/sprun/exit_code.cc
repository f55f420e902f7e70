#include <array>

#include <fmt/format.h>

#include "tools/sprun/command.h"

namespace sprun::tools {
namespace {

struct Row {
  int code;
  std::string_view meaning;
};
constexpr std::array kRows = {
    Row{0, "success"},
    Row{1, "internal error: a bug in sprun"},
    Row{2, "usage: unknown or wrong option, name or size"},
    Row{3, "bad or unsupported model"},
    Row{4, "bad input: missing or broken file, wrong name, type, shape or value"},
    Row{5, "mismatch in run --compare or verify"},
    Row{6, "resource limit or out of memory"},
    Row{7, "deadline passed"},
    Row{8, "the CPU or device cannot do it"},
    Row{130, "interrupted"},
};

}  // namespace

int exit_code(const Status& status, bool interrupted) {
  switch (status.code()) {
    case Code::kOk:
      return 0;
    case Code::kInternal:
      return 1;
    case Code::kUsage:
      return 2;
    case Code::kBadModel:
      return 3;
    case Code::kBadInput:
      return 4;
    case Code::kMismatch:
      return 5;
    case Code::kResourceLimit:
      return 6;
    case Code::kNotSupported:
      return 8;
    case Code::kCancelled:
      return interrupted ? 130 : 7;
  }
  return 1;
}

std::string exit_code_table() {
  std::string out = "Exit codes:\n";
  for (const Row& row : kRows) out += fmt::format("  {:<4} {}\n", row.code, row.meaning);
  return out;
}

}  // namespace sprun::tools
