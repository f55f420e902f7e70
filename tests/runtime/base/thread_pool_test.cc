#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>
#include <immintrin.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

#include <atomic>
#include <chrono>
#include <thread>
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

TEST(ThreadPool, WorksInTheArenaOfTheCaller) {
  tbb::task_arena arena(3);
  ThreadPool pool{TaskArena(arena)};
  EXPECT_EQ(pool.num_threads(), 3);
  std::vector<std::atomic<int>> hits(1001);
  std::atomic<int> outside{0};
  pool.parallel_for(1001, 3, [&](int64_t begin, int64_t end, int worker) {
    EXPECT_LT(worker, 3);
    if (tbb::this_task_arena::max_concurrency() != 3) ++outside;
    for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
  });
  for (const auto& hit : hits) EXPECT_EQ(hit.load(), 1);
  EXPECT_EQ(outside.load(), 0);
  int inside = 0;
  pool.enter([&] { inside = tbb::this_task_arena::max_concurrency(); });
  EXPECT_EQ(inside, 3);
}

// While a thread waits for the part of its loop that another one does, a new request arrives.
TEST(ThreadPool, LoopsInASharedArenaDoNotStartOtherWork) {
  using std::this_thread::get_id;
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  tbb::task_arena arena(2);
  std::atomic<int> nested{0}, helped{0};
  arena.execute([&] {
    ThreadPool pool{TaskArena(arena)};
    tbb::task_group requests;
    for (int i = 0; i < 50 && helped < 5; ++i) {
      const auto waiting = get_id();
      std::atomic<bool> in_loop{true};
      pool.parallel_for(2, 1, [&](int64_t, int64_t, int) {
        pause();
        if (get_id() == waiting) return;
        ++helped;
        arena.enqueue(requests.defer([&] { nested += in_loop && get_id() == waiting; }));
        pause();
      });
      in_loop = false;
      requests.wait();
    }
  });
  EXPECT_EQ(nested.load(), 0);
}

TEST(ThreadPool, UsesAtLeastOneCore) { EXPECT_GE(usable_cores(), 1); }

}  // namespace
}  // namespace sprun
