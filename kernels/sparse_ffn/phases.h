// Phases of one parallel region: units of work that any number of workers finishes.
//
//   struct Job {
//     int64_t units(int phase);
//     void run(int phase, int64_t unit, int64_t next, int worker);
//     void finish(int phase);
//   };
//   PhaseRegion<4> region;
//   region.begin(job, workers);
//   pool.parallel_for(workers, 1, [&](int64_t, int64_t, int w) { region.participate(job, w); });
//
// Every worker takes units of a range of its own, one after the other, so that it reads on where it
// was; then those that other ranges have left. Whoever completes the last unit of a phase runs finish() alone
// and opens the next phase; the others spin, and yield when it takes long. Nobody waits for a
// worker that never came: a taken unit is always being worked on. `next` is the unit that the
// worker has already taken after this one (or -1), so that it can fetch ahead.
#pragma once

#include <emmintrin.h>
#include <sched.h>

#include <atomic>
#include <cstdint>

namespace sprun::kernels {

template <int kPhases>
class PhaseRegion {
 public:
  template <class Job>
  void participate(Job& job, int worker) {
    int phase = open_.load(std::memory_order_acquire);
    while (phase < kPhases) {
      work(job, phase, worker);
      phase = wait_past(phase);
    }
  }

  // Opens the first phase; called once, before any worker participates.
  template <class Job>
  void begin(Job& job, int workers) {
    ranges_ = workers < kMostRanges ? workers : kMostRanges;
    open_from(job, 0);
  }

 private:
  static constexpr int kMostRanges = 8;

  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  struct Phase {
    Counter taken[kMostRanges];
    Counter done;
  };

  // Runs through phases without units.
  template <class Job>
  void open_from(Job& job, int phase) {
    while (phase < kPhases && job.units(phase) == 0) job.finish(phase++);
    open_.store(phase, std::memory_order_release);
  }

  template <class Job>
  void work(Job& job, int phase, int worker) {
    const int64_t units = job.units(phase);
    Counter& done = phases_[phase].done;
    for (int64_t unit = take(phase, units, worker); unit >= 0;) {
      const int64_t next = take(phase, units, worker);
      job.run(phase, unit, next, worker);
      if (done.value.fetch_add(1, std::memory_order_acq_rel) + 1 == units) {
        job.finish(phase);
        open_from(job, phase + 1);
      }
      unit = next;
    }
  }

  // -1: none is left.
  int64_t take(int phase, int64_t units, int worker) {
    for (int i = 0; i < ranges_; ++i) {
      const int range = (worker + i) % ranges_;
      Counter& taken = phases_[phase].taken[range];
      const int64_t unit = units * range / ranges_ +
                           taken.value.fetch_add(1, std::memory_order_relaxed);
      if (unit < units * (range + 1) / ranges_) return unit;
    }
    return -1;
  }

  int wait_past(int phase) const {
    constexpr int kSpins = 4000;  // some tens of microseconds
    for (int i = 0;; ++i) {
      const int open = open_.load(std::memory_order_acquire);
      if (open > phase) return open;
      if (i < kSpins) {
        _mm_pause();
      } else {
        sched_yield();
      }
    }
  }

  std::atomic<int> open_{0};
  int ranges_ = 1;
  Phase phases_[kPhases];
};

}  // namespace sprun::kernels
