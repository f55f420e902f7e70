#include "graph/ops/sparse_ffn_dense.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "graph/ops/float_elements.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/sparse_ffn/requant.h"

namespace sprun::graph {
namespace {

using kernels::align_scratch;
using Form = FfnLayer::Form;

// Rows that are counted of many: enough to know the density, few enough to cost nothing.
constexpr int64_t kCountEvery = 8;

ConstTensorView rows_of(int64_t m, int64_t n, DType dtype = DType::kF32) { return {nullptr, dtype, {m, n}}; }

void convert_in(DType dtype, const void* from, float* to, int64_t count) {
  const kernels::ElementwiseKernel& convert = *kernels::best_elementwise().kernel;
  (dtype == DType::kF16 ? convert.f16_to_f32 : convert.bf16_to_f32)(static_cast<const uint16_t*>(from), to, count);
}

template <class T>
T* at(void* scratch, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(scratch) + offset);
}

}  // namespace

// Both layers read the same columns with the same form, and nothing happens to the gate alone before the selection.
bool FfnDense::joins() const {
  const FfnLayer &g = p_->gate, &u = p_->up;
  if (!p_->gated || p_->before != kernels::Activation::kNone) return false;
  if (p_->fused_up) return true;
  if (p_->is_static()) return false;  // each may have codes of its own
  if (rows_) return false;            // the gate alone says what is read of up
  return g.form == u.form && g.form != Form::kNBits && g.trans == u.trans && g.offset == u.offset && g.k == u.k &&
         g.x_quant == u.x_quant && g.precision == u.precision && g.block_size == u.block_size;
}

// A bias in float32 where the layer's own is 16-bit; else empty.
Result<Tensor> FfnDense::wide_bias(const PrepareContext& ctx, int input) const {
  const Tensor& bias = ctx.constant(input);
  if (bias.empty() || bias.dtype() == DType::kF32) return Tensor();
  const auto elements = FloatElements::of(bias);
  if (!elements.ok()) return elements.status();
  return Tensor::copy_of({elements->data(), DType::kF32, bias.shape()});
}

Tensor one_scale(float value) { return Tensor::copy_of({&value, DType::kF32, {1}}).value(); }

Tensor one_zero(int32_t value, DType dtype) {
  const auto code = static_cast<uint8_t>(value);
  return Tensor::copy_of({&code, dtype, {1}}).value();
}

// Statically quantised: scale and zero point of the codes that the layer reads and, where it makes the hidden values
// itself, of those that it writes.
void FfnDense::add_codes(const PrepareContext& ctx, const FfnLayer& layer, InnerStep::Spec& spec) const {
  const bool down = layer.input == FfnInput::kDown, gate = layer.input == FfnInput::kGate;
  const DType dtype = down ? DType::kU8 : ctx.input(gate ? FfnInput::kXGate : FfnInput::kXUp).dtype;
  if (!down || direct_) spec.x.dtype = dtype;
  const auto add = [&spec](float scale, int32_t zero, DType type) {
    spec.own.resize(spec.from.size());
    spec.own.push_back(one_scale(scale));
    spec.own.push_back(one_zero(zero, type));
    spec.from.insert(spec.from.end(), 2, InnerStep::kAbsent);
  };
  add(layer.x_scale, layer.x_zero, dtype);
  if (!gate || !direct_) return;
  add(p_->down.x_scale, p_->down.x_zero, DType::kU8);
  spec.y.dtype = DType::kU8;
}

