// Models whose weights are mostly zeros: found, chosen, explained, and right.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <sstream>

#include "tests/runtime/session/generated_model.h"

namespace sprun {
namespace {

struct Sparse {
  const char* pattern;
  double sparsity;
  modelgen::Quantization quantization = modelgen::Quantization::kS8;
};

modelgen::Config config_of(const Sparse& sparse) {
  auto config = modelgen::preset("bert-mini").value();
  config.layers = 2;
  config.vocab = 100;
  config.quantization = sparse.quantization;
  config.sparsity = sparse.sparsity;
  config.pattern = modelgen::parse_pattern(sparse.pattern).value();
  return config;
}

ModelOptions options_with(SparseMode mode, Precision precision = Precision::kF32) {
  ModelOptions options;
  options.sparse = mode;
  options.precision = precision;
  return options;
}

std::vector<NamedTensor> run(const GeneratedModel& file, const ModelOptions& options, int64_t batch, int64_t seq,
                             int threads = 1) {
  auto session = Session::create(Model::load(file.path(), options).value(), {.num_threads = threads}).value();
  return session.run(bert_inputs(batch, seq)).value();
}

std::string explain(const GeneratedModel& file, const ModelOptions& options, int64_t seq) {
  auto session = Session::create(Model::load(file.path(), options).value(), {.num_threads = 1}).value();
  const auto inputs = bert_inputs(1, seq);
  bind_all(session, inputs);
  return session.explain().value();
}

// Steps on kernels whose name begins with `kernel`.
int64_t steps_on(const std::string& text, const std::string& kernel) {
  int64_t count = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    count += line.starts_with("step") && line.find(" " + kernel) != std::string::npos;
  }
  return count;
}

void expect_same_bits(const std::vector<NamedTensor>& x, const std::vector<NamedTensor>& y, const std::string& what) {
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].tensor.shape(), y[i].tensor.shape()) << what;
    EXPECT_EQ(std::memcmp(x[i].tensor.data(), y[i].tensor.data(), static_cast<size_t>(x[i].tensor.size_bytes())), 0)
        << what << ", output " << i;
  }
}

double largest_difference(const std::vector<NamedTensor>& x, const std::vector<NamedTensor>& y) {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < x[0].tensor.num_elements(); ++i) {
    const double a = static_cast<double>(x[0].tensor.as<float>()[i]), b = static_cast<double>(y[0].tensor.as<float>()[i]);
    worst = std::max(worst, std::fabs(a - b));
    largest = std::max(largest, std::fabs(b));
  }
  return worst / largest;
}

TEST(SparseModel, IntegerLayersGiveTheSameBitsAsDenseOnes) {
  using modelgen::Quantization;
  for (const Sparse& sparse :
       {Sparse{"4x1", 0.9}, Sparse{"1x4", 0.9}, Sparse{"16x4", 0.8}, Sparse{"4x4", 0.8}, Sparse{"unstructured", 0.8},
        Sparse{"1:4", 0.0}, Sparse{"4x1", 0.8, Quantization::kU8}, Sparse{"unstructured", 0.7, Quantization::kU8}}) {
    const GeneratedModel file(config_of(sparse));
    for (const int64_t seq : {1, 7, 33}) {
      for (const int threads : {1, 2}) {
        const auto dense = run(file, options_with(SparseMode::kOff), 1, seq, threads);
        for (const SparseMode mode : {SparseMode::kAuto, SparseMode::kForce}) {
          expect_same_bits(run(file, options_with(mode), 1, seq, threads), dense,
                           std::string(sparse.pattern) + " " + std::string(sparse_mode_name(mode)) + " seq " +
                               std::to_string(seq));
        }
      }
    }
  }
}

TEST(SparseModel, StaticallyQuantisedLayersToo) {
  auto config = config_of({"4x1", 0.9});
  config.qdq = true;
  const GeneratedModel file(config);
  for (const int64_t seq : {1, 40}) {
    expect_same_bits(run(file, options_with(SparseMode::kForce), 2, seq), run(file, options_with(SparseMode::kOff), 2, seq),
                     "qdq seq " + std::to_string(seq));
  }
}

