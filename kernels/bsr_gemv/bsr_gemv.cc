#include "kernels/bsr_gemv/bsr_gemv.h"

#include <algorithm>

namespace sprun::kernels {

#define SPRUN_BSR_GEMV_U8S8(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const BsrGemvU8S8Kernel symbol;)
#define SPRUN_BSR_GEMV_BF16(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const BsrGemvBf16Kernel symbol;)
#include "kernels/bsr_gemv/bsr_gemv.def"

namespace {

constinit const KernelInfo<BsrGemvU8S8Kernel> kU8S8[] = {
#define SPRUN_BSR_GEMV_U8S8 SPRUN_KERNEL_ENTRY
#include "kernels/bsr_gemv/bsr_gemv.def"
};
constinit const KernelInfo<BsrGemvBf16Kernel> kBf16[] = {
#define SPRUN_BSR_GEMV_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/bsr_gemv/bsr_gemv.def"
};

const int64_t* panel_table(const GemvBlob& blob) {
  const char* base = reinterpret_cast<const char*>(&blob);
  return reinterpret_cast<const int64_t*>(base + blob.panels_offset);
}

// Bytes of positions and values before panel p.
int64_t bytes_before(const GemvBlob& blob, int64_t p) {
  return panel_table(blob)[p] +
         p * kGemvPanel * gemv_chunks(blob.k) * gemv_index_bytes(blob.format);
}

}  // namespace

std::span<const KernelInfo<BsrGemvU8S8Kernel>> bsr_gemv_u8s8_kernels() { return kU8S8; }
std::span<const KernelInfo<BsrGemvBf16Kernel>> bsr_gemv_bf16_kernels() { return kBf16; }

int64_t GemvSplit::begin(int64_t i) const {
  if (i >= parts) return panels;
  const int64_t wanted = bytes_before(*blob, panels) / parts * i;
  int64_t low = 0;
  int64_t high = panels;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (bytes_before(*blob, middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

GemvSplit make_gemv_split(const GemvBlob& blob, int64_t m, int workers) {
  // Rates of one AVX-512 core, used only to see when a part would be too small to pay for itself.
  constexpr double kBytesPerNs = 20.0;
  constexpr double kWeightsPerNs = 100.0;
  constexpr double kPartNs = 4000.0;
  constexpr int64_t kPartsPerWorker = 4;
  const int64_t panels = gemv_panels(blob.n);
  if (m <= 0) return {&blob, 0, 0};
  if (workers == 1 || panels == 0) return {&blob, panels, 1};
  const double weights = static_cast<double>(blob.n) * static_cast<double>(blob.k);
  const double ns = std::max(static_cast<double>(bytes_before(blob, panels)) / kBytesPerNs,
                             weights * static_cast<double>(m) / kWeightsPerNs);
  const int64_t worthwhile = static_cast<int64_t>(ns / kPartNs);
  const int64_t parts = std::min({panels, kPartsPerWorker * workers, worthwhile});
  return {&blob, panels, std::max<int64_t>(parts, 1)};
}

}  // namespace sprun::kernels
