// GatherBlockQuantized (com.microsoft): Gather along gather_axis from data quantised in blocks along quantize_axis,
// dequantised on the way: y = (q - zero) * scale. Embedding tables of 4-bit models are its use.
//
//   data    u8 (`bits` of 2, 4 or 8, packed low bits first along the last axis), u4 or s4 (one element each)
//   scales  shape of data but ceil(size / block_size) on quantize_axis; zero_points like scales, packed like data
#include <string>

#include "graph/ops/op.h"
#include "graph/ops/op_util.h"
#include "graph/ops/quant_util.h"

namespace sprun::graph {
namespace {

struct Geometry {
  Shape data;  // with packed elements counted one by one
  Shape scales;
  int gather_axis = 0, quantize_axis = 0;
  int64_t bits = 4, block_size = 128;
  bool packed = false;  // u8 data of fewer than 8 bits
  Shape out;
};

template <class Ctx>
Result<Geometry> geometry_of(const Ctx& ctx) {
  const auto fail = [](const std::string& why) { return Status(Code::kBadModel, why); };
  Geometry g;
  g.data = ctx.input(0).shape;
  g.scales = ctx.input(2).shape;
  const bool bytes = ctx.input(0).dtype == DType::kU8;
  g.bits = bytes ? ctx.attrs().get_int("bits", 4) : 4;
  g.block_size = ctx.attrs().get_int("block_size", 128);
  if (g.bits != 2 && g.bits != 4 && g.bits != 8) return fail("bits must be 2, 4 or 8");
  if (g.block_size < 16 || (g.block_size & (g.block_size - 1)) != 0) {
    return fail("block_size must be a power of two from 16");
  }
  const int rank = g.data.rank();
  if (rank < 1 || g.scales.rank() != rank) return fail("data and scales must have one rank, at least 1");
  SPRUN_ASSIGN(g.gather_axis, normalize_axis(ctx.attrs().get_int("gather_axis", 0), rank));
  SPRUN_ASSIGN(g.quantize_axis, normalize_axis(ctx.attrs().get_int("quantize_axis", 1), rank));
  if (g.gather_axis == g.quantize_axis) return fail("gather_axis and quantize_axis must differ");
  g.packed = bytes && g.bits < 8;
  if (g.packed) {
    if (g.gather_axis == rank - 1) return fail("gather_axis cannot be the packed last axis");
    g.data[rank - 1] *= 8 / g.bits;
  }
  for (int i = 0; i < rank; ++i) {
    const int64_t expected = i == g.quantize_axis ? (g.data[i] + g.block_size - 1) / g.block_size : g.data[i];
    if (g.scales[i] != expected) {
      return fail("scales of shape " + g.scales.to_string() + ", expected " + std::to_string(expected) + " on axis " +
                  std::to_string(i));
    }
  }
  std::vector<int64_t> dims;
  for (int i = 0; i < rank; ++i) {
    if (i == g.gather_axis) {
      for (int64_t dim : ctx.input(1).shape.dims()) dims.push_back(dim);
    } else {
      dims.push_back(g.data[i]);
    }
  }
  SPRUN_ASSIGN(g.out, Shape::checked(dims));
  return g;
}

Status infer_gather(InferContext& ctx) {
  const DType data = ctx.dtype(0);
  SPRUN_TRY(
      ctx.check(data == DType::kU8 || data == DType::kU4 || data == DType::kS4, "data must be uint8, uint4 or int4"));
  SPRUN_TRY(ctx.check(ctx.dtype(1) == DType::kS32 || ctx.dtype(1) == DType::kS64, "indices must be int32 or int64"));
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(2)) && ctx.dtype(2) != DType::kF64, "scales must be 16- or 32-bit floats"));
  auto g = geometry_of(ctx);
  if (!g.ok()) return ctx.error(g.status().message());
  if (ctx.has_input(3)) {
    SPRUN_TRY(ctx.check(ctx.dtype(3) == data, "zero_points and data differ in type"));
    Shape expected = g->scales;
    if (g->packed) expected[expected.rank() - 1] = (expected.back() * g->bits + 7) / 8;
    SPRUN_TRY(ctx.check(ctx.shape(3) == expected,
                        "zero_points of shape " + ctx.shape(3).to_string() + ", expected " + expected.to_string()));
  }
  ctx.set_output(0, ctx.dtype(2), g->out);
  return {};
}

// Element `column` of row `row` of a tensor [rows, width].
int32_t element(const ConstTensorView& x, const Geometry& g, int64_t row, int64_t column, int64_t width) {
  if (!g.packed) return ZeroPointReader(x)[row * width + column];
  const int64_t row_bytes = (width * g.bits + 7) / 8, bit = column * g.bits;
  return (x.as<uint8_t>()[row * row_bytes + bit / 8] >> (bit % 8)) & ((1 << g.bits) - 1);
}

template <class Y>
void gather_all(const RunContext& ctx, const Geometry& g, Y* y) {
  const Shape& d = g.data;
  const int last = d.rank() - 1;
  const int64_t outer = d.num_elements(0, g.gather_axis), size = d[g.gather_axis];
  const int64_t inner = d.num_elements(g.gather_axis + 1, d.rank()), count = ctx.input(1).num_elements();
  const bool wide = ctx.input(1).dtype == DType::kS64, has_zero = ctx.has_input(3);
  const ScaleReader scales(ctx.input(2));
  const int32_t default_zero = ctx.input(0).dtype == DType::kU8 ? 1 << (g.bits - 1) : 0;
  const auto strides = row_major_strides(g.scales);
  ctx.pool().parallel_for(
      outer * count, std::max<int64_t>(1, 4096 / std::max<int64_t>(inner, 1)), [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r) {
          int64_t index = wide ? ctx.input(1).as<int64_t>()[r % count] : ctx.input(1).as<int32_t>()[r % count];
          index += index < 0 ? size : 0;
          for (int64_t i = 0; i < inner; ++i) {
            if (index < 0 || index >= size) {  // an index outside the table gives zeros
              y[r * inner + i] = store<Y>(0.0f);
              continue;
            }
            const int64_t at = (r / count * size + index) * inner + i;
            int64_t rest = at, parameter = 0;
            for (int axis = last; axis >= 0; --axis) {
              const int64_t coordinate = rest % d[axis];
              rest /= d[axis];
              parameter += (axis == g.quantize_axis ? coordinate / g.block_size : coordinate) *
                           strides[static_cast<size_t>(axis)];
            }
            const int32_t q = element(ctx.input(0), g, at / d[last], at % d[last], d[last]);
            const int64_t width = g.scales[last];
            const int32_t zero =
                has_zero ? element(ctx.input(3), g, parameter / width, parameter % width, width) : default_zero;
            y[r * inner + i] = store<Y>(static_cast<float>(q - zero) * scales[parameter]);
          }
        }
      });
}

Status run_gather(RunContext& ctx) {
  auto g = geometry_of(ctx);
  if (!g.ok()) return ctx.error(g.status().message());
  return dispatch_real(ctx, ctx.output(0).dtype, [&](auto tag) {
    using Y = typename decltype(tag)::type;
    gather_all(ctx, *g, ctx.output(0).as<Y>());
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.domain = "com.microsoft",
     .name = "GatherBlockQuantized",
     .inputs = {3, 4},
     .infer = infer_gather,
     .run = run_gather},
};

}  // namespace

extern const std::span<const OpDef> k_gather_block_quantized_ops;
const std::span<const OpDef> k_gather_block_quantized_ops = kOps;

}  // namespace sprun::graph
