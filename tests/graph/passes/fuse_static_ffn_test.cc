// Feed-forward layers of statically quantised graphs, as quantisers write them: codes around every node or around the
// products only, rectifiers that the codes have swallowed. Results have the bits of the dense layers.
#include <functional>

#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 48, kFf = 96, kOut = 40;

// How activations are quantised: u8 or s8 codes, or s8 codes around zero.
struct Codes {
  DType dtype = DType::kU8;
  bool symmetric = false;

  int middle() const { return dtype == DType::kU8 ? 120 : symmetric ? 0 : -7; }
  int lowest() const { return symmetric ? 0 : dtype == DType::kU8 ? 0 : -128; }  // for what is never negative
};

constexpr Codes kCodes[] = {{DType::kU8, false}, {DType::kS8, false}, {DType::kS8, true}};

class StaticFfn {
 public:
  explicit StaticFfn(Codes c = {}, int64_t rows = 1) : f(rows, kIn, WeightForm::kDequantized), codes(c) {}

  ValueId round(ValueId v, float scale, int zero) {
    const ValueId s = f.scalar(scale), z = f.code(zero, codes.dtype);
    return f.add("DequantizeLinear", {f.add("QuantizeLinear", {v, s, z}), s, z});
  }
  ValueId round(ValueId v, float scale = 0.02F) { return round(v, scale, codes.middle()); }
  ValueId round_positive(ValueId v, float scale) { return round(v, scale, codes.lowest()); }
  // The product alone, and a row that is added to it.
  ValueId product(ValueId v, int64_t k, int64_t n) { return f.linear(v, k, n, 0); }
  ValueId biased(ValueId v, int64_t n) { return f.add("Add", {v, f.random_row(n, -0.3F, 0.3F)}); }

  FfnGraph f;
  Codes codes;
};

using Make = std::function<ValueId(StaticFfn&)>;  // the result of the layer from round(x)

std::string pattern(StaticFfn& s) {
  for (NodeId n = 0; n < s.f.graph.num_nodes(); ++n) {
    const Node& node = s.f.graph.node(n);
    if (!node.dead && node.is("sprun", "SparseFfn")) return std::string(node.attrs.get_string("pattern", ""));
  }
  return "";
}

// The pattern found, after comparing all ways to run it with the graph without the pass, bit by bit.
std::string fused(const Make& make, Codes codes, int64_t rows) {
  const auto build = [&](StaticFfn& s) { s.f.finish(make(s)); };
  StaticFfn dense(codes, rows), sparse(codes, rows);
  build(dense);
  build(sparse);
  dense.f.passes({"fuse_sparse_ffn"});
  sparse.f.passes();
  const Tensor expected = dense.f.run();
  for (SparseMode mode : {SparseMode::kOff, SparseMode::kForce}) {
    const Tensor y = sparse.f.run(mode);
    float largest = 0;
    for (int64_t i = 0; i < y.num_elements(); ++i) {
      EXPECT_EQ(y.as<float>()[i], expected.as<float>()[i]) << i << " rows " << rows;
      if (y.as<float>()[i] != expected.as<float>()[i]) break;
      largest = std::max(largest, std::abs(y.as<float>()[i]));
    }
    EXPECT_GT(largest, 0.0F);
  }
  return pattern(sparse);
}

// Only products are quantised; biases and rectifiers are float.
ValueId products_only(StaticFfn& s) {
  const ValueId g = s.biased(s.round(s.product(s.round(s.f.x), kIn, kFf)), kFf);
  const ValueId h = s.round_positive(s.f.relu(g), 0.015F);
  return s.biased(s.round(s.product(h, kFf, kOut)), kOut);
}

// Everything is quantised; a rectifier in front of codes whose lowest is zero is left out.
ValueId everything(StaticFfn& s) {
  ValueId g = s.round(s.product(s.round(s.f.x), kIn, kFf));
  g = s.biased(g, kFf);
  if (s.codes.symmetric) g = s.f.relu(s.round(g, 0.018F));
  const ValueId h = s.round_positive(g, 0.015F);
  return s.round(s.biased(s.round(s.product(h, kFf, kOut)), kOut));
}

