// Add, Sub, Mul, Div, Mod, Pow and PRelu with NumPy broadcasting.
#include <cmath>

#include "graph/ops/elementwise.h"
#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
namespace {

// Integers wrap around. In their own type that would be undefined for signed ones, and also for
// uint16, which is promoted to int, where 65535 * 65535 overflows; so they compute in an unsigned
// type of at least 32 bits.
template <class T>
struct WideType {
  using Type = std::conditional_t<sizeof(T) < 4, uint32_t, std::make_unsigned_t<T>>;
};
template <>
struct WideType<float> {
  using Type = float;
};
template <>
struct WideType<double> {
  using Type = double;
};

template <class T>
auto wide(T v) {
  return static_cast<typename WideType<T>::Type>(v);
}

struct AddOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(wide(a) + wide(b));
  }
};

struct SubOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(wide(a) - wide(b));
  }
};

struct MulOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(wide(a) * wide(b));
  }
};

// True if a / b traps or overflows; the quotient is then 0 (b == 0) or a itself (a / -1, wrapped).
template <class T>
bool overflows(T a, T b) {
  return std::is_signed_v<T> && b == static_cast<T>(-1) && a == std::numeric_limits<T>::min();
}

struct DivOp {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return a / b;
    } else {
      if (b == 0) return 0;
      return overflows(a, b) ? a : static_cast<T>(a / b);
    }
  }
};

// Remainder with the sign of the divisor.
struct FloorModOp {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      const T r = std::fmod(a, b);
      if (r == 0) return std::copysign(T{0}, b);
      return (r < 0) != (b < 0) ? r + b : r;
    } else {
      if (b == 0 || overflows(a, b)) return 0;
      const T r = static_cast<T>(a % b);
      return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
    }
  }
};

// Remainder with the sign of the dividend.
struct TruncModOp {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return std::fmod(a, b);
    } else {
      return b == 0 || overflows(a, b) ? T{0} : static_cast<T>(a % b);
    }
  }
};

struct PReluOp {
  template <class T>
  static T apply(T x, T slope) {
    return x < 0 ? MulOp::apply(x, slope) : x;
  }
};

template <kernels::BinaryOp kOp>
void fast_row(const RowArgs& row) {
  kernels::binary_f32(kOp)(row.input<float>(0), row.step[0], row.input<float>(1), row.step[1],
                           row.output<float>(), row.n);
}

// Floats run on a vector kernel; `rows` finds the row function of the other types.
template <kernels::BinaryOp kOp>
Status run_fast(RunContext& ctx, RowFn* (*rows)(DType)) {
  const DType dtype = ctx.input(0).dtype;
  if (is_4bit(dtype)) return ctx.error("4-bit integers are not supported");
  return run_binary(
      ctx, {.row = dtype == DType::kF32 ? fast_row<kOp> : rows(dtype), .f32_row = fast_row<kOp>});
}

Status run_add(RunContext& ctx) {
  return run_fast<kernels::BinaryOp::kAdd>(ctx, sign_free_row<AddOp>);
}
Status run_sub(RunContext& ctx) {
  return run_fast<kernels::BinaryOp::kSub>(ctx, sign_free_row<SubOp>);
}
Status run_mul(RunContext& ctx) {
  return run_fast<kernels::BinaryOp::kMul>(ctx, sign_free_row<MulOp>);
}
Status run_div(RunContext& ctx) {
  return run_fast<kernels::BinaryOp::kDiv>(ctx, signed_row<DivOp>);
}

template <class Op>
Status run_mod_as(RunContext& ctx) {
  const DType dtype = ctx.input(0).dtype;
  if (is_4bit(dtype)) return ctx.error("4-bit integers are not supported");
  return run_binary(
      ctx,
      {.row = signed_row<Op>(dtype), .f32_row = binary_row<float, float, Op>, .grain = kMathGrain});
}

