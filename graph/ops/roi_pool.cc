// RoiAlign and MaxRoiPool: fixed-size features of boxes in a feature map.
#include <algorithm>
#include <cmath>

#include "graph/ops/op_util.h"

namespace sprun::graph {

namespace {

constexpr int64_t kMaxOutputSize = 1 << 20;
constexpr double kMaxSamples =
    1 << 12;  // along one axis of one bin; a box of absurd size must not run forever

struct Box {
  double x1, y1, x2, y2;
};

template <class T>
Box read_box(const T* p, double scale) {
  return {static_cast<double>(load(p[0])) * scale, static_cast<double>(load(p[1])) * scale,
          static_cast<double>(load(p[2])) * scale, static_cast<double>(load(p[3])) * scale};
}

Status check_boxes(const InferContext& ctx, int64_t columns, int64_t out_h, int64_t out_w) {
  const Shape& x = ctx.shape(0);
  const Shape& boxes = ctx.shape(1);
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)) && ctx.dtype(1) == ctx.dtype(0),
                      "inputs must be of one float type"));
  SPRUN_TRY(ctx.check(x.rank() == 4, "input must have 4 axes, got shape " + x.to_string()));
  SPRUN_TRY(ctx.check(
      boxes.rank() == 2 && boxes[1] == columns,
      "rois must have shape [n," + std::to_string(columns) + "], got " + boxes.to_string()));
  return ctx.check(
      out_h > 0 && out_w > 0 && out_h <= kMaxOutputSize && out_w <= kMaxOutputSize,
      "output size " + std::to_string(out_h) + " x " + std::to_string(out_w) + " is out of range");
}

Status set_box_output(InferContext& ctx, int64_t out_h, int64_t out_w) {
  const int64_t dims[] = {ctx.shape(1)[0], ctx.shape(0)[1], out_h, out_w};
  const Result<Shape> y = Shape::checked(dims);
  if (!y.ok()) return ctx.error(y.status().message());
  ctx.set_output(0, ctx.dtype(0), *y);
  return {};
}

// ------------------------------------------------------------------ RoiAlign

Status infer_align(InferContext& ctx) {
  const int64_t h = ctx.attrs().get_int("output_height", 1);
  const int64_t w = ctx.attrs().get_int("output_width", 1);
  SPRUN_TRY(check_boxes(ctx, 4, h, w));
  SPRUN_TRY(ctx.check(ctx.shape(2).num_elements() == ctx.shape(1)[0] && ctx.dtype(2) == DType::kS64,
                      "batch_indices must hold one int64 per roi"));
  const std::string_view mode = ctx.attrs().get_string("mode", "avg");
  SPRUN_TRY(
      ctx.check(mode == "avg" || mode == "max", "mode '" + std::string(mode) + "' is unknown"));
  SPRUN_TRY(ctx.check(ctx.attrs().get_int("sampling_ratio", 0) >= 0, "sampling_ratio is negative"));
  return set_box_output(ctx, h, w);
}

// Bilinear interpolation weights of one sample; a sample outside has weight 0 everywhere.
struct Sample {
  int64_t low, high;
  double low_weight, high_weight;
};

Sample make_sample(double at, int64_t size) {
  if (!(at >= -1.0 && at <= static_cast<double>(size)) || size == 0) return {0, 0, 0, 0};
  at = std::max(at, 0.0);
  int64_t low = static_cast<int64_t>(at);
  if (low >= size - 1) return {size - 1, size - 1, 1, 0};
  const double fraction = at - static_cast<double>(low);
  return {low, low + 1, 1 - fraction, fraction};
}

struct AlignOptions {
  double scale, offset;
  int64_t out_h, out_w, sampling;
  bool average, half_pixel;
};

AlignOptions align_options(const RunContext& ctx) {
  const AttrMap& attrs = ctx.attrs();
  AlignOptions o{};
  o.scale = static_cast<double>(attrs.get_float("spatial_scale", 1.0F));
  o.out_h = attrs.get_int("output_height", 1);
  o.out_w = attrs.get_int("output_width", 1);
  o.sampling = attrs.get_int("sampling_ratio", 0);
  o.average = attrs.get_string("mode", "avg") == "avg";
  // Before opset 16 there was no attribute, and no pixel shift.
  const std::string_view fallback = ctx.opset() < 16 ? "output_half_pixel" : "half_pixel";
  o.half_pixel = attrs.get_string("coordinate_transformation_mode", fallback) == "half_pixel";
  o.offset = o.half_pixel ? 0.5 : 0.0;
  return o;
}

