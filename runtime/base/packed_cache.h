// PackedCache: weights in kernel layouts, made once per model and shared by all its plans.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "sprun/status.h"

namespace sprun {

// An aligned block of bytes that a packer filled.
struct PackedBlob {
  std::shared_ptr<void> data;  // 64-byte aligned
  int64_t size_bytes = 0;
};

// Thread-safe.
class PackedCache {
 public:
  // The blob under `key`, made by `pack` on first use. The key must name the source constants (Tensor::id) and the
  // layout, for example "gemm_f32_n32:17". What `pack` made may be copied elsewhere: it holds no addresses of itself.
  Result<PackedBlob> get(const std::string& key, const std::function<Result<PackedBlob>()>& pack);
  int64_t total_bytes() const;

 private:
  PackedBlob settle(PackedBlob blob);

  mutable std::mutex mutex_;
  std::map<std::string, PackedBlob> blobs_;
  PackedBlob shared_;  // where the next small blobs go
  int64_t shared_used_ = 0;
};

// 64-byte aligned memory (large blocks straight from the system, so that freeing returns them).
// kResourceLimit if it cannot be had.
Result<PackedBlob> allocate_blob(int64_t size_bytes);

}  // namespace sprun
