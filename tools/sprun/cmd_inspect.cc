// sprun inspect: what a model file holds. Works on models that cannot run.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "graph/onnx/onnx_reader.h"
#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/weights.h"

namespace sprun::tools {
namespace {

using graph::Graph;
using Json = nlohmann::ordered_json;

struct InspectArgs {
  std::string path, json;
  bool all_weights = false, linked = false;
};

struct Totals {
  int64_t constants = 0, elements = 0, bytes = 0;
};

// Calls fn for the graph and every body graph in it.
template <class Fn>
void for_each_graph(const Graph& graph, const Fn& fn) {
  fn(graph);
  for (graph::NodeId n = 0; n < graph.num_nodes(); ++n) {
    for (const auto& [name, attr] : graph.node(n).attrs.items()) {
      if (const auto* body = std::get_if<std::shared_ptr<const Graph>>(&attr))
        for_each_graph(**body, fn);
    }
  }
}

std::string shape_text(const graph::Value& value) {
  std::vector<std::string> dims;
  if (value.declared) {
    for (const graph::DimInfo& d : *value.declared) {
      dims.push_back(d.value >= 0 ? std::to_string(d.value) : d.symbol.empty() ? "?" : d.symbol);
    }
    return fmt::format("[{}]", fmt::join(dims, ","));
  }
  return value.shape ? value.shape->to_string() : "[...]";
}

// Share of zero blocks by pattern, outputs x inputs.
Json patterns_json(const graph::WeightZeros& zeros) {
  Json json;
  for (size_t i = 0; i < graph::kPatterns.size(); ++i) {
    json[std::string(graph::kPatterns[i].name)] = 1 - zeros.density[i];
  }
  if (zeros.of_m > 0) json["n_of_m"] = fmt::format("{}:{}", zeros.n_of_m, zeros.of_m);
  return json;
}

// A dimension is a number, a symbol, or null when unknown; the shape is null when not even the rank
// is known.
Json values_json(const Graph& g, std::span<const graph::ValueId> ids) {
  Json list = Json::array();
  for (graph::ValueId id : ids) {
    const graph::Value& v = g.value(id);
    Json shape;
    if (v.declared) {
      shape = Json::array();
      for (const graph::DimInfo& d : *v.declared) {
        shape.push_back(d.value >= 0       ? Json(d.value)
                        : d.symbol.empty() ? Json(nullptr)
                                           : Json(d.symbol));
      }
    } else if (v.shape) {
      shape = std::vector<int64_t>(v.shape->dims().begin(), v.shape->dims().end());
    }
    list.push_back({{"name", v.name}, {"dtype", dtype_name(v.dtype)}, {"shape", shape}});
  }
  return list;
}

std::map<std::string, int64_t> op_histogram(const Graph& graph) {
  std::map<std::string, int64_t> ops;
  for_each_graph(graph, [&](const Graph& g) {
    for (graph::NodeId n = 0; n < g.num_nodes(); ++n) {
      const graph::Node& node = g.node(n);
      if (!node.dead) ++ops[node.domain.empty() ? node.op_type : node.domain + "." + node.op_type];
    }
  });
  return ops;
}

// Initialisers in the file, also those whose data is missing.
Totals totals_of(const graph::OnnxModel& model) {
  Totals totals;
  const auto add = [&](DType dtype, const Shape& shape) {
    ++totals.constants;
    totals.elements += shape.num_elements();
    totals.bytes += shape.num_elements() * dtype_size(dtype);
  };
  for_each_graph(*model.graph, [&](const Graph& g) {
    for (graph::ValueId v = 0; v < g.num_values(); ++v) {
      const graph::Value& value = g.value(v);
      if (value.is_constant()) add(value.constant.dtype(), value.constant.shape());
    }
  });
  for (const graph::MissingData& missing : model.missing_data) {
    const graph::ValueId v = model.graph->find_value(missing.tensor);
    if (v != graph::kNoValue && model.graph->value(v).shape)
      add(model.graph->value(v).dtype, *model.graph->value(v).shape);
  }
  return totals;
}

Json json_of(const InspectArgs& args, const graph::OnnxModel& model,
             const std::vector<LinearWeight>& weights) {
  const Graph& g = *model.graph;
  const Totals totals = totals_of(model);
  Json json = {{"model", args.path},
               {"ir_version", model.ir_version},
               {"producer", model.producer_name},
               {"producer_version", model.producer_version},
               {"opsets", Json::object()},
               {"inputs", values_json(g, g.inputs())},
               {"outputs", values_json(g, g.outputs())},
               {"nodes", g.num_live_nodes()},
               {"ops", op_histogram(g)},
               {"constants", totals.constants},
               {"parameters", totals.elements},
               {"bytes", totals.bytes},
               {"weights", Json::array()},
               {"unsupported", Json::array()},
               {"unsupported_values", model.unsupported_values},
               {"missing_data", Json::array()},
               {"warnings", model.warnings}};
  for (const auto& [domain, version] : model.opsets)
    json["opsets"][domain.empty() ? "ai.onnx" : domain] = version;
  for (const LinearWeight& w : weights) {
    const auto dims = w.shape.dims();
    json["weights"].push_back(
        {{"name", w.name},
         {"op", w.op},
         {"dtype", dtype_name(w.dtype)},
         {"shape", std::vector<int64_t>(dims.begin(), dims.end())},
         {"zeros", w.zeros},
         {"zero_share", w.elements() > 0 ? double(w.zeros) / double(w.elements()) : 0}});
    if (w.patterns) json["weights"].back()["zero_blocks"] = patterns_json(*w.patterns);
  }
  for (const graph::UnsupportedOp& op : model.unsupported_ops) {
    json["unsupported"].push_back({{"domain", op.domain.empty() ? "ai.onnx" : op.domain},
                                   {"op", op.op_type},
                                   {"opset", op.version},
                                   {"reason", op.reason},
                                   {"nodes", op.nodes}});
  }
  for (const graph::MissingData& m : model.missing_data) {
    json["missing_data"].push_back({{"tensor", m.tensor}, {"file", m.file}, {"reason", m.reason}});
  }
  return json;
}

// Share of zero blocks, "-" where it is not known or the weight has next to no zeros.
std::string zero_blocks(const LinearWeight& w, size_t pattern) {
  if (!w.patterns) return "-";
  return fmt::format("{:.1f}%", 100 * (1 - w.patterns->density[pattern]));
}

std::string n_of_m(const LinearWeight& w) {
  if (!w.patterns || w.patterns->of_m == 0) return "-";
  return fmt::format("{}:{}", w.patterns->n_of_m, w.patterns->of_m);
}

std::string header_text(const InspectArgs& args, const graph::OnnxModel& model) {
  const Graph& g = *model.graph;
  std::vector<std::string> opsets;
  for (const auto& [domain, version] : model.opsets) {
    opsets.push_back(fmt::format("{} {}", domain.empty() ? "ai.onnx" : domain, version));
  }
  std::string text =
      fmt::format("model       {}\nproducer    {} {}\nopset       {}  (IR version {})\n", args.path,
                  model.producer_name.empty() ? "unknown" : model.producer_name,
                  model.producer_version, fmt::join(opsets, ", "), model.ir_version);
  for (graph::ValueId v : g.inputs()) {
    text += fmt::format("input       {}  {}{}\n", g.value(v).name, dtype_name(g.value(v).dtype),
                        shape_text(g.value(v)));
  }
  for (graph::ValueId v : g.outputs()) {
    text += fmt::format("output      {}  {}{}\n", g.value(v).name, dtype_name(g.value(v).dtype),
                        shape_text(g.value(v)));
  }
  const Totals totals = totals_of(model);
  text += fmt::format("parameters  {} in {} constants, {:.1f} MiB\n", totals.elements,
                      totals.constants, static_cast<double>(totals.bytes) / (1024.0 * 1024.0));
  std::vector<std::pair<int64_t, std::string>> ops;
  for (const auto& [op, count] : op_histogram(g)) ops.emplace_back(-count, op);
  std::sort(ops.begin(), ops.end());
  std::vector<std::string> counts;
  for (const auto& [count, op] : ops) counts.push_back(fmt::format("{} {}", op, -count));
  return text +
         fmt::format("ops         {} nodes: {}\n", g.num_live_nodes(), fmt::join(counts, ", "));
}

std::string weights_text(const std::vector<LinearWeight>& weights, bool all) {
  int64_t zeros = 0, elements = 0;
  for (const LinearWeight& w : weights) {
    zeros += w.zeros;
    elements += w.elements();
  }
  std::string text = fmt::format(
      "zeros       {:.2f}% of {} elements in {} weights of linear layers\n",
      elements > 0 ? 100.0 * double(zeros) / double(elements) : 0.0, elements, weights.size());
  // Share of zero elements, then of zero blocks by pattern (outputs x inputs).
  std::vector<std::vector<std::string>> table = {{"zeros"}};
  for (size_t i = 1; i < graph::kPatterns.size(); ++i) table[0].emplace_back(graph::kPatterns[i].name);
  for (const char* column : {"N:M", "shape", "dtype", "op", "weight"}) table[0].emplace_back(column);
  for (const LinearWeight& w : weights) {
    const double share = w.elements() > 0 ? double(w.zeros) / double(w.elements()) : 0;
    if (!all && share < 0.01) continue;
    table.push_back({fmt::format("{:.1f}%", 100 * share)});
    for (size_t i = 1; i < graph::kPatterns.size(); ++i) table.back().push_back(zero_blocks(w, i));
    for (std::string cell : {n_of_m(w), w.shape.to_string(), std::string(dtype_name(w.dtype)), w.op, w.name}) {
      table.back().push_back(std::move(cell));
    }
  }
  if (table.size() > 1) text += format_table(table);
  const size_t hidden = weights.size() - (table.size() - 1);
  return hidden > 0 ? text + fmt::format(
                                 "            {} weights with less than 1% zeros not listed "
                                 "(--weights lists all)\n",
                                 hidden)
                    : text;
}

// At most a few names, and how many more.
std::string name_list(const std::vector<std::string>& names) {
  constexpr size_t kShown = 6;
  const size_t shown = std::min(names.size(), kShown);
  const std::string text = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<ptrdiff_t>(shown), ", "));
  return names.size() > shown ? text + fmt::format(" and {} more", names.size() - shown) : text;
}

