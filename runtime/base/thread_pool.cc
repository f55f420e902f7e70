// The only file, but for tests, that includes oneTBB.
#include "runtime/base/thread_pool.h"

#include <immintrin.h>
#include <sched.h>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <string>

namespace sprun {

namespace {

constexpr unsigned kFlushDenormals = 0x8040;  // MXCSR bits FTZ and DAZ

// Flushes denormals while it lives; the caller gets its own setting back.
class DenormalScope {
 public:
  DenormalScope() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushDenormals); }
  ~DenormalScope() { _mm_setcsr(saved_); }
  DenormalScope(const DenormalScope&) = delete;
  DenormalScope& operator=(const DenormalScope&) = delete;

 private:
  unsigned saved_;
};

// What oneTBB promises, said again where ThreadSanitizer sees it (the system's oneTBB is not instrumented): everything
// before a loop happens before its tasks, and these before everything after it. Nothing in other builds.
class HandOver {
 public:
#ifdef __SANITIZE_THREAD__
  HandOver() { given_.store(1, std::memory_order_release); }
  void begin_task() { given_.load(std::memory_order_acquire); }
  void end_task() { done_.fetch_add(1, std::memory_order_release); }
  void finish() { done_.load(std::memory_order_acquire); }

 private:
  std::atomic<int> given_{0}, done_{0};
#else
  void begin_task() {}
  void end_task() {}
  void finish() {}
#endif
};

// Cores granted by a cgroup v2 quota, rounded up; a large number when there is none.
int cgroup_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 1 << 20;
  const double cores = std::strtod(quota.c_str(), nullptr) / period;
  return cores > 0 ? static_cast<int>(cores + 0.999) : 1 << 20;
}

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(int num_threads) : own(num_threads), arena(own) {}
  explicit Impl(const TaskArena& given) : arena(given), is_shared(true) {}

  template <class Fn>
  void execute(const Fn& fn) {
    arena.execute([](const void* f) { (*static_cast<const Fn*>(f))(); }, &fn);
  }

  tbb::task_arena own;
  TaskArena arena;
  bool is_shared = false;
};

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cores = 1;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  return std::max(1, std::min(cores, cgroup_cores()));
}

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads > 0 ? std::min(num_threads, usable_cores()) : usable_cores()) {
  if (num_threads_ > 1) impl_ = std::make_unique<Impl>(num_threads_);
}

ThreadPool::ThreadPool(const TaskArena& arena) : num_threads_(std::max(1, arena.max_concurrency())) {
  impl_ = std::make_unique<Impl>(arena);
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::run(int64_t n, int64_t grain, Body body, const void* fn) {
  grain = std::max<int64_t>(grain, 1);
  // A few chunks a thread: enough to balance when another process takes a core, few enough to stay cheap.
  const int64_t max_chunks = int64_t{num_threads_} * 4;
  const int64_t chunk = std::max(grain, (n + max_chunks - 1) / max_chunks);
  const int64_t chunks = (n + chunk - 1) / chunk;
  HandOver hand_over;
  const auto loop = [&] {
    tbb::parallel_for(
        tbb::blocked_range<int64_t>(0, chunks, 1),
        [&](const tbb::blocked_range<int64_t>& r) {
          const DenormalScope flush;  // oneTBB gives each task the settings of the arena
          const int worker = std::max(0, tbb::this_task_arena::current_thread_index());
          hand_over.begin_task();
          body(fn, r.begin() * chunk, std::min(n, r.end() * chunk), worker);
          hand_over.end_task();
        },
        tbb::simple_partitioner());
  };
  // A thread that waits in an arena of many users must not start on a request that comes back for this session.
  impl_->execute([&] { impl_->is_shared ? tbb::this_task_arena::isolate(loop) : loop(); });
  hand_over.finish();
}

void ThreadPool::enter_impl(void (*body)(const void*), const void* fn) {
  HandOver hand_over;
  const auto flushed = [&] {
    const DenormalScope flush;
    hand_over.begin_task();
    body(fn);
    hand_over.end_task();
  };
  if (impl_) {
    impl_->execute(flushed);
    hand_over.finish();
  } else {
    flushed();
  }
}

}  // namespace sprun
