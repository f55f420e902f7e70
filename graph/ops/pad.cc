// Pad-2..25 (constant, reflect, edge, wrap; negative pads crop) and CenterCropPad-18.
#include <algorithm>
#include <cstring>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

enum class PadMode : uint8_t { kConstant, kReflect, kEdge, kWrap };

// What one axis gets: elements before and after, negative numbers crop.
struct AxisPads {
  int64_t begin = 0, end = 0;
};
using Pads = std::array<AxisPads, kMaxRank>;

Result<PadMode> pad_mode(std::string_view name) {
  if (name == "constant") return PadMode::kConstant;
  if (name == "reflect") return PadMode::kReflect;
  if (name == "edge") return PadMode::kEdge;
  if (name == "wrap") return PadMode::kWrap;
  return Status(Code::kBadModel, "unknown mode '" + std::string(name) + "'");
}

// pads is [begin of each axis..., end of each axis...] for `axes`, or for all axes when there are none.
Result<Pads> make_pads(std::span<const int64_t> pads, std::span<const int64_t> axes, bool has_axes, int rank) {
  const size_t count = has_axes ? axes.size() : static_cast<size_t>(rank);
  if (pads.size() != 2 * count) {
    return Status(Code::kBadModel,
                  "pads has " + std::to_string(pads.size()) + " numbers, expected " + std::to_string(2 * count));
  }
  std::vector<int> order;
  if (has_axes) {
    SPRUN_ASSIGN(order, normalize_axes(axes, rank));
  } else {
    for (int i = 0; i < rank; ++i) order.push_back(i);
  }
  Pads result{};
  for (size_t i = 0; i < count; ++i) {
    for (const int64_t pad : {pads[i], pads[count + i]}) {
      if (pad > kMaxElements || pad < -kMaxElements) {
        return Status(Code::kResourceLimit, "a pad of " + std::to_string(pad) + " is out of range");
      }
    }
    result[static_cast<size_t>(order[i])] = {pads[i], pads[count + i]};
  }
  return result;
}

template <class Ctx>
Result<Pads> read_pads(const Ctx& ctx, int rank) {
  if (ctx.opset() < 11) return make_pads(ctx.attrs().get_ints("pads"), {}, false, rank);
  if (!ctx.has_input(1)) return Status(Code::kBadModel, "the pads input is missing");
  SPRUN_ASSIGN(const std::vector<int64_t> pads, read_ints(ctx.input(1)));
  std::vector<int64_t> axes;
  if (ctx.has_input(3)) {
    SPRUN_ASSIGN(axes, read_ints(ctx.input(3)));
  }
  return make_pads(pads, axes, ctx.has_input(3), rank);
}

Status infer_pad(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const PadMode mode, at_node(ctx, pad_mode(ctx.attrs().get_string("mode", "constant"))));
  for (int i = 1; i < ctx.num_inputs(); i += 2) {
    if (ctx.has_input(i) && !ctx.has_data(i)) return ctx.needs_data();
  }
  if (ctx.has_input(2)) {
    SPRUN_TRY(check_same_dtype(ctx, 0, 2));
    if (ctx.shape(2).num_elements() > 1)
      return ctx.error("constant_value must be a scalar, got " + ctx.shape(2).to_string());
  }
  SPRUN_ASSIGN(const Pads pads, at_node(ctx, read_pads(ctx, in.rank())));
  Shape out = in;
  for (int i = 0; i < in.rank(); ++i) {
    const auto [begin, end] = pads[static_cast<size_t>(i)];
    const int64_t kept = in[i] + std::min<int64_t>(begin, 0) + std::min<int64_t>(end, 0);
    out[i] = in[i] + begin + end;
    if (kept < 0) return ctx.error("pads crop more than axis " + std::to_string(i) + " of " + in.to_string() + " has");
    if (mode != PadMode::kConstant && kept == 0 && out[i] > 0) {
      return ctx.error("axis " + std::to_string(i) + " has nothing to pad with");
    }
  }
  SPRUN_TRY(at_node(ctx, Shape::checked(out.dims())).status());
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Which input element an output position of one axis shows; -1 for the constant.
// first, size: the part of the axis that negative pads leave; at: position relative to it.
int64_t source_index(int64_t at, int64_t first, int64_t size, PadMode mode) {
  if (at >= 0 && at < size) return first + at;
  switch (mode) {
    case PadMode::kConstant:
      return -1;
    case PadMode::kEdge:
      return first + std::clamp<int64_t>(at, 0, size - 1);
    case PadMode::kWrap:
      return first + ((at % size) + size) % size;
    case PadMode::kReflect:
      break;
  }
  if (size == 1) return first;
  const int64_t period = 2 * (size - 1);
  const int64_t phase = ((at % period) + period) % period;
  return first + (phase < size ? phase : period - phase);
}

// Where the output positions of one axis come from.
struct AxisMap {
  AxisMap() = default;
  AxisMap(int64_t in_size, AxisPads pads, PadMode pad_mode)
      : first(std::max<int64_t>(-pads.begin, 0)),
        size(in_size - first - std::max<int64_t>(-pads.end, 0)),
        shift(std::max<int64_t>(pads.begin, 0)),
        mode(pad_mode) {}
  int64_t source(int64_t at) const { return source_index(at - shift, first, size, mode); }

  int64_t first = 0, size = 0;  // the part of the input axis that negative pads leave
  int64_t shift = 0;            // elements before it in the output
  PadMode mode = PadMode::kConstant;
};
using AxisMaps = std::array<AxisMap, kMaxRank>;

