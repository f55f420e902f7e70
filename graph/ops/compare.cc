// Equal, Less, LessOrEqual, Greater, GreaterOrEqual and the logical And, Or, Xor: results are bool.
#include "graph/ops/elementwise.h"

namespace sprun::graph {
namespace {

struct EqualOp {
  template <class T>
  static bool apply(T a, T b) {
    return a == b;
  }
};

struct LessOp {
  template <class T>
  static bool apply(T a, T b) {
    return a < b;
  }
};

struct LessOrEqualOp {
  template <class T>
  static bool apply(T a, T b) {
    return a <= b;
  }
};

struct GreaterOp {
  template <class T>
  static bool apply(T a, T b) {
    return a > b;
  }
};

struct GreaterOrEqualOp {
  template <class T>
  static bool apply(T a, T b) {
    return a >= b;
  }
};

// Any byte but 0 counts as true.
struct AndOp {
  static bool apply(uint8_t a, uint8_t b) { return (a != 0) & (b != 0); }
};

struct OrOp {
  static bool apply(uint8_t a, uint8_t b) { return (a | b) != 0; }
};

struct XorOp {
  static bool apply(uint8_t a, uint8_t b) { return (a != 0) != (b != 0); }
};

struct SameTruthOp {
  static bool apply(uint8_t a, uint8_t b) { return (a != 0) == (b != 0); }
};

template <class Op>
Status run_order(RunContext& ctx) {
  return run_binary(ctx, {.row = signed_row<Op, bool>(ctx.input(0).dtype),
                          .f32_row = binary_row<float, bool, Op>,
                          .narrow_output = false});
}

Status run_equal(RunContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  if (dtype == DType::kBool)
    return run_binary(ctx, {.row = binary_row<uint8_t, bool, SameTruthOp>});
  return run_binary(ctx, {.row = sign_free_row<EqualOp, bool>(dtype),
                          .f32_row = binary_row<float, bool, EqualOp>,
                          .narrow_output = false});
}

template <class Op>
Status run_logical(RunContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  SPRUN_TRY(ctx.check(dtype == DType::kBool,
                      "expected bool inputs, got " + std::string(dtype_name(dtype))));
  return run_binary(ctx, {.row = binary_row<uint8_t, bool, Op>});
}

constexpr OpDef compare_op(std::string_view name, Status (*run)(RunContext&)) {
  return {
      .name = name, .inputs = {2, 2}, .infer = infer_binary_bool, .run = run, .flags = kInPlace};
}

constexpr OpDef kOps[] = {
    compare_op("Equal", run_equal),
    compare_op("Less", run_order<LessOp>),
    compare_op("LessOrEqual", run_order<LessOrEqualOp>),
    compare_op("Greater", run_order<GreaterOp>),
    compare_op("GreaterOrEqual", run_order<GreaterOrEqualOp>),
    compare_op("And", run_logical<AndOp>),
    compare_op("Or", run_logical<OrOp>),
    compare_op("Xor", run_logical<XorOp>),
};

}  // namespace

extern const std::span<const OpDef> k_compare_ops;
const std::span<const OpDef> k_compare_ops = kOps;

}  // namespace sprun::graph
