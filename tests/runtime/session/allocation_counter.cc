#include "tests/runtime/session/allocation_counter.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> allocations{0};

void* counted(size_t size) {
  ++allocations;
  return std::malloc(size);
}
void* counted(size_t size, std::align_val_t align) {
  ++allocations;
  const auto a = static_cast<size_t>(align);
  return std::aligned_alloc(a, (size + a - 1) / a * a);
}
void* or_throw(void* p) {
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

int64_t sprun::allocation_count() { return allocations; }

// All forms for single objects: a sanitizer has its own of every form, and memory of one must not be freed by another.
void* operator new(size_t size) { return or_throw(counted(size)); }
void* operator new(size_t size, std::align_val_t align) { return or_throw(counted(size, align)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return counted(size); }
void* operator new(size_t size, std::align_val_t align, const std::nothrow_t&) noexcept { return counted(size, align); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }
