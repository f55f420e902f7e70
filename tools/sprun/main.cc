// The sprun command: finds the command in the arguments, parses its options, runs it, maps its
// status to the exit code.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tools/sprun/command.h"
#include "tools/sprun/console.h"

namespace sprun::tools {
namespace {

constexpr std::array kCommands = {
#define SPRUN_COMMAND(name, summary) Command{#name, summary, &setup_##name},
#include "tools/sprun/commands.def"
#undef SPRUN_COMMAND
};

bool is_command(std::string_view word) {
  return std::any_of(kCommands.begin(), kCommands.end(),
                     [word](const Command& c) { return c.name == word; });
}

// `sprun MODEL.onnx ...` means `sprun run MODEL.onnx ...`.
std::vector<std::string> with_default_command(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || is_command(words.front())) return words;
  const std::string& first = words.front();
  if (first != "-h" && first != "--help" && first != "--version")
    words.insert(words.begin(), "run");
  return words;
}

int finish(const Status& status) {
  if (!status.ok()) message(status.message());
  return exit_code(status, interrupted());
}

int run_command_line(int argc, char** argv) {
  CLI::App app(
      "sprun runs ONNX models on the CPU. `sprun MODEL.onnx` is short for `sprun run MODEL.onnx`.",
      "sprun");
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", "sprun " SPRUN_VERSION);
  app.footer("\n" + exit_code_table());
  std::vector<std::pair<CLI::App*, Action>> actions;
  for (const Command& command : kCommands) {
    CLI::App* sub = app.add_subcommand(std::string(command.name), std::string(command.summary));
    sub->footer("\n" + exit_code_table());
    sub->option_defaults()->always_capture_default();
    actions.emplace_back(sub, command.setup(*sub));
  }
  std::vector<std::string> words = with_default_command(argc, argv);
  std::reverse(words.begin(), words.end());  // CLI11 takes vectors back to front
  try {
    app.parse(std::move(words));
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return finish(Status(Code::kUsage, fmt::format("{} (sprun --help tells more)", e.what())));
  }
  for (const auto& [sub, action] : actions) {
    if (sub->parsed()) return finish(action());
  }
  std::cout << app.help();
  return 0;
}

}  // namespace
}  // namespace sprun::tools

int main(int argc, char** argv) {
  using sprun::Code;
  using sprun::Status;
  sprun::tools::watch_interrupts();
  Status status;
  try {
    return sprun::tools::run_command_line(argc, argv);
  } catch (const std::bad_alloc&) {
    status = Status(Code::kResourceLimit, "out of memory");
  } catch (const std::exception& e) {
    status = Status(Code::kInternal, e.what());
  }
  sprun::tools::message(status.message());
  return sprun::tools::exit_code(status, false);
}