std::string problems_text(const graph::OnnxModel& model) {
  std::string text;
  for (const graph::UnsupportedOp& op : model.unsupported_ops) {
    text +=
        fmt::format("unsupported {}.{} opset {}{}{}: {} node(s): {}\n",
                    op.domain.empty() ? "ai.onnx" : op.domain, op.op_type, op.version,
                    op.reason.empty() ? "" : ", ", op.reason, op.nodes.size(), name_list(op.nodes));
  }
  for (const std::string& value : model.unsupported_values)
    text += fmt::format("unsupported {}\n", value);
  for (const graph::MissingData& m : model.missing_data) {
    text += fmt::format("missing     {} from {}: {}\n", m.tensor, m.file, m.reason);
  }
  for (const std::string& warning : model.warnings)
    text += fmt::format("warning     {}\n", warning);
  return text;
}

Status inspect(const InspectArgs& args) {
  const Progress progress("reading " + args.path);
  SPRUN_ASSIGN(const graph::OnnxModel model,
               graph::read_onnx(args.path, {.allow_linked_external_data = args.linked}));
  const std::vector<LinearWeight> weights = linear_weights(*model.graph);
  if (args.json != "-") {
    SPRUN_TRY(print(header_text(args, model) + weights_text(weights, args.all_weights) +
                    problems_text(model)));
  }
  return args.json.empty() ? Status() : write_json(args.json, json_of(args, model, weights));
}

}  // namespace

Action setup_inspect(CLI::App& app) {
  auto args = std::make_shared<InspectArgs>();
  app.add_option("MODEL", args->path, "The ONNX file")->required();
  app.add_flag("--weights", args->all_weights,
               "List every weight of a linear layer, also those without zeros");
  app.add_flag("--allow-linked-data", args->linked,
               "Follow symbolic links in the paths of external data");
  app.add_option("--json", args->json, "Write JSON to FILE, or - for standard output");
  return [args] { return inspect(*args); };
}

}  // namespace sprun::tools
