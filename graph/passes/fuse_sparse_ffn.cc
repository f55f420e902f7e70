// Feed-forward layers with exact zeros become one sprun.SparseFfn:
//   down(act(select(gate(x))) * up(x))   or, without up,   down(act(select(gate(x))))
// select is a rectifier, or what fuse_stat_top_k, fuse_threshold and fuse_top_k made. gate and up may read parts of x
// (Spark), or be parts of one layer's result (fused gate_up). Hidden values that others read, activations that do not map
// 0 to 0, and layers whose weights are computed stay as they are; at the plan stage a note says why.
// Statically quantised layers (ffn_layer.h) are taken at the plan stage only, for few rows: with many, the layers as they
// are write and read codes. A zero hidden value is the zero point of the codes that down reads, whatever they are, because
// round(0 / scale) is 0 for every scale above 0.
#include <cmath>
#include <utility>
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/ops/sparse_ffn_gather.h"
#include "graph/passes/activation_name.h"
#include "graph/passes/ffn_gate.h"
#include "graph/passes/ffn_split.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

// Rows up to which statically quantised layers are taken.
constexpr int64_t kStaticRows = 8;

struct Ffn {
  FfnGateMatch gate;
  std::optional<FfnLayerMatch> up;
  bool up_relu = false, fused_up = false;
  bool split = false;  // one weight has both, and each needs its own
  FfnLayerMatch down;
  std::optional<QuantizeParams> y_codes;  // down's result is these codes
  bool is_static = false;
  ValueId x = kNoValue, x_up = kNoValue;  // the same but for statically quantised layers
  int64_t gate_offset = 0, up_offset = 0;
};

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph) {}

  // down's product is v.
  std::optional<Ffn> match(ValueId v, std::string* why) const {
    Ffn ffn;
    const auto down = match_down(v, ffn);
    if (!down || down->column != 0 || down->width != down->n || down->activation != "none") return std::nullopt;
    ffn.down = *down;
    if (down->x_quant == "static") return match_static(std::move(ffn), why);
    const ValueId h = down->x;
    const ValueId core = skip_casts(graph_, h);
    if (!match_hidden(core, ffn, why)) return std::nullopt;
    if (!graph_.has_one_use(h) || !graph_.has_one_use(core)) return refuse(why, "hidden values have other readers");
    if (ffn.gate.layer.width != down->k) return refuse(why, "the layers differ in width");
    if (down->residual != kNoValue && down->form == "nbits") return std::nullopt;
    if (is_static(ffn.gate.layer) || (ffn.up && is_static(*ffn.up))) return std::nullopt;
    if (!match_inputs(ffn)) return refuse(why, "gate and up do not read the same values");
    return ffn;
  }

 private:
  static bool is_static(const FfnLayerMatch& layer) { return layer.x_quant == "static" || !layer.stages.empty(); }

  // The second layer; v may be its result as codes.
  std::optional<FfnLayerMatch> match_down(ValueId v, Ffn& ffn) const {
    const Node* node = graph_.producer(v);
    if (node == nullptr || !node->is("sprun", "LinearInt8") || node->input(linear_layout(*node).y_scale()) == kNoValue) {
      auto down = match_ffn_layer(graph_, v);
      return down && down->stages.empty() ? down : std::nullopt;
    }
    auto down = match_ffn_codes(graph_, v);
    if (!down || down->stages.size() != 1) return std::nullopt;
    ffn.y_codes = down->stages[0].codes;
    down->stages.clear();
    return down;
  }

  // Down reads codes of hidden values, gate and up read codes.
  std::optional<Ffn> match_static(Ffn ffn, std::string* why) const {
    const ValueId h = ffn.down.x;
    const Node* quantize = producer_is(graph_, h, "QuantizeLinear");
    ffn.is_static = true;
    bool found = false;
    if (quantize) {
      const ValueId core = quantize->inputs[0];
      found = match_hidden(core, ffn, why);
      if (found && !graph_.has_one_use(core)) return refuse(why, "hidden values have other readers");
    }
    if (!found && !match_hidden_codes(h, ffn)) return std::nullopt;
    if (!graph_.has_one_use(h)) return refuse(why, "hidden values have other readers");
    if (!reads(ffn.down, result_of(h))) return refuse(why, "hidden values are quantised in one way and read in another");
    if (ffn.gate.layer.width != ffn.down.k) return refuse(why, "the layers differ in width");
    const bool all = ffn.gate.layer.x_quant == "static" && (!ffn.up || ffn.up->x_quant == "static");
    if (!all) return refuse(why, "only some of its layers are statically quantised");
    if (!usable_stages(ffn.gate.layer) || (ffn.up && !usable_stages(*ffn.up))) {
      return refuse(why, "a scale of its codes is no positive number, or too much happens between its layers");
    }
    return match_static_inputs(ffn, why) ? std::optional(std::move(ffn)) : std::nullopt;
  }

  // The hidden values are a layer's codes, none below that of zero.
  bool match_hidden_codes(ValueId h, Ffn& ffn) const {
    auto layer = match_ffn_codes(graph_, h);
    if (!layer || !layer->rectified) return false;
    layer->stages.pop_back();
    layer->activation = "none";
    ffn.gate = {};
    ffn.up.reset();
    ffn.gate.layer = *layer;
    ffn.gate.select = "relu";
    return true;
  }

  // The constants of what makes codes v.
  std::optional<QuantizeParams> result_of(ValueId v) const {
    const Node* node = graph_.producer(v);
    if (node->is("QuantizeLinear")) return quantize_params(graph_, *node);
    const auto layer = match_ffn_codes(graph_, v);
    return layer ? std::optional(layer->stages.back().codes) : std::nullopt;
  }
  bool reads(const FfnLayerMatch& layer, const std::optional<QuantizeParams>& made) const {
    if (!made) return false;
    QuantizeParams params = {layer.x_scale, layer.x_zero, made->dtype};
    if (const Tensor* zero = graph_.constant(layer.x_zero)) params.dtype = zero->dtype();
    return same_codes(graph_, params, *made) && positive(layer.x_scale);
  }
  bool positive(ValueId scale) const {
    const float value = *graph_.constant(scale)->as<float>();
    return std::isfinite(value) && value > 0;
  }
  // At most one row is added, and no more stages than the kernel has.
  bool usable_stages(const FfnLayerMatch& layer) const {
    int rows = 0;
    for (const FfnLayerMatch::Stage& stage : layer.stages) {
      rows += stage.offset != kNoValue;
      if (stage.offset == kNoValue && !positive(stage.codes.scale)) return false;
    }
    return rows <= 1 && layer.stages.size() <= kernels::FfnRequant::kMostStages && positive(layer.x_scale);
  }

  bool match_static_inputs(Ffn& ffn, std::string* why) const {
    ffn.x = ffn.gate.layer.x;
    const DType dtype = graph_.value(ffn.x).dtype;
    bool fits = dtype == DType::kU8 || dtype == DType::kS8;
    if (ffn.up) {
      const FfnLayerMatch &g = ffn.gate.layer, &u = *ffn.up;
      ffn.x_up = u.x;
      ffn.fused_up = g.weight == u.weight && g.x == u.x && g.width < g.n;
      fits = fits && graph_.value(u.x).dtype == dtype;
      if (ffn.fused_up) {
        fits = fits && g.bias == u.bias && g.stages.empty() && u.stages.empty();
      } else {
        fits = fits && g.width == g.n && u.width == u.n;
      }
    }
    return fits || explain(why, "gate and up do not read codes in one way");
  }

  static std::nullopt_t refuse(std::string* why, const std::string& text) {
    *why = text;
    return std::nullopt;
  }

  bool match_hidden(ValueId h, Ffn& ffn, std::string* why) const {
    const Node* node = graph_.producer(h);
    if (node == nullptr) return false;
    if (node->is("Mul") && node->inputs.size() == 2 && node->inputs[0] != node->inputs[1]) {
      return match_product(node->inputs[0], node->inputs[1], ffn, why) ||
             match_product(node->inputs[1], node->inputs[0], ffn, why);
    }
    auto gate = match_ffn_gate(graph_, h, why);
    if (!gate) return false;
    ffn.gate = std::move(*gate);
    return true;
  }

  bool match_product(ValueId a, ValueId b, Ffn& ffn, std::string* why) const {
    auto gate = match_ffn_gate(graph_, a, why);
    if (!gate) return false;
    ffn.gate = std::move(*gate);
    ValueId up = skip_casts(graph_, b);
    const ValueId inner = relu_input(graph_, up);
    ffn.up_relu = inner != kNoValue;
    ffn.up = match_ffn_layer(graph_, ffn.up_relu ? inner : up);
    if (ffn.up && ffn.up->activation == "relu" && !ffn.up_relu) {
      ffn.up_relu = true;
      ffn.up->activation = "none";
    }
    const bool plain = ffn.up && ffn.up->activation == "none" && ffn.up->residual == kNoValue;
    if (!plain) return explain(why, "what the gate is multiplied with is no linear layer's result with constant weights");
    const bool single = graph_.has_one_use(a) && graph_.has_one_use(b) && graph_.has_one_use(up) &&
                        (inner == kNoValue || graph_.has_one_use(inner));
    if (!single) return explain(why, "gate or up values have other readers");
    if (ffn.up->width != ffn.gate.layer.width) return explain(why, "gate and up differ in width");
    return true;
  }
  static bool explain(std::string* why, const std::string& text) {
    if (why->empty()) *why = text;
    return false;
  }

  // Gate and up read one value, each perhaps a part of its columns.
  bool match_inputs(Ffn& ffn) const {
    ffn.x = ffn.x_up = ffn.gate.layer.x;
    if (!ffn.up) return true;
    const FfnLayerMatch &g = ffn.gate.layer, &u = *ffn.up;
    ffn.fused_up = g.weight == u.weight && g.x == u.x && g.form == u.form && g.width < g.n;
    if (ffn.fused_up) {
      // Rows of codes are gathered from a weight of up alone, and only the gate has an activation.
      ffn.split = g.form == "dequant" || g.form == "nbits" || g.activation != "none";
      return g.bias == u.bias;
    }
    if (g.width != g.n || u.width != u.n) return false;
    if (g.x == u.x) return true;
    const auto from_gate = column_range(graph_, g.x), from_up = column_range(graph_, u.x);
    const ValueId whole_gate = from_gate ? from_gate->source : g.x, whole_up = from_up ? from_up->source : u.x;
    if (whole_gate != whole_up) return false;
    ffn.x = ffn.x_up = whole_gate;
    ffn.gate_offset = from_gate ? from_gate->offset : 0;
    ffn.up_offset = from_up ? from_up->offset : 0;
    return true;
  }

  const Graph& graph_;
};

