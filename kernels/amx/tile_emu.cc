#include "kernels/amx/tile_emu.h"

namespace sprun::kernels::amx {
namespace {

constinit thread_local TileFault first_fault = TileFault::kNone;

}  // namespace

TileFault take_tile_fault() {
  const TileFault fault = first_fault;
  first_fault = TileFault::kNone;
  return fault;
}

void note_tile_fault(TileFault fault) {
  if (first_fault == TileFault::kNone) first_fault = fault;
}

}  // namespace sprun::kernels::amx
