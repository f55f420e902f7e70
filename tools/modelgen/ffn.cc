// Feed-forward layers of the LLaMA family: gated ones, and those whose hidden units are mostly zero by construction.
//
// Statistical top-k (Spark Transformer; Gemma 3n) keeps what lies above mean + z std of the scores, with
// z = the quantile of a normal distribution, and subtracts that threshold:
//   top(g) = relu(g - (mean(g) + std(g) z)),   population std, over the last axis
#include <cmath>

#include "tools/modelgen/families.h"

namespace sprun::modelgen {

namespace {
// z with P(normal > z) = share.
double upper_quantile(double share) {
  double low = -9, high = 9;
  for (int i = 0; i < 80; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::sqrt(2.0)) / 2 > share ? low : high) = middle;
  }
  return low;
}

double gelu(double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }

// Deviation of fn(g) u for independent normal g and u.
template <class Fn>
double deviation_of(const Fn& fn) {
  constexpr double kStep = 1.0 / 64, kRange = 8;
  double sum = 0;
  for (double g = -kRange; g < kRange; g += kStep) sum += kStep * std::exp(-g * g / 2) * fn(g) * fn(g);
  return std::sqrt(sum / std::sqrt(2 * std::acos(-1.0)));
}

// Deviation of the hidden units for x of deviation 1. (That of SwiGLU is 0.6; its weights keep their scale.)
double hidden_deviation(const Config& c) {
  const double z = c.active > 0 ? upper_quantile(c.active) : 0;
  switch (c.ffn_kind) {
    case Ffn::kSwiGlu: return 0.6;
    case Ffn::kGeGlu: return deviation_of([](double g) { return gelu(g); });
    case Ffn::kReGlu:
    case Ffn::kRelu: return deviation_of([z](double g) { return std::max(g - z, 0.0); });
    case Ffn::kTopK:
    case Ffn::kSpark: return deviation_of([z](double g) { return gelu(std::max(g - z, 0.0)); });
  }
  return 1;
}

ValueId statistical_top_k(Emitter& e, ValueId g) {
  const ValueId mean = e.reduce_mean(g);
  const ValueId centred = e.op("Sub", {g, mean});
  const ValueId deviation = e.op("Sqrt", {e.reduce_mean(e.op("Mul", {centred, centred}))});
  const ValueId z = e.scalar(static_cast<float>(upper_quantile(e.config().active)));
  const ValueId cutoff = e.op("Add", {mean, e.op("Mul", {deviation, z})});
  return e.op("Relu", {e.op("Sub", {g, cutoff})});
}

// A product whose results are above 0 in the wanted share of units.
ValueId biased(Emitter& e, const char* name, ValueId x) {
  const Config& c = e.config();
  const ValueId product = e.matmul(name, x, c.hidden, c.ffn, 1.0f);
  if (c.ffn_kind == Ffn::kReGlu && c.active == 0) return product;
  const Emitter::Scope scope(e, name);
  const float mean = c.active > 0 ? static_cast<float>(-upper_quantile(c.active)) : 0.0f;
  return e.op("Add", {product, e.weight("bias", Shape{c.ffn}, mean, 0.05f)});
}

ValueId spark_hidden(Emitter& e, ValueId x) {
  const Config& c = e.config();
  const int64_t r = c.score_inputs;
  const ValueId first = e.slice(x, e.ints({0}), e.ints({r}), 2);
  const ValueId rest = e.slice(x, e.ints({r}), e.ints({INT64_MAX}), 2);
  const ValueId score = e.matmul("score_proj", first, r, c.ffn, 1.0f);
  const ValueId gate = e.gelu_tanh(statistical_top_k(e, score));
  return e.op("Mul", {gate, e.matmul("value_proj", rest, c.hidden - r, c.ffn, 1.0f)});
}

ValueId hidden_units(Emitter& e, ValueId x) {
  const Config& c = e.config();
  const auto project = [&](const char* name) { return e.matmul(name, x, c.hidden, c.ffn, 1.0f); };
  ValueId gate = graph::kNoValue;
  switch (c.ffn_kind) {
    case Ffn::kSpark: return spark_hidden(e, x);
    case Ffn::kRelu: return e.op("Relu", {biased(e, "up_proj", x)});
    case Ffn::kSwiGlu: gate = e.silu(project("gate_proj")); break;
    case Ffn::kGeGlu: gate = e.gelu_tanh(project("gate_proj")); break;
    case Ffn::kReGlu: gate = e.op("Relu", {biased(e, "gate_proj", x)}); break;
    case Ffn::kTopK: gate = e.gelu_tanh(statistical_top_k(e, project("gate_proj"))); break;
  }
  return e.op("Mul", {gate, project("up_proj")});
}
}  // namespace

ValueId feed_forward(Emitter& e, ValueId x) {
  const Config& c = e.config();
  const double gain = 1.2 / hidden_deviation(c) / std::sqrt(2.0 * static_cast<double>(c.layers));
  return e.matmul("down_proj", hidden_units(e, x), c.ffn, c.hidden, static_cast<float>(gain));
}

}  // namespace sprun::modelgen
