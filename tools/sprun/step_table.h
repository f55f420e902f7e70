// Tables and JSON of step times against the peak of the machine: what `profile` and `generate --profile` print.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "sprun/session.h"
#include "tools/sprun/peak.h"

namespace sprun::tools {

// One step, or all steps of one op.
struct Row {
  std::string name, op, kernel, regime, shape;
  int64_t steps = 1;
  double us = 0;  // median over the iterations, or mean of a token
  double flops = 0, bytes = 0;

  double gflops() const { return us > 0 ? flops / us * 1e-3 : 0; }
  double gbytes() const { return us > 0 ? bytes / us * 1e-3 : 0; }
};

double total_time(const std::vector<Row>& rows);
// By op and kernel, or as they are; slowest first where sums or the `top` slowest (0: all) are asked for.
std::vector<Row> shown_rows(const std::vector<Row>& steps, bool by_op, int top);

struct TableStyle {
  bool by_op = false;
  std::string time = "us";  // header of the first column
};
// For format_table(). total_us: time that shares are parts of.
std::vector<std::vector<std::string>> table_of(const std::vector<Row>& rows, double total_us, const PeakRates& peak,
                                               const TableStyle& style);
nlohmann::ordered_json rows_json(const std::vector<Row>& rows, double total_us, const PeakRates& peak);

// One line for each sparse feed-forward layer that has run.
std::string density_text(const std::vector<FfnDensity>& layers);
nlohmann::ordered_json density_json(const std::vector<FfnDensity>& layers);

}  // namespace sprun::tools
