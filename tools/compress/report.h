// What compression did: figures per layer and for the whole model, as text, JSON and HTML.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "graph/ir/graph.h"
#include "sprun/status.h"

namespace sprun::compress {

// Work and size of a linear layer. Multiply-adds are per row of its input; those with zero weights
// do not count.
struct LayerSize {
  int64_t outputs = 0, inputs = 0, zeros = 0, bytes = 0;

  int64_t parameters() const { return outputs * inputs; }
  int64_t macs() const { return outputs * inputs - zeros; }
};

struct LayerReport {
  std::string name, weight, op;
  LayerSize before,
      after;  // before: all 0 for a layer that was added; after: all 0 for one that was removed
  std::string action;  // "4x1:0.9@sparsegpt, int8"; empty: untouched
  std::string note;    // why it was left alone, or what else to know
  std::optional<double>
      error;  // ||Y - Y'|| / ||Y|| of its output on the calibration data, same input for both
  std::optional<double> cosine;
  std::optional<double> ms_before, ms_after;  // the layer alone, measured for one sample
  double damping = 0;                         // that the method needed; 0: none
};

// One output of the model, original against compressed, on held-out data.
struct OutputReport {
  std::string name;
  double cosine = 1, relative_error = 0;
  // Of outputs that look like scores of classes or tokens: mean KL divergence in nats, part of rows
  // with the same largest element.
  std::optional<double> kl, top1;
  // Of next-token scores: mean negative log-likelihood in nats per token.
  std::optional<double> nll_before, nll_after;
};

struct LatencyReport {
  double before_ms = 0, after_ms = 0;          // medians
  double before_spread = 0, after_spread = 0;  // (third - first quartile) / median
  std::optional<double> predicted_ms;          // before_ms less what the layers alone save
  int runs = 0, threads = 0;
  std::string shapes;

  double speedup() const { return before_ms / after_ms; }
  // Slower by more than the noise, and by what can be told at all.
  bool is_slower() const {
    return after_ms > before_ms * (1 + std::max({before_spread, after_spread, 0.04}) / 2);
  }
};

struct Report {
  std::string model, result, recipe, calibration;
  int64_t samples = 0, held_out_samples = 0;
  std::vector<LayerReport> layers;
  std::vector<OutputReport> outputs;
  std::optional<LatencyReport> latency;
  int64_t file_bytes_before = 0, file_bytes_after = 0, peak_bytes = 0;
  double seconds = 0;
  std::vector<std::string> warnings;

  LayerReport* find(const std::string& name);
  struct Totals {
    int64_t parameters = 0, zeros = 0, macs = 0, bytes = 0;
  };
  Totals before() const;
  Totals after() const;
};

// Fills Report::layers with every linear layer of the graph, before = after.
Status list_layers(const graph::Graph& graph, Report& report);

nlohmann::ordered_json report_json(const Report& report);
// One self-contained page.
std::string report_html(const Report& report);

}  // namespace sprun::compress
