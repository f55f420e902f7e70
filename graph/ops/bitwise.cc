// BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot and BitShift.
#include "graph/ops/elementwise.h"

namespace sprun::graph {
namespace {

struct AndOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a & b);
  }
};

struct OrOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a | b);
  }
};

struct XorOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};

// Shifting by a negative number or by all bits leaves what the fill bits give: 0, or -1 for a
// negative number that moves right (BitShift-28).
struct ShiftLeftOp {
  template <class T>
  static T apply(T x, T by) {
    if (by < 0 || static_cast<uint64_t>(by) >= 8 * sizeof(T)) return 0;
    return static_cast<T>(static_cast<uint64_t>(x) << by);
  }
};

struct ShiftRightOp {
  template <class T>
  static T apply(T x, T by) {
    if (by < 0 || static_cast<uint64_t>(by) >= 8 * sizeof(T))
      return x < 0 ? static_cast<T>(-1) : T{0};
    return static_cast<T>(x >> by);
  }
};

Status check_integer(const RunContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  return ctx.check(is_integer(dtype) && !is_4bit(dtype),
                   "expected integers, got " + std::string(dtype_name(dtype)));
}

// The float entries of the row tables cannot exist for bit operations, so these have their own.
template <class Op>
Status run_by_size(RunContext& ctx) {
  SPRUN_TRY(check_integer(ctx));
  return dispatch_size(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_binary(ctx, {.row = binary_row<T, T, Op>});
  });
}

template <class Op>
Status run_shift_as(RunContext& ctx) {
  SPRUN_TRY(check_integer(ctx));
  return dispatch_int(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_binary(ctx, {.row = binary_row<T, T, Op>});
  });
}

Status infer_shift(InferContext& ctx) {
  const std::string_view direction = ctx.attrs().get_string("direction", "");
  SPRUN_TRY(ctx.check(direction == "LEFT" || direction == "RIGHT",
                      "direction is '" + std::string(direction) + "', expected LEFT or RIGHT"));
  return infer_binary(ctx);
}

Status run_shift(RunContext& ctx) {
  return ctx.attrs().get_string("direction", "") == "LEFT" ? run_shift_as<ShiftLeftOp>(ctx)
                                                           : run_shift_as<ShiftRightOp>(ctx);
}

Status run_not(RunContext& ctx) {
  SPRUN_TRY(check_integer(ctx));
  return dispatch_size(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_typed_map<T, T>(ctx, kCheapGrain, [](const T* x, T* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(~x[i]);
    });
  });
}

constexpr OpDef binary_op(std::string_view name, Status (*run)(RunContext&)) {
  return {.name = name, .inputs = {2, 2}, .infer = infer_binary, .run = run, .flags = kInPlace};
}

constexpr OpDef kOps[] = {
    binary_op("BitwiseAnd", run_by_size<AndOp>),
    binary_op("BitwiseOr", run_by_size<OrOp>),
    binary_op("BitwiseXor", run_by_size<XorOp>),
    {.name = "BitwiseNot", .infer = infer_same_as_input, .run = run_not, .flags = kInPlace},
    {.name = "BitShift",
     .inputs = {2, 2},
     .infer = infer_shift,
     .run = run_shift,
     .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_bitwise_ops;
const std::span<const OpDef> k_bitwise_ops = kOps;

}  // namespace sprun::graph
