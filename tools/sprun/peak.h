// Peak rates of this machine, measured.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace sprun::tools {

// Multiply and add count as two operations. 0: the instruction set has no such instruction.
struct PeakRates {
  int threads = 1;
  double f32_gflops = 0, bf16_gflops = 0, int8_gops = 0;
  double read_gbytes = 0;  // from main memory
};

// Measures with `threads` threads and the instruction sets in use. About half a second.
PeakRates measure_peak(int threads);

nlohmann::ordered_json to_json(const PeakRates& peak);
std::string to_text(const PeakRates& peak);

}  // namespace sprun::tools
