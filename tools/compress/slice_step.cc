// The step that slices: fewer dimensions in the residual stream, after SliceGPT (Ashkboos et al.
// 2024), for pre-norm and post-norm models. What stands behind the last norm stays as wide as it
// was.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "tools/compress/residual_stream.h"
#include "tools/compress/step.h"
#include "tools/compress/stream_basis.h"
#include "tools/compress/stream_rewrite.h"

namespace sprun::compress {
namespace {

constexpr double kMaxSliced = 0.95;
// Widths that are left are multiples of these: a vector of the narrow kernels, a tile of the wide
// ones.
constexpr int64_t kNarrow = 8, kWide = 16, kWideFrom = 256;

struct SliceSpec {
  double sliced = 0;
  bool shared = false;

  std::string text() const { return fmt::format("slice {:g}{}", sliced, shared ? " shared" : ""); }
};

Result<SliceSpec> parse_slice(const RecipeItem& item) {
  const auto bad = [&](const std::string& why) {
    return Status(Code::kUsage, fmt::format("slice '{}': {}", item.spec, why));
  };
  if (item.layers != "*")
    return bad("the residual stream runs through all layers; no pattern can stand before it");
  SliceSpec spec;
  const size_t comma = item.spec.find(',');
  const std::string_view number = std::string_view(item.spec).substr(0, comma);
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), spec.sliced);
  if (error != std::errc() || end != number.data() + number.size())
    return bad("expected a share such as 0.25");
  if (!(spec.sliced >= 0 && spec.sliced <= kMaxSliced))
    return bad(fmt::format("the share must be 0 to {}", kMaxSliced));
  if (comma != std::string::npos) {
    if (item.spec.substr(comma + 1) != "shared")
      return bad("after the share only ',shared' may stand");
    spec.shared = true;
  }
  return spec;
}

int64_t kept_dimensions(int64_t width, double sliced) {
  if (sliced == 0) return width;
  const auto kept =
      static_cast<int64_t>(std::floor(static_cast<double>(width) * (1 - sliced) + 1e-9));
  const int64_t step = width >= kWideFrom ? kWide : kNarrow;
  return std::clamp(kept / step * step, std::min(step, width), width);
}

class SliceStep : public Step {
 public:
  explicit SliceStep(SliceSpec spec) : spec_(spec) {}

  Status check(const graph::Graph& graph, const Calibration& calibration) const override {
    if (calibration.empty()) return {Code::kUsage, "slice needs --calibration"};
    return find_stream(graph).status();
  }

  Status run(StepContext& context) override {
    SPRUN_ASSIGN(const ResidualStream stream, find_stream(context.graph));
    std::vector<int64_t> kept;
    for (const StreamPoint& point : stream.points)
      kept.push_back(kept_dimensions(point.width, spec_.sliced));
    SPRUN_ASSIGN(const std::vector<StreamBasis> bases,
                 estimate_bases(context, stream, kept, spec_.shared));
    if (context.stop.stop_requested()) return {Code::kCancelled, "interrupted"};
    if (spec_.shared && stream.is_post_norm) {
      context.report.warnings.push_back(
          "slice shared: the scales of post-norm layers do not commute with a rotation; their "
          "diagonals are kept, so that not even slice 0 is exact");
    }
    return rewrite_stream(context, stream, bases, spec_.shared, spec_.text()).with_context("slice");
  }

 private:
  Result<ResidualStream> find_stream(const graph::Graph& graph) const {
    auto stream = find_residual_stream(graph);
    if (!stream.ok()) return stream.status().with_context("slice");
    if (!spec_.shared) return stream;
    int64_t width = 0;
    for (const StreamPoint& point : stream->points) {
      if (point.is_last) continue;
      if (width != 0 && width != point.width)
        return Status(Code::kBadModel,
                      "slice shared: the model has residual streams of several widths");
      width = point.width;
    }
    const bool keep_means =
        std::any_of(stream->points.begin(), stream->points.end(),
                    [](const StreamPoint& point) { return point.keeps_mean; });
    for (StreamPoint& point : stream->points) point.keeps_mean |= keep_means && point.subtracts_mean;
    return stream;
  }

  SliceSpec spec_;
};

}  // namespace

bool accepts_slice(const RecipeItem& item) { return item.verb == "slice"; }

Result<std::unique_ptr<Step>> make_slice(std::span<const RecipeItem> items,
                                         std::span<const std::string>) {
  if (items.size() != 1) return Status(Code::kUsage, "slice stands twice in a row; one is enough");
  SPRUN_ASSIGN(const SliceSpec spec, parse_slice(items[0]));
  return std::unique_ptr<Step>(std::make_unique<SliceStep>(spec));
}

}  // namespace sprun::compress