// The op that computes `layer` for all rows; second: and the up layer beside it.
Result<InnerStep> FfnDense::layer_step(PrepareContext& ctx, const FfnLayer& layer, int64_t n,
                                       std::string_view activation, bool second) {
  const bool down = layer.input == FfnInput::kDown;
  InnerStep::Spec spec;
  spec.x = rows_of(p_->m, layer.k);
  spec.y = rows_of(p_->m, n);
  const bool residual = down && has_residual_;
  if (residual) spec.residual = rows_of(p_->m, n);
  const int last = residual ? InnerStep::kResidual : InnerStep::kAbsent;
  AttrMap& attrs = spec.node.attrs;
  attrs.set("activation", std::string(activation));
  if (layer.form == Form::kNBits) {
    spec.node.domain = "com.microsoft";
    spec.node.op_type = "MatMulNBits";
    spec.from = {InnerStep::kX, layer.weight(), layer.scale(), layer.zero(), InnerStep::kAbsent, layer.bias()};
    for (auto [name, value] : {std::pair("N", layer.n), {"K", layer.k}, {"bits", layer.bits}, {"block_size", layer.block_size}}) {
      attrs.set(name, value);
    }
  } else {
    spec.node.domain = "sprun";
    const bool codes = layer.form != Form::kFloat;
    spec.node.op_type = layer.form == Form::kInt8 ? "LinearInt8" : codes ? "LinearDequant" : "Linear";
    if (layer.block_size > 0) attrs.set("block_size", layer.block_size);
    attrs.set("trans_w", int64_t{layer.trans});
    attrs.set("num_weights", int64_t{second ? 2 : 1});
    if (!layer.precision.empty()) attrs.set("precision", layer.precision);
    if (!layer.x_quant.empty()) attrs.set("x_quant", layer.x_quant);
    spec.from = {InnerStep::kX};
    const auto slots = codes ? std::vector<int>{0, 1, 2, 3} : std::vector<int>{0, 3};
    std::vector<int> bases = {layer.input};
    if (second) bases.push_back(p_->up.input);
    for (int slot : slots) {
      for (int base : bases) spec.from.push_back(ctx.has_input(base + slot) ? base + slot : InnerStep::kAbsent);
    }
    spec.from.push_back(last);
    if (layer.is_static()) add_codes(ctx, layer, spec);
  }
  spec.node.version = 1;
  spec.own.resize(spec.from.size());
  for (size_t i = 0; i < spec.from.size(); ++i) {
    const int from = spec.from[i];
    const bool bias = from == FfnInput::kGate + 3 || from == FfnInput::kUp + 3 || from == FfnInput::kDown + 3;
    if (!bias) continue;
    SPRUN_ASSIGN(spec.own[i], wide_bias(ctx, from));
  }
  return InnerStep::prepare(ctx, std::move(spec));
}

Status FfnDense::prepare_first(PrepareContext& ctx) {
  using kernels::Activation;
  const FfnLayer &gate = p_->gate, &up = p_->up;
  constexpr std::string_view kNames[] = {"none", "relu", "gelu_erf", "gelu_tanh", "quick_gelu", "silu", "tanh", "sigmoid"};
  const auto name_of = [&](Activation activation) {
    for (std::string_view name : kNames) {
      if (parse_activation(name) == activation) return name;
    }
    return kNames[0];
  };
  if (p_->masked) {
    has_up_step_ = true;
    ld_up_ = up.n;
    SPRUN_ASSIGN(up_, layer_step(ctx, up, up.n, name_of(p_->up_activation)));
    return {};
  }
  std::string_view before = name_of(p_->before);
  direct_ = !p_->gated && gate.form != Form::kNBits && p_->select.kind == SelectKind::kRelu && !p_->square &&
            p_->before == Activation::kNone && p_->after == Activation::kNone && gate.stages.count == 0;
  if (direct_) before = "relu";
  const bool two = joins() && !p_->fused_up;
  const int64_t width = two ? gate.n + up.n : gate.n;
  SPRUN_ASSIGN(gate_, layer_step(ctx, gate, width, before, two));
  ld_gate_ = width;
  ld_up_ = joins() ? width : up.n;
  has_up_step_ = p_->gated && !joins();
  if (has_up_step_) {
    SPRUN_ASSIGN(up_, layer_step(ctx, up, up.n, "none"));
  }
  return {};
}