// A Gemm keeps its bias.
ValueId one_product(StaticFfn& s) {
  ValueId g = s.f.linear(s.round(s.f.x), kIn, kFf);
  if (s.codes.symmetric) g = s.f.relu(g);
  return s.round(s.f.linear(s.round_positive(g, 0.015F), kFf, kOut));
}

ValueId gated(StaticFfn& s) {
  const ValueId x = s.round(s.f.x);
  ValueId g = s.product(x, kIn, kFf);
  if (s.codes.symmetric) g = s.f.relu(s.round(g, 0.017F));
  g = s.round_positive(g, 0.015F);
  const ValueId u = s.round(s.product(x, kIn, kFf), 0.019F);
  return s.round(s.product(s.round(s.f.add("Mul", {u, g}), 0.03F), kFf, kOut));
}

// Results of products stay float.
ValueId gated_inputs_only(StaticFfn& s) {
  const ValueId x = s.round(s.f.x);
  const ValueId g = s.f.relu(s.f.linear(x, kIn, kFf)), u = s.f.linear(x, kIn, kFf);
  return s.f.linear(s.round(s.f.add("Mul", {g, u}), 0.03F), kFf, kOut);
}

ValueId drelu(StaticFfn& s) {
  const ValueId x = s.round(s.f.x);
  const ValueId g = s.round_positive(s.f.relu(s.f.linear(x, kIn, kFf)), 0.015F);
  const ValueId u = s.f.relu(s.biased(s.round(s.product(x, kIn, kFf)), kFf));
  return s.f.linear(s.round_positive(s.f.add("Mul", {g, u}), 0.02F), kFf, kOut);
}

TEST(FuseStaticFfn, RectifiedLayersAsQuantisersWriteThem) {
  for (const Codes& codes : kCodes) {
    EXPECT_EQ(fused(products_only, codes, 1), "ReLU FFN");
    EXPECT_EQ(fused(everything, codes, 1), "ReLU FFN");
    EXPECT_EQ(fused(one_product, codes, 1), "ReLU FFN");
    EXPECT_EQ(fused(gated, codes, 1), "ReGLU FFN");
    EXPECT_EQ(fused(gated_inputs_only, codes, 1), "ReGLU FFN");
    EXPECT_EQ(fused(drelu, codes, 1), "dReLU FFN");
  }
}

// max(g - mean(g) - z std(g), 0) between quantised products.
TEST(FuseStaticFfn, StatisticalTopK) {
  for (bool rounded : {false, true}) {
    for (int64_t rows : {1, 4}) {
      const Make make = [rounded](StaticFfn& s) {
        const ValueId x = s.round(s.f.x);
        ValueId g = s.product(x, kIn, kFf);
        if (rounded) g = s.round(g);
        const ValueId axis = s.f.ints({-1});
        const ValueId mean = s.f.add("ReduceMean", {g, axis}), centred = s.f.add("Sub", {g, mean});
        const ValueId variance = s.f.add("ReduceMean", {s.f.add("Mul", {centred, centred}), axis});
        const ValueId cut = s.f.add("Add", {mean, s.f.add("Mul", {s.f.add("Sqrt", {variance}), s.f.scalar(1.2815516F)})});
        const ValueId kept = s.f.gelu_tanh(s.f.relu(s.f.add("Sub", {g, cut})));
        ValueId u = s.product(x, kIn, kFf);
        if (rounded) u = s.round(u);
        return s.f.linear(s.round(s.f.add("Mul", {kept, u}), 0.01F), kFf, kOut);
      };
      StaticFfn s({}, rows);
      s.f.finish(make(s));
      EXPECT_NE(s.f.fuse(2e-2F), nullptr);  // sums of the statistics may round a code to its neighbour
      EXPECT_EQ(pattern(s), "statistical top-k FFN") << rounded;
    }
  }
}

