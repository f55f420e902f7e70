#include "tools/sprun/command.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tools/sprun/console.h"
#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

TEST(ExitCode, EveryCodeHasItsOwnAndIsInTheTable) {
  const std::string table = exit_code_table();
  std::set<int> seen;
  for (Code code : {Code::kOk, Code::kInternal, Code::kUsage, Code::kBadModel, Code::kBadInput, Code::kMismatch,
                    Code::kResourceLimit, Code::kNotSupported, Code::kCancelled}) {
    const int value = exit_code(Status(code, ""), false);
    EXPECT_TRUE(seen.insert(value).second) << value;
    EXPECT_NE(table.find("\n  " + std::to_string(value) + " "), std::string::npos) << value;
  }
  EXPECT_EQ(exit_code(Status(Code::kCancelled, ""), true), 130);
  EXPECT_EQ(exit_code(Status(Code::kCancelled, ""), false), 7);
}

TEST(Stats, QuantilesInterpolate) {
  EXPECT_EQ(quantile({}, 0.5), 0);
  EXPECT_EQ(quantile({3}, 0.99), 3);
  EXPECT_EQ(quantile({4, 1, 3, 2}, 0.5), 2.5);
  const LatencyStats s = latency_stats({1, 2, 3, 4, 5});
  EXPECT_EQ(s.min, 1);
  EXPECT_EQ(s.p50, 3);
  EXPECT_EQ(s.mean, 3);
}

TEST(Console, TableAlignsNumbersRight) {
  EXPECT_EQ(format_table({{"name", "n"}, {"a", "10"}, {"bb", "5"}}), "name   n\na     10\nbb     5\n");
}

TEST(Console, JsonIsAlwaysUtf8) {
  EXPECT_NO_THROW(dump_json({{"name", "\xff\xfe"}}, -1));
}

}  // namespace
}  // namespace sprun::tools