void FfnDense::plan_memory(PrepareContext& ctx) {
  int64_t total = 0;
  const auto take = [&total](int64_t floats) {
    const int64_t offset = total;
    total += align_scratch(floats * 4);
    return offset;
  };
  const int64_t m = p_->m;
  const bool wide = dtype_ != DType::kF32;
  at_.x = take(wide ? m * p_->d_in : 0);
  at_.x_gate = take(!p_->masked && p_->gate.k != p_->d_in ? m * p_->gate.k : 0);
  at_.x_up = take(p_->gated && p_->up.k != p_->d_up_in ? m * p_->up.k : 0);
  at_.gate = take(direct_ ? 0 : m * ld_gate_);
  at_.up = take(has_up_step_ ? m * ld_up_ : 0);
  at_.hidden = take(m * p_->d_ff);
  at_.y = take(wide ? m * p_->d_out : 0);
  at_.residual = take(wide && has_residual_ ? m * p_->d_out : 0);
  at_.keys = take(p_->select.kind == SelectKind::kTopK ? p_->d_ff * ctx.max_threads() : 0);
  at_.rows = total;
  total += rows_ ? align_scratch(rows_->scratch_bytes()) : 0;
  at_.inner = total;
  total += align_scratch(std::max({gate_.scratch_bytes(), has_up_step_ ? up_.scratch_bytes() : 0, down_.scratch_bytes()}));
  ctx.scratch_bytes = std::max(ctx.scratch_bytes, total);
}

Result<FfnDense> FfnDense::prepare(PrepareContext& ctx, const FfnProblem& problem, bool gather) {
  FfnDense made;
  made.p_ = &problem;
  made.dtype_ = problem.is_static() ? DType::kF32 : ctx.input(FfnInput::kXGate).dtype;
  made.has_residual_ = ctx.has_input(FfnInput::kResidual);
  for (int input = FfnInput::kGate; input < FfnInput::kThreshold && made.dtype_ != DType::kF32; ++input) {
    if (ctx.has_input(input) && ctx.constant(input).empty()) {
      return Status(Code::kBadModel, "a 16-bit sparse FFN needs constant weights");
    }
  }
  if (gather) {
    SPRUN_ASSIGN(made.rows_, FfnCodeRows::prepare(ctx, problem));
  }
  SPRUN_TRY(made.prepare_first(ctx));
  SPRUN_ASSIGN(made.down_, made.layer_step(ctx, problem.down, problem.d_out, "none"));
  made.plan_memory(ctx);
  ctx.flops += made.gate_.flops() + (made.has_up_step_ ? made.up_.flops() : 0) + made.down_.flops();
  return made;
}

std::string FfnDense::kernel() const {
  std::string text = p_->masked ? up_.kernel() : gate_.kernel();
  if (has_up_step_ && up_.kernel() != text) text += ", " + up_.kernel();
  if (down_.kernel() != text) text += ", " + down_.kernel();
  return text;
}

std::string FfnDense::detail() const {
  std::string text;
  for (const InnerStep* step : {&gate_, &up_, &down_}) {
    if (!step->detail().empty()) text += "; " + step->detail();
  }
  return text;
}

// Columns of X that a layer reads, as rows without gaps.
// Codes of statically quantised layers pass as they are.
const void* FfnDense::slice_x(const RunContext& ctx, const void* given, const FfnLayer& layer, int64_t offset) const {
  if (layer.k == p_->d_in || layer.is_static()) return given;
  const float* x = static_cast<const float*>(given);
  if (p_->m == 1) return x + layer.offset;
  float* rows = at<float>(ctx.scratch(), offset);
  ctx.pool().parallel_for(p_->m, 16384 / layer.k + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) std::copy_n(x + r * p_->d_in + layer.offset, layer.k, rows + r * layer.k);
  });
  return rows;
}