TEST(FuseStaticFfn, RowsThatDoNotPayStayDense) {
  for (int64_t rows : {2, 9}) {
    StaticFfn s({}, rows);
    s.f.finish(products_only(s));
    EXPECT_EQ(s.f.fuse(3e-2F), nullptr);
    EXPECT_TRUE(s.f.noted("is a statically quantised ReLU FFN and stays dense: " + std::to_string(rows) + " rows"));
  }
}

// The k largest of several rows: how many neurons are active for some of them is known.
TEST(FuseStaticFfn, SeveralRowsOfKnownDensity) {
  const Make top_k = [](StaticFfn& s) {
    const ValueId g = s.f.linear(s.round(s.f.x), kIn, kFf);
    const ValueId best = s.f.add("TopK", {g, s.f.ints({5})}, {{"axis", int64_t{-1}}}, "", 2);
    const ValueId zeros = s.f.add("ConstantOfShape", {s.f.add("Shape", {g})});
    const ValueId kept = s.f.add("ScatterElements", {zeros, s.f.output(best, 1), best}, {{"axis", int64_t{-1}}});
    return s.f.linear(s.round(s.f.relu(kept), 0.015F), kFf, kOut);
  };
  for (const Codes& codes : kCodes) {
    for (int64_t rows : {1, 2, 5, 8}) EXPECT_EQ(fused(top_k, codes, rows), "exact top-k FFN") << rows;
  }
}

void expect_dense(const Make& make, const std::string& why, Codes codes = {}) {
  EXPECT_EQ(fused(make, codes, 1), "") << why;
  StaticFfn s(codes);
  s.f.finish(make(s));
  s.f.passes();
  EXPECT_TRUE(why.empty() || s.f.noted(why)) << why;
}

TEST(FuseStaticFfn, NearMisses) {
  expect_dense(  // zero is not the lowest code, and nothing rectifies
      [](StaticFfn& s) { return s.f.linear(s.round(s.f.linear(s.round(s.f.x), kIn, kFf), 0.02F, 1), kFf, kOut); }, "");
  expect_dense(
      [](StaticFfn& s) {
        const ValueId h = s.round_positive(s.f.relu(s.f.linear(s.round(s.f.x), kIn, kFf)), 0.015F);
        return s.f.add("Add", {s.f.linear(h, kFf, kOut), s.f.add("ReduceMax", {h, s.f.ints({-1})})});
      },
      "other readers");
  expect_dense(  // a gate that others read
      [](StaticFfn& s) {
        const ValueId g = s.round(s.product(s.round(s.f.x), kIn, kFf));
        const ValueId h = s.round_positive(s.f.relu(g), 0.015F);
        return s.f.add("Add", {s.f.linear(h, kFf, kOut), s.f.add("ReduceMax", {g, s.f.ints({-1})})});
      },
      "");
  expect_dense(
      [](StaticFfn& s) { return s.f.linear(s.round(s.f.gelu_tanh(s.f.linear(s.round(s.f.x), kIn, kFf))), kFf, kOut); }, "");
  expect_dense(  // codes of one scale, read with another
      [](StaticFfn& s) {
        const ValueId z = s.f.code(0, DType::kU8);
        const ValueId q = s.f.add("QuantizeLinear", {s.f.relu(s.f.linear(s.round(s.f.x), kIn, kFf)), s.f.scalar(0.01F), z});
        return s.f.linear(s.f.add("DequantizeLinear", {q, s.f.scalar(0.02F), z}), kFf, kOut);
      },
      "quantised in one way and read in another");
  expect_dense(  // gate and up of different rounding, but up has float inputs
      [](StaticFfn& s) {
        const ValueId g = s.f.relu(s.f.linear(s.round(s.f.x), kIn, kFf)), u = s.f.linear(s.f.x, kIn, kFf);
        return s.f.linear(s.round(s.f.add("Mul", {g, u}), 0.03F), kFf, kOut);
      },
      "only some of its layers are statically quantised");
}

}  // namespace
}  // namespace sprun::graph
