#include <gtest/gtest.h>

#include <functional>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::OpCall;
using testing_support::run_op;
using testing_support::values;

Tensor scalar(int64_t v) { return make_tensor<int64_t>({}, {v}); }
Tensor flag(bool v) { return make_tensor<uint8_t>({}, {static_cast<uint8_t>(v)}, DType::kBool); }
int64_t first(const ConstTensorView& view) { return *view.as<int64_t>(); }

// A body written as a function.
class FakeBody : public SubgraphRunner {
 public:
  using Body = std::function<std::vector<Tensor>(std::string_view, std::span<const ConstTensorView>)>;
  explicit FakeBody(Body body) : body_(std::move(body)) {}
  Result<std::vector<Tensor>> run(std::string_view attr, std::span<const ConstTensorView> inputs) override {
    ++runs;
    if (runs > 1000) return Status(Code::kCancelled, "too many runs");
    return body_(attr, inputs);
  }
  int runs = 0;

 private:
  Body body_;
};

TEST(If, RunsTheBranchOnTheCaptures) {
  FakeBody body([](std::string_view attr, std::span<const ConstTensorView> in) {
    return std::vector<Tensor>{scalar(first(in[attr == "then_branch" ? 0 : 1]))};
  });
  for (const bool condition : {true, false}) {
    const auto y = run_op({.op = "If", .inputs = {flag(condition), scalar(1), scalar(2)}, .subgraphs = &body});
    ASSERT_TRUE(y.ok()) << y.status().message();
    EXPECT_EQ(values<int64_t>((*y)[0]), std::vector<int64_t>{condition ? 1 : 2});
  }
  EXPECT_FALSE(run_op({.op = "If", .inputs = {scalar(1), scalar(1), scalar(2)}, .subgraphs = &body}).ok());
  EXPECT_FALSE(run_op({.op = "If", .inputs = {flag(true), scalar(1)}, .num_outputs = 2, .subgraphs = &body}).ok());
}

// Inputs iteration, condition, sum, capture -> condition (iteration < limit), sum + capture, iteration.
FakeBody counting_body(int64_t limit) {
  return FakeBody([limit](std::string_view, std::span<const ConstTensorView> in) {
    return std::vector<Tensor>{flag(first(in[0]) + 1 < limit), scalar(first(in[2]) + first(in[3])),
                               scalar(first(in[0]))};
  });
}

OpCall loop(const Tensor& trips, const Tensor& condition, FakeBody& body) {
  return {.op = "Loop",
          .inputs = {trips, condition, scalar(100), scalar(5)},
          .attrs = {{"num_carried", int64_t{1}}},
          .num_outputs = 2,
          .subgraphs = &body};
}

TEST(Loop, EndsByTripCountOrCondition) {
  struct Case {
    Tensor trips, condition;
    int64_t limit;
    std::vector<int64_t> scanned;
  };
  const Case cases[] = {
      {scalar(3), Tensor(), 1, {0, 1, 2}},  // the body's condition does not count
      {scalar(3), flag(true), 2, {0, 1}},      {scalar(3), flag(true), 9, {0, 1, 2}},
      {Tensor(), flag(true), 4, {0, 1, 2, 3}}, {make_tensor<int64_t>({1}, {2}), flag(true), 9, {0, 1}},
  };
  for (const Case& c : cases) {
    FakeBody body = counting_body(c.limit);
    const auto y = run_op(loop(c.trips, c.condition, body));
    ASSERT_TRUE(y.ok()) << y.status().message();
    EXPECT_EQ(values<int64_t>((*y)[1]), c.scanned);
    EXPECT_EQ(values<int64_t>((*y)[0]), std::vector<int64_t>{100 + 5 * static_cast<int64_t>(c.scanned.size())});
  }
}

// A body graph with one declared output for each dtype; unknown sizes.
std::shared_ptr<const Graph> declared_body(const std::vector<DType>& dtypes) {
  auto graph = std::make_shared<Graph>();
  std::vector<ValueId> outputs;
  for (const DType dtype : dtypes) {
    const ValueId v = graph->add_value("y" + std::to_string(outputs.size()));
    graph->value(v).dtype = dtype;
    graph->value(v).declared = std::vector<DimInfo>{{3, ""}, {-1, "n"}};
    outputs.push_back(v);
  }
  graph->set_outputs(outputs);
  return graph;
}

TEST(Loop, WithoutIterationsGivesInitialValuesAndEmptyStacks) {
  FakeBody body = counting_body(9);
  for (const auto& [trips, condition] :
       {std::pair(scalar(0), flag(true)), std::pair(scalar(5), flag(false)), std::pair(scalar(-1), Tensor())}) {
    OpCall call = loop(trips, condition, body);
    call.attrs.emplace_back("body", declared_body({DType::kBool, DType::kS64, DType::kF16}));
    const auto y = run_op(call);
    ASSERT_TRUE(y.ok()) << y.status().message();
    EXPECT_EQ(values<int64_t>((*y)[0]), std::vector<int64_t>{100});
    EXPECT_EQ((*y)[1].shape(), (Shape{0, 3, 0}));
    EXPECT_EQ((*y)[1].dtype(), DType::kF16);
  }
  OpCall untyped = loop(scalar(0), flag(true), body);
  untyped.attrs.emplace_back("body", declared_body({DType::kBool, DType::kS64, DType::kUndefined}));
  EXPECT_FALSE(run_op(untyped).ok());
  EXPECT_FALSE(run_op(loop(scalar(0), flag(true), body)).ok());
  EXPECT_EQ(body.runs, 0);
}

