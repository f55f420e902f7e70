// Model: a loaded ONNX file, immutable and shared by sessions.
//
//   auto model = sprun::Model::load("bert.onnx", {.precision = sprun::Precision::kF32}).value();
//   for (const auto& input : model->inputs()) std::cout << input.name << "\n";
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/dtype.h"
#include "sprun/export.h"
#include "sprun/sparse.h"
#include "sprun/status.h"

namespace sprun {

// How linear layers compute. kF32: as the file says (integer layers of the file stay integer).
// kBf16: weights and activations of float linear layers, and what fused attention multiplies, rounded to bfloat16; sums
// and softmax in float32.
// kInt8: weights int8 with one scale per output channel, activations quantised per row when running.
enum class Precision : uint8_t { kF32, kBf16, kInt8 };

SPRUN_API std::string_view precision_name(Precision precision);
SPRUN_API Result<Precision> parse_precision(std::string_view name);  // "f32", "bf16", "int8"; kUsage otherwise

// The instruction set is chosen by the CPU and limited by SPRUN_MAX_ISA in the environment (`sprun devices` lists the
// names), for the whole process.
struct ModelOptions {
  Precision precision = Precision::kF32;
  SparseMode sparse = SparseMode::kAuto;
  // Graph passes not to run, by name (`sprun explain` lists them).
  std::vector<std::string> disabled_passes;
  // Plans (one per combination of input shapes) kept ready; the least recently used one is dropped.
  int max_plans = 16;
};

// One size of an input or output: a number, or a named symbol, or (value -1, symbol "") unknown.
struct DimSpec {
  int64_t value = -1;
  std::string symbol;
};

struct SPRUN_API TensorSpec {
  std::string name;
  DType dtype = DType::kUndefined;
  bool has_shape = false;     // false: the file does not even say the rank
  std::vector<DimSpec> dims;
  // "[batch,seq,768]"
  std::string shape_string() const;
};

// Thread-safe: every function is const.
class SPRUN_API Model {
 public:
  // Reads, checks and optimises the file. kBadModel (broken or unsupported: the message lists every unsupported op),
  // kBadInput (no such file), kUsage (unknown pass), kResourceLimit.
  static Result<std::shared_ptr<const Model>> load(const std::string& path, const ModelOptions& options = {});
  ~Model();

  const std::vector<TensorSpec>& inputs() const;
  const std::vector<TensorSpec>& outputs() const;
  const ModelOptions& options() const;
  // Bytes of constants held in memory or mapped, and bytes of weights repacked for kernels so far.
  int64_t constant_bytes() const;
  int64_t packed_bytes() const;

  // For the rest of the library; not installed.
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sprun
