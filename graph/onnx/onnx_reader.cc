#include "graph/onnx/onnx_reader.h"

#include <google/protobuf/arena.h>
#include <onnx/onnx_pb.h>

#include <new>

#include "graph/onnx/external_data.h"
#include "graph/onnx/graph_builder.h"
#include "graph/onnx/raw_cutter.h"
#include "graph/onnx/tensor_loader.h"
#include "runtime/base/file_map.h"

namespace sprun::graph {

namespace {
// `map` is the mapping that holds `bytes`, or nullptr.
Result<OnnxModel> read_model(std::string_view bytes, const std::shared_ptr<const FileMap>& map,
                             ExternalFiles* external) try {
  SPRUN_ASSIGN(CutModel cut, cut_raw_data(bytes));
  google::protobuf::Arena arena;
  auto* proto = google::protobuf::Arena::CreateMessage<onnx::ModelProto>(&arena);
  if (!proto->ParseFromArray(cut.proto.data(), static_cast<int>(cut.proto.size()))) {
    return Status(Code::kBadModel, "not an ONNX model: malformed protobuf");
  }
  cut.proto = std::string();
  if (!proto->has_graph()) return Status(Code::kBadModel, "not an ONNX model: it has no graph");

  OnnxModel model;
  model.ir_version = proto->ir_version();
  model.producer_name = proto->producer_name();
  model.producer_version = proto->producer_version();
  for (const auto& entry : proto->metadata_props()) model.metadata_props.emplace_back(entry.key(), entry.value());
  TensorLoader loader(bytes, std::move(cut.cuts), map, external);
  SPRUN_TRY(GraphBuilder(*proto, loader, &model).build());
  return model;
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit, "no memory for the model");
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "'" : ", '") + part + "'";
  return text;
}

std::string describe(const UnsupportedOp& op) {
  std::string text = (op.domain.empty() ? "ai.onnx" : op.domain) + "." + op.op_type + " (opset " +
                     std::to_string(op.version);
  if (op.known_elsewhere) text += ", supported in other opsets only";
  if (!op.reason.empty()) text += ", " + op.reason;
  return text + "): " + (op.nodes.size() == 1 ? "node " : "nodes ") + join(op.nodes);
}
}  // namespace

Result<OnnxModel> read_onnx(const std::string& path, const ReadOptions& options) {
  SPRUN_ASSIGN(const auto map, FileMap::open(path));
  ExternalFiles external(folder_of(path), options.allow_linked_external_data);
  auto model = read_model(map->bytes(), map, &external);
  if (!model.ok()) return model.status().with_context("model '" + path + "'");
  return model;
}

Result<OnnxModel> read_onnx_bytes(std::string_view bytes) {
  ExternalFiles external("", false);
  return read_model(bytes, nullptr, &external);
}

Status unsupported_status(const OnnxModel& model) {
  const size_t count = model.unsupported_ops.size() + model.unsupported_values.size();
  if (count == 0) return {};
  std::string text = "the model uses what is not supported:";
  for (const UnsupportedOp& op : model.unsupported_ops) text += "\n  " + describe(op);
  for (const std::string& value : model.unsupported_values) text += "\n  " + value;
  return {Code::kBadModel, text};
}

Status missing_data_status(const OnnxModel& model) {
  if (model.missing_data.empty()) return {};
  std::map<std::string, std::vector<std::string>> tensors;
  for (const MissingData& missing : model.missing_data) {
    tensors["'" + missing.file + "' (" + missing.reason + ")"].push_back(missing.tensor);
  }
  std::string text = "weights are missing:";
  for (const auto& [file, names] : tensors) {
    text += "\n  external data " + file + " of " + std::to_string(names.size()) +
            (names.size() == 1 ? " tensor: " : " tensors: ") + join(names);
  }
  return {Code::kBadModel, text};
}

}  // namespace sprun::graph
