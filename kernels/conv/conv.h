// f32 convolution with a fused epilogue: choosing a kernel and a method, and running it over
// several workers.
//
//   const ConvKernel& kernel = *select(conv_f32_kernels(), available_isas()).kernel;
//   const ConvPlan plan = plan_conv(kernel, shape, workers);            // once per shape
//   conv_f32(plan, {.shape = shape, .x = x, .w = w, ...}, scratch, parallel_for);
//
// parallel_for(n, grain, fn) must call fn(begin, end, worker) so that the ranges cover [0, n) once,
// with 0 <= worker < workers and no two calls of one worker at the same time. scratch:
// plan.scratch_bytes, 64-byte aligned, not shared with another running call. Nothing here
// allocates, locks or fails. Formula and layouts: conv_types.h. Regime: compute-bound.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/conv/conv_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<ConvKernel>> conv_f32_kernels();

struct ConvPlan {
  const ConvKernel* kernel = nullptr;
  ConvMethod method = ConvMethod::kGemm;
  ConvTiling tiling;          // kGemm
  int64_t units = 0;          // of the method
  int64_t grain = 1;          // units that are worth a task
  int64_t worker_floats = 0;  // scratch of one worker
  int64_t scratch_bytes = 0;  // of all workers
};

// Precondition: every size of the shape is positive but batch, which may be 0; groups divides the
// channels.
ConvPlan plan_conv(const ConvKernel& kernel, const ConvShape& shape, int workers);
// "gemm", "depthwise" or "dot".
const char* method_name(ConvMethod method);

// More scratch than this means an absurd problem (a kernel dilated over gigabytes); callers then
// use a plain loop.
inline constexpr int64_t kMaxConvScratchBytes = int64_t{256} << 20;

// act(v) of the epilogue, without scale and shift.
double conv_activate(const ConvEpilogue& epilogue, double v);

// Units [begin, end) of the plan's method.
inline void run_conv_units(const ConvPlan& plan, const ConvArgs& args, int64_t begin, int64_t end,
                           float* scratch) {
  switch (plan.method) {
    case ConvMethod::kGemm:
      return plan.kernel->gemm(args, plan.tiling, begin, end, scratch);
    case ConvMethod::kDepthwise:
      return plan.kernel->depthwise(args, begin, end, scratch);
    case ConvMethod::kDot:
      return plan.kernel->dot(args, begin, end, scratch);
  }
}

template <class ParallelFor>
void conv_f32(const ConvPlan& plan, const ConvArgs& args, void* scratch,
              const ParallelFor& parallel_for) {
  float* const base = static_cast<float*>(scratch);
  const auto work = [&](int64_t begin, int64_t end, int worker) {
    run_conv_units(plan, args, begin, end, base + plan.worker_floats * worker);
  };
  if (plan.units == 0) return;
  if (plan.grain >= plan.units) {
    work(0, plan.units, 0);
  } else {
    parallel_for(plan.units, plan.grain, work);
  }
}

}  // namespace sprun::kernels