// One output row of `row` elements from one input row.
template <class T>
void pad_row(const AxisMap& map, const T* src, T* dst, int64_t row, T value) {
  const auto fill_edge = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = map.source(i);
      dst[i] = from < 0 ? value : src[from];
    }
  };
  const int64_t plain_end = map.shift + map.size;
  fill_edge(0, map.shift);
  std::copy(src + map.first, src + map.first + (plain_end - map.shift), dst + map.shift);
  fill_edge(plain_end, row);
}

// Maps of the outer axes give the input row of each output row, or none: then the row is all `value`.
template <class T>
void pad_rows(const AxisMaps& maps, const Shape& in, const Shape& out, const T* src, T* dst, T value,
              ThreadPool& pool) {
  const auto last = static_cast<size_t>(in.rank() - 1);
  const auto strides = row_major_strides(in);
  const int64_t row = out.back();
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, row));
  pool.parallel_for(out.num_elements() / row, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t rest = r, offset = 0;
      bool constant = false;
      for (size_t axis = last; axis-- > 0;) {
        const int64_t size = out[static_cast<int>(axis)];
        const int64_t from = maps[axis].source(rest % size);
        rest /= size;
        constant |= from < 0;
        offset += from * strides[axis];
      }
      if (constant) {
        std::fill_n(dst + r * row, row, value);
      } else {
        pad_row(maps[last], src + offset, dst + r * row, row, value);
      }
    }
  });
}

// The bytes of the element to pad with: input 2, attribute `value` (before version 11), or 0.
Status constant_element(const RunContext& ctx, uint64_t& element) {
  element = 0;
  const DType dtype = ctx.input(0).dtype;
  if (ctx.opset() < 11) {
    return dispatch_numeric(ctx, dtype == DType::kBool ? DType::kU8 : dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T value = store_saturating<T>(ctx.attrs().get_float("value", 0.0f));
      std::memcpy(&element, &value, sizeof(T));
      return Status();
    });
  }
  if (ctx.has_input(2) && ctx.input(2).num_elements() == 1) {
    std::memcpy(&element, ctx.input(2).data, static_cast<size_t>(dtype_size(dtype)));
  }
  return {};
}

Status run_with_pads(RunContext& ctx, const Pads& pads, PadMode mode, uint64_t element) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  if (out.num_elements() == 0) return {};
  if (out.shape.rank() == 0) {
    std::memcpy(out.data, in.data, static_cast<size_t>(dtype_size(in.dtype)));
    return {};
  }
  AxisMaps maps;
  for (int i = 0; i < in.shape.rank(); ++i) {
    const auto axis = static_cast<size_t>(i);
    maps[axis] = AxisMap(in.shape[i], pads[axis], mode);
  }
  return dispatch_size(ctx, in.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T value;
    std::memcpy(&value, &element, sizeof(T));
    pad_rows<T>(maps, in.shape, out.shape, in.as<T>(), out.as<T>(), value, ctx.pool());
    return Status();
  });
}

Status run_pad(RunContext& ctx) {
  SPRUN_ASSIGN(const PadMode mode, at_node(ctx, pad_mode(ctx.attrs().get_string("mode", "constant"))));
  SPRUN_ASSIGN(const Pads pads, at_node(ctx, read_pads(ctx, ctx.input(0).shape.rank())));
  uint64_t element = 0;
  SPRUN_TRY(constant_element(ctx, element));
  return run_with_pads(ctx, pads, mode, element);
}

// --- CenterCropPad-18: every named axis is cropped or zero-padded around its centre to the wanted size

Status infer_center_crop_pad(InferContext& ctx) {
  if (!ctx.has_input(1)) return ctx.error("the shape input is missing");
  if (!ctx.has_data(1)) return ctx.needs_data();
  Shape out = ctx.shape(0);
  SPRUN_ASSIGN(const std::vector<int64_t> wanted, at_node(ctx, read_ints(ctx.input(1))));
  std::vector<int> axes;
  if (ctx.attrs().has("axes")) {
    SPRUN_ASSIGN(axes, at_node(ctx, normalize_axes(ctx.attrs().get_ints("axes"), out.rank())));
  } else {
    for (int i = 0; i < out.rank(); ++i) axes.push_back(i);
  }
  if (wanted.size() != axes.size()) {
    return ctx.error("shape has " + std::to_string(wanted.size()) + " sizes for " + std::to_string(axes.size()) +
                     " axes");
  }
  for (size_t i = 0; i < axes.size(); ++i) out[axes[i]] = wanted[i];
  SPRUN_TRY(at_node(ctx, Shape::checked(out.dims())).status());
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status run_center_crop_pad(RunContext& ctx) {
  const Shape &in = ctx.input(0).shape, &out = ctx.output(0).shape;
  Pads pads{};
  for (int i = 0; i < in.rank(); ++i) {
    // Both directions put the odd element at the end.
    const int64_t change = out[i] - in[i], begin = change >= 0 ? change / 2 : -(-change / 2);
    pads[static_cast<size_t>(i)] = {begin, change - begin};
  }
  return run_with_pads(ctx, pads, PadMode::kConstant, 0);
}

constexpr OpDef kOps[] = {
    {.name = "CenterCropPad",
     .since = 18,
     .inputs = {2, 2},
     .infer = infer_center_crop_pad,
     .run = run_center_crop_pad},
    {.name = "Pad", .since = 2, .inputs = {1, 4}, .infer = infer_pad, .run = run_pad},
};

}  // namespace

extern const std::span<const OpDef> k_pad_ops;
const std::span<const OpDef> k_pad_ops = kOps;

}  // namespace sprun::graph