const float* FfnDense::widen(const RunContext& ctx, int input, int64_t offset) const {
  const ConstTensorView& view = ctx.input(input);
  if (view.dtype == DType::kF32) return view.as<float>();
  float* wide = at<float>(ctx.scratch(), offset);
  ctx.pool().parallel_for(view.num_elements(), 16384, [&](int64_t begin, int64_t end, int) {
    convert_in(view.dtype, view.as<uint16_t>() + begin, wide + begin, end - begin);
  });
  return wide;
}

// What statically quantised graphs do to the result of gate or up.
void FfnDense::round_rows(const RunContext& ctx, const FfnLayer& layer, float* rows, int64_t ld) const {
  const kernels::FfnRequant stages = layer.stages_of(ctx);
  if (stages.count == 0) return;
  const auto& quantize = *kernels::select(kernels::quantize_rows_kernels(), kernels::available_isas()).kernel;
  for (int64_t r = 0; r < p_->m; ++r) kernels::requantize(quantize, stages, 0, nullptr, rows + r * ld, p_->d_ff);
}

void FfnDense::finish_rows(const RunContext& ctx, const FfnRow& row, DensityCounter& counter) const {
  float* gate = at<float>(ctx.scratch(), at_.gate) + p_->gate.column;
  float* up = nullptr;
  if (has_up_step_) {
    up = at<float>(ctx.scratch(), at_.up) + p_->up.column;
  } else if (p_->gated) {
    up = at<float>(ctx.scratch(), at_.gate) + (p_->fused_up ? p_->up.column : p_->gate.n);
  }
  round_rows(ctx, p_->gate, gate, ld_gate_);
  if (up != nullptr) round_rows(ctx, p_->up, up, ld_up_);
  float* hidden = at<float>(ctx.scratch(), at_.hidden);
  float* keys = at<float>(ctx.scratch(), at_.keys);
  const int64_t n = p_->d_ff;
  ctx.pool().parallel_for(p_->m, 8192 / n + 1, [&](int64_t begin, int64_t end, int worker) {
    int64_t active = 0;
    for (int64_t r = begin; r < end; ++r) {
      active += row.finish(gate + r * ld_gate_, up ? up + r * ld_up_ : nullptr, hidden + r * n, keys + worker * n);
    }
    counter.add(active, end - begin);
  });
}

// The gate layer has made the hidden values: only some rows are looked at.
void FfnDense::count_rows(const RunContext& ctx, DensityCounter& counter) const {
  if (p_->is_static()) return count_values(ctx, static_cast<uint8_t>(p_->down.x_zero), counter);
  count_values(ctx, 0.0F, counter);
}

template <class T>
void FfnDense::count_values(const RunContext& ctx, T zero, DensityCounter& counter) const {
  const T* hidden = at<T>(ctx.scratch(), at_.hidden);
  const int64_t every = p_->m <= kCountEvery ? 1 : kCountEvery;
  int64_t active = 0, rows = 0;
  for (int64_t r = every / 2; r < p_->m; r += every, ++rows) {
    const T* h = hidden + r * p_->d_ff;
    int32_t count = 0;
    for (int64_t i = 0; i < p_->d_ff; ++i) count += h[i] != zero ? 1 : 0;
    active += count;
  }
  counter.add(active, rows);
}

void FfnDense::mask_rows(const RunContext& ctx, DensityCounter& counter) const {
  const float* mask = ctx.input(FfnInput::kMask).as<float>();
  const float* up = at<float>(ctx.scratch(), at_.up);
  float* hidden = at<float>(ctx.scratch(), at_.hidden);
  int64_t active = 0;
  for (int64_t i = 0; i < p_->m * p_->d_ff; ++i) {
    active += mask[i] != 0.0F;
    hidden[i] = mask[i] * up[i];
  }
  counter.add(active, p_->m);
}

