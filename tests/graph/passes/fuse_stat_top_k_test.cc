// Statistical top-k gates (Gemma 3n, Spark) in the spellings of exporters, alone and inside their layers.
#include "tests/graph/passes/ffn_graph.h"

namespace sprun::graph {
namespace {

constexpr int64_t kIn = 24, kFf = 80, kOut = 20;
constexpr float kZ = 1.2815516F;

// How the statistics are written.
struct Spelling {
  bool pow = false;             // Pow(c, 2) instead of Mul(c, c)
  bool axes_attribute = false;  // an axis by its number and as an attribute, as before opset 18
  int ddof = 0;
  bool shape_nodes = false;     // n from Shape, Gather, ReduceProd and Cast
  bool two_steps = false;       // (g - mean) - z std
  bool moments = false;         // mean(g^2) - mean^2
  bool sums = false;            // ReduceSumSquare / n
  bool scaled_left = false;     // z * std
  const char* rectifier = "Relu";
};

class Gate {
 public:
  Gate(FfnGraph& graph, const Spelling& spelling) : f_(graph), s_(spelling) {}

  ValueId of(ValueId g) {
    const ValueId mean = reduce("ReduceMean", g), c = f_.add("Sub", {g, mean});
    ValueId variance = variance_of(g, c, mean);
    const ValueId deviation = f_.add("Sqrt", {variance}), z = f_.scalar(kZ);
    const ValueId scaled = s_.scaled_left ? f_.add("Mul", {z, deviation}) : f_.add("Mul", {deviation, z});
    const ValueId d = s_.two_steps ? f_.add("Sub", {c, scaled}) : f_.add("Sub", {g, f_.add("Add", {mean, scaled})});
    const std::string op = s_.rectifier;
    if (op == "Max") return f_.add("Max", {d, f_.scalar(0)});
    return op == "Clip" ? f_.add("Clip", {d, f_.scalar(0)}) : f_.relu(d);
  }

 private:
  ValueId reduce(const std::string& op, ValueId v) {
    if (!s_.axes_attribute) return f_.add(op, {v, f_.ints({-1})});
    const ValueId y = f_.add(op, {v}, {{"axes", std::vector<int64_t>{2}}});
    Node& node = f_.graph.node(f_.graph.value(y).producer);
    node.version = 13;
    node.def = find_op("", op, 13);
    return y;
  }
  ValueId square(ValueId v) { return s_.pow ? f_.add("Pow", {v, f_.scalar(2)}) : f_.add("Mul", {v, v}); }
  ValueId variance_of(ValueId g, ValueId c, ValueId mean) {
    if (s_.moments) return f_.add("Abs", {f_.add("Sub", {reduce("ReduceMean", square(g)), square(mean)})});
    if (s_.sums) return f_.add("Div", {reduce("ReduceSumSquare", c), f_.scalar(static_cast<float>(kFf - s_.ddof))});
    const ValueId variance = reduce("ReduceMean", square(c));
    if (s_.ddof == 0) return variance;
    ValueId n = f_.scalar(static_cast<float>(kFf)), less = f_.scalar(static_cast<float>(kFf - 1));
    if (s_.shape_nodes) {
      const ValueId sizes = f_.add("Gather", {f_.add("Shape", {g}), f_.ints({2})});
      n = f_.add("Cast", {f_.add("ReduceProd", {sizes}, {{"keepdims", int64_t{0}}})}, {{"to", int64_t{1}}});
      less = f_.add("Sub", {n, f_.scalar(1)});
    }
    return f_.add("Div", {f_.add("Mul", {variance, n}), less});
  }

