#include "tests/support/amx_sigill.h"

#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <mutex>

#include "kernels/isa.h"
#include "tests/support/amx_decode.h"

namespace sprun::tests {
namespace {

using kernels::amx::TileDot;
using kernels::amx::TileFault;
using kernels::amx::TileState;

// Constant-initialised: a handler must not run code that prepares them.
constinit thread_local TileState tiles;
constinit thread_local int64_t emulated = 0;
constinit thread_local TileFault last_fault = TileFault::kNone;

std::mutex install_mutex;
int installed = 0;
struct sigaction previous;

uint64_t register_value(const ucontext_t& context, int number) {
  constexpr int kRegisters[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
  if (number == kNoRegister) return 0;
  return static_cast<uint64_t>(context.uc_mcontext.gregs[kRegisters[number]]);
}

// Base and displacement of the memory operand.
uint64_t operand_start(const ucontext_t& context, const AmxInstruction& in) {
  uint64_t start = register_value(context, in.base);
  if (in.base == kRip) start += static_cast<uint64_t>(in.length);
  return start + static_cast<uint64_t>(static_cast<int64_t>(in.displacement));
}

TileFault run_dot(const AmxInstruction& in) {
  TileDot dot = TileDot::kBf16;
  if (in.op == AmxOp::kDotS8S8) dot = TileDot::kS8S8;
  if (in.op == AmxOp::kDotS8U8) dot = TileDot::kS8U8;
  if (in.op == AmxOp::kDotU8S8) dot = TileDot::kU8S8;
  if (in.op == AmxOp::kDotU8U8) dot = TileDot::kU8U8;
  return tile_dot(tiles, dot, in.tile, in.a, in.b);
}

TileFault run(const ucontext_t& context, const AmxInstruction& in) {
  const uint64_t start = operand_start(context, in);
  const uint64_t index = register_value(context, in.index) << in.scale_log2;
  void* memory = reinterpret_cast<void*>(start);          // of a load or store: index is the stride
  void* config = reinterpret_cast<void*>(start + index);  // elsewhere an ordinary index
  const int64_t stride = static_cast<int64_t>(index);
  switch (in.op) {
    case AmxOp::kLoadConfig:
      return tile_load_config(tiles, config);
    case AmxOp::kStoreConfig:
      tile_store_config(tiles, config);
      return TileFault::kNone;
    case AmxOp::kRelease:
      tile_release(tiles);
      return TileFault::kNone;
    case AmxOp::kZero:
      return tile_zero(tiles, in.tile);
    case AmxOp::kLoad:
    case AmxOp::kLoadT1:
      return tile_load(tiles, in.tile, memory, stride);
    case AmxOp::kStore:
      return tile_store(tiles, in.tile, memory, stride);
    case AmxOp::kDotS8S8:
    case AmxOp::kDotS8U8:
    case AmxOp::kDotU8S8:
    case AmxOp::kDotU8U8:
    case AmxOp::kDotBf16:
      return run_dot(in);
  }
  return TileFault::kNone;
}

void write_text(const char* text) {
  // Nothing can be done about a failed write to stderr.
  if (write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

void report(TileFault fault) {
  last_fault = fault;
  write_text("AMX emulator: ");
  write_text(tile_fault_text(fault));
  write_text("\n");
}

// What would have happened without this handler.
void chain(int signal, siginfo_t* info, void* context) {
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    std::signal(signal, SIG_DFL);  // the instruction runs again and ends the process
  } else {
    previous.sa_handler(signal);
  }
}

void on_sigill(int signal, siginfo_t* info, void* raw_context) {
  auto& context = *static_cast<ucontext_t*>(raw_context);
  greg_t& rip = context.uc_mcontext.gregs[REG_RIP];
  AmxInstruction in;
  if (!decode_amx(reinterpret_cast<const uint8_t*>(rip), &in)) {
    chain(signal, info, raw_context);
    return;
  }
  const TileFault fault = run(context, in);
  if (fault != TileFault::kNone) {
    report(fault);
    chain(signal, info, raw_context);
    return;
  }
  ++emulated;
  rip += in.length;
}

}  // namespace

AmxEmulator::AmxEmulator() {
  using kernels::Isa;
  const std::lock_guard lock(install_mutex);
  if (installed++ > 0) return;
  struct sigaction action = {};
  action.sa_sigaction = on_sigill;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigaction(SIGILL, &action, &previous);
  if (has_real_amx()) return;
  const kernels::IsaSet real = kernels::hardware_isas();
  kernels::IsaSet pretended;
  if (real.contains(Isa::kAvx512Vnni)) pretended.insert(Isa::kAmxInt8);
  if (real.contains(Isa::kAvx512Bf16)) pretended.insert(Isa::kAmxBf16);
  kernels::pretend_isas_for_testing(pretended);
}

AmxEmulator::~AmxEmulator() {
  const std::lock_guard lock(install_mutex);
  if (--installed > 0) return;
  kernels::pretend_isas_for_testing({});
  sigaction(SIGILL, &previous, nullptr);
}

bool has_real_amx() {
  const kernels::IsaSet real = kernels::hardware_isas();
  return real.contains(kernels::Isa::kAmxInt8) || real.contains(kernels::Isa::kAmxBf16);
}

int64_t amx_emulated_instructions() { return emulated; }

kernels::amx::TileFault take_amx_fault() {
  const TileFault fault = last_fault;
  last_fault = TileFault::kNone;
  return fault;
}

}  // namespace sprun::tests
