#include "graph/ops/elementwise.h"

#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
namespace {

struct HalfRow {
  RowFn* f32_row;
  DType dtype;
  bool narrow_output;
};

// A row of 16-bit floats: blocks of both inputs as float, the float row, and back.
void half_binary_row(const RowArgs& row) {
  const auto& half = *static_cast<const HalfRow*>(row.params);
  alignas(64) std::array<float, kHalfBlock> a, b, y;
  for (int64_t i = 0; i < row.n; i += kHalfBlock) {
    const int64_t n = std::min(kHalfBlock, row.n - i);
    widen(half.dtype, row.input<uint16_t>(0) + i * row.step[0], a.data(), row.step[0] != 0 ? n : 1);
    widen(half.dtype, row.input<uint16_t>(1) + i * row.step[1], b.data(), row.step[1] != 0 ? n : 1);
    RowArgs inner{.in = {a.data(), b.data()}, .step = row.step, .out = y.data(), .n = n};
    if (!half.narrow_output) inner.out = row.output<uint8_t>() + i;
    half.f32_row(inner);
    if (half.narrow_output) narrow(half.dtype, y.data(), row.output<uint16_t>() + i, n);
  }
}

Status infer_binary_as(InferContext& ctx, DType out) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == ctx.dtype(1),
                      "inputs have different types: " + std::string(dtype_name(ctx.dtype(0))) +
                          " and " + std::string(dtype_name(ctx.dtype(1)))));
  auto second = second_shape(ctx.attrs(), ctx.opset(), ctx.shape(0), ctx.shape(1));
  if (!second.ok()) return ctx.error(second.status().message());
  auto shape = broadcast_shapes(ctx.shape(0), *second);
  if (!shape.ok()) return ctx.error(shape.status().message());
  ctx.set_output(0, out, *shape);
  return {};
}

}  // namespace

void widen(DType dtype, const void* src, float* dst, int64_t n) {
  const kernels::ElementwiseKernel& kernel = *kernels::best_elementwise().kernel;
  (dtype == DType::kF16 ? kernel.f16_to_f32 : kernel.bf16_to_f32)(static_cast<const uint16_t*>(src),
                                                                  dst, n);
}

void narrow(DType dtype, const float* src, void* dst, int64_t n) {
  const kernels::ElementwiseKernel& kernel = *kernels::best_elementwise().kernel;
  (dtype == DType::kF16 ? kernel.f32_to_f16 : kernel.f32_to_bf16)(src, static_cast<uint16_t*>(dst),
                                                                  n);
}

Status prepare_elementwise(PrepareContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  if (is_float(dtype) && dtype != DType::kF64) {
    ctx.kernel = kernels::best_elementwise().name;
    ctx.regime = "bandwidth-bound";
  }
  return {};
}

Status run_float_map(RunContext& ctx, MapFn<float>* f32, MapFn<double>* f64, MapParams params,
                     int64_t grain) {
  const DType dtype = ctx.input(0).dtype;
  switch (dtype) {
    case DType::kF32:
      return run_typed_map<float, float>(ctx, grain, [&](const float* x, float* y, int64_t n) {
        f32(x, y, n, params.a, params.b);
      });
    case DType::kF64:
      return run_typed_map<double, double>(ctx, grain, [&](const double* x, double* y, int64_t n) {
        f64(x, y, n, params.a, params.b);
      });
    case DType::kF16:
    case DType::kBf16:
      return run_typed_map<uint16_t, uint16_t>(
          ctx, grain, [&](const uint16_t* x, uint16_t* y, int64_t n) {
            alignas(64) std::array<float, kHalfBlock> block;
            for (int64_t i = 0; i < n; i += kHalfBlock) {
              const int64_t count = std::min(kHalfBlock, n - i);
              widen(dtype, x + i, block.data(), count);
              f32(block.data(), block.data(), count, params.a, params.b);
              narrow(dtype, block.data(), y + i, count);
            }
          });
    default:
      return ctx.error("element type " + std::string(dtype_name(dtype)) +
                       " is not supported, expected a float type");
  }
}

Status infer_binary(InferContext& ctx) { return infer_binary_as(ctx, ctx.dtype(0)); }
Status infer_binary_bool(InferContext& ctx) { return infer_binary_as(ctx, DType::kBool); }

Result<Shape> second_shape(const AttrMap& attrs, int opset, const Shape& a, const Shape& b) {
  if (opset >= 7 || !attrs.has("axis") || attrs.get_int("broadcast", 0) == 0) return b;
  SPRUN_ASSIGN(const int axis, normalize_axis(attrs.get_int("axis", 0), a.rank()));
  Shape shape = b;
  while (shape.rank() < a.rank() - axis) shape.push_back(1);
  return shape;
}

Status run_binary(RunContext& ctx, const BinaryRun& run) {
  const ConstTensorView& a = ctx.input(0);
  const ConstTensorView& b = ctx.input(1);
  const TensorView& y = ctx.output(0);
  const bool half = a.dtype == DType::kF16 || a.dtype == DType::kBf16;
  if (run.row == nullptr && !(half && run.f32_row != nullptr)) {
    return ctx.error("element type " + std::string(dtype_name(a.dtype)) + " is not supported");
  }
  Shape second = run.second != nullptr ? *run.second : b.shape;
  if (run.second == nullptr) {
    SPRUN_ASSIGN(second, second_shape(ctx.attrs(), ctx.opset(), a.shape, b.shape));
  }
  const HalfRow half_row{run.f32_row, a.dtype, run.narrow_output};
  const BroadcastLoop loop = make_broadcast_loop({&a.shape, &second}, y.shape);
  run_rows(ctx.pool(), loop,
           {.in = {a.data, b.data},
            .in_size = {dtype_size(a.dtype), dtype_size(b.dtype)},
            .out = y.data,
            .out_size = dtype_size(y.dtype),
            .fn = run.row != nullptr ? run.row : half_binary_row,
            .params = run.row != nullptr ? run.params : &half_row,
            .grain = run.grain});
  return {};
}

}  // namespace sprun::graph
