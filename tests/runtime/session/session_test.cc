#include "sprun/session.h"

#include <gtest/gtest.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "tests/runtime/session/allocation_counter.h"
#include "tests/runtime/session/generated_model.h"

namespace sprun {
namespace {

TEST(Session, AllocatesNothingInSteadyState) {
  for (const bool int8 : {false, true}) {
    const GeneratedModel file("bert-tiny", int8);
    const auto model = Model::load(file.path()).value();
    for (int threads : {1, 2}) {
      auto session = Session::create(model, {.num_threads = threads}).value();
      const auto inputs = bert_inputs(1, 24);
      bind_all(session, inputs);
      for (int i = 0; i < 20; ++i) session.run().value();
      const int64_t before = allocation_count();
      for (int i = 0; i < 10; ++i) session.run().value();
      EXPECT_EQ(allocation_count() - before, 0) << "int8 " << int8 << ", threads " << threads;
    }
  }
}

TEST(Session, GivesTheSameNumbersForEveryThreadCountAndRun) {
  const GeneratedModel file("bert-tiny");
  const auto model = Model::load(file.path()).value();
  std::vector<NamedTensor> first;
  for (int threads : {1, 2, 2}) {
    auto session = Session::create(model, {.num_threads = threads}).value();
    auto outputs = session.run(bert_inputs(2, 17)).value();
    if (first.empty()) first = outputs;
    for (size_t i = 0; i < outputs.size(); ++i) {
      ASSERT_EQ(outputs[i].tensor.size_bytes(), first[i].tensor.size_bytes());
      EXPECT_EQ(std::memcmp(outputs[i].tensor.data(), first[i].tensor.data(),
                            static_cast<size_t>(first[i].tensor.size_bytes())), 0);
    }
  }
}

TEST(Session, WritesIntoBoundOutputs) {
  const GeneratedModel file("bert-tiny");
  const auto model = Model::load(file.path()).value();
  auto session = Session::create(model, {.num_threads = 1}).value();
  const auto inputs = bert_inputs(1, 8);
  const auto expected = session.run(inputs).value();
  bind_all(session, inputs);
  const std::string name = model->outputs()[0].name;
  Tensor out = Tensor::zeros(DType::kF32, expected[0].tensor.shape()).value();
  session.bind_output(name, out.mutable_view()).value();
  session.run().value();
  EXPECT_EQ(session.output(name).value().data, out.data());
  EXPECT_EQ(std::memcmp(out.data(), expected[0].tensor.data(), static_cast<size_t>(out.size_bytes())), 0);
  Tensor wrong = Tensor::zeros(DType::kF32, {1, 2, 3}).value();
  session.bind_output(name, wrong.mutable_view()).value();
  EXPECT_EQ(session.run().code(), Code::kBadInput);
}

TEST(Session, NamesWhatIsWrongWithAnInput) {
  const GeneratedModel file("bert-tiny");
  const auto model = Model::load(file.path()).value();
  auto session = Session::create(model).value();
  const auto fails_with = [&](const Status& status, const char* text) {
    EXPECT_EQ(status.code(), Code::kBadInput);
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  };
  fails_with(session.run(), "'input_ids' is missing");
  std::vector<int64_t> ids(16, 1);
  fails_with(session.bind_input("ids", {ids.data(), DType::kS64, {1, 16}}), "no input 'ids'");
  fails_with(session.bind_input("input_ids", {ids.data(), DType::kF32, {1, 16}}), "expected type int64, got float32");
  fails_with(session.bind_input("input_ids", {ids.data(), DType::kS64, {16}}), "got [16]");
  fails_with(session.bind_input("input_ids", {reinterpret_cast<char*>(ids.data()) + 1, DType::kS64, {1, 8}}), "aligned");
  auto inputs = bert_inputs(1, 8);
  bind_all(session, inputs);
  session.bind_input("attention_mask", {ids.data(), DType::kS64, {1, 16}}).value();
  fails_with(session.run(), "sequence");
  ids[0] = 1 << 30;  // beyond the embedding table
  bind_all(session, inputs);
  session.bind_input("input_ids", {ids.data(), DType::kS64, {1, 8}}).value();
  fails_with(session.run(), "Gather");
}

TEST(Session, StopsAtDeadlineAndRunsAgain) {
  const GeneratedModel file("bert-tiny");
  const auto model = Model::load(file.path()).value();
  auto session = Session::create(model, {.num_threads = 1}).value();
  const auto inputs = bert_inputs(1, 8);
  bind_all(session, inputs);
  EXPECT_EQ(session.run({.deadline = std::chrono::steady_clock::now() - std::chrono::seconds(1)}).code(), Code::kCancelled);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(session.run({.stop = stop.get_token()}).code(), Code::kCancelled);
  EXPECT_TRUE(session.run().ok());
}

// while (true) x = x + x: only the deadline ends it.
TEST(Session, DeadlineEndsALoop) {
  using graph::kNoValue;
  auto body = std::make_shared<graph::Graph>();
  body->add_input("iteration", DType::kS64, std::vector<graph::DimInfo>{});
  const auto go_on = body->add_input("go_on", DType::kBool, std::vector<graph::DimInfo>{});
  const auto x = body->add_input("x", DType::kF32, std::vector<graph::DimInfo>{{1, ""}});
  const auto condition = body->add_node("", "Identity", 16, {go_on}, {"go_on_out"});
  const auto sum = body->add_node("", "Add", 16, {x, x}, {"x_out"});
  body->set_outputs({body->node(condition).outputs[0], body->node(sum).outputs[0]});
  graph::Graph outer;
  Tensor yes = Tensor::zeros(DType::kBool, Shape{}).value();
  *yes.mutable_view().as<uint8_t>() = 1;
  const auto start = outer.add_input("start", DType::kF32, std::vector<graph::DimInfo>{{1, ""}});
  const auto cond = outer.add_constant("yes", std::move(yes));
  const auto loop = outer.add_node("", "Loop", 16, {kNoValue, cond, start}, {"end"});
  outer.node(loop).attrs.set("body", std::shared_ptr<const graph::Graph>(body));
  outer.node(loop).attrs.set("num_carried", int64_t{1});
  outer.node(loop).attrs.set("num_captures", int64_t{0});
  outer.set_outputs({outer.node(loop).outputs[0]});
  const auto path = (std::filesystem::temp_directory_path() / ("sprun_loop_" + std::to_string(getpid()) + ".onnx")).string();
  graph::write_onnx(outer, path).value();
  auto session = Session::create(Model::load(path).value(), {.num_threads = 1}).value();
  std::filesystem::remove(path);
  const float one = 1;
  session.bind_input("start", {&one, DType::kF32, {1}}).value();
  const auto status = session.run({.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(50)});
  EXPECT_EQ(status.code(), Code::kCancelled) << status.message();
}

TEST(Session, NewShapesGiveTheSameRowsAsBefore) {
  const GeneratedModel file("bert-tiny");
  const auto model = Model::load(file.path()).value();
  auto session = Session::create(model, {.num_threads = 1}).value();
  const auto first = session.run(bert_inputs(1, 8)).value();
  for (int64_t seq : {9, 16, 3, 33, 12, 7}) ASSERT_TRUE(session.run(bert_inputs(1, seq)).ok());
  const auto again = session.run(bert_inputs(1, 8)).value();
  EXPECT_EQ(std::memcmp(first[0].tensor.data(), again[0].tensor.data(),
                        static_cast<size_t>(first[0].tensor.size_bytes())), 0);
}

// Also run under ThreadSanitizer (label "threads").
TEST(SessionThreads, EightSessionsShareOneModel) {
  const GeneratedModel file("bert-tiny");
  const auto model = Model::load(file.path()).value();
  auto reference = Session::create(model, {.num_threads = 1}).value().run(bert_inputs(1, 12)).value();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      auto session = Session::create(model, {.num_threads = 1 + t % 2}).value();
      for (int i = 0; i < 10; ++i) {
        const auto outputs = session.run(bert_inputs(1, i % 3 == 0 ? 12 : 5 + t)).value();
        if (i % 3 != 0) continue;
        wrong += std::memcmp(outputs[0].tensor.data(), reference[0].tensor.data(),
                             static_cast<size_t>(outputs[0].tensor.size_bytes())) != 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(SessionThreads, SessionsShareTheArenaOfTheCaller) {
  const GeneratedModel file("bert-tiny");
  auto model = Model::load(file.path()).value();
  const auto inputs = bert_inputs(1, 16);
  auto alone = Session::create(model, {.num_threads = 1}).value();
  const auto want = alone.run(inputs).value();
  tbb::task_arena arena(3);
  tbb::parallel_for(0, 12, [&](int) {
    auto session = Session::create(model, {.arena = arena}).value();
    EXPECT_EQ(session.num_threads(), 3);
    const auto got = session.run(inputs).value();
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t bytes = static_cast<size_t>(want[i].tensor.num_elements()) * sizeof(float);
      EXPECT_EQ(std::memcmp(got[i].tensor.data(), want[i].tensor.data(), bytes), 0);
    }
  });
  const auto both = Session::create(model, {.num_threads = 2, .arena = arena});
  ASSERT_FALSE(both.ok());
  EXPECT_EQ(both.status().code(), Code::kUsage);
}

TEST(Model, ReportsUnknownPassesAndFiles) {
  EXPECT_EQ(Model::load("/nonexistent/model.onnx").status().code(), Code::kBadInput);
  const GeneratedModel file("bert-tiny");
  ModelOptions options;
  options.disabled_passes = {"fuse_everything"};
  const auto model = Model::load(file.path(), options);
  EXPECT_EQ(model.status().code(), Code::kUsage);
  EXPECT_NE(model.status().message().find("fuse_everything"), std::string::npos);
}

TEST(Model, GivesTheSameNumbersWithEveryPassSwitchedOff) {
  const GeneratedModel file("bert-tiny");
  const auto expected = Session::create(Model::load(file.path()).value()).value().run(bert_inputs(2, 9)).value();
  for (const char* pass : {"fuse_linear", "fuse_layer_norm", "fuse_activation", "fuse_linear_epilogue", "merge_linear",
                           "fuse_attention", "fuse_skip_layer_norm", "merge_common", "remove_identities"}) {
    ModelOptions options;
    options.disabled_passes = {pass};
    const auto got = Session::create(Model::load(file.path(), options).value()).value().run(bert_inputs(2, 9)).value();
    const float* a = got[0].tensor.as<float>();
    const float* b = expected[0].tensor.as<float>();
    float worst = 0, largest = 0;
    for (int64_t i = 0; i < got[0].tensor.num_elements(); ++i) {
      worst = std::max(worst, std::abs(a[i] - b[i]));
      largest = std::max(largest, std::abs(b[i]));
    }
    EXPECT_LE(worst, 2e-5f * largest) << pass;
  }
}

}  // namespace
}  // namespace sprun
