#include "tests/support/amx_decode.h"

#include <cstring>

namespace sprun::tests {
namespace {

enum Prefix : int { kNone, k66, kF3, kF2 };  // the pp field of VEX

// What the three bytes of the VEX prefix say, with inverted bits put right.
struct Vex {
  int r, x, b;  // fourth bit of the register numbers
  int vvvv;
  int prefix;
};

// C4, then R X B map, then W vvvv L pp. All AMX instructions have map 0F38, W = 0, L = 0.
bool read_vex(const uint8_t* code, Vex* vex) {
  if (code[0] != 0xC4) return false;
  const int first = code[1] ^ 0xE0;
  if ((first & 0x1F) != 0x02) return false;
  const int second = code[2] ^ 0x78;
  if ((second & 0x84) != 0) return false;
  *vex = {(first >> 7) & 1, (first >> 6) & 1, (first >> 5) & 1, (second >> 3) & 15, second & 3};
  return true;
}

struct ModRm {
  int mod, reg, rm;
};

ModRm read_modrm(uint8_t byte) { return {byte >> 6, (byte >> 3) & 7, byte & 7}; }

// Reads the ModRM byte's memory operand; `at` points behind that byte. Returns the operand's bytes.
int read_memory(const uint8_t* at, const Vex& vex, const ModRm& modrm, AmxInstruction* out) {
  int used = 0;
  int displacement_bytes = modrm.mod == 1 ? 1 : modrm.mod == 2 ? 4 : 0;
  if (modrm.rm == 4) {
    const ModRm sib = read_modrm(at[used++]);  // the same three fields
    out->scale_log2 = sib.mod;
    const int index = sib.reg + 8 * vex.x;
    out->index = index == 4 ? kNoRegister : index;
    if (index == 4) out->scale_log2 = 0;
    out->base = sib.rm + 8 * vex.b;
    if (sib.rm == 5 && modrm.mod == 0) {
      out->base = kNoRegister;
      displacement_bytes = 4;
    }
  } else if (modrm.rm == 5 && modrm.mod == 0) {
    out->base = kRip;
    displacement_bytes = 4;
  } else {
    out->base = modrm.rm + 8 * vex.b;
  }
  if (displacement_bytes == 1) {
    out->displacement = static_cast<int8_t>(at[used]);
  } else if (displacement_bytes == 4) {
    std::memcpy(&out->displacement, at + used, 4);
  }
  return used + displacement_bytes;
}

// Opcode 49: configuration, release, zero.
bool decode_config(const Vex& vex, const ModRm& modrm, const uint8_t* at, AmxInstruction* out) {
  if (vex.vvvv != 0) return false;
  if (modrm.mod != 3) {
    if (modrm.reg != 0 || vex.r != 0 || (vex.prefix != kNone && vex.prefix != k66)) return false;
    out->op = vex.prefix == kNone ? AmxOp::kLoadConfig : AmxOp::kStoreConfig;
    out->length += read_memory(at, vex, modrm, out);
    return true;
  }
  if (vex.b != 0 || modrm.rm != 0 || vex.r != 0) return false;
  out->tile = modrm.reg;
  out->op = vex.prefix == kF2 ? AmxOp::kZero : AmxOp::kRelease;
  return vex.prefix == kF2 || (vex.prefix == kNone && modrm.reg == 0);
}

// Opcode 4B: loads and stores; the SIB byte is a must.
bool decode_move(const Vex& vex, const ModRm& modrm, const uint8_t* at, AmxInstruction* out) {
  if (vex.vvvv != 0 || vex.r != 0 || modrm.mod == 3 || modrm.rm != 4) return false;
  switch (vex.prefix) {
    case kF2:
      out->op = AmxOp::kLoad;
      break;
    case k66:
      out->op = AmxOp::kLoadT1;
      break;
    case kF3:
      out->op = AmxOp::kStore;
      break;
    default:
      return false;
  }
  out->tile = modrm.reg;
  out->length += read_memory(at, vex, modrm, out);
  return true;
}

// Opcodes 5E and 5C: products.
bool decode_dot(uint8_t opcode, const Vex& vex, const ModRm& modrm, AmxInstruction* out) {
  if (modrm.mod != 3 || vex.r != 0 || vex.b != 0 || vex.vvvv > 7) return false;
  if (opcode == 0x5C && vex.prefix != kF3) return false;
  constexpr AmxOp kInt8[] = {AmxOp::kDotU8U8, AmxOp::kDotU8S8, AmxOp::kDotS8U8, AmxOp::kDotS8S8};
  out->op = opcode == 0x5C ? AmxOp::kDotBf16 : kInt8[vex.prefix];
  out->tile = modrm.reg;
  out->a = modrm.rm;
  out->b = vex.vvvv;
  return true;
}

}  // namespace

bool decode_amx(const uint8_t* code, AmxInstruction* out) {
  Vex vex{};
  if (!read_vex(code, &vex)) return false;
  const uint8_t opcode = code[3];
  const bool known = opcode == 0x49 || opcode == 0x4B || opcode == 0x5C || opcode == 0x5E;
  if (!known) return false;
  const ModRm modrm = read_modrm(code[4]);
  *out = {};
  out->length = 5;
  if (opcode == 0x49) return decode_config(vex, modrm, code + 5, out);
  if (opcode == 0x4B) return decode_move(vex, modrm, code + 5, out);
  return decode_dot(opcode, vex, modrm, out);
}

}  // namespace sprun::tests
