#include "runtime/base/packed_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace sprun {
namespace {

Result<PackedBlob> filled(int64_t size, int value) {
  SPRUN_ASSIGN(PackedBlob blob, allocate_blob(size));
  std::memset(blob.data.get(), value, static_cast<size_t>(size));
  return blob;
}

bool holds(const PackedBlob& blob, int64_t size, int value) {
  const auto* bytes = static_cast<const unsigned char*>(blob.data.get());
  for (int64_t i = 0; i < size; ++i) {
    if (bytes[i] != value) return false;
  }
  return blob.size_bytes == size && reinterpret_cast<uintptr_t>(bytes) % 64 == 0;
}

TEST(PackedCache, KeepsBlobsOfEverySize) {
  constexpr int64_t kMiB = 1 << 20;
  const std::vector<int64_t> sizes = {0,    1,            65'535,   65'536,       65'537,
                                      kMiB, 2 * kMiB + 1, 8 * kMiB, 8 * kMiB + 1, 9 * kMiB};
  std::vector<PackedBlob> blobs;
  int64_t total = 0;
  {
    PackedCache cache;
    for (int round = 0; round < 4; ++round) {  // more than one shared block
      for (size_t i = 0; i < sizes.size(); ++i) {
        const int value = round * 16 + static_cast<int>(i);
        const auto blob = cache.get(std::to_string(value), [&] { return filled(sizes[i], value); });
        ASSERT_TRUE(blob.ok()) << blob.status().message();
        blobs.push_back(*blob);
        total += sizes[i];
      }
    }
    EXPECT_EQ(cache.total_bytes(), total);
  }
  for (size_t b = 0; b < blobs.size(); ++b) {  // also after the cache is gone
    const size_t round = b / sizes.size(), i = b % sizes.size();
    EXPECT_TRUE(holds(blobs[b], sizes[i], static_cast<int>(round * 16 + i))) << sizes[i];
  }
}

TEST(PackedCache, PacksOnceAndKeepsNoFailure) {
  PackedCache cache;
  int calls = 0;
  const auto fail = [&]() -> Result<PackedBlob> {
    ++calls;
    return Status(Code::kResourceLimit, "no");
  };
  EXPECT_EQ(cache.get("a", fail).status().code(), Code::kResourceLimit);
  const auto pack = [&] {
    ++calls;
    return filled(100'000, 7);
  };
  const auto first = cache.get("a", pack), second = cache.get("a", pack);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->data.get(), second->data.get());
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace sprun
