// Peak rates of this machine, measured.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"

namespace sprun::tools {

// Multiply and add count as two operations. 0: the instruction set has no such instruction.
struct PeakRates {
  int threads = 1;
  double f32_gflops = 0, bf16_gflops = 0, int8_gops = 0;
  double read_gbytes = 0;  // from main memory
};

// How fast memory can be read: a buffer that no last-level cache holds, on large pages where there are any (as packed
// weights are), read front to back by all threads at once.
class MemoryReader {
 public:
  // kResourceLimit when there is no memory for the buffer.
  static Result<MemoryReader> create(int threads);
  // One pass over a third of the buffer, another one each time; in 1e9 bytes per second.
  double read();

 private:
  std::unique_ptr<ThreadPool> pool_;
  PackedBlob buffer_;
  int64_t next_ = 0;
};

// Measures with `threads` threads and the instruction sets in use. About half a second.
PeakRates measure_peak(int threads);

nlohmann::ordered_json to_json(const PeakRates& peak);
std::string to_text(const PeakRates& peak);

}  // namespace sprun::tools