std::string pattern_name(const Ffn& ffn) {
  const std::string& select = ffn.gate.select;
  const bool split = ffn.gate_offset != ffn.up_offset;
  if (select == "stat_top_k") return split ? "Spark FFN (split input, statistical top-k)" : "statistical top-k FFN";
  if (select == "top_k") return "exact top-k FFN";
  if (select == "threshold") {
    const bool absolute = ffn.gate.selector->attrs.get_int("absolute", 0) != 0;
    return absolute ? "thresholded gate FFN (CATS)" : "thresholded ReLU FFN (FATReLU)";
  }
  if (ffn.up_relu) return "dReLU FFN";
  if (ffn.gate.square) return ffn.up ? "squared ReLU GLU FFN" : "squared ReLU FFN";
  return ffn.up ? "ReGLU FFN" : "ReLU FFN";
}

void set_layer(AttrMap& attrs, std::vector<ValueId>& inputs, const std::string& prefix, int input,
               const FfnLayerMatch& layer, int64_t offset, bool weights) {
  attrs.set(prefix + "_form", layer.form);
  attrs.set(prefix + "_trans", int64_t{layer.trans});
  if (!layer.x_quant.empty()) attrs.set(prefix + "_x_quant", layer.x_quant);
  if (!layer.precision.empty()) attrs.set(prefix + "_precision", layer.precision);
  for (auto [name, value] : {std::pair("_n", layer.n), {"_k", layer.k}, {"_bits", layer.bits},
                             {"_block_size", layer.block_size}, {"_offset", offset}, {"_column", layer.column}}) {
    attrs.set(prefix + name, value);
  }
  if (!weights) return;
  const auto at = static_cast<size_t>(input);
  inputs[at] = layer.weight;
  inputs[at + 1] = layer.scale;
  inputs[at + 2] = layer.zero;
  inputs[at + 3] = layer.bias;
}

