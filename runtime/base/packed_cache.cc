#include "runtime/base/packed_cache.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace sprun {

namespace {
constexpr int64_t kMapThreshold = int64_t{1} << 20;  // from here a private mapping: freed memory goes back at once
constexpr int64_t kHugePage = int64_t{1} << 21;

Result<PackedBlob> map_blob(int64_t size_bytes) {
  // Over-allocate so that the block can start on a huge page: weights are streamed, and 4 KiB pages cost TLB misses.
  const auto mapped = static_cast<size_t>(size_bytes + kHugePage);
  void* base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return Status(Code::kResourceLimit, "out of memory: " + std::to_string(size_bytes) + " bytes");
  }
  const auto address = reinterpret_cast<uintptr_t>(base);
  const uintptr_t start = (address + kHugePage - 1) / kHugePage * kHugePage;
  // Only whole huge pages: a partly used one would count as 2 MiB of resident memory.
  if (size_bytes >= kHugePage) {
    madvise(reinterpret_cast<void*>(start), static_cast<size_t>(size_bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
  }
  std::shared_ptr<void> data(reinterpret_cast<void*>(start), [base, mapped](void*) { munmap(base, mapped); });
  return PackedBlob{std::move(data), size_bytes};
}
}  // namespace

Result<PackedBlob> allocate_blob(int64_t size_bytes) {
  if (size_bytes < 0) return Status(Code::kInternal, "negative allocation");
  if (size_bytes >= kMapThreshold) return map_blob(size_bytes);
  const size_t rounded = (static_cast<size_t>(size_bytes) + 64) / 64 * 64;
  void* p = std::aligned_alloc(64, rounded);
  if (p == nullptr) return Status(Code::kResourceLimit, "out of memory: " + std::to_string(size_bytes) + " bytes");
  return PackedBlob{std::shared_ptr<void>(p, [](void* q) { std::free(q); }), size_bytes};
}

// Alone, a weight of less than a few huge pages lies on 4 KiB pages, whole or with its end, and products with one row
// read it a tenth to a fifth slower (measured on Zen 5, one thread). Such weights share large blocks instead, which
// live as long as any of them.
PackedBlob PackedCache::settle(PackedBlob blob) {
  constexpr int64_t kSmallest = int64_t{1} << 16, kLargest = 4 * kHugePage, kShared = 16 * kHugePage;
  if (blob.size_bytes < kSmallest || blob.size_bytes > kLargest) return blob;
  const int64_t size = (blob.size_bytes + 63) / 64 * 64;
  if (shared_.data == nullptr || shared_used_ + size > shared_.size_bytes) {
    auto block = allocate_blob(kShared);  // untouched pages take no memory
    if (!block.ok()) return blob;
    shared_ = std::move(*block);
    shared_used_ = 0;
  }
  char* place = static_cast<char*>(shared_.data.get()) + shared_used_;
  shared_used_ += size;
  std::memcpy(place, blob.data.get(), static_cast<size_t>(blob.size_bytes));
  return {std::shared_ptr<void>(shared_.data, place), blob.size_bytes};
}

Result<PackedBlob> PackedCache::get(const std::string& key, const std::function<Result<PackedBlob>()>& pack) {
  const std::lock_guard lock(mutex_);
  if (auto it = blobs_.find(key); it != blobs_.end()) return it->second;
  SPRUN_ASSIGN(PackedBlob blob, pack());
  blob = settle(std::move(blob));
  blobs_.emplace(key, blob);
  return blob;
}

int64_t PackedCache::total_bytes() const {
  const std::lock_guard lock(mutex_);
  int64_t total = 0;
  for (const auto& [key, blob] : blobs_) total += blob.size_bytes;
  return total;
}

}  // namespace sprun
