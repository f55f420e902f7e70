// sprun.AttentionInt8 against the ONNX operators that it stands for, on the same codes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::OpCall;
using testing_support::run_op;

constexpr int64_t kB = 2, kH = 3, kS = 21, kT = 34, kD = 20, kV = 24;
constexpr float kQScale = 0.03F, kKScale = 0.025F, kVScale = 0.04F, kPScale = 1.0F / 255, kYScale = 0.012F;

Tensor codes(const Shape& shape, int seed, bool is_signed) {
  Tensor tensor = Tensor::allocate(is_signed ? DType::kS8 : DType::kU8, shape).value();
  uint32_t state = static_cast<uint32_t>(seed);
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    state = state * 1664525U + 1013904223U;
    const uint32_t code = ((state >> 24) + (state >> 16 & 0xff) + (state >> 8 & 0xff)) / 3;
    tensor.mutable_view().as<uint8_t>()[i] = static_cast<uint8_t>(is_signed ? code ^ 0x80U : code);
  }
  return tensor;
}

Tensor one(const char* op, std::vector<Tensor> inputs, std::vector<std::pair<std::string, Attr>> attrs = {}) {
  return (*run_op({.op = op, .opset = 17, .inputs = std::move(inputs), .attrs = std::move(attrs)}))[0];
}

struct Zeros {
  int q, k, v, y;
};

Tensor zero_point(int zero, bool is_signed) {
  return is_signed ? make_tensor<int8_t>({}, {static_cast<int8_t>(zero)})
                   : make_tensor<uint8_t>({}, {static_cast<uint8_t>(zero)});
}

Tensor scale_of(float scale) { return make_tensor<float>({}, {scale}); }

struct Inputs {
  Tensor q, k, v, mask;  // [B, H, S, D], [B, H, T, D], [B, H, T, V]
  Zeros zeros;
  bool is_signed;

  Tensor written_out() const {
    const auto real = [&](const Tensor& x, float scale, int zero) {
      return one("DequantizeLinear", {x, scale_of(scale), zero_point(zero, is_signed)});
    };
    const std::vector<int64_t> perm{0, 1, 3, 2};
    const Tensor kt = one("Transpose", {real(k, kKScale, zeros.k)}, {{"perm", perm}});
    Tensor scores = one("Mul", {one("MatMul", {real(q, kQScale, zeros.q), kt}), scale_of(0.25F)});
    if (!mask.empty()) scores = one("Add", {scores, mask});
    const Tensor p = one("Softmax", {scores}, {{"axis", int64_t{-1}}});
    const Tensor p_zero = zero_point(0, false);
    const Tensor p_codes = one("QuantizeLinear", {p, scale_of(kPScale), p_zero});
    const Tensor p_real = one("DequantizeLinear", {p_codes, scale_of(kPScale), p_zero});
    return one("MatMul", {p_real, real(v, kVScale, zeros.v)});
  }

  OpCall fused() const {
    OpCall call{.op = "AttentionInt8", .opset = 1, .inputs = {q, k, v}, .domain = "sprun", .threads = 2};
    if (!mask.empty()) call.inputs.push_back(mask);
    call.attrs = {{"num_heads", kH},       {"head_dim", kD},       {"v_head_dim", kV},    {"scale", 0.25F},
                  {"q_layout", "bhsd"},    {"k_layout", "bhsd"},   {"v_layout", "bhsd"},  {"out_layout", "bhsd"},
                  {"q_scale", kQScale},    {"k_scale", kKScale},   {"v_scale", kVScale},  {"p_scale", kPScale},
                  {"q_zero", int64_t{zeros.q}}, {"k_zero", int64_t{zeros.k}}, {"v_zero", int64_t{zeros.v}}};
    return call;
  }
};

Inputs make_inputs(bool is_signed, const Zeros& zeros) {
  return {codes({kB, kH, kS, kD}, 1, is_signed), codes({kB, kH, kT, kD}, 2, is_signed),
          codes({kB, kH, kT, kV}, 3, is_signed), Tensor(), zeros, is_signed};
}