// Thresholds as float32; the constant itself where it is.
ValueId wide_threshold(Graph& graph, ValueId t) {
  const Tensor& tensor = *graph.constant(t);
  if (tensor.dtype() == DType::kF32) return t;
  auto wide = Tensor::allocate(DType::kF32, tensor.shape());
  if (!wide.ok()) return kNoValue;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    wide->mutable_view().as<float>()[i] =
        tensor.dtype() == DType::kF16 ? to_float(tensor.as<Float16>()[i]) : to_float(tensor.as<BFloat16>()[i]);
  }
  return graph.add_constant(graph.unique_name(graph.value(t).name + "/f32"), std::move(*wide));
}

float scale_of(const Graph& graph, ValueId scale) { return *graph.constant(scale)->as<float>(); }

// The zero point as one of u8 codes.
int64_t zero_as_u8(const Graph& graph, const QuantizeParams& params) {
  return zero_value(graph, params) + (params.dtype == DType::kS8 ? 128 : 0);
}

// What sprun.SparseFfn needs to know of a layer's input codes and of the stages behind it.
void set_codes(const Graph& graph, AttrMap& attrs, std::vector<ValueId>& inputs, const std::string& prefix, int offset,
               const FfnLayerMatch& layer) {
  std::string stages;
  std::vector<float> scales;
  std::vector<int64_t> zeros;
  for (const FfnLayerMatch::Stage& stage : layer.stages) {
    stages += stage.offset == kNoValue ? 'q' : '+';
    if (stage.offset != kNoValue) {
      inputs[static_cast<size_t>(offset)] = stage.offset;
      continue;
    }
    scales.push_back(scale_value(graph, stage.codes));
    zeros.push_back(zero_as_u8(graph, stage.codes));
  }
  attrs.set(prefix + "_x_scale", scale_of(graph, layer.x_scale));
  const QuantizeParams x = {layer.x_scale, layer.x_zero, graph.value(layer.x).dtype};
  attrs.set(prefix + "_x_zero", prefix == "down" ? zero_as_u8(graph, x) : zero_value(graph, x));
  if (stages.empty()) return;
  attrs.set(prefix + "_stages", stages);
  attrs.set(prefix + "_stage_scales", scales);
  attrs.set(prefix + "_stage_zeros", zeros);
}

