// How a kernel family lists its variants and how one is chosen.
//
// A family keeps a table of KernelInfo, best first, its scalar reference last, built from a .def
// file whose lines are SPRUN_<FAMILY>(isa, symbol, numeric class). select() takes the first variant
// whose ISA may be used and says why each better one was not.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/isa.h"

// SPRUN_IF_BUILT_<isa>(tokens): the tokens, or nothing where that ISA's files are not compiled
// (preset "portable" defines SPRUN_NO_AVX512, builds with MemorySanitizer SPRUN_NO_AMX).
#define SPRUN_IF_BUILT_kScalar(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAvx2(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAvxVnni(...) __VA_ARGS__
#if defined(SPRUN_NO_AVX512)
#define SPRUN_IF_BUILT_kAvx512(...)
#define SPRUN_IF_BUILT_kAvx512Vnni(...)
#define SPRUN_IF_BUILT_kAvx512Vbmi2(...)
#define SPRUN_IF_BUILT_kAvx512Vbmi2Bf16(...)
#define SPRUN_IF_BUILT_kAvx512Bf16(...)
#else
#define SPRUN_IF_BUILT_kAvx512(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAvx512Vnni(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAvx512Vbmi2(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAvx512Vbmi2Bf16(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAvx512Bf16(...) __VA_ARGS__
#endif
#if defined(SPRUN_NO_AVX512) || defined(SPRUN_NO_AMX)
#define SPRUN_IF_BUILT_kAmxInt8(...)
#define SPRUN_IF_BUILT_kAmxBf16(...)
#else
#define SPRUN_IF_BUILT_kAmxInt8(...) __VA_ARGS__
#define SPRUN_IF_BUILT_kAmxBf16(...) __VA_ARGS__
#endif

// One line of a .def file as an element of a table of KernelInfo; the kernels are declared before by
// SPRUN_IF_BUILT_<isa>(extern const Kernel symbol;):
//   constinit const KernelInfo<GemmF32Kernel> kF32[] = {
//   #define SPRUN_GEMM_F32 SPRUN_KERNEL_ENTRY
//   #include "kernels/gemm/gemm.def"
//   };
#define SPRUN_KERNEL_ENTRY(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa({#symbol, Isa::isa, NumericClass::numeric, &symbol}, )

namespace sprun::kernels {

enum class NumericClass : uint8_t {
  kExact,         // bit-identical to the reference on every input
  kReassociated,  // sums reordered: |error| <= eps * (K + 1) * max|x| * max|w| * 2 per output
  kConditional,   // exact only under the precondition that the kernel states
};

template <class Kernel>
struct KernelInfo {
  std::string_view name;  // symbol, e.g. "gemm_f32_avx512"
  Isa isa;
  NumericClass numeric;
  const Kernel* kernel;
};

// Why a variant was not chosen: "gemm_bf16_avx512bf16", "CPU has no avx512_bf16".
struct Rejection {
  std::string kernel, reason;
};

// First entry of `list` whose ISA is in `available`; the last entry when none is (references need
// the baseline only). Better variants that were passed over are appended to `why_not`, if given.
// `list` must not be empty.
template <class Kernel>
const KernelInfo<Kernel>& select(std::span<const KernelInfo<Kernel>> list, IsaSet available,
                                 std::vector<Rejection>* why_not = nullptr) {
  for (const KernelInfo<Kernel>& info : list) {
    if (available.contains(info.isa)) return info;
    if (why_not != nullptr) {
      why_not->push_back({std::string(info.name), unavailable_reason(info.isa, available)});
    }
  }
  return list.back();
}

}  // namespace sprun::kernels
