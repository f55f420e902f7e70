// Commands of the command line. Adding one: cmd_NAME.cc that defines `Action setup_NAME(CLI::App&
// app)`, and a line in commands.def. setup adds options to `app` and returns what to do once they
// are parsed.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "sprun/status.h"

namespace sprun::tools {

using Action = std::function<Status()>;

struct Command {
  std::string_view name, summary;
  Action (*setup)(CLI::App& app);
};

#define SPRUN_COMMAND(name, summary) Action setup_##name(CLI::App& app);
#include "tools/sprun/commands.def"
#undef SPRUN_COMMAND

// The exit code of the process for a status; the only place that knows the numbers. A cancelled run
// is 130 when the user interrupted it, else 7.
int exit_code(const Status& status, bool interrupted);
// The table of exit codes for --help.
std::string exit_code_table();

}  // namespace sprun::tools
