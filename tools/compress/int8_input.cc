#include "tools/compress/int8_input.h"

#include <vector>

#include <fmt/format.h>

#include "tools/compress/smoothing.h"

namespace sprun::compress {
namespace {

Status divide(graph::Graph& graph, std::span<LinearLayer* const> layers, const InputSample& sample,
              const Smoothing& smoothing, Int8Input& input) {
  const Vector& s = smoothing.scale;
  SPRUN_ASSIGN(input.divided, divide_channels(graph, layers[0]->x, s, layers[0]->node));
  for (LinearLayer* layer : layers) {
    graph.set_input(layer->node, 0, input.divided);
    layer->x = input.divided;
  }
  input.scale = s;
  input.power = smoothing.power;
  input.range = {static_cast<float>(sample.ranges().min.cwiseQuotient(s).minCoeff()),
                 static_cast<float>(sample.ranges().max.cwiseQuotient(s).maxCoeff())};
  return {};
}

}  // namespace

std::string Int8Input::text(const Int8Spec& spec) const {
  Int8Spec chosen = spec;
  chosen.smooth = scale.has_value();
  chosen.fixed_power = power;
  chosen.residual = residual;
  chosen.residual_above = 0;
  return chosen.text();
}

Result<Int8Input> prepare_int8_input(graph::Graph& graph, std::span<LinearLayer* const> layers,
                                     const Int8Spec& spec, const InputSample& sample,
                                     ThreadPool& pool) {
  Int8Input input;
  input.residual = spec.residual && spec.residual_above == 0;
  const bool measures = spec.residual_above > 0;
  if (!spec.smooth && !measures) return input;
  std::vector<Matrix> weights;
  for (const LinearLayer* layer : layers) weights.push_back(read_weight(graph, *layer));
  const Matrix w = stacked(weights);
  Vector s = Vector::Ones(w.cols());
  if (spec.smooth) {
    const Smoothing smoothing = choose_smoothing(sample, w, spec.mode, spec.fixed_power, pool);
    if (smoothing.power >= 0) {
      SPRUN_TRY(divide(graph, layers, sample, smoothing, input));
      s = smoothing.scale;
      input.note = fmt::format("smoothing: rounding error {:.4f} -> {:.4f}", smoothing.error_before,
                               smoothing.error_after);
    } else {
      input.note = fmt::format("not smoothed: rounding error {:.4f}, no power saves a tenth",
                               smoothing.error_before);
    }
  }
  if (measures) {
    const double error = rounding_error(sample, w, w * s.asDiagonal(), s, spec.mode, pool);
    input.residual = error > spec.residual_above;
    input.note +=
        fmt::format("{}rounding its input: error {:.4f}", input.note.empty() ? "" : ", ", error);
  }
  return input;
}

}  // namespace sprun::compress
