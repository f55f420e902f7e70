#include "kernels/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace sprun::kernels {
namespace {

constexpr Isa kAllIsas[] = {
#define SPRUN_ISA(enumerator, name, cpu_flag) Isa::enumerator,
#include "kernels/isa.def"
};
constexpr std::string_view kIsaNames[] = {
#define SPRUN_ISA(enumerator, name, cpu_flag) name,
#include "kernels/isa.def"
};
constexpr std::string_view kCpuFlags[] = {
#define SPRUN_ISA(enumerator, name, cpu_flag) cpu_flag,
#include "kernels/isa.def"
};
constexpr std::string_view kLevelNames[] = {
#define SPRUN_ISA_LEVEL(name, ...) name,
#include "kernels/isa.def"
};
constexpr IsaSet kLevelSets[] = {
#define SPRUN_ISA_LEVEL(name, ...) IsaSet{__VA_ARGS__},
#include "kernels/isa.def"
};

struct CpuidRegisters {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero when the CPU has no such leaf.
CpuidRegisters cpuid(unsigned leaf, unsigned subleaf) {
  CpuidRegisters r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

constexpr bool has_bit(uint64_t word, int index) { return ((word >> index) & 1U) != 0; }

// Register state that the OS saves on a context switch. Only valid with OSXSAVE.
uint64_t read_xcr0() {
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Linux hands out the 8 KiB tile state per process, on request.
bool request_amx_permission() {
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

struct Detection {
  IsaSet cpu;      // the CPU has the instructions
  IsaSet enabled;  // ... and the OS saves the registers
};

IsaSet cpu_isas() {
  const CpuidRegisters l1 = cpuid(1, 0);
  const CpuidRegisters l7 = cpuid(7, 0);
  const CpuidRegisters l71 = l7.eax >= 1 ? cpuid(7, 1) : CpuidRegisters{};
  IsaSet set{Isa::kScalar};
  const bool avx2 = has_bit(l1.ecx, 12) && has_bit(l1.ecx, 28) && has_bit(l1.ecx, 29) &&
                    has_bit(l7.ebx, 5);
  if (!avx2) return set;
  set.insert(Isa::kAvx2);
  if (has_bit(l71.eax, 4)) set.insert(Isa::kAvxVnni);
  const bool avx512 = has_bit(l7.ebx, 16) && has_bit(l7.ebx, 17) && has_bit(l7.ebx, 28) &&
                      has_bit(l7.ebx, 30) && has_bit(l7.ebx, 31);
  if (!avx512) return set;
  set.insert(Isa::kAvx512);
  if (has_bit(l7.ecx, 11)) set.insert(Isa::kAvx512Vnni);
  if (has_bit(l7.ecx, 6) && has_bit(l7.ecx, 11)) set.insert(Isa::kAvx512Vbmi2);
  if (has_bit(l71.eax, 5)) set.insert(Isa::kAvx512Bf16);
  if (has_bit(l7.ecx, 6) && has_bit(l71.eax, 5)) set.insert(Isa::kAvx512Vbmi2Bf16);
  const bool tile = has_bit(l7.edx, 24);
  // Their files use the dot products of AVX-512 too, which a hypervisor may hide.
  if (tile && has_bit(l7.edx, 25) && set.contains(Isa::kAvx512Vnni)) set.insert(Isa::kAmxInt8);
  if (tile && has_bit(l7.edx, 22) && set.contains(Isa::kAvx512Bf16)) set.insert(Isa::kAmxBf16);
  return set;
}

Detection detect() {
  constexpr uint64_t kYmmState = 0x6;
  constexpr uint64_t kZmmState = 0xe6;
  constexpr uint64_t kTileState = 0x60000;
  Detection d{cpu_isas(), IsaSet{Isa::kScalar}};
  const uint64_t xcr0 = has_bit(cpuid(1, 0).ecx, 27) ? read_xcr0() : 0;
  IsaSet saved{Isa::kScalar};
  if ((xcr0 & kYmmState) == kYmmState) {
    saved.insert(Isa::kAvx2);
    saved.insert(Isa::kAvxVnni);
  }
  if ((xcr0 & kZmmState) == kZmmState) {
    saved.insert(Isa::kAvx512);
    saved.insert(Isa::kAvx512Vnni);
    saved.insert(Isa::kAvx512Vbmi2);
    saved.insert(Isa::kAvx512Bf16);
    saved.insert(Isa::kAvx512Vbmi2Bf16);
  }
  const bool has_amx = d.cpu.contains(Isa::kAmxInt8) || d.cpu.contains(Isa::kAmxBf16);
  if (has_amx && (xcr0 & kTileState) == kTileState && request_amx_permission()) {
    saved.insert(Isa::kAmxInt8);
    saved.insert(Isa::kAmxBf16);
  }
  d.enabled = d.cpu & saved;
  return d;
}

const Detection& detection() {
  static const Detection d = detect();
  return d;
}

constinit std::atomic<IsaSet> pretended_isas{};

std::string_view state_name(Isa isa) {
  if (isa == Isa::kAmxInt8 || isa == Isa::kAmxBf16) return "AMX tile";
  if (isa == Isa::kAvx2 || isa == Isa::kAvxVnni) return "AVX";
  return "AVX-512";
}

}  // namespace

std::span<const Isa> all_isas() { return kAllIsas; }

std::string_view isa_name(Isa isa) { return kIsaNames[static_cast<size_t>(isa)]; }

std::string isa_names(IsaSet set) {
  std::string out;
  for (Isa isa : kAllIsas) {
    if (!set.contains(isa)) continue;
    if (!out.empty()) out += ", ";
    out += isa_name(isa);
  }
  return out;
}

std::span<const std::string_view> isa_level_names() { return kLevelNames; }

IsaSet hardware_isas() { return detection().enabled; }

IsaSet detected_isas() { return hardware_isas() | pretended_isas.load(); }

void pretend_isas_for_testing(IsaSet pretended) { pretended_isas.store(pretended); }

IsaSet available_isas() {
  const MaxIsaEnv env = max_isa_env();
  const IsaSet detected = detected_isas();
  if (env.value.empty()) return detected;
  return limit(detected, env.value).value_or(detected);
}

std::optional<IsaSet> limit(IsaSet set, std::string_view name) {
  for (size_t i = 0; i < std::size(kLevelNames); ++i) {
    if (kLevelNames[i] == name) return set & kLevelSets[i];
  }
  return std::nullopt;
}

MaxIsaEnv max_isa_env() {
  const char* value = std::getenv("SPRUN_MAX_ISA");
  if (value == nullptr || *value == '\0') return {};
  return {value, limit(IsaSet{}, value).has_value()};
}

std::string unavailable_reason(Isa isa, IsaSet allowed) {
  if (allowed.contains(isa)) return "";
  const size_t index = static_cast<size_t>(isa);
  const bool pretended = pretended_isas.load().contains(isa);
  if (!pretended && !detection().cpu.contains(isa)) {
    return "CPU has no " + std::string(kCpuFlags[index]);
  }
  if (!pretended && !hardware_isas().contains(isa)) {
    return "OS does not save " + std::string(state_name(isa)) + " registers";
  }
  if (!available_isas().contains(isa)) return "SPRUN_MAX_ISA=" + max_isa_env().value;
  return "excluded by the requested ISA limit";
}

}  // namespace sprun::kernels