Status run_mod(RunContext& ctx) {
  return ctx.attrs().get_int("fmod", 0) != 0 ? run_mod_as<TruncModOp>(ctx)
                                             : run_mod_as<FloorModOp>(ctx);
}

// --- Pow: base and exponent may have different types

// base ** exponent, wrapping around like repeated multiplication.
template <class T>
T int_power(T base, int64_t exponent) {
  if (exponent < 0) {  // 1 / base**n, truncated
    if (base == 1) return 1;
    if (std::is_signed_v<T> && base == static_cast<T>(-1)) return exponent % 2 == 0 ? T{1} : base;
    return 0;
  }
  uint64_t result = 1;
  uint64_t square = static_cast<uint64_t>(base);
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}

// A block of exponents in the one type that keeps them: int64 for integers (the parity of huge ones
// survives), double for floats.
void load_exponents(DType dtype, const void* src, int64_t n, int64_t* ints, double* reals) {
  struct NoErrors {
    Status error(const std::string&) const { return {}; }
  };
  const Status ignored = dispatch_numeric(NoErrors{}, dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = static_cast<const T*>(src);
    if constexpr (std::is_integral_v<T>) {
      for (int64_t i = 0; i < n; ++i) {
        const bool huge =
            std::is_same_v<T, uint64_t> && (static_cast<uint64_t>(from[i]) >> 63) != 0;
        ints[i] = huge ? std::numeric_limits<int64_t>::max() - 1 + static_cast<int64_t>(from[i] & 1)
                       : static_cast<int64_t>(from[i]);
        reals[i] = static_cast<double>(from[i]);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) reals[i] = static_cast<double>(load(from[i]));
    }
    return Status();
  });
  (void)ignored;
}

struct PowParams {
  DType exponent;
};

template <class T>
T power(T base, int64_t int_exponent, double real_exponent, bool exponent_is_int) {
  if constexpr (std::is_integral_v<T>) {
    if (exponent_is_int) return int_power(base, int_exponent);
    return float_to_int<T>(std::pow(static_cast<double>(base), real_exponent));
  } else if constexpr (std::is_same_v<T, double>) {
    return std::pow(base, real_exponent);
  } else {
    return store<T>(std::pow(load(base), static_cast<float>(real_exponent)));
  }
}

template <class T>
void pow_row(const RowArgs& row) {
  constexpr int64_t kBlock = 128;
  const DType exponent = static_cast<const PowParams*>(row.params)->exponent;
  const bool exponent_is_int = is_integer(exponent);
  std::array<int64_t, kBlock> ints{};
  std::array<double, kBlock> reals{};
  const T* base = row.input<T>(0);
  T* y = row.output<T>();
  for (int64_t i = 0; i < row.n; i += kBlock) {
    const int64_t n = std::min(kBlock, row.n - i);
    const char* src = row.input<char>(1) + i * row.step[1] * dtype_size(exponent);
    load_exponents(exponent, src, row.step[1] != 0 ? n : 1, ints.data(), reals.data());
    for (int64_t j = 0; j < n; ++j) {
      const auto e = static_cast<size_t>(row.step[1] * j);
      y[i + j] = power(base[(i + j) * row.step[0]], ints[e], reals[e], exponent_is_int);
    }
  }
}

Status infer_pow(InferContext& ctx) {
  auto second = second_shape(ctx.attrs(), ctx.opset(), ctx.shape(0), ctx.shape(1));
  if (!second.ok()) return ctx.error(second.status().message());
  auto shape = broadcast_shapes(ctx.shape(0), *second);
  if (!shape.ok()) return ctx.error(shape.status().message());
  ctx.set_output(0, ctx.dtype(0), *shape);
  return {};
}

// The map that computes x ** exponent for every x, if there is one.
std::optional<kernels::MapOp> map_of_exponent(double exponent) {
  if (exponent == 2) return kernels::MapOp::kSquare;
  if (exponent == 3) return kernels::MapOp::kCube;
  if (exponent == 0.5) return kernels::MapOp::kPowHalf;
  if (exponent == -0.5) return kernels::MapOp::kPowMinusHalf;
  if (exponent == -1) return kernels::MapOp::kReciprocal;
  return std::nullopt;
}