  FfnGraph& f_;
  Spelling s_;
};

const Spelling kSpellings[] = {
    {},
    {.pow = true, .two_steps = true},
    {.axes_attribute = true, .scaled_left = true},
    {.pow = true, .axes_attribute = true, .ddof = 1, .shape_nodes = true},
    {.ddof = 1},
    {.moments = true},
    {.sums = true, .rectifier = "Max"},
    {.ddof = 1, .sums = true, .rectifier = "Clip"},
};

int64_t ddof_of(const Node* node) { return node ? node->attrs.get_int("ddof", -1) : -1; }

// The density that the pass has found: 1 - Phi(z).
double z_of(const Node* node) { return node ? static_cast<double>(node->attrs.get_float("z", 0)) : 0; }

TEST(FuseStatTopK, GatesOfGemma3nInEverySpelling) {
  for (size_t i = 0; i < std::size(kSpellings); ++i) {
    FfnGraph f(5, kIn);
    const ValueId gate = Gate(f, kSpellings[i]).of(f.linear(f.x, kIn, kFf, 0));
    f.finish(f.linear(f.add("Mul", {f.gelu_tanh(gate), f.linear(f.x, kIn, kFf, 0)}), kFf, kOut, 0));
    const Node* node = f.fuse();
    ASSERT_NE(node, nullptr) << i;
    EXPECT_EQ(node->attrs.get_string("pattern", ""), "statistical top-k FFN") << i;
    EXPECT_EQ(node->attrs.get_string("activation", ""), "gelu_tanh") << i;
    EXPECT_NEAR(z_of(node), kZ, 1e-5) << i;
    EXPECT_EQ(ddof_of(node), kSpellings[i].ddof) << i;
    EXPECT_EQ(f.live_nodes(), 1) << i;
  }
}

TEST(FuseStatTopK, EveryWeightForm) {
  for (WeightForm form : {WeightForm::kTransposed, WeightForm::kDynamicInt8, WeightForm::kDequantized, WeightForm::kNBits}) {
    for (int64_t rows : {1, 4, 17}) {
      FfnGraph f(rows, kIn, form);
      const ValueId gate = Gate(f, {}).of(f.linear(f.x, kIn, kFf));
      f.finish(f.linear(f.add("Mul", {f.gelu_tanh(gate), f.linear(f.x, kIn, kFf)}), kFf, kOut));
      EXPECT_NE(f.fuse(3e-5F), nullptr) << static_cast<int>(form) << " rows " << rows;
    }
  }
}

TEST(FuseStatTopK, ActivationsSpelledOut) {
  FfnGraph f(5, kIn);
  const ValueId r = Gate(f, {}).of(f.linear(f.x, kIn, kFf, 0));
  const ValueId cube = f.add("Mul", {f.add("Mul", {r, r}), r});
  const ValueId inner = f.add("Add", {r, f.add("Mul", {cube, f.scalar(0.044715F)})});
  const ValueId tanh = f.add("Tanh", {f.add("Mul", {inner, f.scalar(0.7978845608F)})});
  const ValueId gelu = f.add("Mul", {f.add("Mul", {r, f.scalar(0.5F)}), f.add("Add", {tanh, f.scalar(1)})});
  f.finish(f.linear(f.add("Mul", {gelu, f.linear(f.x, kIn, kFf, 0)}), kFf, kOut, 0));
  const Node* node = f.fuse(2e-5F);
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->attrs.get_string("activation", ""), "gelu_tanh");
}

TEST(FuseStatTopK, HalfPrecisionWithStatisticsInFloat) {
  FfnGraph f(5, kIn, WeightForm::kHalf);
  const ValueId wide = f.add("Cast", {f.linear(f.input(), kIn, kFf, 0)}, {{"to", int64_t{1}}});
  const ValueId mean = f.add("ReduceMean", {wide, f.ints({-1})}), c = f.add("Sub", {wide, mean});
  const ValueId deviation = f.add("Sqrt", {f.add("ReduceMean", {f.add("Mul", {c, c}), f.ints({-1})})});
  Tensor z = Tensor::allocate(DType::kF32, {}).value();
  *z.mutable_view().as<float>() = kZ;
  const ValueId cutoff = f.add("Add", {mean, f.add("Mul", {deviation, f.constant(z)})});
  const ValueId r = f.add("Cast", {f.relu(f.add("Sub", {wide, cutoff}))}, {{"to", int64_t{10}}});
  f.finish(f.linear(f.add("Mul", {f.gelu_tanh(r), f.linear(f.input(), kIn, kFf, 0)}), kFf, kOut, 0));
  EXPECT_NE(f.fuse(5e-3F), nullptr);
}

TEST(FuseStatTopK, SparkReadsPartsOfItsInput) {
  for (bool split : {false, true}) {
    for (WeightForm form : {WeightForm::kMatMul, WeightForm::kDynamicInt8}) {
      for (int64_t rows : {1, 4}) {
        constexpr int64_t kGate = 8;
        FfnGraph f(rows, kIn, form);
        ValueId first = kNoValue, second = kNoValue;
        if (split) {
          first = f.add("Split", {f.x, f.ints({kGate, kIn - kGate})}, {{"axis", int64_t{-1}}}, "", 2);
          second = f.output(first, 1);
        } else {
          first = f.add("Slice", {f.x, f.ints({0}), f.ints({kGate}), f.ints({2})});
          second = f.add("Slice", {f.x, f.ints({kGate}), f.ints({int64_t{1} << 62}), f.ints({2})});
        }
        const ValueId gate = Gate(f, {}).of(f.linear(first, kGate, kFf, 0));
        const ValueId up = f.linear(second, kIn - kGate, kFf, 0);
        f.finish(f.linear(f.add("Mul", {f.gelu_tanh(gate), up}), kFf, kOut, 0));
        const Node* node = f.fuse(3e-5F);
        ASSERT_NE(node, nullptr) << split << rows;
        EXPECT_EQ(node->attrs.get_string("pattern", ""), "Spark FFN (split input, statistical top-k)");
        EXPECT_EQ(f.live_nodes(), 1);
      }
    }
  }
}

// x - (mean + z std) rectified, with something wrong.
enum class Wrong { kMeanOfOther, kVarianceOfOther, kAxis, kDivisor, kOffset, kSigmoid, kComputedScale };

const Node* with_error(Wrong wrong, std::vector<std::string>* notes) {
  FfnGraph f(5, kIn);
  const ValueId g = f.linear(f.x, kIn, kFf, 0), other = f.linear(f.x, kIn, kFf, 0);
  const ValueId axis = f.ints({wrong == Wrong::kAxis ? 1 : -1});
  const ValueId mean = f.add("ReduceMean", {wrong == Wrong::kMeanOfOther ? other : g, axis});
  const ValueId of = wrong == Wrong::kVarianceOfOther ? other : g;
  const ValueId c = f.add("Sub", {of, of == g ? mean : f.add("ReduceMean", {of, axis})});
  ValueId variance = f.add("ReduceMean", {f.add("Mul", {c, c}), axis});
  if (wrong == Wrong::kDivisor) variance = f.add("Mul", {variance, f.scalar(0.9F)});
  const ValueId z = wrong == Wrong::kComputedScale ? f.add("ReduceMax", {f.x, f.ints({-1})}) : f.scalar(kZ);
  const ValueId cutoff = f.add("Add", {mean, f.add("Mul", {f.add("Sqrt", {variance}), z})});
  ValueId r = f.relu(f.add("Sub", {g, cutoff}));
  if (wrong == Wrong::kOffset) r = f.add("Add", {r, f.scalar(0.1F)});
  const ValueId a = wrong == Wrong::kSigmoid ? f.add("Sigmoid", {r}) : f.gelu_tanh(r);
  f.finish(f.linear(f.add("Mul", {a, other}), kFf, kOut, 0));
  const Node* node = f.fuse();
  *notes = f.notes;
  return node;
}

TEST(FuseStatTopK, NearMissesStayAndSayWhy) {
  for (Wrong wrong : {Wrong::kMeanOfOther, Wrong::kVarianceOfOther, Wrong::kAxis, Wrong::kDivisor, Wrong::kOffset,
                      Wrong::kSigmoid, Wrong::kComputedScale}) {
    std::vector<std::string> notes;
    EXPECT_EQ(with_error(wrong, &notes), nullptr) << static_cast<int>(wrong);
    EXPECT_EQ(notes.empty(), wrong == Wrong::kOffset) << static_cast<int>(wrong);
  }
}

TEST(FuseStatTopK, AloneItIsOneNode) {
  FfnGraph f(5, kIn);
  f.finish(Gate(f, {}).of(f.x));
  EXPECT_NE(f.fuse(1e-5F, "StatTopK"), nullptr);
  EXPECT_EQ(f.live_nodes(), 1);
}

}  // namespace
}  // namespace sprun::graph