int64_t sample_count(int64_t fixed, double size, int64_t out) {
  if (fixed > 0) return std::min(fixed, static_cast<int64_t>(kMaxSamples));
  const double adaptive = std::ceil(size / static_cast<double>(out));
  return adaptive >= 1.0 ? static_cast<int64_t>(std::min(adaptive, kMaxSamples))
                         : (adaptive == adaptive ? 0 : 1);
}

template <class T>
double interpolate_max(const T* x, int64_t width, const Sample& sy, const Sample& sx) {
  const auto at = [&](int64_t y, int64_t column) {
    return static_cast<double>(load(x[y * width + column]));
  };
  return std::max(std::max(sy.low_weight * sx.low_weight * at(sy.low, sx.low),
                           sy.low_weight * sx.high_weight * at(sy.low, sx.high)),
                  std::max(sy.high_weight * sx.low_weight * at(sy.high, sx.low),
                           sy.high_weight * sx.high_weight * at(sy.high, sx.high)));
}

template <class T>
double interpolate(const T* x, int64_t width, const Sample& sy, const Sample& sx) {
  const auto at = [&](int64_t y, int64_t column) {
    return static_cast<double>(load(x[y * width + column]));
  };
  return sy.low_weight *
             (sx.low_weight * at(sy.low, sx.low) + sx.high_weight * at(sy.low, sx.high)) +
         sy.high_weight *
             (sx.low_weight * at(sy.high, sx.low) + sx.high_weight * at(sy.high, sx.high));
}

// One output plane: box `box` in channel x [height, width].
template <class T>
void align_plane(const AlignOptions& o, const Box& box, const T* x, int64_t height, int64_t width,
                 T* y) {
  double box_w = box.x2 - box.x1;
  double box_h = box.y2 - box.y1;
  if (!o.half_pixel) {  // boxes of at least one pixel
    box_w = std::max(box_w, 1.0);
    box_h = std::max(box_h, 1.0);
  }
  const double bin_w = box_w / static_cast<double>(o.out_w);
  const double bin_h = box_h / static_cast<double>(o.out_h);
  const int64_t samples_w = sample_count(o.sampling, box_w, o.out_w);
  const int64_t samples_h = sample_count(o.sampling, box_h, o.out_h);
  const double count = static_cast<double>(std::max<int64_t>(samples_w * samples_h, 1));
  for (int64_t i = 0; i < o.out_h * o.out_w; ++i) {
    const double top = box.y1 + static_cast<double>(i / o.out_w) * bin_h;
    const double left = box.x1 + static_cast<double>(i % o.out_w) * bin_w;
    double sum = 0;
    double best = 0;
    for (int64_t k = 0; k < samples_h * samples_w; ++k) {
      const double sy =
          top + (static_cast<double>(k / samples_w) + 0.5) * bin_h / static_cast<double>(samples_h);
      const double sx = left + (static_cast<double>(k % samples_w) + 0.5) * bin_w /
                                   static_cast<double>(samples_w);
      const Sample vertical = make_sample(sy, height);
      const Sample horizontal = make_sample(sx, width);
      if (o.average) {
        sum += interpolate(x, width, vertical, horizontal);
      } else {
        const double v = interpolate_max(x, width, vertical, horizontal);
        best = k == 0 ? v : std::max(best, v);
      }
    }
    y[i] = store<T>(static_cast<ComputeType<T>>(o.average ? sum / count : best));
  }
}

