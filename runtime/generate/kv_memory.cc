#include "runtime/generate/kv_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace sprun {

namespace {

constexpr int64_t kAlignment = 64;

// Adds the bytes of a part, rounded up; false when that is more than a number can say.
bool add_part(const KvPart& part, int64_t& size) {
  int64_t bytes = 0;
  if (__builtin_mul_overflow(part.rows, part.row_bytes, &bytes)) return false;
  if (__builtin_add_overflow(bytes, kAlignment - 1, &bytes)) return false;
  return !__builtin_add_overflow(size, bytes / kAlignment * kAlignment, &size);
}

}  // namespace

Result<KvMemory> KvMemory::reserve(std::span<const KvPart> parts) {
  KvMemory memory;
  for (const KvPart& part : parts) {
    memory.offsets_.push_back(memory.size_);
    if (!add_part(part, memory.size_)) {
      return Status(Code::kResourceLimit, "the keys and values of the context are too large");
    }
  }
  if (memory.size_ == 0) return memory;
  const auto size = static_cast<size_t>(memory.size_);
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return Status(Code::kResourceLimit,
                  "no address space for keys and values of " + std::to_string(memory.size_) + " bytes");
  }
  memory.memory_ = std::shared_ptr<void>(base, [size](void* p) { munmap(p, size); });
  // The first token of each row would take a page of 2 MiB where the system gives those unasked.
  madvise(base, size, MADV_NOHUGEPAGE);
  return memory;
}

int64_t KvMemory::committed_bytes() const {
  constexpr int64_t kPages = 4096;  // looked at together
  const int64_t page = sysconf(_SC_PAGESIZE);
  unsigned char resident[kPages];
  int64_t total = 0;
  for (int64_t begin = 0; begin < size_; begin += kPages * page) {
    const int64_t bytes = std::min(kPages * page, size_ - begin);
    if (mincore(static_cast<char*>(memory_.get()) + begin, static_cast<size_t>(bytes), resident) != 0) return size_;
    const int64_t pages = (bytes + page - 1) / page;
    total += page * std::count_if(resident, resident + pages, [](unsigned char p) { return (p & 1) != 0; });
  }
  return total;
}

void KvMemory::expect(int64_t tokens, int64_t capacity) {
  if (huge_ || size_ == 0 || tokens < capacity / 4) return;
  madvise(memory_.get(), static_cast<size_t>(size_), MADV_HUGEPAGE);
  huge_ = true;
}

void KvMemory::release() {
  if (size_ == 0) return;
  madvise(memory_.get(), static_cast<size_t>(size_), MADV_DONTNEED);
  madvise(memory_.get(), static_cast<size_t>(size_), MADV_NOHUGEPAGE);
  huge_ = false;
}

}  // namespace sprun
