// ThreadPool: the only way sprun code runs in parallel. Wraps a oneTBB arena.
//
//   pool.parallel_for(rows, 64, [&](int64_t begin, int64_t end, int worker) { ... });
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "sprun/task_arena.h"

namespace sprun {

class ThreadPool {
 public:
  // num_threads >= 1, at most the cores that the process may use; 0 means all of them. One thread never starts a worker.
  explicit ThreadPool(int num_threads);
  // Works in the caller's arena, with all of its threads; loops are isolated from other work there.
  explicit ThreadPool(const TaskArena& arena);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls fn(begin, end, worker) for ranges that cover [0, n) once. Ranges have at least `grain` elements (but for
  // the last). 0 <= worker < num_threads(). Runs inline when n <= grain or the pool has one thread. Blocks until done.
  // fn must not throw.
  template <class Fn>
  void parallel_for(int64_t n, int64_t grain, const Fn& fn) {
    if (n <= 0) return;
    if (num_threads_ == 1 || n <= grain) {
      fn(int64_t{0}, n, 0);
      return;
    }
    run(n, grain, [](const void* f, int64_t b, int64_t e, int w) { (*static_cast<const Fn*>(f))(b, e, w); }, &fn);
  }

  // Runs fn on a thread of this pool's arena and waits: a session enters once per request, so that parallel loops
  // inside start without a hand-over.
  template <class Fn>
  void enter(const Fn& fn) {
    enter_impl([](const void* f) { (*static_cast<const Fn*>(f))(); }, &fn);
  }

 private:
  using Body = void (*)(const void* fn, int64_t begin, int64_t end, int worker);
  void run(int64_t n, int64_t grain, Body body, const void* fn);
  void enter_impl(void (*body)(const void*), const void* fn);

  struct Impl;
  std::unique_ptr<Impl> impl_;
  int num_threads_;
};

// Number of cores this process may run on: affinity mask and container CPU quota.
int usable_cores();

}  // namespace sprun
