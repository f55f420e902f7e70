// Runs one operator on tensors, for tests of what the ONNX node tests do not cover. Header only: it
// needs sprun_graph.
//
//   auto y = run_op({.op = "Add", .inputs = {make_tensor<float>({2}, {1, 2}),
//   make_tensor<float>({}, {3})}}); EXPECT_EQ(values<float>((*y)[0]), (std::vector<float>{4, 5}));
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/ops/op.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"

namespace sprun::testing_support {

struct OpCall {
  std::string op;
  int opset = 28;
  std::vector<Tensor> inputs = {};  // an empty Tensor is an absent optional input
  std::vector<std::pair<std::string, graph::Attr>> attrs = {};
  int num_outputs = 1;
  std::string domain = {};
  bool in_place = false;  // output 0 gets the memory of input 0; they must have as many bytes
  int threads = 1;
  graph::SubgraphRunner* subgraphs = nullptr;
};

template <class T>
Tensor make_tensor(const Shape& shape, const std::vector<T>& values, DType dtype = dtype_of<T>()) {
  Tensor tensor = Tensor::allocate(dtype, shape).value();
  std::copy_n(values.begin(),
              std::min<int64_t>(tensor.num_elements(), static_cast<int64_t>(values.size())),
              tensor.mutable_view().as<T>());
  return tensor;
}

template <class T>
std::vector<T> values(const Tensor& tensor) {
  return std::vector<T>(tensor.as<T>(), tensor.as<T>() + tensor.num_elements());
}

// infer(), prepare() and run() of the op, as a plan without constants would call them.
inline Result<std::vector<Tensor>> run_op(const OpCall& call) {
  graph::Node node;
  node.domain = call.domain;
  node.op_type = call.op;
  node.version = call.opset;
  node.name = "test";
  for (const auto& [name, attr] : call.attrs) node.attrs.set(name, attr);
  const auto num_outputs = static_cast<size_t>(call.num_outputs);
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    node.inputs.push_back(call.inputs[i].empty() ? graph::kNoValue
                                                 : static_cast<graph::ValueId>(i));
  }
  for (size_t i = 0; i < num_outputs; ++i)
    node.outputs.push_back(static_cast<graph::ValueId>(1000 + i));
  const graph::OpDef* def = graph::find_op(call.domain, call.op, call.opset);
  if (def == nullptr) return Status(Code::kBadModel, "no op " + call.op);
  node.def = def;

  std::vector<ConstTensorView> in;
  for (const Tensor& tensor : call.inputs) in.push_back(tensor.view());
  std::vector<graph::InferContext::Output> types(num_outputs);
  graph::InferContext infer(node, in, types);
  SPRUN_TRY(def->infer(infer));

  std::vector<Tensor> outputs(num_outputs);
  std::vector<TensorView> out(num_outputs);
  for (size_t i = 0; i < num_outputs; ++i) {
    if (!types[i].set) continue;
    if (i == 0 && call.in_place) {
      outputs[0] =
          Tensor::adopt(nullptr, const_cast<void*>(in[0].data), types[0].dtype, types[0].shape);
    } else {
      SPRUN_ASSIGN(outputs[i], Tensor::allocate(types[i].dtype, types[i].shape));
    }
    out[i] = outputs[i].mutable_view();
  }

  ThreadPool pool(call.threads);
  PackedCache packed;
  PackedBlob scratch;
  graph::RunContext run;
  run.node_ = &node;
  run.inputs_ = in;
  run.outputs_ = out;
  run.pool_ = &pool;
  run.subgraphs_ = call.subgraphs;
  run.alloc_ = [&](int i, DType dtype, const Shape& shape) -> Result<TensorView> {
    const auto k = static_cast<size_t>(i);
    SPRUN_ASSIGN(outputs[k], Tensor::allocate(dtype, shape));
    return out[k] = outputs[k].mutable_view();
  };
  graph::PrepareContext prepare;
  if (def->prepare != nullptr) {
    std::vector<ConstTensorView> unset(in), result(out.begin(), out.end());
    for (ConstTensorView& view : unset) view.data = nullptr;
    for (ConstTensorView& view : result) view.data = nullptr;
    const std::vector<Tensor> constants(in.size());
    prepare.node_ = &node;
    prepare.inputs_ = unset;
    prepare.outputs_ = result;
    prepare.constants_ = constants;
    prepare.max_threads_ = call.threads;
    prepare.packed_ = &packed;
    SPRUN_TRY(def->prepare(prepare));
    if (prepare.scratch_bytes > 0) {
      SPRUN_ASSIGN(scratch, allocate_blob(prepare.scratch_bytes));
    }
  }
  run.state_ = prepare.state.get();
  run.scratch_ = scratch.data.get();
  SPRUN_TRY(def->run(run));
  return outputs;
}

// The elements of the only output, or an empty list if the op failed.
template <class T>
std::vector<T> output_values(const OpCall& call) {
  const auto result = run_op(call);
  return result.ok() ? values<T>((*result)[0]) : std::vector<T>();
}

}  // namespace sprun::testing_support
