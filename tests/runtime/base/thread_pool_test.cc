#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>
#include <immintrin.h>

#include <atomic>
#include <vector>

namespace sprun {
namespace {

TEST(ThreadPool, CoversEveryIndexOnce) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 7, 64, 1001}) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
      pool.parallel_for(n, 3, [&](int64_t begin, int64_t end, int worker) {
        EXPECT_GE(worker, 0);
        EXPECT_LT(worker, pool.num_threads());
        for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
      });
      for (const auto& hit : hits) EXPECT_EQ(hit.load(), 1);
    }
  }
}

TEST(ThreadPool, RunsShortLoopsOnTheCallingThread) {
  ThreadPool pool(2);
  int calls = 0;
  pool.parallel_for(10, 10, [&](int64_t begin, int64_t end, int) {
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 10);
    ++calls;
  });
  EXPECT_EQ(calls, 1);
}

TEST(ThreadPool, FlushesDenormalsInsideAndRestoresTheCaller) {
  const unsigned before = _mm_getcsr();
  for (int threads : {1, 2}) {
    ThreadPool pool(threads);
    unsigned inside = 0;
    pool.enter([&] { inside = _mm_getcsr(); });
    EXPECT_EQ(inside & 0x8040u, 0x8040u);
    EXPECT_EQ(_mm_getcsr(), before);
  }
}

TEST(ThreadPool, UsesAtLeastOneCore) { EXPECT_GE(usable_cores(), 1); }

}  // namespace
}  // namespace sprun