// Float base and one exponent for all elements, as norms and Gelu use it. False if that is not so.
bool run_fast_pow(RunContext& ctx, Status* status) {
  const DType dtype = ctx.input(0).dtype;
  if (!is_float(dtype) || dtype == DType::kF64 || ctx.input(1).num_elements() != 1) return false;
  if (!(ctx.input(0).shape == ctx.output(0).shape)) return false;
  const auto exponent = read_scalar(ctx.input(1));
  const auto op = exponent.ok() ? map_of_exponent(*exponent) : std::nullopt;
  if (!op) return false;
  *status = run_float_map(ctx, kernels::map_f32(*op), nullptr, {}, kCheapGrain);
  return true;
}

Status run_pow(RunContext& ctx) {
  Status status;
  if (run_fast_pow(ctx, &status)) return status;
  const PowParams params{ctx.input(1).dtype};
  const auto valid = [](DType dtype) {
    return (is_float(dtype) || is_integer(dtype)) && !is_4bit(dtype);
  };
  SPRUN_TRY(ctx.check(valid(ctx.input(0).dtype) && valid(params.exponent),
                      "base and exponent must be numbers"));
  return dispatch_numeric(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return run_binary(ctx, {.row = pow_row<T>, .params = &params, .grain = kMathGrain});
  });
}

// --- PRelu: the slope is broadcast to the input, not the other way round

// Up to opset 6 a slope vector belongs to axis 1 (the channels).
Shape slope_shape(int opset, const Shape& x, const Shape& slope) {
  Shape shape = slope;
  if (opset < 7 && slope.rank() == 1 && slope[0] != 1) {
    while (shape.rank() < x.rank() - 1) shape.push_back(1);
  }
  return shape;
}

Status infer_prelu(InferContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == ctx.dtype(1), "input and slope have different types"));
  auto shape = broadcast_shapes(ctx.shape(0), slope_shape(ctx.opset(), ctx.shape(0), ctx.shape(1)));
  if (!shape.ok() || !(*shape == ctx.shape(0))) {
    return ctx.error("slope " + ctx.shape(1).to_string() + " cannot be broadcast to input " +
                     ctx.shape(0).to_string());
  }
  ctx.set_output(0, ctx.dtype(0), *shape);
  return {};
}

Status run_prelu(RunContext& ctx) {
  if (is_4bit(ctx.input(0).dtype)) return ctx.error("4-bit integers are not supported");
  const Shape slope = slope_shape(ctx.opset(), ctx.input(0).shape, ctx.input(1).shape);
  return run_binary(ctx, {.row = signed_row<PReluOp>(ctx.input(0).dtype),
                          .f32_row = binary_row<float, float, PReluOp>,
                          .second = &slope});
}

constexpr OpDef binary_op(std::string_view name, Status (*run)(RunContext&),
                          Status (*infer)(InferContext&),
                          Status (*prepare)(PrepareContext&) = nullptr) {
  return {.name = name,
          .inputs = {2, 2},
          .infer = infer,
          .run = run,
          .prepare = prepare,
          .flags = kInPlace};
}

constexpr OpDef kOps[] = {
    binary_op("Add", run_add, infer_binary, prepare_elementwise),
    binary_op("Sub", run_sub, infer_binary, prepare_elementwise),
    binary_op("Mul", run_mul, infer_binary, prepare_elementwise),
    binary_op("Div", run_div, infer_binary, prepare_elementwise),
    binary_op("Mod", run_mod, infer_binary),
    binary_op("Pow", run_pow, infer_pow),
    binary_op("PRelu", run_prelu, infer_prelu),
};

}  // namespace

extern const std::span<const OpDef> k_arithmetic_ops;
const std::span<const OpDef> k_arithmetic_ops = kOps;

}  // namespace sprun::graph
