// Cast and CastLike between every pair of element types.
//
// Elements go through blocks of one of three wide types (double for floats, int64 for signed,
// uint64 for unsigned integers and bool), so that N types need N loads and 3 N stores, not N * N
// loops. The conversions that transformers use have direct loops.
#include <cstddef>
#include <cstring>

#include "graph/ops/elementwise.h"

namespace sprun::graph {
namespace {

constexpr int64_t kBlock = 256;

// Integer and bool sources are exact in 64 bits, floats in double.
template <class T>
using WideOf =
    std::conditional_t<std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16> ||
                           std::is_floating_point_v<T>,
                       double, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <class T>
void load_block(const T* x, int64_t n, void* wide) {
  auto* w = static_cast<WideOf<T>*>(wide);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<T, bool>) {
      w[i] = reinterpret_cast<const uint8_t*>(x)[i] != 0;
    } else {
      w[i] = static_cast<WideOf<T>>(load(x[i]));
    }
  }
}

// Integers drop high bits; integer to float rounds once.
template <class T, class W>
T from_wide(W w) {
  if constexpr (std::is_same_v<T, bool>) {
    return w != 0;
  } else if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
    return store<T>(static_cast<double>(w));
  } else if constexpr (std::is_integral_v<T> && std::is_floating_point_v<W>) {
    return float_to_int<T>(w);
  } else {
    return static_cast<T>(w);
  }
}

template <class T, class W>
void store_block(const W* w, T* y, int64_t n, DType to) {
  for (int64_t i = 0; i < n; ++i) y[i] = from_wide<T>(w[i]);
  if constexpr (sizeof(T) == 1 && std::is_integral_v<T>) {
    if (to == DType::kU4) {
      for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(y[i] & 0xf);
    } else if (to == DType::kS4) {  // sign-extend the low four bits
      for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(((y[i] & 0xf) ^ 8) - 8);
    }
  }
}

template <class Ctx, class Fn>
Status dispatch_any(const Ctx& ctx, DType dtype, const Fn& fn) {
  return dtype == DType::kBool ? fn(TypeTag<bool>{}) : dispatch_numeric(ctx, dtype, fn);
}

struct CastPass {
  const char* x;
  char* y;
  DType from, to;
};
using CastFn = void(const CastPass& pass, int64_t begin, int64_t end);

template <class T, class W>
void store_wide(const void* wide, void* y, int64_t n, DType to) {
  store_block(static_cast<const W*>(wide), static_cast<T*>(y), n, to);
}

using LoadFn = void(const void* x, int64_t n, void* wide);
using StoreFn = void(const void* wide, void* y, int64_t n, DType to);

// The two halves of a cast, looked up once.
struct TwoSteps {
  LoadFn* load = nullptr;
  StoreFn* store = nullptr;
};

Status find_two_steps(const RunContext& ctx, DType from, DType to, TwoSteps* steps) {
  return dispatch_any(ctx, from, [&](auto from_tag) {
    using From = typename decltype(from_tag)::type;
    steps->load = [](const void* x, int64_t n, void* wide) {
      load_block(static_cast<const From*>(x), n, wide);
    };
    return dispatch_any(ctx, to, [&](auto to_tag) {
      steps->store = store_wide<typename decltype(to_tag)::type, WideOf<From>>;
      return Status();
    });
  });
}

template <class From, class To>
void cast_direct(const CastPass& pass, int64_t begin, int64_t end) {
  const From* x = reinterpret_cast<const From*>(pass.x);
  To* y = reinterpret_cast<To*>(pass.y);
  for (int64_t i = begin; i < end; ++i) {
    if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
      y[i] = float_to_int<To>(x[i]);
    } else {
      y[i] = static_cast<To>(x[i]);
    }
  }
}

void cast_bool_to_f32(const CastPass& pass, int64_t begin, int64_t end) {
  const auto* x = reinterpret_cast<const uint8_t*>(pass.x);
  float* y = reinterpret_cast<float*>(pass.y);
  for (int64_t i = begin; i < end; ++i) y[i] = x[i] != 0 ? 1.0f : 0.0f;
}

void cast_widen(const CastPass& pass, int64_t begin, int64_t end) {
  widen(pass.from, pass.x + 2 * begin, reinterpret_cast<float*>(pass.y) + begin, end - begin);
}

void cast_narrow(const CastPass& pass, int64_t begin, int64_t end) {
  narrow(pass.to, reinterpret_cast<const float*>(pass.x) + begin, pass.y + 2 * begin, end - begin);
}

