// Names of the options that the graph compiler and the session both read.
#include "sprun/model.h"

namespace sprun {

std::string_view precision_name(Precision precision) {
  switch (precision) {
    case Precision::kF32: return "f32";
    case Precision::kBf16: return "bf16";
    case Precision::kInt8: return "int8";
  }
  return "unknown";
}

Result<Precision> parse_precision(std::string_view name) {
  for (Precision precision : {Precision::kF32, Precision::kBf16, Precision::kInt8}) {
    if (name == precision_name(precision)) return precision;
  }
  return Status(Code::kUsage, "unknown precision '" + std::string(name) + "', expected f32, bf16 or int8");
}

std::string_view sparse_mode_name(SparseMode mode) {
  switch (mode) {
    case SparseMode::kAuto:
      return "auto";
    case SparseMode::kOff:
      return "off";
    case SparseMode::kForce:
      return "force";
  }
  return "auto";
}

Result<SparseMode> parse_sparse_mode(std::string_view name) {
  for (SparseMode mode : {SparseMode::kAuto, SparseMode::kOff, SparseMode::kForce}) {
    if (sparse_mode_name(mode) == name) return mode;
  }
  return Status(Code::kUsage, "unknown sparse mode '" + std::string(name) + "', expected auto, off or force");
}

}  // namespace sprun