TEST(Loop, StopsWhenTheBodyFails) {
  FakeBody body = counting_body(1'000'000'000);
  EXPECT_EQ(run_op(loop(Tensor(), Tensor(), body)).status().code(), Code::kCancelled);
  EXPECT_EQ(body.runs, 1001);
}

TEST(Loop, RefusesBodiesThatDoNotFit) {
  FakeBody growing([](std::string_view, std::span<const ConstTensorView> in) {
    return std::vector<Tensor>{flag(true), scalar(0), Tensor::zeros(DType::kF32, {first(in[0])}).value()};
  });
  EXPECT_FALSE(run_op(loop(scalar(3), Tensor(), growing)).ok());
  FakeBody no_condition([](std::string_view, std::span<const ConstTensorView>) {
    return std::vector<Tensor>{scalar(1), scalar(0), scalar(0)};
  });
  EXPECT_FALSE(run_op(loop(scalar(3), Tensor(), no_condition)).ok());
  FakeBody body = counting_body(9);
  for (const int64_t carried : {int64_t{3}, std::numeric_limits<int64_t>::max()}) {
    OpCall call = loop(scalar(1), Tensor(), body);
    call.attrs[0].second = carried;
    EXPECT_FALSE(run_op(call).ok());
  }
  OpCall none = loop(scalar(1), Tensor(), body);
  none.subgraphs = nullptr;
  EXPECT_EQ(run_op(none).status().code(), Code::kInternal);
}

// State and slice -> their sum, and the sum again as what is scanned out.
FakeBody summing_body() {
  return FakeBody([](std::string_view, std::span<const ConstTensorView> in) {
    Tensor sum = Tensor::allocate(DType::kS64, in[1].shape).value();
    for (int64_t i = 0; i < sum.num_elements(); ++i) {
      sum.mutable_view().as<int64_t>()[i] = in[0].as<int64_t>()[i] + in[1].as<int64_t>()[i];
    }
    return std::vector<Tensor>{sum, sum};
  });
}

OpCall scan(FakeBody& body, std::vector<std::pair<std::string, Attr>> attrs) {
  attrs.emplace_back("num_scan_inputs", int64_t{1});
  return {.op = "Scan",
          .inputs = {make_tensor<int64_t>({2}, {0, 0}), make_tensor<int64_t>({2, 3}, {1, 2, 3, 10, 20, 30})},
          .attrs = std::move(attrs),
          .num_outputs = 2,
          .subgraphs = &body};
}

TEST(Scan, RunsAlongAnyAxisInBothDirections) {
  const std::vector<int64_t> one = {1}, zero = {0};
  FakeBody body = summing_body();
  const auto forward = run_op(scan(body, {{"scan_input_axes", one}, {"scan_output_axes", one}}));
  ASSERT_TRUE(forward.ok()) << forward.status().message();
  EXPECT_EQ(values<int64_t>((*forward)[0]), (std::vector<int64_t>{6, 60}));
  EXPECT_EQ(values<int64_t>((*forward)[1]), (std::vector<int64_t>{1, 3, 6, 10, 30, 60}));
  const auto backward = run_op(scan(body, {{"scan_input_axes", std::vector<int64_t>{-1}},
                                           {"scan_input_directions", one},
                                           {"scan_output_directions", one}}));
  ASSERT_TRUE(backward.ok()) << backward.status().message();
  EXPECT_EQ((*backward)[1].shape(), (Shape{3, 2}));
  EXPECT_EQ(values<int64_t>((*backward)[1]), (std::vector<int64_t>{6, 60, 5, 50, 3, 30}));
}

TEST(Scan, Version8ScansEachItemOfTheBatch) {
  FakeBody body = summing_body();
  const auto y = run_op({.op = "Scan",
                         .opset = 8,
                         .inputs = {make_tensor<int64_t>({2}, {2, 1}), make_tensor<int64_t>({2, 1}, {0, 100}),
                                    make_tensor<int64_t>({2, 2, 1}, {1, 2, 3, 4})},
                         .attrs = {{"num_scan_inputs", int64_t{1}}},
                         .num_outputs = 2,
                         .subgraphs = &body});
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ(values<int64_t>((*y)[0]), (std::vector<int64_t>{3, 103}));
  EXPECT_EQ(values<int64_t>((*y)[1]), (std::vector<int64_t>{1, 3, 103, 0}));
}

TEST(Scan, RefusesWhatDoesNotFit) {
  FakeBody body = summing_body();
  OpCall axis = scan(body, {{"scan_input_axes", std::vector<int64_t>{2}}});
  EXPECT_FALSE(run_op(axis).ok());
  OpCall output_axis =
      scan(body, {{"scan_input_axes", std::vector<int64_t>{1}}, {"scan_output_axes", std::vector<int64_t>{5}}});
  EXPECT_FALSE(run_op(output_axis).ok());
  for (const int64_t count :
       {int64_t{0}, int64_t{3}, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    OpCall call = scan(body, {});
    call.attrs.back().second = count;
    EXPECT_FALSE(run_op(call).ok()) << count;
    OpCall captures = scan(body, {{"num_captures", count == 0 ? int64_t{-1} : count}});
    EXPECT_FALSE(run_op(captures).ok()) << count;
  }
  OpCall empty = scan(body, {});
  empty.inputs[1] = Tensor::zeros(DType::kS64, {0, 2}).value();
  EXPECT_FALSE(run_op(empty).ok());
  empty.attrs.emplace_back("body", declared_body({DType::kS64, DType::kS64}));
  const auto y = run_op(empty);
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ((*y)[1].shape(), (Shape{0, 3, 0}));
}

}  // namespace
}  // namespace sprun::graph
