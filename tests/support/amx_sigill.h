// Runs AMX machine code on a CPU without AMX: a SIGILL handler does each tile instruction in plain
// C++ (kernels/amx/tile_state.h) and continues behind it.
//
//   const AmxEmulator emulator;                // until the end of the block
//   kernel->run(...);                          // compiled for AMX
//   EXPECT_GT(amx_emulated_instructions(), 0); // it ran here, not on hardware
//
// While one lives, detected_isas() has kAmxInt8 and kAmxBf16 (where the CPU has AVX-512, which the
// same files use). Tile registers are per thread, as on hardware. On a CPU with AMX nothing traps
// and nothing is emulated. Every other illegal instruction, and a tile instruction that the
// hardware would fault on, goes to the handler that was there before; the latter after a line on
// stderr. Linux on x86-64 only. About a microsecond for each instruction. Debuggers must pass
// SIGILL on.
#pragma once

#include <cstdint>

#include "kernels/amx/tile_state.h"

namespace sprun::tests {

// Installs and removes the handler; may be nested, also on several threads.
class AmxEmulator {
 public:
  AmxEmulator();
  ~AmxEmulator();
  AmxEmulator(const AmxEmulator&) = delete;
  AmxEmulator& operator=(const AmxEmulator&) = delete;
};

// True when this CPU and OS run AMX int8 or bf16 themselves.
bool has_real_amx();

// Instructions that were emulated on this thread so far.
int64_t amx_emulated_instructions();

// Why the last tile instruction of this thread was passed on as a fault; kNone after take.
kernels::amx::TileFault take_amx_fault();

}  // namespace sprun::tests
