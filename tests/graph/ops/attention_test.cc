// The attention ops beyond their node tests: sprun.Attention in every layout, and refusals of what does not fit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "runtime/base/half.h"
#include "tests/support/op_runner.h"

namespace sprun {
namespace {

using graph::Attr;
using testing_support::make_tensor;
using testing_support::OpCall;
using testing_support::run_op;
using testing_support::values;

using Attrs = std::vector<std::pair<std::string, Attr>>;

Tensor random_tensor(const Shape& shape, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> data(static_cast<size_t>(shape.num_elements()));
  for (float& x : data) x = normal(rng);
  return make_tensor<float>(shape, data);
}

// out[permuted index] = in[index] for a rank 4 tensor.
Tensor permuted(const Tensor& in, std::array<int, 4> perm) {
  const Shape& s = in.shape();
  const Shape shape{s[perm[0]], s[perm[1]], s[perm[2]], s[perm[3]]};
  std::vector<float> out;
  std::array<int64_t, 4> at{};
  for (at[0] = 0; at[0] < shape[0]; ++at[0]) {
    for (at[1] = 0; at[1] < shape[1]; ++at[1]) {
      for (at[2] = 0; at[2] < shape[2]; ++at[2]) {
        for (at[3] = 0; at[3] < shape[3]; ++at[3]) {
          std::array<int64_t, 4> from{};
          for (size_t i = 0; i < 4; ++i) from[static_cast<size_t>(perm[i])] = at[i];
          out.push_back(in.as<float>()[((from[0] * s[1] + from[1]) * s[2] + from[2]) * s[3] + from[3]]);
        }
      }
    }
  }
  return make_tensor<float>(shape, out);
}

void expect_near(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(got.num_elements(), want.num_elements());
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    ASSERT_NEAR(got.as<float>()[i], want.as<float>()[i], 2e-5) << "element " << i;
  }
}

constexpr int64_t kB = 2, kH = 4, kG = 2, kS = 18, kT = 21, kD = 8, kV = 12;

struct Heads {
  Tensor q = random_tensor({kB, kH, kS, kD}, 1);
  Tensor k = random_tensor({kB, kG, kT, kD}, 2);
  Tensor v = random_tensor({kB, kG, kT, kV}, 3);
  Tensor mask = random_tensor({kB, 1, kS, kT}, 4);
};

// What ai.onnx Attention makes of [B, H, S, D] operands.
Tensor onnx_attention(const Heads& h, const Attrs& attrs = {}) {
  return (*run_op({.op = "Attention", .opset = 24, .inputs = {h.q, h.k, h.v, h.mask}, .attrs = attrs}))[0];
}

OpCall fused(std::vector<Tensor> inputs, const Attrs& more) {
  OpCall call{.op = "Attention", .opset = 1, .inputs = std::move(inputs), .domain = "sprun", .threads = 2};
  call.attrs = {{"num_heads", kH}, {"kv_num_heads", kG}, {"head_dim", kD}, {"v_head_dim", kV}};
  for (const auto& attr : more) call.attrs.push_back(attr);
  return call;
}

TEST(FusedAttention, ReadsEveryLayout) {
  const Heads h;
  const Tensor want = onnx_attention(h);
  const Tensor q = permuted(h.q, {0, 2, 1, 3}), v = permuted(h.v, {0, 2, 1, 3});
  const std::vector<std::pair<std::string, Tensor>> keys = {
      {"bhsd", h.k}, {"bshd", permuted(h.k, {0, 2, 1, 3})}, {"bhds", permuted(h.k, {0, 1, 3, 2})}};
  for (const auto& [layout, k] : keys) {
    const auto flat = run_op(fused({q, k, v, h.mask}, {{"k_layout", layout}}));
    ASSERT_TRUE(flat.ok()) << flat.status().message();
    EXPECT_EQ((*flat)[0].shape(), (Shape{kB, kS, kH * kV}));
    expect_near((*flat)[0], permuted(want, {0, 2, 1, 3}));
    const auto heads = run_op(fused({h.q, k, h.v, h.mask}, {{"k_layout", layout}, {"q_layout", "bhsd"},
                                                            {"v_layout", "bhsd"}, {"out_layout", "bhsd"}}));
    ASSERT_TRUE(heads.ok()) << heads.status().message();
    expect_near((*heads)[0], want);
  }
}

TEST(FusedAttention, ReadsPackedRowsAtOffsets) {
  Heads h;
  h.k = random_tensor({kB, kG, kS, kD}, 5), h.v = random_tensor({kB, kG, kS, kV}, 6);
  h.mask = random_tensor({kB, 1, kS, kS}, 7);
  constexpr int64_t kK = kH * kD + 1, kVv = kK + kG * kD, kWidth = kVv + kG * kV + 2;
  std::vector<float> rows(static_cast<size_t>(kB * kS * kWidth), 99.0F);
  const auto put = [&](const Tensor& x, int64_t column) {
    const Shape& s = x.shape();
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      const int64_t d = i % s[3], row = i / s[3] % s[2], head = i / s[3] / s[2] % s[1], b = i / s[3] / s[2] / s[1];
      rows[static_cast<size_t>((b * kS + row) * kWidth + column + head * s[3] + d)] = x.as<float>()[i];
    }
  };
  put(h.q, 0), put(h.k, kK), put(h.v, kVv);
  const Tensor packed = make_tensor<float>({kB, kS, kWidth}, rows);
  const auto got = run_op(fused({packed, packed, packed, h.mask}, {{"k_offset", kK}, {"v_offset", kVv}}));
  ASSERT_TRUE(got.ok()) << got.status().message();
  expect_near((*got)[0], permuted(onnx_attention(h), {0, 2, 1, 3}));
  EXPECT_FALSE(run_op(fused({packed, packed, packed}, {{"k_offset", kK}, {"v_offset", kVv + 3}})).ok());
  EXPECT_FALSE(run_op(fused({packed, packed, packed}, {{"q_offset", int64_t{-1}}})).ok());
  EXPECT_FALSE(run_op(fused({packed, packed, packed}, {{"k_offset", std::numeric_limits<int64_t>::max()}})).ok());
}

TEST(FusedAttention, CausalIsBottomRightAndLengthsEndTheKeys) {
  const Heads h;
  const Attrs layouts = {{"q_layout", "bhsd"}, {"k_layout", "bhsd"}, {"v_layout", "bhsd"}, {"out_layout", "bhsd"}};
  std::vector<float> mask;
  const std::vector<int32_t> lengths = {15, 0};
  for (int64_t b = 0; b < kB; ++b) {
    for (int64_t i = 0; i < kS; ++i) {
      for (int64_t j = 0; j < kT; ++j) {
        const bool keep = j <= i + kT - kS && j < lengths[static_cast<size_t>(b)];
        mask.push_back(keep ? 0.0F : -std::numeric_limits<float>::infinity());
      }
    }
  }
  Heads masked = h;
  masked.mask = make_tensor<float>({kB, 1, kS, kT}, mask);
  Attrs attrs = layouts;
  attrs.emplace_back("causal", int64_t{1});
  const auto got = run_op(fused({h.q, h.k, h.v, Tensor(), make_tensor<int32_t>({kB}, lengths)}, attrs));
  ASSERT_TRUE(got.ok()) << got.status().message();
  expect_near((*got)[0], onnx_attention(masked));
  EXPECT_EQ((*got)[0].as<float>()[kH * kS * kV], 0.0F);  // batch 1 has no key
}

TEST(FusedAttention, RefusesWhatDoesNotFit) {
  const Heads h;
  const Tensor q = permuted(h.q, {0, 2, 1, 3}), k = permuted(h.k, {0, 2, 1, 3}), v = permuted(h.v, {0, 2, 1, 3});
  const auto fails = [](const OpCall& call) { return !run_op(call).ok(); };
  EXPECT_FALSE(fails(fused({q, k, v}, {})));
  EXPECT_TRUE(fails(fused({h.q, k, v}, {})));                                        // layout
  EXPECT_TRUE(fails(fused({q, k, v}, {{"q_layout", "bhds"}})));
  EXPECT_TRUE(fails(fused({q, k, v}, {{"out_layout", "rows"}})));
  EXPECT_TRUE(fails(fused({q, k, v, random_tensor({kB, 1, kS, kT + 1}, 1)}, {})));   // mask
  EXPECT_TRUE(fails(fused({q, k, random_tensor({kB, kT + 1, kG, kV}, 1)}, {})));     // keys
  EXPECT_TRUE(fails(fused({q, k, v, Tensor(), make_tensor<int32_t>({1}, {3})}, {})));
  OpCall call = fused({q, k, v}, {});
  call.attrs[1].second = int64_t{3};  // 4 heads over 3
  EXPECT_TRUE(fails(call));
  call.attrs[1].second = int64_t{0};
  EXPECT_TRUE(fails(call));
  call.attrs[0].second = std::numeric_limits<int64_t>::max();
  EXPECT_TRUE(fails(call));
}

TEST(OnnxAttention, ChecksLengthsAndWindows) {
  const Heads h;
  const auto run = [&](std::vector<int64_t> lengths, const Attrs& attrs) {
    return run_op({.op = "Attention", .opset = 25,
                   .inputs = {h.q, h.k, h.v, Tensor(), Tensor(), Tensor(), make_tensor<int64_t>({kB}, lengths)},
                   .attrs = attrs});
  };
  EXPECT_TRUE(run({kT, 0}, {}).ok());
  EXPECT_FALSE(run({kT + 1, 3}, {}).ok());
  EXPECT_FALSE(run({-1, 3}, {}).ok());
  EXPECT_FALSE(run({3, 3}, {{"left_window_size", int64_t{-2}}}).ok());
  EXPECT_TRUE(run({3, 3}, {{"left_window_size", std::numeric_limits<int64_t>::max()}}).ok());
}

