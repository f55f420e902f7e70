#include "kernels/gemm/quantize_rows.h"

#include <cmath>

namespace sprun::kernels {

QuantParams dynamic_quant_params(float min, float max) {
  const float lo = min < 0.0F ? min : 0.0F;
  const float hi = max > 0.0F ? max : 0.0F;
  const float scale = (hi - lo) / 255.0F;
  // Also catches a range so small that the division underflows, and one that is not finite.
  if (!(scale > 0.0F) || !std::isfinite(scale)) return {1.0F, 0};
  const float zero = std::nearbyint(-lo / scale);
  return {scale, static_cast<int32_t>(zero > 255.0F ? 255.0F : zero)};
}

void quantize_rows_each(const QuantizeRowsKernel& kernel, const QuantizeRowsArgs& args,
                        int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.x + r * args.ldx;
    float lo = 0.0F;
    float hi = 0.0F;
    kernel.min_max(x, args.ldx, 1, args.k, &lo, &hi);
    const QuantParams params = dynamic_quant_params(lo, hi);
    args.scale[r] = params.scale;
    args.zero_point[r] = params.zero_point;
    int32_t* sum = args.sums == nullptr ? nullptr : args.sums + r;
    kernel.quantize(x, args.ldx, 1, args.k, params.scale, params.zero_point, args.y + r * args.ldy,
                    args.ldy, sum);
  }
}

}  // namespace sprun::kernels
