// Architecture tags for vector code, and the inlining macro that keeps it safe to mix ISAs.
//
// Kernel bodies are templates on a tag (template <class Arch>), so their symbols name the ISA they
// were compiled for. Small vector helpers are SPRUN_INLINE instead: they never become symbols, so
// the linker cannot replace a baseline copy by one that uses newer instructions.
#pragma once

#define SPRUN_INLINE [[gnu::always_inline]] inline

namespace sprun::kernels::simd {

struct Sse2 {};             // x86-64 baseline
struct Avx2 {};             // AVX2 + FMA + F16C
struct AvxVnni {};          // Avx2 + 256-bit VNNI (VEX encoded)
struct Avx512 {};           // F, BW, DQ, VL, CD
struct Avx512Vnni {};       // Avx512 + VNNI
struct Avx512Vbmi2 {};      // Avx512Vnni + VBMI2 (byte and word expansion)
struct Avx512Bf16 {};       // Avx512 + BF16 dot products
struct Avx512Vbmi2Bf16 {};  // Avx512Bf16 + VBMI2

// The tag whose float vectors an ISA uses: VNNI and BF16 only add dot products.
template <class Arch>
struct VecArchOf {
  using Type = Arch;
};
template <>
struct VecArchOf<AvxVnni> {
  using Type = Avx2;
};
template <>
struct VecArchOf<Avx512Vnni> {
  using Type = Avx512;
};
template <>
struct VecArchOf<Avx512Vbmi2> {
  using Type = Avx512;
};
template <>
struct VecArchOf<Avx512Vbmi2Bf16> {
  using Type = Avx512;
};
template <>
struct VecArchOf<Avx512Bf16> {
  using Type = Avx512;
};
template <class Arch>
using VecArch = typename VecArchOf<Arch>::Type;

// Specialised in vec_sse2.h, vec_avx2.h and vec_avx512.h; see vec.h for the operations.
template <class Arch>
struct F32;
template <class Arch>
struct I32;
template <class Arch>
struct Mask;

}  // namespace sprun::kernels::simd
