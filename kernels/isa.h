// Which instruction sets this process may use: CPU and OS support, limited by SPRUN_MAX_ISA.
//
//   IsaSet isas = available_isas();
//   if (!isas.contains(Isa::kAvx512)) log(unavailable_reason(Isa::kAvx512, isas));
//
// Names and levels are listed in isa.def. All functions are thread safe and never fail.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sprun::kernels {

enum class Isa : uint8_t {
#define SPRUN_ISA(enumerator, name, cpu_flag) enumerator,
#include "kernels/isa.def"
};

class IsaSet {
 public:
  constexpr IsaSet() = default;
  constexpr IsaSet(std::initializer_list<Isa> list) {
    for (Isa isa : list) insert(isa);
  }
  constexpr void insert(Isa isa) { bits_ |= bit(isa); }
  constexpr bool contains(Isa isa) const { return (bits_ & bit(isa)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool operator==(const IsaSet&) const = default;
  friend constexpr IsaSet operator&(IsaSet a, IsaSet b) { return IsaSet(a.bits_ & b.bits_); }
  friend constexpr IsaSet operator|(IsaSet a, IsaSet b) { return IsaSet(a.bits_ | b.bits_); }

 private:
  constexpr explicit IsaSet(uint32_t bits) : bits_(bits) {}
  static constexpr uint32_t bit(Isa isa) { return 1U << static_cast<unsigned>(isa); }
  uint32_t bits_ = 0;
};

// Every Isa, lowest first.
std::span<const Isa> all_isas();
std::string_view isa_name(Isa isa);

// "avx2, avx512": the members in isa.def order.
std::string isa_names(IsaSet set);

// Names accepted by SPRUN_MAX_ISA and --isa, lowest first.
std::span<const std::string_view> isa_level_names();

// What the CPU has and the OS has switched on; the environment plays no part. Detected once
// (this is also where the process asks Linux for permission to use AMX).
IsaSet detected_isas();

// detected_isas() without what SPRUN_MAX_ISA forbids. An unknown name limits nothing and is
// reported by max_isa_env(). Reads the environment on every call.
IsaSet available_isas();

// The members of `set` that level `name` leaves usable; nullopt when the name is unknown.
std::optional<IsaSet> limit(IsaSet set, std::string_view name);

struct MaxIsaEnv {
  std::string value;   // empty: SPRUN_MAX_ISA is unset or empty
  bool known = true;   // false: the value is no level name, and is ignored
};
MaxIsaEnv max_isa_env();

// For tests alone: until the next call, detected_isas() also has the members of `pretended`, whose
// instructions an emulator runs. An empty set ends it; hardware_isas() is never changed by it.
void pretend_isas_for_testing(IsaSet pretended);
IsaSet hardware_isas();

// Why `isa` is not in `allowed`: "CPU has no avx512_bf16", "OS does not save AVX-512 registers",
// "SPRUN_MAX_ISA=avx2" or "excluded by the requested ISA limit". Empty when it is in `allowed`.
std::string unavailable_reason(Isa isa, IsaSet allowed);

}  // namespace sprun::kernels
