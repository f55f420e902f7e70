// Element types. The numbers are those of ONNX TensorProto.DataType and never change.
#pragma once

#include <cstdint>
#include <string_view>

#include "sprun/export.h"

namespace sprun {

enum class DType : uint8_t {
  kUndefined = 0,
  kF32 = 1,
  kU8 = 2,
  kS8 = 3,
  kU16 = 4,
  kS16 = 5,
  kS32 = 6,
  kS64 = 7,
  kString = 8,
  kBool = 9,
  kF16 = 10,
  kF64 = 11,
  kU32 = 12,
  kU64 = 13,
  kBf16 = 16,
  kU4 = 21,  // in memory one element a byte, value in the low bits (files hold two a byte)
  kS4 = 22,  // in memory one sign-extended element a byte
};

// Bytes of one element in memory; 0 for kUndefined and kString.
SPRUN_API int64_t dtype_size(DType dtype);
// ONNX-style lower case name: "float32", "int8", "bfloat16", ...
SPRUN_API std::string_view dtype_name(DType dtype);
// float16, bfloat16, float32, float64.
SPRUN_API bool is_float(DType dtype);
// Every integer type, also 4-bit ones; not bool.
SPRUN_API bool is_integer(DType dtype);

// 16-bit floats as storage types; arithmetic happens in float (runtime/base/half.h converts).
struct Float16 {
  uint16_t bits;
  bool operator==(const Float16&) const = default;
};
struct BFloat16 {
  uint16_t bits;
  bool operator==(const BFloat16&) const = default;
};

// The DType of a C++ element type: dtype_of<float>() == DType::kF32.
template <class T>
constexpr DType dtype_of();
template <> constexpr DType dtype_of<float>() { return DType::kF32; }
template <> constexpr DType dtype_of<uint8_t>() { return DType::kU8; }
template <> constexpr DType dtype_of<int8_t>() { return DType::kS8; }
template <> constexpr DType dtype_of<uint16_t>() { return DType::kU16; }
template <> constexpr DType dtype_of<int16_t>() { return DType::kS16; }
template <> constexpr DType dtype_of<int32_t>() { return DType::kS32; }
template <> constexpr DType dtype_of<int64_t>() { return DType::kS64; }
template <> constexpr DType dtype_of<bool>() { return DType::kBool; }
template <> constexpr DType dtype_of<Float16>() { return DType::kF16; }
template <> constexpr DType dtype_of<double>() { return DType::kF64; }
template <> constexpr DType dtype_of<uint32_t>() { return DType::kU32; }
template <> constexpr DType dtype_of<uint64_t>() { return DType::kU64; }
template <> constexpr DType dtype_of<BFloat16>() { return DType::kBf16; }

}  // namespace sprun
