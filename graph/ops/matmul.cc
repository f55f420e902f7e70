// MatMul (ai.onnx) and FusedMatMul / TransposeMatMul (com.microsoft). floats up to 32 bits run on float_product.h,
// every other type on the plain loop.
#include <string>

#include "graph/ops/float_product.h"
#include "graph/ops/matmul_util.h"
#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

MatMulFlags flags_of(const AttrMap& attrs) {
  return {.trans_a = attrs.get_int("transA", 0) != 0,
          .trans_b = attrs.get_int("transB", 0) != 0,
          .trans_batch_a = attrs.get_int("transBatchA", 0) != 0,
          .trans_batch_b = attrs.get_int("transBatchB", 0) != 0};
}

Status infer_matmul(InferContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == ctx.dtype(1), "operands differ in type"));
  auto plan = plan_matmul(ctx.shape(0), ctx.shape(1), flags_of(ctx.attrs()));
  if (!plan.ok()) return ctx.error(plan.status().message());
  ctx.set_output(0, ctx.dtype(0), plan->out);
  return {};
}

Status prepare_matmul(PrepareContext& ctx) {
  if (!is_float(ctx.input(0).dtype) || ctx.input(0).dtype == DType::kF64) {
    ctx.rejected.push_back({"gemm_f32", "element type is " + std::string(dtype_name(ctx.input(0).dtype))});
    return {};
  }
  SPRUN_ASSIGN(const MatMulShapes plan, plan_matmul(ctx.input(0).shape, ctx.input(1).shape, flags_of(ctx.attrs())));
  SPRUN_ASSIGN(ctx.state, FloatProduct::prepare(ctx, plan.gemm, 0, 1));
  return {};
}

Status run_matmul(RunContext& ctx) {
  if (const auto* product = static_cast<const FloatProduct*>(ctx.state())) {
    product->run(ctx.pool(), ctx.input(0).data, ctx.input(1).data, ctx.output(0).data,
                 {.alpha = ctx.attrs().get_float("alpha", 1.0f)}, ctx.scratch());
    return {};
  }
  auto plan = plan_matmul(ctx.input(0).shape, ctx.input(1).shape, flags_of(ctx.attrs()));
  if (!plan.ok()) return ctx.error(plan.status().message());
  const float alpha = ctx.attrs().get_float("alpha", 1.0f);
  return dispatch_numeric(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    gemm_ref(ctx.pool(), plan->gemm, ctx.input(0).as<T>(), ctx.input(1).as<T>(), ctx.output(0).as<T>(), alpha);
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "MatMul", .inputs = {2, 2}, .infer = infer_matmul, .run = run_matmul, .prepare = prepare_matmul},
    {.domain = "com.microsoft",
     .name = "FusedMatMul",
     .inputs = {2, 2},
     .infer = infer_matmul,
     .run = run_matmul,
     .prepare = prepare_matmul},
    {.domain = "com.microsoft",
     .name = "TransposeMatMul",
     .inputs = {2, 2},
     .infer = infer_matmul,
     .run = run_matmul,
     .prepare = prepare_matmul},
};

}  // namespace

extern const std::span<const OpDef> k_matmul_ops;
const std::span<const OpDef> k_matmul_ops = kOps;

}  // namespace sprun::graph