void cast_copy(const CastPass& pass, int64_t begin, int64_t end) {
  const int64_t size = dtype_size(pass.from);
  if (pass.x != pass.y) {
    std::memcpy(pass.y + begin * size, pass.x + begin * size,
                static_cast<size_t>((end - begin) * size));
  }
}

constexpr int pair_of(DType from, DType to) {
  return static_cast<int>(from) << 8 | static_cast<int>(to);
}

// The casts found in transformer graphs: attention masks, positions and lengths, mixed precision.
CastFn* find_direct(DType from, DType to) {
  if (from == to) return cast_copy;
  switch (pair_of(from, to)) {
    case pair_of(DType::kF16, DType::kF32):
    case pair_of(DType::kBf16, DType::kF32):
      return cast_widen;
    case pair_of(DType::kF32, DType::kF16):
    case pair_of(DType::kF32, DType::kBf16):
      return cast_narrow;
    case pair_of(DType::kS64, DType::kF32):
      return cast_direct<int64_t, float>;
    case pair_of(DType::kS32, DType::kF32):
      return cast_direct<int32_t, float>;
    case pair_of(DType::kU8, DType::kF32):
      return cast_direct<uint8_t, float>;
    case pair_of(DType::kS8, DType::kF32):
      return cast_direct<int8_t, float>;
    case pair_of(DType::kF32, DType::kS64):
      return cast_direct<float, int64_t>;
    case pair_of(DType::kF32, DType::kS32):
      return cast_direct<float, int32_t>;
    case pair_of(DType::kS64, DType::kS32):
      return cast_direct<int64_t, int32_t>;
    case pair_of(DType::kS32, DType::kS64):
      return cast_direct<int32_t, int64_t>;
    case pair_of(DType::kBool, DType::kF32):
      return cast_bool_to_f32;
    default:
      return nullptr;
  }
}

Status infer_cast_to(InferContext& ctx, DType to) {
  for (const DType dtype : {ctx.dtype(0), to}) {
    SPRUN_TRY(ctx.check(dtype_size(dtype) > 0,
                        "casting " + std::string(dtype_name(ctx.dtype(0))) + " to " +
                            std::string(dtype_name(to)) + " (type " +
                            std::to_string(static_cast<int>(to)) + ") is not supported"));
  }
  ctx.set_output(0, to, ctx.shape(0));
  return {};
}

Status infer_cast(InferContext& ctx) {
  const Attr* attr = ctx.attrs().find("to");
  SPRUN_TRY(ctx.check(attr != nullptr && std::holds_alternative<int64_t>(*attr),
                      "attribute 'to' is missing"));
  const int64_t to = std::get<int64_t>(*attr);
  SPRUN_TRY(ctx.check(to > 0 && to <= 255,
                      "attribute 'to' is " + std::to_string(to) + ", which is no element type"));
  return infer_cast_to(ctx, static_cast<DType>(to));
}

Status infer_cast_like(InferContext& ctx) { return infer_cast_to(ctx, ctx.dtype(1)); }

Status run_cast(RunContext& ctx) {
  const CastPass pass{ctx.input(0).as<char>(), ctx.output(0).as<char>(), ctx.input(0).dtype,
                      ctx.output(0).dtype};
  const int64_t n = ctx.input(0).num_elements();
  if (CastFn* direct = find_direct(pass.from, pass.to)) {
    ctx.pool().parallel_for(n, kCheapGrain,
                            [&](int64_t begin, int64_t end, int) { direct(pass, begin, end); });
    return {};
  }
  TwoSteps steps;
  SPRUN_TRY(find_two_steps(ctx, pass.from, pass.to, &steps));
  const int64_t from_size = dtype_size(pass.from);
  const int64_t to_size = dtype_size(pass.to);
  ctx.pool().parallel_for(n, kCheapGrain, [&](int64_t begin, int64_t end, int) {
    alignas(64) std::array<std::byte, kBlock * sizeof(uint64_t)> wide;
    for (int64_t i = begin; i < end; i += kBlock) {
      const int64_t count = std::min(kBlock, end - i);
      steps.load(pass.x + i * from_size, count, wide.data());
      steps.store(wide.data(), pass.y + i * to_size, count, pass.to);
    }
  });
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Cast", .since = 6, .infer = infer_cast, .run = run_cast, .flags = kInPlace},
    {.name = "CastLike",
     .inputs = {2, 2},
     .infer = infer_cast_like,
     .run = run_cast,
     .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_cast_ops;
const std::span<const OpDef> k_cast_ops = kOps;

}  // namespace sprun::graph