// The result of the new layer is y, or what is rounded to codes y.
NodeId take_result(Graph& graph, ValueId y, const Ffn& ffn, std::vector<ValueId> inputs) {
  if (!ffn.y_codes) return take_over(graph, y, "sprun", "SparseFfn", 1, std::move(inputs));
  const std::string name = graph.node(graph.value(y).producer).name;
  const NodeId made = graph.add_node("sprun", "SparseFfn", 1, std::move(inputs), {graph.unique_name(name + "/float")});
  graph.node(made).name = name;
  graph.node(made).def = find_op("sprun", "SparseFfn", 1);
  const ValueId result = graph.node(made).outputs[0];
  const std::optional<Shape> shape = graph.value(y).shape;
  graph.value(result).dtype = DType::kF32;
  graph.value(result).shape = shape;
  constexpr int kQuantizeVersion = 13;
  take_over(graph, y, "", "QuantizeLinear", kQuantizeVersion, {result, ffn.y_codes->scale, ffn.y_codes->zero});
  return made;
}

// Gate and up of one weight become two layers; false if they cannot.
bool split(Graph& graph, Ffn& ffn, PassContext& ctx) {
  const auto gate = split_layer(graph, ffn.gate.layer, ctx), up = split_layer(graph, *ffn.up, ctx);
  if (!gate || !up) return false;
  ffn.gate.layer = *gate;
  ffn.up = *up;
  ffn.fused_up = false;
  return true;
}

bool replace(Graph& graph, ValueId y, const Ffn& ffn) {
  std::vector<ValueId> inputs(FfnInput::kCount, kNoValue);
  inputs[FfnInput::kXGate] = ffn.x;
  if (ffn.up) inputs[FfnInput::kXUp] = ffn.x_up;
  inputs[FfnInput::kResidual] = ffn.down.residual;
  AttrMap attrs;
  set_layer(attrs, inputs, "gate", FfnInput::kGate, ffn.gate.layer, ffn.gate_offset, true);
  if (ffn.up) set_layer(attrs, inputs, "up", FfnInput::kUp, *ffn.up, ffn.up_offset, !ffn.fused_up);
  set_layer(attrs, inputs, "down", FfnInput::kDown, ffn.down, 0, true);
  if (ffn.gate.select == "threshold") {
    inputs[FfnInput::kThreshold] = wide_threshold(graph, ffn.gate.threshold);
    if (inputs[FfnInput::kThreshold] == kNoValue) return false;
  }
  if (ffn.gate.selector) {
    for (const auto& [name, value] : ffn.gate.selector->attrs.items()) attrs.set(name, value);
  }
  attrs.set("pattern", pattern_name(ffn));
  attrs.set("select", ffn.gate.select);
  attrs.set("d_ff", ffn.gate.layer.width);
  attrs.set("gate_activation", ffn.gate.layer.activation);
  attrs.set("activation", ffn.gate.activation);
  attrs.set("square", int64_t{ffn.gate.square});
  attrs.set("gated", int64_t{ffn.up.has_value()});
  attrs.set("up_relu", int64_t{ffn.up_relu});
  attrs.set("fused_up", int64_t{ffn.fused_up});
  if (ffn.split) attrs.set("was_one_weight", int64_t{1});
  if (ffn.is_static) {
    set_codes(graph, attrs, inputs, "gate", FfnInput::kGateOffset, ffn.gate.layer);
    if (ffn.up) set_codes(graph, attrs, inputs, "up", FfnInput::kUpOffset, *ffn.up);
    set_codes(graph, attrs, inputs, "down", 0, ffn.down);
  }
  const NodeId made = take_result(graph, y, ffn, std::move(inputs));
  graph.node(made).attrs = std::move(attrs);
  return true;
}