// Sums in float instead of int32 may move a code of the softmax, and with it a result, by one step.
void expect_near(const Tensor& got, const Tensor& want) {
  ASSERT_EQ(got.shape(), want.shape());
  int64_t different = 0;
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    const float x = got.as<float>()[i], y = want.as<float>()[i];
    ASSERT_NEAR(x, y, 255 * kPScale * kVScale * 1.01F);
    different += std::abs(x - y) > 1e-4F;
  }
  EXPECT_LE(different, got.num_elements() / 100);
}

TEST(AttentionInt8Op, IsTheGraphWrittenOut) {
  for (const bool is_signed : {false, true}) {
    const int mid = is_signed ? 0 : 128;
    Inputs in = make_inputs(is_signed, {mid, mid, mid, mid});
    for (const Zeros& zeros : {Zeros{mid, mid, mid, mid}, Zeros{mid + 11, mid - 7, mid + 3, mid - 20}}) {
      in.zeros = zeros;
      for (const int masked : {0, 1}) {
        in.mask = Tensor();
        if (masked == 1) {
          in.mask = make_tensor<float>({kB, 1, 1, kT}, std::vector<float>(kB * kT, 0.0F));
          for (int64_t i = 0; i < kB * kT; i += 3) in.mask.mutable_view().as<float>()[i] = -1e9F;
        }
        const auto got = run_op(in.fused());
        ASSERT_TRUE(got.ok()) << got.status().message();
        expect_near((*got)[0], in.written_out());
      }
    }
  }
}

TEST(AttentionInt8Op, RequantisesItsResult) {
  for (const bool is_signed : {false, true}) {
    const Inputs in = make_inputs(is_signed, {3, 5, 7, 9});
    OpCall call = in.fused();
    for (const auto& attr : std::vector<std::pair<std::string, Attr>>{
             {"y_scale", kYScale}, {"y_zero", int64_t{9}}, {"y_signed", int64_t{is_signed}}}) {
      call.attrs.push_back(attr);
    }
    const auto got = run_op(call);
    ASSERT_TRUE(got.ok()) << got.status().message();
    EXPECT_EQ((*got)[0].dtype(), is_signed ? DType::kS8 : DType::kU8);
    const Tensor want =
        one("QuantizeLinear", {(*run_op(in.fused()))[0], scale_of(kYScale), zero_point(9, is_signed)});
    for (int64_t i = 0; i < want.num_elements(); ++i) {
      const auto code = [&](const Tensor& t) { return is_signed ? int{t.as<int8_t>()[i]} : int{t.as<uint8_t>()[i]}; };
      EXPECT_LE(std::abs(code((*got)[0]) - code(want)), 1);
    }
  }
}

TEST(AttentionInt8Op, RefusesWhatDoesNotFit) {
  const Inputs in = make_inputs(false, {128, 128, 128, 128});
  const auto fails = [&](auto change) {
    OpCall call = in.fused();
    change(call);
    return !run_op(call).ok();
  };
  EXPECT_TRUE(fails([](OpCall& c) { c.inputs[0] = make_tensor<float>({kB, kH, kS, kD}, {}); }));
  EXPECT_TRUE(fails([](OpCall& c) { c.attrs.push_back({"p_zero", int64_t{256}}); }));
  EXPECT_TRUE(fails([](OpCall& c) { std::erase_if(c.attrs, [](const auto& a) { return a.first == "p_scale"; }); }));
  EXPECT_TRUE(fails([](OpCall& c) { c.inputs.push_back(make_tensor<int64_t>({kT}, {})); }));
  EXPECT_TRUE(fails([](OpCall& c) { c.attrs.push_back({"out_layout", std::string("sdhb")}); }));
}

}  // namespace
}  // namespace sprun::graph
