// Internal to the importer: TensorProto messages of a model -> tensors, sharing the memory of mapped files.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph/onnx/external_data.h"
#include "graph/onnx/raw_cutter.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace onnx {
class TensorProto;
class SparseTensorProto;
}  // namespace onnx

namespace sprun::graph {

// One tensor of a model. dtype and shape are always set, but for an unsupported element type.
struct LoadedTensor {
  enum class State { kOk, kMissing, kUnsupported };
  State state = State::kOk;
  Tensor tensor;  // kOk only
  DType dtype = DType::kUndefined;
  Shape shape;
  std::string file, reason;  // why there is no tensor
};

// Data of 1 MiB and more is used where it lies in the file, even if it is not aligned (Tensor::is_aligned()); smaller
// data is copied when it is not aligned.
class TensorLoader {
 public:
  // Tensors whose raw_data was cut refer to `bytes`. `map` is the mapping that holds `bytes`; nullptr: copy.
  TensorLoader(std::string_view bytes, std::vector<ByteRange> cuts, std::shared_ptr<const FileMap> map,
               ExternalFiles* external)
      : bytes_(bytes), cuts_(std::move(cuts)), map_(std::move(map)), external_(external) {}

  // kBadModel naming the tensor if the message contradicts itself.
  Result<LoadedTensor> load(const onnx::TensorProto& proto);
  // Expands to a dense tensor. kResourceLimit if that is over 1 GiB.
  Result<LoadedTensor> load_sparse(const onnx::SparseTensorProto& proto);

 private:
  Result<LoadedTensor> load_external(const onnx::TensorProto& proto, LoadedTensor loaded);
  Result<Tensor> load_cut(const LoadedTensor& loaded, uint64_t index) const;

  std::string_view bytes_;
  std::vector<ByteRange> cuts_;
  std::shared_ptr<const FileMap> map_;
  ExternalFiles* external_;
};

}  // namespace sprun::graph