// One feed-forward layer after the other keeps what lies between its products as columns; that changes no bit.
TEST(SparseModel, ColumnsBetweenLayersChangeNothing) {
  for (const bool qdq : {false, true}) {
    auto config = config_of({"4x1", 0.9});
    config.qdq = qdq;
    const GeneratedModel file(config);
    auto rows = options_with(SparseMode::kForce);
    rows.disabled_passes = {"keep_columns"};
    for (const int64_t seq : {16, 61, 64, 113, 128, 200}) {
      for (const int threads : {1, 2}) {
        expect_same_bits(run(file, options_with(SparseMode::kForce), 1, seq, threads), run(file, rows, 1, seq, threads),
                         "seq " + std::to_string(seq) + (qdq ? " qdq" : ""));
      }
    }
    EXPECT_NE(explain(file, options_with(SparseMode::kForce), 64).find("[1,1024,64]"), std::string::npos);
  }
}

TEST(SparseModel, RowsStayWhereColumnsWouldBeHalfEmptyOrAKernelDoesNotTakeThem) {
  const GeneratedModel file(config_of({"4x1", 0.9})), other(config_of({"16x4", 0.9}));
  EXPECT_EQ(explain(file, options_with(SparseMode::kForce), 40).find(",1024,64]"), std::string::npos);
  EXPECT_EQ(explain(file, options_with(SparseMode::kOff), 64).find(",1024,64]"), std::string::npos);
  EXPECT_EQ(explain(other, options_with(SparseMode::kForce), 64).find(",1024,64]"), std::string::npos);
}

TEST(SparseModel, FloatLayersAgreeWithDenseOnes) {
  for (const char* pattern : {"4x1", "16x4", "unstructured"}) {
    const GeneratedModel file(config_of({pattern, 0.9, modelgen::Quantization::kNone}));
    for (const Precision precision : {Precision::kF32, Precision::kBf16, Precision::kInt8}) {
      const auto sparse = run(file, options_with(SparseMode::kForce, precision), 1, 35, 2);
      const auto dense = run(file, options_with(SparseMode::kOff, precision), 1, 35, 2);
      EXPECT_LT(largest_difference(sparse, dense), precision == Precision::kF32 ? 2e-5 : 2e-2)
          << pattern << " " << precision_name(precision);
    }
  }
}

TEST(SparseModel, ExplainNamesPatternEstimateAndMemory) {
  const GeneratedModel file(config_of({"4x1", 0.9}));
  const std::string text = explain(file, {}, 64);
  EXPECT_EQ(steps_on(text, "bsr_spmm_4x1_u8s8"), 2 * 4) << text;  // Q, K, V together; output; FFN up and down
  EXPECT_NE(text.find("density 0.1"), std::string::npos) << text;
  EXPECT_NE(text.find("x of dense int8"), std::string::npos) << text;
  EXPECT_EQ(steps_on(explain(file, options_with(SparseMode::kOff), 64), "bsr_"), 0);
}

TEST(SparseModel, UselessZerosStayDenseAndExplainSaysWhy) {
  const GeneratedModel file(config_of({"unstructured", 0.3}));
  const std::string text = explain(file, {}, 64);
  EXPECT_EQ(steps_on(text, "bsr_"), 0) << text;
  EXPECT_NE(text.find("not bsr_spmm_"), std::string::npos) << text;
  EXPECT_NE(text.find("x of dense"), std::string::npos) << text;
}

TEST(SparseModel, DenseLayersAreNotMentioned) {
  const GeneratedModel file(config_of({"4x1", 0.0}));
  EXPECT_EQ(explain(file, {}, 64).find("bsr_"), std::string::npos);
}

TEST(SparseModel, OneShapeKeepsNoDenseCopy) {
  const GeneratedModel sparse(config_of({"4x1", 0.9})), dense(config_of({"4x1", 0.0}));
  const auto packed = [](const GeneratedModel& file) {
    const auto model = Model::load(file.path()).value();
    auto session = Session::create(model, {.num_threads = 1}).value();
    session.run(bert_inputs(1, 64)).value();
    return static_cast<double>(model->packed_bytes());
  };
  EXPECT_LT(packed(sparse) / packed(dense), 0.25);  // the pooler stays dense in neither
}

TEST(SparseModel, UnknownModeIsAUsageError) {
  EXPECT_EQ(parse_sparse_mode("maybe").status().code(), Code::kUsage);
  EXPECT_EQ(*parse_sparse_mode("force"), SparseMode::kForce);
}

}  // namespace
}  // namespace sprun
