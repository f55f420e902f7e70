// The report as rows of text, for the table and for the page.
#pragma once

#include <string>
#include <vector>

#include "tools/compress/report.h"

namespace sprun::compress {

using Rows = std::vector<std::vector<std::string>>;  // the first is the header

Rows layer_rows(const Report& report);
Rows output_rows(const Report& report);
// "linear layers: 85.1 M parameters, ..": one line each.
std::vector<std::string> summary_lines(const Report& report);

}  // namespace sprun::compress