Status run_align(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  const int64_t channels = shape[1];
  const int64_t* batch = ctx.input(2).as<int64_t>();
  for (int64_t i = 0; i < ctx.input(2).num_elements(); ++i) {
    SPRUN_TRY(ctx.check(batch[i] >= 0 && batch[i] < shape[0],
                        "batch index " + std::to_string(batch[i]) + " is outside a batch of " +
                            std::to_string(shape[0])));
  }
  const AlignOptions o = align_options(ctx);
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (shape[2] * shape[3] == 0) {
      std::fill_n(ctx.output(0).as<T>(), ctx.output(0).num_elements(), T{});
      return Status();
    }
    ctx.pool().parallel_for(
        ctx.output(0).num_elements() / (o.out_h * o.out_w), 4,
        [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t roi = i / channels;
            Box box = read_box(ctx.input(1).as<T>() + roi * 4, o.scale);
            box = {box.x1 - o.offset, box.y1 - o.offset, box.x2 - o.offset, box.y2 - o.offset};
            const T* x =
                ctx.input(0).as<T>() + (batch[roi] * channels + i % channels) * shape[2] * shape[3];
            align_plane(o, box, x, shape[2], shape[3],
                        ctx.output(0).as<T>() + i * o.out_h * o.out_w);
          }
        });
    return Status();
  });
}

// ------------------------------------------------------------------ MaxRoiPool

// pooled_shape as height and width; {0, 0} when it is not two values.
std::pair<int64_t, int64_t> pooled_size(const AttrMap& attrs) {
  const std::vector<int64_t>& size = attrs.get_ints("pooled_shape");
  return size.size() == 2 ? std::pair(size[0], size[1]) : std::pair<int64_t, int64_t>(0, 0);
}

Status infer_max_roi(InferContext& ctx) {
  const auto [h, w] = pooled_size(ctx.attrs());
  SPRUN_TRY(check_boxes(ctx, 5, h, w));
  return set_box_output(ctx, h, w);
}

struct Range {
  int64_t begin, end;
};

// Pixels of bin i of `count` over a box [first, last] (pixels, inclusive), cut to [0, limit).
Range bin_range(double first, double last, int64_t i, int64_t count, int64_t limit) {
  const double size = std::max(last - first + 1.0, 1.0) / static_cast<double>(count);
  const double top = static_cast<double>(limit);
  const double begin = std::floor(static_cast<double>(i) * size) + first;
  const double end = std::ceil(static_cast<double>(i + 1) * size) + first;
  return {static_cast<int64_t>(std::clamp(begin, 0.0, top)),
          static_cast<int64_t>(std::clamp(end, 0.0, top))};
}

template <class T>
T max_bin(const T* x, int64_t width, const Range& rows, const Range& columns) {
  if (rows.begin >= rows.end || columns.begin >= columns.end) return T{};
  T best = x[rows.begin * width + columns.begin];
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      if (load(x[r * width + c]) > load(best)) best = x[r * width + c];
    }
  }
  return best;
}

Status run_max_roi(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  const auto [out_h, out_w] = pooled_size(ctx.attrs());
  const double scale = static_cast<double>(ctx.attrs().get_float("spatial_scale", 1.0F));
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* y = ctx.output(0).as<T>();
    for (int64_t roi = 0; roi < ctx.input(1).shape[0]; ++roi) {
      const T* entry = ctx.input(1).as<T>() + roi * 5;
      const double batch = static_cast<double>(load(entry[0]));
      SPRUN_TRY(ctx.check(batch >= 0 && batch < static_cast<double>(shape[0]),
                          "a roi names an image outside the batch"));
      const Box box = read_box(entry + 1, scale);
      for (double v : {box.x1, box.y1, box.x2, box.y2})
        SPRUN_TRY(ctx.check(std::isfinite(v), "a roi is not finite"));
      for (int64_t c = 0; c < shape[1]; ++c) {
        const T* x = ctx.input(0).as<T>() +
                     (static_cast<int64_t>(batch) * shape[1] + c) * shape[2] * shape[3];
        for (int64_t i = 0; i < out_h * out_w; ++i) {
          const Range rows =
              bin_range(std::round(box.y1), std::round(box.y2), i / out_w, out_h, shape[2]);
          const Range columns =
              bin_range(std::round(box.x1), std::round(box.x2), i % out_w, out_w, shape[3]);
          *y++ = max_bin(x, shape[3], rows, columns);
        }
      }
    }
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "MaxRoiPool", .inputs = {2, 2}, .infer = infer_max_roi, .run = run_max_roi},
    {.name = "RoiAlign", .since = 10, .inputs = {3, 3}, .infer = infer_align, .run = run_align},
};

}  // namespace

extern const std::span<const OpDef> k_roi_pool_ops;
const std::span<const OpDef> k_roi_pool_ops = kOps;

}  // namespace sprun::graph
