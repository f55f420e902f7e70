// Models with a sparse_initializer, in both forms of its indices: loaded, found sparse, explained, and equal to the
// same model with a dense initializer. Also which int8 form such a weight gets without VNNI.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "kernels/isa.h"
#include "sprun/sprun.h"
#include "tests/graph/onnx/onnx_text.h"
#include "tests/support/scoped_max_isa.h"

namespace sprun {
namespace {

using graph::TempFolder;
using testing_support::ScopedMaxIsa;

constexpr int64_t kRows = 40, kInputs = 96, kOutputs = 80;

enum class Stored { kDense, kLinear, kTuples };  // an initializer; indices [nnz]; indices [nnz, rank]

// W[k, n]: 4x1 blocks (four outputs of one input), one of ten is stored. The value is 1 .. most.
int weight_at(int64_t k, int64_t n, int most) {
  const int64_t block = k * (kOutputs / 4) + n / 4;
  if (block * 7919 % 10 != 0) return 0;
  const int sign = (k + n) % 3 == 0 ? -1 : 1;
  return sign * static_cast<int>(most - (k * 5 + n) % 7);
}

// Adds the weight "w" to the graph; append(values, w) puts one number behind the others.
void add_weight(onnx::GraphProto& graph, Stored stored, int most, int data_type,
                const std::function<void(onnx::TensorProto&, int)>& append) {
  onnx::SparseTensorProto* sparse = stored == Stored::kDense ? nullptr : graph.add_sparse_initializer();
  onnx::TensorProto& values = sparse == nullptr ? *graph.add_initializer() : *sparse->mutable_values();
  values.set_name("w");
  values.set_data_type(data_type);
  int64_t count = 0;
  for (int64_t k = 0; k < kInputs; ++k) {
    for (int64_t n = 0; n < kOutputs; ++n) {
      const int value = weight_at(k, n, most);
      if (sparse == nullptr) append(values, value);
      if (sparse == nullptr || value == 0) continue;
      append(values, value);
      ++count;
      auto& indices = *sparse->mutable_indices();
      if (stored == Stored::kLinear) {
        indices.add_int64_data(k * kOutputs + n);
      } else {
        indices.add_int64_data(k);
        indices.add_int64_data(n);
      }
    }
  }
  if (sparse == nullptr) {
    values.add_dims(kInputs);
    values.add_dims(kOutputs);
    return;
  }
  values.add_dims(count);
  sparse->add_dims(kInputs);
  sparse->add_dims(kOutputs);
  sparse->mutable_indices()->set_data_type(onnx::TensorProto::INT64);
  sparse->mutable_indices()->add_dims(count);
  if (stored == Stored::kTuples) sparse->mutable_indices()->add_dims(2);
}

std::string values_of_graph(const std::string& nodes) {
  const auto value = [](const char* name, int64_t columns) {
    return std::string("{ name: '") + name + "' type { tensor_type { elem_type: 1 shape { dim { dim_value: " +
           std::to_string(kRows) + " } dim { dim_value: " + std::to_string(columns) + " } } } } } ";
  };
  return "ir_version: 8 opset_import { version: 17 } graph { name: 'test' input " + value("x", kInputs) + "output " +
         value("y", kOutputs) + nodes + " }";
}

std::string float_model(Stored stored) {
  auto model = graph::message_of<onnx::ModelProto>(
      values_of_graph("node { op_type: 'MatMul' input: 'x' input: 'w' output: 'y' }"));
  add_weight(*model.mutable_graph(), stored, 100, onnx::TensorProto::FLOAT,
             [](onnx::TensorProto& w, int value) { w.add_float_data(static_cast<float>(value) / 128); });
  return model.SerializeAsString();
}

std::string int8_model(Stored stored, int most) {
  auto model = graph::message_of<onnx::ModelProto>(values_of_graph(
      "node { op_type: 'DynamicQuantizeLinear' input: 'x' output: 'q' output: 's' output: 'z' } "
      "node { op_type: 'MatMulInteger' input: 'q' input: 'w' input: 'z' output: 'p' } "
      "node { op_type: 'Cast' input: 'p' output: 'f' attribute { name: 'to' type: INT i: 1 } } "
      "node { op_type: 'Mul' input: 'f' input: 's' output: 'y' } "));
  add_weight(*model.mutable_graph(), stored, most, onnx::TensorProto::INT8,
             [](onnx::TensorProto& w, int value) { w.add_int32_data(value); });
  return model.SerializeAsString();
}

// The lines of explain about steps: those about passes have times.
std::string steps_of(const std::string& explained) { return explained.substr(0, explained.find("\npass ")); }

struct Result {
  std::vector<float> y;
  std::string explained;
};

Result run(const std::string& bytes) {
  const TempFolder folder("sparse_initializer");
  const auto model = Model::load(folder.write("model.onnx", bytes)).value();
  auto session = Session::create(model, {.num_threads = 1}).value();
  Tensor x = Tensor::zeros(DType::kF32, {kRows, kInputs}).value();
  for (int64_t i = 0; i < kRows * kInputs; ++i) {
    x.mutable_view().as<float>()[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  }
  std::vector<NamedTensor> inputs;
  inputs.push_back({"x", std::move(x)});
  const auto outputs = session.run(inputs).value();
  const auto* y = outputs[0].tensor.as<float>();
  return {{y, y + kRows * kOutputs}, session.explain().value()};
}

TEST(SparseInitializer, FloatWeightsAreFoundSparseAndEqualDenseOnes) {
  const Result dense = run(float_model(Stored::kDense));
  EXPECT_NE(dense.explained.find("bsr_spmm_4x1_f32"), std::string::npos) << dense.explained;
  for (const Stored stored : {Stored::kLinear, Stored::kTuples}) {
    const Result sparse = run(float_model(stored));
    EXPECT_EQ(sparse.y, dense.y);
    EXPECT_EQ(steps_of(sparse.explained), steps_of(dense.explained));
  }
}

TEST(SparseInitializer, IntegerWeightsToo) {
  const Result dense = run(int8_model(Stored::kDense, 127));
  EXPECT_NE(dense.explained.find("bsr_spmm_4x1_u8s8"), std::string::npos) << dense.explained;
  EXPECT_NE(dense.explained.find("density 0.1"), std::string::npos) << dense.explained;
  for (const Stored stored : {Stored::kLinear, Stored::kTuples}) {
    const Result sparse = run(int8_model(stored, 127));
    EXPECT_EQ(sparse.y, dense.y);
    EXPECT_EQ(steps_of(sparse.explained), steps_of(dense.explained));
  }
}

TEST(SparseWithoutVnni, ExplainSaysWhichFormAWeightGets) {
  if (!kernels::detected_isas().contains(kernels::Isa::kAvx2)) GTEST_SKIP() << "CPU has no AVX2";
  for (const int most : {64, 127}) {
    const std::string bytes = int8_model(Stored::kDense, most);
    const ScopedMaxIsa limited("avx2");
    const Result quick = run(bytes);
    const char* form = most == 64 ? "no pair of weights can saturate" : "a pair of weights can leave 16 bits";
    EXPECT_NE(quick.explained.find("bsr_spmm_4x1_u8s8_avx2"), std::string::npos) << quick.explained;
    EXPECT_NE(quick.explained.find(form), std::string::npos) << quick.explained;
    const ScopedMaxIsa scalar("scalar");
    const Result reference = run(bytes);
    EXPECT_EQ(reference.explained.find("saturate"), std::string::npos) << reference.explained;
    ASSERT_EQ(quick.y.size(), reference.y.size());
    for (size_t i = 0; i < quick.y.size(); ++i) {
      EXPECT_NEAR(quick.y[i], reference.y[i], 1e-5F * (1.0F + std::fabs(reference.y[i])));
    }
  }
}

}  // namespace
}  // namespace sprun
