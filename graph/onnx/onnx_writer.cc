#include "graph/onnx/onnx_writer.h"

#include <onnx/onnx_pb.h>

#include <optional>
#include <utility>

#include "graph/onnx/proto_writer.h"
#include "graph/onnx/tensor_proto.h"
#include "runtime/base/atomic_file.h"

namespace sprun::graph {

namespace {
constexpr int64_t kMaxProtoBytes = INT32_MAX;
// raw_data of TensorProto, initializer of GraphProto and graph of ModelProto: field number and wire type 2.
constexpr char kRawDataTag = 9 << 3 | 2, kInitializerTag = 5 << 3 | 2, kGraphTag = 7 << 3 | 2;

void append_varint(std::string* out, uint64_t value) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

std::string length_prefix(char tag, uint64_t length) {
  std::string out(1, tag);
  append_varint(&out, length);
  return out;
}

int64_t file_bytes(const Tensor& tensor) {
  const bool is_4bit = tensor.dtype() == DType::kU4 || tensor.dtype() == DType::kS4;
  return is_4bit ? (tensor.num_elements() + 1) / 2 : tensor.size_bytes();
}

// The elements as they stand in a file. Only 4-bit types need the copy in *packed.
std::string_view file_view(const Tensor& tensor, std::string* packed) {
  if (file_bytes(tensor) == tensor.size_bytes()) {
    return {tensor.as<char>(), static_cast<size_t>(tensor.size_bytes())};
  }
  *packed = raw_bytes_of(tensor.view());
  return *packed;
}

// Appends the data to `file` and refers to it from the header.
Status write_external(const Initializer& initializer, const std::string& location, AtomicFile* file,
                      onnx::TensorProto* header) {
  // Whole pages for large tensors: readers that map the file can then give back exactly these.
  const int64_t bytes = file_bytes(*initializer.tensor);
  SPRUN_TRY(file->pad_to(bytes >= (1 << 20) ? 4096 : 64));
  header->set_data_location(onnx::TensorProto::EXTERNAL);
  const auto add = [&](const char* key, const std::string& value) {
    auto* entry = header->add_external_data();
    entry->set_key(key);
    entry->set_value(value);
  };
  add("location", location);
  add("offset", std::to_string(file->size()));
  add("length", std::to_string(bytes));
  std::string packed;
  return file->write(file_view(*initializer.tensor, &packed));
}

// An initializer of the model file: its message without raw_data, and the data that follows.
struct Entry {
  std::string header;
  const Tensor* embedded = nullptr;  // nullptr: nothing follows

  uint64_t size() const {
    if (embedded == nullptr) return header.size();
    const auto bytes = static_cast<uint64_t>(file_bytes(*embedded));
    return header.size() + length_prefix(kRawDataTag, bytes).size() + bytes;
  }
};

Status write_entry(const Entry& entry, AtomicFile* file) {
  SPRUN_TRY(file->write(length_prefix(kInitializerTag, entry.size()) + entry.header));
  if (entry.embedded == nullptr) return {};
  std::string packed;
  const std::string_view raw = file_view(*entry.embedded, &packed);
  SPRUN_TRY(file->write(length_prefix(kRawDataTag, raw.size())));
  return file->write(raw);
}

// The weights go from the graph to the file without a copy: protobuf would hold all of them a second time.
Status write_model(const onnx::ModelProto& model, const onnx::GraphProto& graph, const std::vector<Entry>& entries,
                   AtomicFile* file) {
  uint64_t graph_bytes = graph.ByteSizeLong();
  for (const Entry& entry : entries) graph_bytes += length_prefix(kInitializerTag, entry.size()).size() + entry.size();
  if (graph_bytes + model.ByteSizeLong() > static_cast<uint64_t>(kMaxProtoBytes)) {
    return {Code::kResourceLimit, "the model file would be over 2 GB; its weights must be external data"};
  }
  SPRUN_TRY(file->write(model.SerializeAsString() + length_prefix(kGraphTag, graph_bytes)));
  SPRUN_TRY(file->write(graph.SerializeAsString()));
  for (const Entry& entry : entries) SPRUN_TRY(write_entry(entry, file));
  return {};
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }
}  // namespace

Status write_onnx(const Graph& graph, const std::string& path, const WriteOptions& options) {
  onnx::ModelProto model;
  onnx::GraphProto graph_proto;
  std::vector<Initializer> initializers;
  SPRUN_TRY(build_protos(graph, options, &model, &graph_proto, &initializers));

  int64_t weight_bytes = 0;
  for (const Initializer& initializer : initializers) weight_bytes += file_bytes(*initializer.tensor);
  const bool external = options.external == WriteOptions::External::kAlways || weight_bytes > options.max_embedded_bytes;
  std::optional<AtomicFile> data;
  if (external) {
    SPRUN_ASSIGN(AtomicFile created, AtomicFile::create(path + ".data"));
    data.emplace(std::move(created));
  }

  std::vector<Entry> entries;
  for (const Initializer& initializer : initializers) {
    onnx::TensorProto header;
    header.set_name(initializer.name);
    header.set_data_type(static_cast<int32_t>(initializer.tensor->dtype()));
    for (int64_t dim : initializer.tensor->shape().dims()) header.add_dims(dim);
    // Readers look at small constants (shapes, axes) before they have the data file.
    const bool embed = !data || file_bytes(*initializer.tensor) < 1024;
    if (!embed) SPRUN_TRY(write_external(initializer, file_name(path) + ".data", &*data, &header));
    entries.push_back({header.SerializeAsString(), embed ? initializer.tensor : nullptr});
  }
  SPRUN_ASSIGN(AtomicFile file, AtomicFile::create(path));
  SPRUN_TRY(write_model(model, graph_proto, entries, &file));
  if (data) SPRUN_TRY(data->commit());
  return file.commit();
}

}  // namespace sprun::graph