TEST(OnnxAttention, HalfAgreesWithFloat) {
  const Heads h;
  const auto half = [](const Tensor& x) {
    std::vector<Float16> out;
    for (int64_t i = 0; i < x.num_elements(); ++i) out.push_back(to_float16(x.as<float>()[i]));
    return make_tensor<Float16>(x.shape(), out);
  };
  const auto got = run_op({.op = "Attention", .opset = 23, .inputs = {half(h.q), half(h.k), half(h.v), half(h.mask)}});
  ASSERT_TRUE(got.ok()) << got.status().message();
  const Tensor want = onnx_attention(h);
  for (int64_t i = 0; i < want.num_elements(); ++i) {
    ASSERT_NEAR(to_float((*got)[0].as<Float16>()[i]), want.as<float>()[i], 5e-3);
  }
}

// Four tokens whose values are the unit vectors and whose scores are equal: outputs are the weights.
Tensor contrib_weights(const std::vector<int32_t>& mask, const Shape& shape, float filter) {
  std::vector<float> x(16, 0.0F), w(4 * 12, 0.0F);
  for (size_t i = 0; i < 4; ++i) x[i * 5] = w[i * 12 + 8 + i] = 1.0F;
  const auto y =
      run_op({.op = "Attention",
              .opset = 1,
              .inputs = {make_tensor<float>({1, 4, 4}, x), make_tensor<float>({4, 12}, w),
                         make_tensor<float>({12}, std::vector<float>(12, 0.0F)), make_tensor<int32_t>(shape, mask)},
              .attrs = {{"num_heads", int64_t{1}}, {"unidirectional", int64_t{1}}, {"mask_filter_value", filter}},
              .domain = "com.microsoft"});
  EXPECT_TRUE(y.ok()) << y.status().message();
  return (*y)[0];
}

// Expected values: ONNX Runtime 1.32.
TEST(ContribAttention, PaddedRowsSpreadAsTheFilterSays) {
  const float lowest = std::numeric_limits<float>::lowest();
  EXPECT_EQ(values<float>(contrib_weights({0, 1, 1, 1}, {1, 4}, lowest)).at(3), 0.25F);
  EXPECT_EQ(values<float>(contrib_weights({0, 1, 1, 1}, {1, 4}, -10000.0F)).at(0), 1.0F);
  EXPECT_NEAR(values<float>(contrib_weights({3, 1}, {2}, -1.0F)).at(5), 0.7310586F, 1e-6);
  EXPECT_EQ(values<float>(contrib_weights({0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1}, {1, 4, 4}, lowest)).at(2),
            0.25F);
}

TEST(GroupQueryAttention, RefusesLengthsOutsideTheCache) {
  const Tensor q = random_tensor({1, 1, 16}, 1), k = random_tensor({1, 1, 8}, 2), past = random_tensor({1, 1, 5, 8}, 3);
  const auto run = [&](int32_t last, int32_t total, int64_t position) {
    return run_op(
        {.op = "GroupQueryAttention",
         .opset = 1,
         .inputs = {q, k, k, past, past, make_tensor<int32_t>({1}, {last}), make_tensor<int32_t>({}, {total}),
                    random_tensor({6, 4}, 4), random_tensor({6, 4}, 5), make_tensor<int64_t>({1, 1}, {position})},
         .attrs = {{"num_heads", int64_t{2}}, {"kv_num_heads", int64_t{1}}, {"do_rotary", int64_t{1}}},
         .num_outputs = 3,
         .domain = "com.microsoft"});
  };
  const auto fine = run(5, 6, 5);
  ASSERT_TRUE(fine.ok()) << fine.status().message();
  EXPECT_EQ((*fine)[1].shape(), (Shape{1, 1, 6, 8}));
  EXPECT_FALSE(run(6, 6, 5).ok());
  EXPECT_FALSE(run(-2, 6, 5).ok());
  EXPECT_FALSE(run(7, 8, 5).ok());  // more cached rows than there are
  EXPECT_FALSE(run(5, 0, 5).ok());
  EXPECT_FALSE(run(5, std::numeric_limits<int32_t>::max(), 5).ok());
  EXPECT_FALSE(run(5, 6, 6).ok());
  EXPECT_FALSE(run(5, 6, -1).ok());
}

TEST(RotaryEmbedding, RefusesPositionsOutsideTheTables) {
  const auto run = [](std::vector<int64_t> ids) {
    return run_op({.op = "RotaryEmbedding", .inputs = {random_tensor({1, 2, 3, 4}, 1), random_tensor({5, 2}, 2),
                                                       random_tensor({5, 2}, 3), make_tensor<int64_t>({1, 3}, ids)}});
  };
  EXPECT_TRUE(run({0, 4, 2}).ok());
  EXPECT_FALSE(run({0, 5, 2}).ok());
  EXPECT_FALSE(run({0, -1, 2}).ok());
  EXPECT_FALSE(run({0, std::numeric_limits<int64_t>::min(), 2}).ok());
}

}  // namespace
}  // namespace sprun
