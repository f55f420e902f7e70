// TaskArena: a oneTBB arena of the caller's that a session works in, so that a service decides in one place how many
// threads there are and where they run.
//
//   tbb::task_arena arena(4);
//   auto session = sprun::Session::create(model, {.arena = arena}).value();
#pragma once

#include <concepts>

namespace sprun {

// A reference, copied freely; the arena must outlive the sessions that use it. Any type with the execute(fn) and
// max_concurrency() of tbb::task_arena will do; this header includes nothing of oneTBB.
class TaskArena {
 public:
  using Body = void (*)(const void* fn);

  TaskArena() = default;  // none
  template <class Arena>
    requires(!std::same_as<Arena, TaskArena>) && requires(Arena& a) { a.max_concurrency(); }
  TaskArena(Arena& arena)  // NOLINT: meant to convert
      : arena_(&arena), concurrency_(arena.max_concurrency()), execute_([](void* a, Body body, const void* fn) {
          static_cast<Arena*>(a)->execute([body, fn] { body(fn); });
        }) {}

  explicit operator bool() const { return arena_ != nullptr; }
  int max_concurrency() const { return concurrency_; }
  // Runs body(fn) on a thread of the arena and waits.
  void execute(Body body, const void* fn) const { execute_(arena_, body, fn); }

 private:
  void* arena_ = nullptr;
  int concurrency_ = 0;
  void (*execute_)(void* arena, Body body, const void* fn) = nullptr;
};

}  // namespace sprun
