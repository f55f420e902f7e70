// Col2Im-18: sums overlapping blocks back into an image; the inverse of what a convolution unfolds.
#include <algorithm>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

constexpr int kMaxSpatial = kMaxRank - 2;

struct BlockGrid {
  int spatial = 0;
  std::array<int64_t, kMaxSpatial> image{}, block{}, blocks{};   // sizes of image and block, number of blocks
  std::array<int64_t, kMaxSpatial> stride{}, dilation{}, pad{};  // pad: before the first element
  int64_t block_elements = 1, num_blocks = 1;
};

// Attribute `name` at i; `fallback` when it is absent. Values are kept small enough for products not to overflow.
Result<int64_t> attr_at(const AttrMap& attrs, std::string_view name, int i, size_t expected, int64_t fallback,
                        int64_t low) {
  const std::vector<int64_t>& list = attrs.get_ints(name);
  if (list.empty()) return fallback;
  if (list.size() != expected) {
    return Status(Code::kBadModel, std::string(name) + " has " + std::to_string(list.size()) + " numbers, expected " +
                                       std::to_string(expected));
  }
  const int64_t value = list[static_cast<size_t>(i)];
  if (value < low || value > (int64_t{1} << 30)) {
    return Status(Code::kBadModel, std::string(name) + " has the number " + std::to_string(value));
  }
  return value;
}

// Sizes are limited to 2^30 here, so that block size times dilation and the like fit int64.
Status check_size(int64_t size) {
  if (size >= 1 && size <= (int64_t{1} << 30)) return {};
  return {Code::kBadModel, "size " + std::to_string(size) + " of image_shape or block_shape is not in [1, 2^30]"};
}

Result<BlockGrid> make_grid(const AttrMap& attrs, const SmallInts& image, const SmallInts& block, const Shape& in) {
  if (image.count < 1 || image.count > kMaxSpatial || block.count != image.count || in.rank() != 3) {
    return Status(Code::kBadModel, "input of shape " + in.to_string() + ", image_shape of " +
                                       std::to_string(image.count) + " and block_shape of " +
                                       std::to_string(block.count) + " sizes do not fit");
  }
  BlockGrid grid;
  grid.spatial = image.count;
  const auto count = static_cast<size_t>(grid.spatial);
  for (int i = 0; i < grid.spatial; ++i) {
    const auto d = static_cast<size_t>(i);
    SPRUN_TRY(check_size(image[i]));
    SPRUN_TRY(check_size(block[i]));
    grid.image[d] = image[i];
    grid.block[d] = block[i];
    SPRUN_ASSIGN(grid.stride[d], attr_at(attrs, "strides", i, count, 1, 1));
    SPRUN_ASSIGN(grid.dilation[d], attr_at(attrs, "dilations", i, count, 1, 1));
    SPRUN_ASSIGN(grid.pad[d], attr_at(attrs, "pads", i, 2 * count, 0, 0));
    SPRUN_ASSIGN(const int64_t pad_end, attr_at(attrs, "pads", i + grid.spatial, 2 * count, 0, 0));
    const int64_t room = image[i] + grid.pad[d] + pad_end - grid.dilation[d] * (block[i] - 1) - 1;
    if (room < 0)
      return Status(Code::kBadModel, "the block is larger than the padded image along axis " + std::to_string(i));
    grid.blocks[d] = room / grid.stride[d] + 1;
    if (__builtin_mul_overflow(grid.block_elements, grid.block[d], &grid.block_elements) ||
        __builtin_mul_overflow(grid.num_blocks, grid.blocks[d], &grid.num_blocks)) {
      return Status(Code::kResourceLimit, "too many blocks");
    }
  }
  if (in[1] % grid.block_elements != 0 || in[2] != grid.num_blocks) {
    return Status(Code::kBadModel, "input of shape " + in.to_string() + " does not hold " +
                                       std::to_string(grid.num_blocks) + " blocks of " +
                                       std::to_string(grid.block_elements) + " elements");
  }
  return grid;
}

template <class Ctx>
Result<BlockGrid> read_grid(const Ctx& ctx, const Shape& in) {
  SPRUN_ASSIGN(const SmallInts image, read_small_ints(ctx.input(1)));
  SPRUN_ASSIGN(const SmallInts block, read_small_ints(ctx.input(2)));
  return make_grid(ctx.attrs(), image, block, in);
}

Status infer_col2im(InferContext& ctx) {
  if (!ctx.has_input(1) || !ctx.has_input(2)) return ctx.error("image_shape or block_shape is missing");
  if (!ctx.has_data(1) || !ctx.has_data(2)) return ctx.needs_data();
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const BlockGrid grid, at_node(ctx, read_grid(ctx, in)));
  std::vector<int64_t> dims = {in[0], in[1] / grid.block_elements};
  dims.insert(dims.end(), grid.image.begin(), grid.image.begin() + grid.spatial);
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Adds what element `e` of every block holds (src [num_blocks]) to one image.
template <class T>
void add_block_element(const BlockGrid& grid, int64_t e, const T* src, T* image) {
  std::array<int64_t, kMaxSpatial> shift{};  // of this element in the image, for block 0
  for (int i = grid.spatial; i-- > 0;) {
    const auto d = static_cast<size_t>(i);
    shift[d] = e % grid.block[d] * grid.dilation[d] - grid.pad[d];
    e /= grid.block[d];
  }
  for (int64_t b = 0; b < grid.num_blocks; ++b) {
    int64_t rest = b, offset = 0, plane = 1;
    bool inside = true;
    for (int i = grid.spatial; i-- > 0;) {
      const auto d = static_cast<size_t>(i);
      const int64_t at = rest % grid.blocks[d] * grid.stride[d] + shift[d];
      rest /= grid.blocks[d];
      inside = inside && at >= 0 && at < grid.image[d];
      if (!inside) break;
      offset += at * plane;
      plane *= grid.image[d];
    }
    if (!inside) continue;
    if constexpr (std::is_integral_v<T>) {
      image[offset] = static_cast<T>(static_cast<uint64_t>(image[offset]) + static_cast<uint64_t>(src[b]));
    } else {
      image[offset] = store<T>(load(image[offset]) + load(src[b]));
    }
  }
}

Status run_col2im(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  SPRUN_ASSIGN(const BlockGrid grid, at_node(ctx, read_grid(ctx, in.shape)));
  if (out.num_elements() == 0) return {};
  return dispatch_numeric(ctx, in.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t plane = out.shape.num_elements(2, out.shape.rank());
    ctx.pool().parallel_for(out.shape[0] * out.shape[1], 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t image = begin; image < end; ++image) {
        T* to = out.as<T>() + image * plane;
        std::fill_n(to, plane, T{});
        for (int64_t e = 0; e < grid.block_elements; ++e) {
          add_block_element(grid, e, in.as<T>() + (image * grid.block_elements + e) * grid.num_blocks, to);
        }
      }
    });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "Col2Im", .since = 18, .inputs = {3, 3}, .infer = infer_col2im, .run = run_col2im},
};

}  // namespace

extern const std::span<const OpDef> k_col2im_ops;
const std::span<const OpDef> k_col2im_ops = kOps;

}  // namespace sprun::graph
