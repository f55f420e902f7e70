#include "kernels/isa.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/scoped_max_isa.h"

namespace sprun::kernels {
namespace {

using testing_support::ScopedMaxIsa;

IsaSet everything() {
  IsaSet set;
  for (Isa isa : all_isas()) set.insert(isa);
  return set;
}

TEST(Isa, BaselineIsAlwaysThere) {
  EXPECT_TRUE(detected_isas().contains(Isa::kScalar));
  const ScopedMaxIsa env("scalar");
  EXPECT_EQ(available_isas(), IsaSet{Isa::kScalar});
}

TEST(Isa, LevelsDropEverythingThatTheyDoNotImply) {
  const IsaSet avx512 = limit(everything(), "avx512").value();
  EXPECT_TRUE(avx512.contains(Isa::kAvx512));
  EXPECT_TRUE(avx512.contains(Isa::kAvx2));
  EXPECT_FALSE(avx512.contains(Isa::kAvxVnni));
  EXPECT_FALSE(avx512.contains(Isa::kAvx512Vnni));
  EXPECT_FALSE(avx512.contains(Isa::kAmxInt8));
  EXPECT_EQ(limit(everything(), "avx2").value(), (IsaSet{Isa::kScalar, Isa::kAvx2}));
  EXPECT_EQ(limit(everything(), "amx").value(), everything());
}

TEST(Isa, EveryLevelKeepsTheBaseline) {
  for (std::string_view name : isa_level_names()) {
    EXPECT_TRUE(limit(everything(), name).value().contains(Isa::kScalar)) << name;
  }
}

TEST(Isa, UnknownLevelIsReportedAndLimitsNothing) {
  EXPECT_FALSE(limit(everything(), "avx9000").has_value());
  const ScopedMaxIsa env("avx9000");
  EXPECT_EQ(max_isa_env().value, "avx9000");
  EXPECT_FALSE(max_isa_env().known);
  EXPECT_EQ(available_isas(), detected_isas());
}

TEST(Isa, ReasonNamesTheCause) {
  const IsaSet none;
  for (Isa isa : all_isas()) {
    if (detected_isas().contains(isa)) continue;
    EXPECT_NE(unavailable_reason(isa, none).find(" has no "), std::string::npos);
  }
  EXPECT_EQ(unavailable_reason(Isa::kScalar, available_isas()), "");
  EXPECT_EQ(unavailable_reason(Isa::kScalar, none), "excluded by the requested ISA limit");
  if (detected_isas().contains(Isa::kAvx2)) {
    const ScopedMaxIsa env("scalar");
    EXPECT_EQ(unavailable_reason(Isa::kAvx2, available_isas()), "SPRUN_MAX_ISA=scalar");
  }
}

TEST(Isa, NamesAreListedInOrder) {
  EXPECT_EQ(isa_names(IsaSet{Isa::kAvx512, Isa::kScalar}), "scalar, avx512");
  EXPECT_EQ(isa_names(IsaSet{}), "");
}

}  // namespace
}  // namespace sprun::kernels
