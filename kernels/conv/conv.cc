#include "kernels/conv/conv.h"

#include <algorithm>

namespace sprun::kernels {

#define SPRUN_CONV_F32(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const ConvKernel symbol;)
#include "kernels/conv/conv.def"

namespace {

constinit const KernelInfo<ConvKernel> kKernels[] = {
#define SPRUN_CONV_F32 SPRUN_KERNEL_ENTRY
#include "kernels/conv/conv.def"
};

// Saturates instead of overflowing: absurd sizes only need to compare as large.
int64_t product(int64_t a, int64_t b) {
  int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ? INT64_MAX / 4 : std::min(result, INT64_MAX / 4);
}

bool is_pointwise(const ConvShape& s) {
  for (const ConvAxis& a : s.axis) {
    if (a.kernel != 1 || a.stride != 1 || a.pad_begin != 0 || a.in != a.out) return false;
  }
  return true;
}

// The depthwise kernel copies rows into a buffer with one part per column stride; that pays for
// ordinary kernels only.
bool suits_depthwise(const ConvShape& s) {
  if (s.group_in() != 1) return false;
  constexpr int64_t kMaxStride = 4;
  constexpr int64_t kMaxExtent = 1 << 12;
  constexpr int64_t kMaxTaps = 1 << 12;
  if (s.axis[2].stride > kMaxStride || s.kernel_size() > kMaxTaps) return false;
  for (const ConvAxis& a : s.axis) {
    if (product(a.kernel - 1, a.dilation) > kMaxExtent || a.stride > kMaxExtent) return false;
  }
  return s.axis[2].out > 1;
}

ConvMethod choose_method(const ConvShape& s) {
  // Below this many positions most lanes of a panel would be empty. Measured on Zen 5: break-even
  // near 8.
  constexpr int64_t kMaxDotPositions = 6;
  constexpr int64_t kMinDotDepth = 16;
  if (s.out_size() <= kMaxDotPositions && s.depth() >= kMinDotDepth) return ConvMethod::kDot;
  return suits_depthwise(s) ? ConvMethod::kDepthwise : ConvMethod::kGemm;
}

// Panels of a block share the weights while these are in L1, and must stay in L2 together.
ConvTiling choose_tiling(const ConvKernel& kernel, const ConvShape& s, int workers) {
  constexpr int64_t kBlockBytes = 192 * 1024;
  constexpr int64_t kMaxBlockPanels = 8;
  constexpr int64_t kMinRows = 24;  // two register tiles
  constexpr int64_t kUnitsPerWorker = 4;
  constexpr int64_t kPageBytes = 4096;
  ConvTiling t;
  t.pointwise = is_pointwise(s);
  // Channels a whole number of pages apart fall into the same cache set: then gathering pays.
  const bool aliased = s.in_size() * 4 % kPageBytes == 0 && s.group_in() > 8;
  t.in_place = t.pointwise && !aliased;
  const int64_t panel_bytes = product(s.depth(), kernel.nr * 4);
  const int64_t panels = (s.out_size() + kernel.nr - 1) / kernel.nr;
  t.block_panels = std::clamp<int64_t>(kBlockBytes / panel_bytes, 1, kMaxBlockPanels);
  const int64_t images = s.batch * s.groups;
  const int64_t wanted = workers > 1 ? kUnitsPerWorker * workers : 1;
  // Smaller blocks first, then parts of the output channels, until every worker has enough units.
  while (t.block_panels > 1 &&
         product(images, (panels + t.block_panels - 1) / t.block_panels) < wanted) {
    t.block_panels /= 2;
  }
  t.block_panels = std::min(t.block_panels, panels);
  t.blocks = (panels + t.block_panels - 1) / t.block_panels;
  const int64_t units = product(images, t.blocks);
  if (units > 0 && units < wanted) {
    t.row_parts = std::clamp<int64_t>((wanted + units - 1) / units, 1,
                                      std::max<int64_t>(1, s.group_out() / kMinRows));
  }
  return t;
}

// Units of a task of at least kTaskNs, given the multiply-adds of one unit.
int64_t choose_grain(int64_t units, double unit_ops, double ops_per_ns, int workers) {
  constexpr double kTaskNs = 4000.0;
  if (workers == 1) return std::max<int64_t>(units, 1);
  const double smallest = kTaskNs * ops_per_ns / std::max(unit_ops, 1.0) + 1.0;
  return static_cast<int64_t>(std::min(smallest, 1e12));
}

}  // namespace

std::span<const KernelInfo<ConvKernel>> conv_f32_kernels() { return kKernels; }

const char* method_name(ConvMethod method) {
  switch (method) {
    case ConvMethod::kGemm:
      return "gemm";
    case ConvMethod::kDepthwise:
      return "depthwise";
    case ConvMethod::kDot:
      return "dot";
  }
  return "";
}

ConvPlan plan_conv(const ConvKernel& kernel, const ConvShape& s, int workers) {
  // Rates of one AVX-512 core, used only to see when a task would be too small to pay for itself.
  constexpr double kGemmOpsPerNs = 100.0, kDepthwiseOpsPerNs = 40.0, kDotOpsPerNs = 20.0;
  ConvPlan plan;
  plan.kernel = &kernel;
  plan.method = choose_method(s);
  const double channel_ops = static_cast<double>(s.out_size()) * static_cast<double>(s.depth());
  double unit_ops = channel_ops, rate = 1;
  plan.units = s.batch * s.out_channels;
  switch (plan.method) {
    case ConvMethod::kGemm:
      plan.tiling = choose_tiling(kernel, s, workers);
      plan.units = s.batch * s.groups * plan.tiling.blocks * plan.tiling.row_parts;
      plan.worker_floats = kernel.gemm_scratch(s, plan.tiling);
      unit_ops = channel_ops * static_cast<double>(s.batch * s.out_channels) /
                 static_cast<double>(std::max<int64_t>(plan.units, 1));
      rate = kGemmOpsPerNs;
      break;
    case ConvMethod::kDepthwise:
      plan.worker_floats = kernel.depthwise_scratch(s);
      rate = kDepthwiseOpsPerNs;
      break;
    case ConvMethod::kDot:
      plan.worker_floats = kernel.dot_scratch(s);
      rate = kDotOpsPerNs;
      break;
  }
  plan.worker_floats = (plan.worker_floats + 15) / 16 * 16;
  plan.grain = choose_grain(plan.units, unit_ops, rate, workers);
  plan.scratch_bytes = product(product(plan.worker_floats, 4), workers);
  return plan;
}

}  // namespace sprun::kernels
