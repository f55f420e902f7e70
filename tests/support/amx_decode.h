// Decoder of the AMX instructions that the kernels may contain, for the emulator in amx_sigill.h.
//
// Knows ldtilecfg, sttilecfg, tilerelease, tilezero, tileloadd, tileloaddt1, tilestored, tdpbssd,
// tdpbsud, tdpbusd, tdpbuud and tdpbf16ps, with every form of memory operand except segment and
// address-size prefixes. Signal-safe. Source: instruction set reference, AMX chapter.
#pragma once

#include <cstdint>

namespace sprun::tests {

enum class AmxOp : uint8_t {
  kLoadConfig,
  kStoreConfig,
  kRelease,
  kZero,
  kLoad,
  kLoadT1,
  kStore,
  kDotS8S8,
  kDotS8U8,
  kDotU8S8,
  kDotU8U8,
  kDotBf16,
};

constexpr int kNoRegister = -1;
constexpr int kRip = 16;  // base of an address relative to the next instruction

struct AmxInstruction {
  AmxOp op = AmxOp::kRelease;
  int length = 0;          // bytes
  int tile = 0;            // loaded, stored, zeroed, or C of a product
  int a = 0, b = 0;        // A and B of a product
  int base = kNoRegister;  // general registers by number: rax, rcx, rdx, rbx, rsp, ...
  int index = kNoRegister;
  int scale_log2 = 0;
  int32_t displacement = 0;
  bool operator==(const AmxInstruction&) const = default;
};

// False when `code` does not start with one of these instructions. Reads only the bytes that belong
// to it.
bool decode_amx(const uint8_t* code, AmxInstruction* out);

}  // namespace sprun::tests
