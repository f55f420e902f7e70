#include "graph/ops/sparse_ffn_gather.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "graph/ops/float_elements.h"
#include "graph/ops/int8_product.h"
#include "kernels/sparse_ffn/cost.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {
namespace {

using kernels::Activation;
using kernels::FfnActivation;
using kernels::FfnSparsifier;
using kernels::FfnWeights;
using Form = FfnLayer::Form;

// Layers with fewer bytes of weights stay dense: they lie in a cache, where little is gained.
constexpr int64_t kMinBytes = 512 * 1024;

// Rows up to which gathering is tried. Weights that come from memory pay while the active neurons of all rows together
// are few. Where a cache holds them arithmetic decides, and the dense product has more of it in a nanosecond: 1536 ReLU
// neurons of 512 inputs and outputs at 8 % on Zen 5, one thread, gather against dense: f32 0.48, 0.72 and 1.09 of the
// time of the model for 1, 4 and 8 rows, int8 0.82, 1.03 and 1.24.
int64_t most_rows(FfnWeights weights, int64_t bytes) {
  constexpr int64_t kCached = int64_t{16} << 20;
  if (bytes > kCached) return 8;
  return weights == FfnWeights::kInt8 ? 2 : 4;
}

// Several rows: the neurons that are active for some of them have to be few, because the dense product answers several rows
// for the bytes of one. Gather against dense, int8, 8 rows, 34, 48 and 57 % of the neurons in the union (three layers of
// bench/README.md): 1.11, 1.0 and 0.71 times the speed, 4 rows 1.26 and more; f32, 2048 inputs and outputs, 4096 neurons,
// 19, 34 and 57 %: 1.45, 1.05 and 0.58 times, 75 % 0.54. Layers of which nothing is known beforehand gather for one row
// only, which is never slower.
double most_union(FfnWeights weights) { return weights == FfnWeights::kInt8 ? 0.4 : 0.35; }

kernels::SparseFfnShape shape_of(const FfnProblem& p, FfnWeights weights) {
  return {.d_gate = p.masked ? 0 : p.gate.k, .d_up = p.gated ? p.up.k : 0, .d_ff = p.d_ff, .d_out = p.d_out, .weights = weights};
}

// Lists of active neurons for each of many rows: how many times as fast as dense layers; 0 when that is not known.
double list_speedup(const FfnProblem& p, FfnWeights weights, double density) {
  return density < 0 ? 0 : kernels::token_list_speedup(shape_of(p, weights), p.m, density);
}

// Why rows more than a union of neurons pays for stay dense; empty when each gets a list of its own.
std::string reason_against_lists(const FfnProblem& p, FfnWeights weights, int64_t union_rows) {
  constexpr double kWorthIt = 1.05;
  const double density = p.expected();
  const double speedup = list_speedup(p, weights, density);
  if (speedup >= kWorthIt) return "";
  std::string why = fmt::format("{} rows: the dense product is expected to be faster from {} rows on", p.m, union_rows + 1);
  if (speedup > 0) why += fmt::format("; a list of neurons for each row gives {:.2f} times its speed", speedup);
  if (density < 0) why += "; how many neurons are active is not known";
  return why;
}

std::optional<FfnActivation> activation_of(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return FfnActivation::kIdentity;
    case Activation::kRelu:
      return FfnActivation::kRelu;
    case Activation::kGeluErf:
    case Activation::kGeluErfCodes:
      return FfnActivation::kGeluErf;
    case Activation::kGeluTanh:
      return FfnActivation::kGeluTanh;
    case Activation::kSilu:
      return FfnActivation::kSilu;
    case Activation::kTanh:
    case Activation::kSigmoid:
    case Activation::kQuickGelu:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<FfnSparsifier> sparsifier_of(const FfnProblem& p) {
  const Selection& s = p.select;
  switch (s.kind) {
    case SelectKind::kAll:
      return std::nullopt;
    case SelectKind::kRelu:
      return FfnSparsifier::kRelu;
    case SelectKind::kStatTopK:
      return FfnSparsifier::kStatTopK;
    case SelectKind::kThreshold:
      if (s.shift != 0) return std::nullopt;
      return s.absolute ? FfnSparsifier::kActThreshold : FfnSparsifier::kGateThreshold;
    case SelectKind::kTopK:
      if (s.ties) return std::nullopt;
      return s.absolute ? FfnSparsifier::kTopKAbs : FfnSparsifier::kTopK;
  }
  return std::nullopt;
}

// The rule of the kernels, but for thresholds; nullopt when they have none like it.
std::optional<kernels::SparseFfnRule> rule_of(const FfnProblem& p) {
  if (p.masked) {  // every value that is not zero is taken
    const auto up = activation_of(p.up_activation);
    if (!up) return std::nullopt;
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    return kernels::SparseFfnRule{.sparsifier = FfnSparsifier::kGateThreshold, .up_activation = *up, .threshold = kLowest};
  }
  const auto sparsifier = sparsifier_of(p);
  const bool act_first = sparsifier == FfnSparsifier::kActThreshold;
  Activation before = p.before, after = p.after;
  if (p.select.kind == SelectKind::kTopK && before == Activation::kRelu && after == Activation::kNone) {
    std::swap(before, after);  // the k largest of max(g, 0) are those of g that are positive
  }
  if (act_first) std::swap(before, after);
  auto activation = activation_of(after);
  if (!sparsifier || !activation || before != Activation::kNone) return std::nullopt;
  if (p.square) {
    const bool positive = p.select.kind == SelectKind::kRelu || p.select.kind == SelectKind::kStatTopK;
    if (!positive || after != Activation::kNone) return std::nullopt;
    activation = FfnActivation::kReluSquared;
  }
  return kernels::SparseFfnRule{.sparsifier = *sparsifier,
                                .activation = *activation,
                                .up_activation = p.up_relu ? FfnActivation::kRelu : FfnActivation::kIdentity,
                                .strict = !p.select.inclusive,
                                .ddof = static_cast<int>(p.select.ddof),
                                .z = static_cast<double>(p.select.z),
                                .k = std::min(p.select.k, p.d_ff)};
}

// The type of weights that all three layers can have; nullopt when they differ or need another form.
std::optional<FfnWeights> weights_of(const FfnProblem& p) {
  const FfnLayer& down = p.down;
  std::vector<const FfnLayer*> layers;
  if (!p.masked) layers.push_back(&p.gate);
  if (p.gated) layers.push_back(&p.up);
  for (const FfnLayer* layer : layers) {
    if (layer->form != down.form || layer->precision != down.precision || layer->x_quant != down.x_quant) {
      return std::nullopt;
    }
  }
  if (down.form == Form::kInt8) return FfnWeights::kInt8;
  if (down.form != Form::kFloat || down.precision == "int8") return std::nullopt;
  return down.precision == "bf16" ? FfnWeights::kBf16 : FfnWeights::kF32;
}

int64_t weight_bytes(const FfnProblem& p, FfnWeights weights) {
  const int64_t element = weights == FfnWeights::kInt8 ? 1 : weights == FfnWeights::kBf16 ? 2 : 4;
  return element * p.d_ff * ((p.masked ? 0 : p.gate.k) + (p.gated ? p.up.k : 0) + p.d_out);
}

// The constants of one layer as the packer reads them.
struct Source {
  FloatElements weight, scale, bias;
  std::vector<int32_t> zero;
  kernels::SparseFfnMatrix matrix;

  Status read(const PrepareContext& ctx, const FfnLayer& layer) {
    const Tensor& w = ctx.constant(layer.weight());
    const WeightConstant at = WeightConstant::matrix(w, layer.trans);
    const int64_t first = layer.column * at.stride_n;
    matrix.stride_n = at.stride_n;
    matrix.stride_k = at.stride_k;
    if (layer.form == Form::kInt8) {
      matrix.codes = w.as<uint8_t>() + first;
      matrix.codes_unsigned = w.dtype() == DType::kU8;
      SPRUN_TRY(read_quantisation(ctx, layer));
    } else {
      SPRUN_ASSIGN(weight, FloatElements::of(w));
      matrix.f32 = weight.data() + first;
    }
    if (!ctx.has_input(layer.bias())) return {};
    SPRUN_ASSIGN(bias, FloatElements::of(ctx.constant(layer.bias())));
    matrix.bias = bias.data() + layer.column;
    return {};
  }

  Status read_quantisation(const PrepareContext& ctx, const FfnLayer& layer) {
    SPRUN_ASSIGN(scale, FloatElements::of(ctx.constant(layer.scale())));
    matrix.scale_stride = ctx.input(layer.scale()).num_elements() == 1 ? 0 : 1;
    matrix.scale = scale.data() + layer.column * matrix.scale_stride;
    if (!ctx.has_input(layer.zero())) return {};
    zero = zero_point_values(ctx.constant(layer.zero()).view());
    if (zero.empty()) return {};
    matrix.zero_point_stride = zero.size() == 1 ? 0 : 1;
    matrix.zero_point = zero.data() + layer.column * matrix.zero_point_stride;
    return {};
  }
};

std::string key_of(const PrepareContext& ctx, const kernels::SparseFfn& ffn, const FfnProblem& p) {
  std::string key = fmt::format("sparse_ffn:{}:{}:{}", ffn.name, ffn.gate_nr, p.d_ff);
  for (const FfnLayer* layer : {&p.gate, &p.up, &p.down}) {
    if ((layer == &p.up && !p.gated) || (layer == &p.gate && p.masked)) continue;
    key += fmt::format(":{}", layer->column);
    for (int input : {layer->weight(), layer->scale(), layer->zero(), layer->bias()}) {
      key += fmt::format(":{}", ctx.has_input(input) ? ctx.constant(input).id() : 0);
    }
  }
  return key;
}

// X of gate or up. Signed codes have zero points that are 128 lower than as u8.
kernels::FfnInput input_of(const RunContext& ctx, const FfnLayer& layer, int input) {
  const ConstTensorView& x = ctx.input(input);
  kernels::FfnInput in;
  in.ld = x.shape.back();
  if (!layer.is_static()) {
    in.x = x.as<float>() + layer.offset;
    return in;
  }
  in.codes = x.as<uint8_t>() + layer.offset;
  in.codes_signed = x.dtype == DType::kS8;
  in.scale = &layer.x_scale;
  in.zero_point = &layer.x_zero;
  return in;
}

// True if only plain loops compute this type while better ones compute dense products.
bool only_reference(const kernels::SparseFfn& ffn) {
  const auto& dense = kernels::select(kernels::gemm_f32_kernels(), kernels::available_isas());
  return ffn.name.ends_with("_ref") && !dense.name.ends_with("_ref");
}

}  // namespace

std::string reason_against_union(double density, int64_t rows, FfnWeights weights) {
  if (rows == 1) return "";
  if (density < 0) return fmt::format("{} rows: how many neurons are active for some of them is not known", rows);
  const double active = kernels::expected_union_density(density, rows);
  if (active <= most_union(weights)) return "";
  return fmt::format("{:.0f} % of the neurons are expected to be active for some of {} rows, over {:.0f} %", 100 * active, rows,
                     100 * most_union(weights));
}

std::string FfnGather::reason_against(const PrepareContext& ctx, const FfnProblem& p) {
  const auto weights = weights_of(p);
  if (ctx.sparse() == SparseMode::kOff) return "sparse kernels are switched off";
  if (!p.is_static() && ctx.input(FfnInput::kXGate).dtype != DType::kF32) return "X is no float32";
  if (!weights) return "no kernel for weights of this form";
  for (const FfnLayer* layer : {&p.gate, &p.up, &p.down}) {
    if ((layer != &p.up || p.gated) && (layer != &p.gate || !p.masked) && ctx.constant(layer->weight()).empty()) return "a weight is not constant";
  }
  if (!rule_of(p)) return "no kernel for this selection and activation";
  const auto shape = shape_of(p, *weights);
  if (const char* refusal = kernels::sparse_ffn_refusal(shape)) return refusal;
  if (ctx.sparse() == SparseMode::kForce) return "";
  const int64_t bytes = weight_bytes(p, *weights), rows = most_rows(*weights, bytes);
  if (p.m >= kernels::kFfnListTokens) {
    if (std::string why = reason_against_lists(p, *weights, rows); !why.empty()) return why;
  } else if (p.m > rows) {
    return fmt::format("{} rows: the dense product is expected to be faster from {} rows on", p.m, rows + 1);
  }
  if (p.m <= rows) {
    if (std::string why = reason_against_union(p.expected(), p.m, *weights); !why.empty()) return why;
  }
  if (bytes < kMinBytes) return "small weights, which stay in a cache";
  if (only_reference(kernels::make_sparse_ffn(shape, kernels::available_isas()))) return "no vector kernel on this CPU";
  return "";
}

Result<FfnGather> FfnGather::prepare(PrepareContext& ctx, const FfnProblem& p) {
  FfnGather made;
  made.p_ = &p;
  std::vector<kernels::Rejection> why_not;
  made.ffn_ = kernels::make_sparse_ffn(shape_of(p, *weights_of(p)), kernels::available_isas(), &why_not);
  append_rejections(ctx.rejected, why_not);
  made.rule_ = *rule_of(p);
  made.range_ = p.down.x_quant == "dynamic_tensor" ? kernels::FfnRange::kPerTensor : kernels::FfnRange::kPerRow;
  Source gate, up, down;
  if (!p.masked) SPRUN_TRY(gate.read(ctx, p.gate));
  if (p.gated) SPRUN_TRY(up.read(ctx, p.up));
  SPRUN_TRY(down.read(ctx, p.down));
  const kernels::SparseFfnSource source = {gate.matrix, up.matrix, down.matrix};
  const int64_t bytes = kernels::plan_sparse_ffn(&made.ffn_, source);
  SPRUN_ASSIGN(made.weights_, ctx.packed().get(key_of(ctx, made.ffn_, p), [&]() -> Result<PackedBlob> {
    SPRUN_ASSIGN(PackedBlob blob, allocate_blob(bytes));
    ThreadPool pool(ctx.max_threads());
    kernels::pack_sparse_ffn(made.ffn_, source, pool, blob.data.get());
    return blob;
  }));
  for (int input = FfnInput::kGate; input < FfnInput::kThreshold; ++input) {
    if (ctx.has_input(input)) ctx.unread_inputs.push_back(input);
  }
  ctx.scratch_bytes = std::max(ctx.scratch_bytes, kernels::sparse_ffn_scratch_bytes(made.ffn_, p.m, ctx.max_threads()));
  ctx.flops += 2.0 * static_cast<double>(p.m) * static_cast<double>(p.d_ff) *
               static_cast<double>((p.masked ? 0 : p.gate.k) + (p.gated ? p.up.k : 0) + p.d_out);
  return made;
}

std::string FfnGather::detail(double density) const {
  if (p_->m >= kernels::kFfnListTokens) {
    const double speedup = list_speedup(*p_, ffn_.shape.weights, density);
    const std::string text = fmt::format("a list of active neurons for each of {} rows", p_->m);
    return speedup > 0 ? text + fmt::format(", {:.2f} times the speed of dense layers expected", speedup) : text;
  }
  const auto part = [this](double active) {
    const double all = static_cast<double>(kernels::sparse_ffn_bytes(ffn_, p_->d_ff));
    return 100 * static_cast<double>(kernels::sparse_ffn_bytes(ffn_, static_cast<int64_t>(active))) / all;
  };
  const double width = static_cast<double>(p_->d_ff);
  const double shown = density < 0 ? 0.1 : kernels::expected_union_density(density, p_->m);
  return fmt::format("reads {:.0f} % of the weight bytes at {:.0f} % active neurons", part(shown * width), 100 * shown);
}

void FfnGather::run(const RunContext& ctx, const FfnRow& row, DensityCounter& counter) const {
  kernels::SparseFfnStats stats;
  kernels::SparseFfnArgs args;
  args.tokens = p_->m;
  args.weights = weights_.data.get();
  if (p_->masked) {
    args.gate_values = ctx.input(FfnInput::kMask).as<float>();
    args.ld_gate_values = p_->d_ff;
  } else {
    args.x_gate = input_of(ctx, p_->gate, FfnInput::kXGate);
  }
  if (p_->gated) args.x_up = input_of(ctx, p_->up, FfnInput::kXUp);
  args.rule = rule_;
  const kernels::FfnRequant of_gate = p_->gate.stages_of(ctx), of_up = p_->up.stages_of(ctx);
  if (of_gate.count > 0) args.gate_requant = &of_gate;
  if (of_up.count > 0) args.up_requant = &of_up;
  if (p_->is_static()) args.h_scale = p_->down.x_scale, args.h_zero_point = p_->down.x_zero;
  if (row.thresholds.values != nullptr) {
    args.rule.threshold = *row.thresholds.values;
    args.rule.thresholds = row.thresholds.step == 0 ? nullptr : row.thresholds.values;
  }
  args.range = range_;
  if (ctx.has_input(FfnInput::kResidual)) {
    args.residual = ctx.input(FfnInput::kResidual).as<float>();
    args.ld_residual = p_->d_out;
  }
  args.y = ctx.output(0).as<float>();
  args.ldy = p_->d_out;
  args.stats = &stats;
  kernels::run_sparse_ffn(ffn_, args, ctx.pool(), ctx.scratch());
  counter.add(stats.active, p_->m);
}

}  // namespace sprun::graph