// Up and down of the active neurons; false when these are too many. The gate's result is there. Values of up that a fused
// layer has made with those of the gate are taken as they are.
bool FfnDense::run_gathered(const RunContext& ctx, const FfnRow& row, const float* x, DensityCounter& counter) const {
  const float* gate = at<float>(ctx.scratch(), at_.gate) + p_->gate.column;
  const float* up = p_->fused_up ? at<float>(ctx.scratch(), at_.gate) + p_->up.column : nullptr;
  float* hidden = at<float>(ctx.scratch(), at_.hidden);
  float* keys = at<float>(ctx.scratch(), at_.keys);
  int64_t active = 0;
  for (int64_t r = 0; r < p_->m && !direct_; ++r) {
    active += row.finish(gate + r * ld_gate_, up ? up + r * ld_gate_ : nullptr, hidden + r * p_->d_ff, keys);
  }
  if (rows_->too_many(active)) return false;
  void* scratch = at<char>(ctx.scratch(), at_.rows);
  int64_t listed = 0;
  if (!rows_->list(hidden, scratch, &listed)) return false;
  const float* residual = has_residual_ ? ctx.input(FfnInput::kResidual).as<float>() : nullptr;
  counter.add(rows_->run(ctx, x, listed, residual, ctx.output(0).as<float>(), scratch), p_->m);
  return true;
}

// MatMulNBits has no activation of its own.
void FfnDense::activate_gate(const RunContext& ctx, float* gate) const {
  const bool left = !p_->masked && p_->gate.form == Form::kNBits && p_->before != kernels::Activation::kNone;
  if (!left) return;
  ctx.pool().parallel_for(p_->m, 8192 / p_->d_ff + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) activate_all(p_->before, gate + r * ld_gate_ + p_->gate.column, p_->d_ff);
  });
}

Status FfnDense::run(const RunContext& ctx, const FfnRow& row, DensityCounter& counter) const {
  void* inner = at<char>(ctx.scratch(), at_.inner);
  const void* x = p_->is_static() ? ctx.input(FfnInput::kXGate).data : widen(ctx, FfnInput::kXGate, at_.x);
  const void* x_up = p_->is_static() && p_->gated ? ctx.input(FfnInput::kXUp).data : x;
  float* hidden = at<float>(ctx.scratch(), at_.hidden);
  float* gate = direct_ ? hidden : at<float>(ctx.scratch(), at_.gate);
  if (!p_->masked) SPRUN_TRY(gate_.run(ctx, slice_x(ctx, x, p_->gate, at_.x_gate), gate, nullptr, inner));
  activate_gate(ctx, gate);
  if (rows_ && run_gathered(ctx, row, static_cast<const float*>(x), counter)) return {};
  if (has_up_step_) {
    SPRUN_TRY(up_.run(ctx, slice_x(ctx, x_up, p_->up, at_.x_up), at<float>(ctx.scratch(), at_.up), nullptr, inner));
  }
  if (p_->masked) {
    mask_rows(ctx, counter);
  } else if (direct_) {
    count_rows(ctx, counter);
  } else {
    finish_rows(ctx, row, counter);
  }
  const float* residual = has_residual_ ? widen(ctx, FfnInput::kResidual, at_.residual) : nullptr;
  const bool wide = dtype_ != DType::kF32;
  float* y = wide ? at<float>(ctx.scratch(), at_.y) : ctx.output(0).as<float>();
  SPRUN_TRY(down_.run(ctx, hidden, y, residual, inner));
  if (!wide) return {};
  const kernels::ElementwiseKernel& convert = *kernels::best_elementwise().kernel;
  ctx.pool().parallel_for(ctx.output(0).num_elements(), 16384, [&](int64_t begin, int64_t end, int) {
    (dtype_ == DType::kF16 ? convert.f32_to_f16 : convert.f32_to_bf16)(y + begin, ctx.output(0).as<uint16_t>() + begin,
                                                                      end - begin);
  });
  return {};
}

}  // namespace sprun::graph
