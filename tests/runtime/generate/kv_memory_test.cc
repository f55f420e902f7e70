// Memory of keys and values: it grows with the tokens there are, not with the context asked for, and goes back at the end.
#include "runtime/generate/kv_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "sprun/sprun.h"
#include "tests/runtime/session/generated_model.h"

namespace sprun {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(KvMemory, TakesWhatIsWrittenAndGivesItBack) {
  const std::vector<KvPart> parts = {{4, 64 * kMiB}, {3, 100}, {4, 64 * kMiB}};
  const int64_t before = resident_bytes();
  KvMemory memory = KvMemory::reserve(parts).value();
  EXPECT_GE(memory.reserved_bytes(), 512 * kMiB);
  EXPECT_EQ(memory.committed_bytes(), 0);
  for (size_t i = 0; i < parts.size(); ++i) EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.at(i)) % 64, 0U);
  auto* second = static_cast<char*>(memory.at(2));
  for (int64_t row = 0; row < 4; ++row) std::memset(second + row * 64 * kMiB, 7, kMiB / 2);
  EXPECT_GE(memory.committed_bytes(), 2 * kMiB);
  EXPECT_LE(memory.committed_bytes(), 2 * kMiB + 8 * 65536);
  EXPECT_LT(resident_bytes() - before, 16 * kMiB);
  memory.release();
  EXPECT_EQ(memory.committed_bytes(), 0);
  EXPECT_EQ(second[0], 0);
}

TEST(KvMemory, AContextThatFillsUpMayHaveLargePages) {
  KvMemory memory = KvMemory::reserve(std::vector<KvPart>{{2, 8 * kMiB}}).value();
  memory.expect(100, 1000);
  static_cast<char*>(memory.at(0))[0] = 1;
  EXPECT_LT(memory.committed_bytes(), kMiB);
  memory.expect(250, 1000);
  std::memset(memory.at(0), 1, static_cast<size_t>(4 * kMiB));
  EXPECT_GE(memory.committed_bytes(), 4 * kMiB);
  EXPECT_LE(memory.committed_bytes(), memory.reserved_bytes());
  memory.release();
  static_cast<char*>(memory.at(0))[0] = 1;
  EXPECT_LT(memory.committed_bytes(), kMiB);
}

TEST(KvMemory, RefusesMoreThanThereIs) {
  EXPECT_EQ(KvMemory::reserve(std::vector<KvPart>{{1, int64_t{1} << 60}}).status().code(), Code::kResourceLimit);
  const KvPart half{2, std::numeric_limits<int64_t>::max() / 2};
  EXPECT_EQ(KvMemory::reserve(std::vector<KvPart>{half, half}).status().code(), Code::kResourceLimit);
  EXPECT_EQ(KvMemory::reserve({}).value().committed_bytes(), 0);
}

class KvContext : public testing::TestWithParam<KvType> {};

// Resident memory while a session generates, read within the sink.
TEST_P(KvContext, CostsNothingWhereNoTokenIs) {
  modelgen::Config config = modelgen::preset("llama-mini").value();
  config.past = true;
  const GeneratedModel model(config);
  Session session = Session::create(Model::load(model.path()).value(), {.num_threads = 1}).value();
  int64_t resident = 0;
  const auto generate = [&](int64_t context, int tokens) {
    return session.generate(std::vector<int64_t>{5, 17, 3}, {.max_new_tokens = context, .kv_type = GetParam()}, [&](int64_t) {
      resident = resident_bytes();
      return --tokens > 0;
    }).value();
  };
  const GenerateResult little = generate(16, 10);
  const int64_t resident_little = resident;
  constexpr int64_t kContext = 65536;
  const GenerateResult few = generate(kContext, 10);
  ASSERT_TRUE(few.cached) << few.why_not;
  EXPECT_EQ(few.tokens, little.tokens);
  const int64_t token_bytes = few.kv_bytes / 12;
  EXPECT_EQ(few.kv_bytes, token_bytes * 12);
  EXPECT_GE(few.kv_committed_bytes, few.kv_bytes);
  EXPECT_LT(few.kv_committed_bytes, kContext * token_bytes / 50);
  // Beside keys and values there are rotary tables for all positions, and what planning left in the heap.
  EXPECT_LT(resident - resident_little, 72 * kMiB);
  const GenerateResult many = generate(kContext, 1000);
  EXPECT_EQ(many.kv_bytes, token_bytes * (3 + 999));
  EXPECT_LT(many.kv_committed_bytes, 2 * many.kv_bytes);
}

// Pieces of a prompt get shorter, or planning could not read their masks.
TEST(KvLongContext, PromptsOfLongContextsKeepThePastInPlace) {
  modelgen::Config config = modelgen::preset("llama-mini").value();
  config.past = true;
  config.layers = 2;
  const GeneratedModel model(config);
  Session session = Session::create(Model::load(model.path()).value(), {.num_threads = 1}).value();
  std::vector<int64_t> prompt(100, 7);
  int tokens = 4;
  const auto result = session.generate(prompt, {.max_new_tokens = (1 << 17) - 100}, [&](int64_t) { return --tokens > 0; });
  EXPECT_TRUE(result.value().cached) << result->why_not;
}

INSTANTIATE_TEST_SUITE_P(Types, KvContext, testing::Values(KvType::kF32, KvType::kBf16, KvType::kInt8));

}  // namespace
}  // namespace sprun
