// Identity, and Dropout, which at inference is an identity with a mask of ones.
#include <cstring>
#include <random>

#include "graph/ops/elementwise.h"

namespace sprun::graph {
namespace {

Status run_identity(RunContext& ctx) {
  const ConstTensorView& x = ctx.input(0);
  char* y = ctx.output(0).as<char>();
  if (x.data == y) return {};
  ctx.pool().parallel_for(x.size_bytes(), 4 * kCheapGrain, [&](int64_t begin, int64_t end, int) {
    std::memcpy(y + begin, x.as<char>() + begin, static_cast<size_t>(end - begin));
  });
  return {};
}

// --- Dropout. From opset 12 ratio and training_mode are inputs; before, graphs that reach a
// runtime are for inference.

Status infer_dropout(InferContext& ctx) {
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  ctx.set_output(1, ctx.opset() >= 10 ? DType::kBool : ctx.dtype(0), ctx.shape(0));
  return {};
}

// Keeps each element with probability 1 - ratio and scales it by 1 / (1 - ratio). The generator is
// MT19937 with 53-bit doubles, as in NumPy's legacy generator, so that a seed gives the mask that
// the ONNX reference draws.
class DropoutMask {
 public:
  DropoutMask(int64_t seed, double ratio)
      : generator_(static_cast<uint32_t>(seed)), ratio_(ratio) {}

  bool keep() {
    const uint64_t high = generator_() >> 5;
    const uint64_t low = generator_() >> 6;
    return static_cast<double>((high << 26) + low) * 0x1p-53 >= ratio_;
  }

 private:
  std::mt19937 generator_;
  double ratio_;
};

Status run_training(RunContext& ctx, double ratio) {
  SPRUN_TRY(ctx.check(ratio >= 0 && ratio < 1,
                      "ratio is " + std::to_string(ratio) + ", expected [0, 1)"));
  DropoutMask mask(ctx.attrs().get_int("seed", 0), ratio);
  uint8_t* kept = ctx.has_output(1) ? ctx.output(1).as<uint8_t>() : nullptr;
  const int64_t n = ctx.input(0).num_elements();
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    T* y = ctx.output(0).as<T>();
    const auto scale = static_cast<ComputeType<T>>(1.0 / (1.0 - ratio));
    for (int64_t i = 0; i < n; ++i) {
      const bool keep = mask.keep();
      y[i] = store<T>(keep ? load(x[i]) * scale : ComputeType<T>{0});
      if (kept != nullptr) kept[i] = keep;
    }
    return Status();
  });
}

Status run_dropout(RunContext& ctx) {
  if (ctx.opset() >= 12 && ctx.has_input(2)) {
    SPRUN_ASSIGN(const double training, read_scalar(ctx.input(2)));
    double ratio = 0.5;
    if (ctx.has_input(1)) {
      SPRUN_ASSIGN(ratio, read_scalar(ctx.input(1)));
    }
    if (training != 0) return run_training(ctx, ratio);
  }
  if (ctx.has_output(1)) {
    const TensorView& mask = ctx.output(1);
    if (mask.dtype == DType::kBool) {
      std::memset(mask.data, 1, static_cast<size_t>(mask.num_elements()));
    } else {
      SPRUN_TRY(dispatch_real(ctx, mask.dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        std::fill_n(mask.as<T>(), mask.num_elements(), store<T>(1.0f));
        return Status();
      }));
    }
  }
  return run_identity(ctx);
}

constexpr OpDef kOps[] = {
    {.name = "Identity", .infer = infer_same_as_input, .run = run_identity, .flags = kView},
    {.name = "Dropout",
     .inputs = {1, 3},
     .outputs = {1, 2},
     .infer = infer_dropout,
     .run = run_dropout,
     .flags = kInPlace | kRandom},
};

}  // namespace

extern const std::span<const OpDef> k_identity_ops;
const std::span<const OpDef> k_identity_ops = kOps;

}  // namespace sprun::graph
