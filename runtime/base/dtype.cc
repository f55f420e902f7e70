#include "sprun/dtype.h"

namespace sprun {

int64_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kUndefined:
    case DType::kString: return 0;
    case DType::kU8:
    case DType::kS8:
    case DType::kBool:
    case DType::kU4:
    case DType::kS4: return 1;
    case DType::kU16:
    case DType::kS16:
    case DType::kF16:
    case DType::kBf16: return 2;
    case DType::kF32:
    case DType::kS32:
    case DType::kU32: return 4;
    case DType::kS64:
    case DType::kU64:
    case DType::kF64: return 8;
  }
  return 0;
}

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kUndefined: return "undefined";
    case DType::kF32: return "float32";
    case DType::kU8: return "uint8";
    case DType::kS8: return "int8";
    case DType::kU16: return "uint16";
    case DType::kS16: return "int16";
    case DType::kS32: return "int32";
    case DType::kS64: return "int64";
    case DType::kString: return "string";
    case DType::kBool: return "bool";
    case DType::kF16: return "float16";
    case DType::kF64: return "float64";
    case DType::kU32: return "uint32";
    case DType::kU64: return "uint64";
    case DType::kBf16: return "bfloat16";
    case DType::kU4: return "uint4";
    case DType::kS4: return "int4";
  }
  return "unknown";
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBf16 || dtype == DType::kF64;
}

bool is_integer(DType dtype) {
  return dtype_size(dtype) > 0 && !is_float(dtype) && dtype != DType::kBool;
}

}  // namespace sprun