// y + row for the bias of the down layer, else y itself.
ValueId with_bias(const Graph& graph, ValueId y) {
  const NodeId add = only_user(graph, y);
  if (add == kNoNode || !graph.node(add).is("Add")) return y;
  const ValueId sum = graph.node(add).outputs[0];
  const auto layer = match_ffn_layer(graph, sum);
  return layer && layer->bias != kNoValue ? sum : y;
}

// Are there few enough rows for a statically quantised layer? Shapes are known at the plan stage. The layers as they are
// are some percent faster than sprun.SparseFfn where that does not gather.
bool takes_rows(const Graph& graph, const Node& down, const Ffn& ffn, PassContext& ctx) {
  const auto& shape = graph.value(ffn.x).shape;
  if (ctx.stage != PassStage::kPlan || !shape || shape->rank() < 1) return false;
  const int64_t rows = shape->num_elements(0, shape->rank() - 1);
  const auto select = selection_of(ffn.gate.select, ffn.gate.selector ? ffn.gate.selector->attrs : AttrMap());
  if (!select.ok()) return false;
  std::string against = std::to_string(rows) + " rows, zeros are left out up to " + std::to_string(kStaticRows);
  if (rows <= kStaticRows) against = reason_against_union(expected_density(*select, ffn.down.k), rows, kernels::FfnWeights::kInt8);
  if (against.empty()) return true;
  note_miss(ctx, down, "fuse_sparse_ffn", "is a statically quantised " + pattern_name(ffn) + " and stays dense: " + against);
  return false;
}

bool fuse_at(Graph& graph, NodeId n, PassContext& ctx) {
  const ValueId y = with_bias(graph, graph.node(n).outputs[0]);
  // In a chain of layers with activations the next pair, or none, is the feed-forward layer.
  const NodeId next = only_user(graph, y);
  if (next != kNoNode && !activation_name(graph.node(next)).empty()) return false;
  std::string why;
  auto ffn = Matcher(graph).match(y, &why);
  if (ffn && ffn->split && !split(graph, *ffn, ctx)) {
    why = "gate and up are one weight of a shape that cannot be cut";
    ffn.reset();
  }
  if (!ffn) {
    if (!why.empty()) note_miss(ctx, graph.node(n), "fuse_sparse_ffn", "is no sparse feed-forward layer: " + why);
    return false;
  }
  if (ffn->is_static && !takes_rows(graph, graph.node(n), *ffn, ctx)) return false;
  return replace(graph, y, *ffn);
}

// What is added to the result, of its shape, becomes the residual.
bool take_residual(Graph& graph, NodeId n) {
  const Node& node = graph.node(n);
  const ValueId y = node.outputs[0];
  if (node.input(FfnInput::kResidual) != kNoValue || node.attrs.get_string("down_form", "") == "nbits") return false;
  const NodeId add = only_user(graph, y);
  if (add == kNoNode || !graph.node(add).is("Add")) return false;
  const ValueId other = other_input(graph.node(add), y);
  if (other == kNoValue || graph.constant(other)) return false;
  const Value &a = graph.value(y), &b = graph.value(other);
  if (!a.shape || !b.shape || *a.shape != *b.shape || a.dtype != b.dtype) return false;
  graph.set_input(n, FfnInput::kResidual, other);
  graph.move_output(add, 0, n, 0);
  graph.remove_node(add);
  graph.value(y).producer = kNoNode;
  return true;
}

bool may_be_down(const Node& node) {
  return is_linear(node) || node.is("MatMul") || node.is("Gemm") || node.is("com.microsoft", "MatMulNBits");
}

}  // namespace

Result<int> pass_fuse_sparse_ffn(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  // Last layer first: of three layers with activations between, the last two are the feed-forward layer.
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    if (!node.dead && may_be_down(node) && node.outputs.size() == 1 && fuse_at(graph, *it, ctx)) ++fused;
  }
  const int count = graph.num_nodes();
  for (NodeId n = count - 1; n >= 0 && ctx.stage == PassStage::kPlan; --n) {
    if (!graph.node(n).dead && graph.node(n).is("sprun", "SparseFfn") && take_residual(graph, n)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
