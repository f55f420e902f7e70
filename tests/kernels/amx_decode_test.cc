// The decoder of the AMX emulator against the assembler: every instruction, every tile register and
// every kind of memory operand. The instructions stand in read-only data and are not run.
#include "tests/support/amx_decode.h"

#include <gtest/gtest.h>

#include <vector>

namespace sprun::tests {
namespace {

// Blocks of instructions between a start and an end label. Inner lists vary fastest.
__asm__(R"(
.macro sprun_amx_block name
  .pushsection .rodata
  .globl \name
  \name:
.endm
.macro sprun_amx_block_end name
  .globl \name\()_end
  \name\()_end:
  .byte 0, 0, 0, 0, 0
  .popsection
.endm

sprun_amx_block sprun_amx_dots
.irp c, 0,1,2,3,4,5,6,7
.irp a, 0,1,2,3,4,5,6,7
.irp b, 0,1,2,3,4,5,6,7
.if ((\c - \a) * (\c - \b) * (\a - \b)) != 0
  tdpbssd %tmm\b, %tmm\a, %tmm\c
  tdpbsud %tmm\b, %tmm\a, %tmm\c
  tdpbusd %tmm\b, %tmm\a, %tmm\c
  tdpbuud %tmm\b, %tmm\a, %tmm\c
  tdpbf16ps %tmm\b, %tmm\a, %tmm\c
.endif
.endr
.endr
.endr
sprun_amx_block_end sprun_amx_dots

sprun_amx_block sprun_amx_tiles
.irp t, 0,1,2,3,4,5,6,7
  tilezero %tmm\t
  tileloadd 0x40(%rax,%rbx,2), %tmm\t
  tileloaddt1 -0x40(%r8,%r9,8), %tmm\t
  tilestored %tmm\t, 0x1000(%r14,%rcx,4)
.endr
  tilerelease
sprun_amx_block_end sprun_amx_tiles

sprun_amx_block sprun_amx_memory
.irp base, rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
.irp index, rax,rcx,rdx,rbx,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
.irp scale, 1,2,4,8
.irp disp, 0,-128,0x12345678
  tileloadd \disp(%\base,%\index,\scale), %tmm3
  tilestored %tmm5, \disp(%\base,%\index,\scale)
  ldtilecfg \disp(%\base,%\index,\scale)
.endr
.endr
.endr
.endr
sprun_amx_block_end sprun_amx_memory

sprun_amx_block sprun_amx_plain
.irp base, rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
.irp disp, 0,100,-0x12345678
  tileloaddt1 \disp(%\base), %tmm1
  ldtilecfg \disp(%\base)
  sttilecfg \disp(%\base)
.endr
.endr
sprun_amx_block_end sprun_amx_plain

sprun_amx_block sprun_amx_no_base
.irp index, rax,rcx,rdx,rbx,rbp,rsi,rdi,r8,r9,r10,r11,r12,r13,r14,r15
  tileloadd 0x40(,%\index,4), %tmm2
  tilestored %tmm7, -0x40(,%\index,2)
.endr
  tileloadd 0x1234, %tmm2
  ldtilecfg 0x1234
  sttilecfg 0x55(%rip)
sprun_amx_block_end sprun_amx_no_base

sprun_amx_block sprun_amx_others
  ud2
  tdpfp16ps_bytes: .byte 0xc4, 0xe2, 0x6b, 0x5c, 0xc1
  andn %rax, %rbx, %rcx
  shlx %eax, %ebx, %ecx
  vpdpbusd %xmm1, %xmm2, %xmm3
  vpbroadcastb %xmm1, %ymm2
sprun_amx_block_end sprun_amx_others
)");

extern "C" {
#define SPRUN_BLOCK(name) extern const uint8_t name[], name##_end[]
SPRUN_BLOCK(sprun_amx_dots);
SPRUN_BLOCK(sprun_amx_tiles);
SPRUN_BLOCK(sprun_amx_memory);
SPRUN_BLOCK(sprun_amx_plain);
SPRUN_BLOCK(sprun_amx_no_base);
SPRUN_BLOCK(sprun_amx_others);
#undef SPRUN_BLOCK
}

// Decodes from begin to end, which must be whole instructions that the decoder knows.
std::vector<AmxInstruction> decode_all(const uint8_t* begin, const uint8_t* end) {
  std::vector<AmxInstruction> out;
  while (begin < end) {
    AmxInstruction in;
    if (!decode_amx(begin, &in)) {
      ADD_FAILURE() << "instruction " << out.size() << " is unknown";
      return out;
    }
    begin += in.length;
    out.push_back(in);
  }
  EXPECT_EQ(begin, end);
  return out;
}

// Equal but for the length, which decode_all() proves.
void expect_decoded(const std::vector<AmxInstruction>& got, std::vector<AmxInstruction> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    want[i].length = got[i].length;
    ASSERT_EQ(got[i], want[i]) << "instruction " << i << " op " << static_cast<int>(got[i].op)
                               << " tile " << got[i].tile << " base " << got[i].base << " index "
                               << got[i].index << " displacement " << got[i].displacement;
  }
}

AmxInstruction instruction(AmxOp op, int tile = 0) {
  AmxInstruction in;
  in.op = op;
  in.tile = tile;
  return in;
}

AmxInstruction at(AmxOp op, int tile, int base, int index, int scale_log2, int32_t displacement) {
  AmxInstruction in = instruction(op, tile);
  in.base = base;
  in.index = index;
  in.scale_log2 = scale_log2;
  in.displacement = displacement;
  return in;
}

constexpr int kRax = 0, kRcx = 1, kRbx = 3, kRsp = 4, kR8 = 8, kR9 = 9, kR14 = 14;

TEST(AmxDecode, ProductsOfAllTriplesOfTiles) {
  std::vector<AmxInstruction> want;
  for (int c = 0; c < 8; ++c) {
    for (int a = 0; a < 8; ++a) {
      for (int b = 0; b < 8; ++b) {
        if (c == a || c == b || a == b) continue;
        for (AmxOp op : {AmxOp::kDotS8S8, AmxOp::kDotS8U8, AmxOp::kDotU8S8, AmxOp::kDotU8U8,
                         AmxOp::kDotBf16}) {
          want.push_back(instruction(op, c));
          want.back().a = a;
          want.back().b = b;
        }
      }
    }
  }
  expect_decoded(decode_all(sprun_amx_dots, sprun_amx_dots_end), want);
}

TEST(AmxDecode, EveryTileRegister) {
  std::vector<AmxInstruction> want;
  for (int t = 0; t < 8; ++t) {
    want.push_back(instruction(AmxOp::kZero, t));
    want.push_back(at(AmxOp::kLoad, t, kRax, kRbx, 1, 0x40));
    want.push_back(at(AmxOp::kLoadT1, t, kR8, kR9, 3, -0x40));
    want.push_back(at(AmxOp::kStore, t, kR14, kRcx, 2, 0x1000));
  }
  want.push_back(instruction(AmxOp::kRelease));
  expect_decoded(decode_all(sprun_amx_tiles, sprun_amx_tiles_end), want);
}

TEST(AmxDecode, EveryBaseIndexScaleAndDisplacement) {
  std::vector<AmxInstruction> want;
  for (int base = 0; base < 16; ++base) {
    for (int index = 0; index < 16; ++index) {
      if (index == kRsp) continue;
      for (int scale = 0; scale < 4; ++scale) {
        for (int32_t displacement : {0, -128, 0x12345678}) {
          want.push_back(at(AmxOp::kLoad, 3, base, index, scale, displacement));
          want.push_back(at(AmxOp::kStore, 5, base, index, scale, displacement));
          want.push_back(at(AmxOp::kLoadConfig, 0, base, index, scale, displacement));
        }
      }
    }
  }
  expect_decoded(decode_all(sprun_amx_memory, sprun_amx_memory_end), want);
}

TEST(AmxDecode, OperandsWithoutIndex) {
  std::vector<AmxInstruction> want;
  for (int base = 0; base < 16; ++base) {
    for (int32_t displacement : {0, 100, -0x12345678}) {
      want.push_back(at(AmxOp::kLoadT1, 1, base, kNoRegister, 0, displacement));
      want.push_back(at(AmxOp::kLoadConfig, 0, base, kNoRegister, 0, displacement));
      want.push_back(at(AmxOp::kStoreConfig, 0, base, kNoRegister, 0, displacement));
    }
  }
  expect_decoded(decode_all(sprun_amx_plain, sprun_amx_plain_end), want);
}

TEST(AmxDecode, OperandsWithoutBase) {
  std::vector<AmxInstruction> want;
  for (int index = 0; index < 16; ++index) {
    if (index == kRsp) continue;
    want.push_back(at(AmxOp::kLoad, 2, kNoRegister, index, 2, 0x40));
    want.push_back(at(AmxOp::kStore, 7, kNoRegister, index, 1, -0x40));
  }
  want.push_back(at(AmxOp::kLoad, 2, kNoRegister, kNoRegister, 0, 0x1234));
  want.push_back(at(AmxOp::kLoadConfig, 0, kNoRegister, kNoRegister, 0, 0x1234));
  want.push_back(at(AmxOp::kStoreConfig, 0, kRip, kNoRegister, 0, 0x55));
  expect_decoded(decode_all(sprun_amx_no_base, sprun_amx_no_base_end), want);
}

TEST(AmxDecode, RefusesEverythingElse) {
  AmxInstruction in;
  for (const uint8_t* p = sprun_amx_others; p < sprun_amx_others_end; ++p) {
    EXPECT_FALSE(decode_amx(p, &in)) << "offset " << p - sprun_amx_others;
  }
}

// Valid instructions with one bit of the encoding wrong: the CPU refuses them too.
TEST(AmxDecode, RefusesReservedEncodings) {
  const uint8_t refused[][7] = {
      {0xC4, 0x62, 0x7B, 0x49, 0xC0},        // tilezero of a ninth register (R)
      {0xC4, 0xE2, 0xFB, 0x49, 0xC0},        // tilezero with W
      {0xC4, 0xE2, 0x7F, 0x49, 0xC0},        // tilezero with L
      {0xC4, 0xE2, 0x7B, 0x49, 0xC1},        // tilezero with a second register
      {0xC4, 0xE2, 0x6B, 0x49, 0xC0},        // tilezero with vvvv
      {0xC4, 0xE2, 0x78, 0x49, 0xC8},        // tilerelease with a register
      {0xC4, 0xE2, 0x7B, 0x4B, 0x03},        // tileloadd without SIB byte
      {0xC4, 0xE2, 0x7B, 0x4B, 0xC4},        // tileloadd of a register
      {0xC4, 0xE2, 0x78, 0x4B, 0x04, 0x18},  // opcode 4B without prefix
      {0xC4, 0xC2, 0x6B, 0x5E, 0xC1},        // product with B
      {0xC4, 0xE2, 0x3B, 0x5E, 0xC1},        // product with vvvv = 8
      {0xC4, 0xE3, 0x6B, 0x5E, 0xC1},        // another opcode map
      {0xC5, 0xE2, 0x6B, 0x5E, 0xC1},        // two-byte prefix
  };
  AmxInstruction in;
  for (const auto& code : refused) {
    EXPECT_FALSE(decode_amx(code, &in)) << &code - refused;
  }
}

}  // namespace
}  // namespace sprun::tests
