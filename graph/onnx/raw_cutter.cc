#include "graph/onnx/raw_cutter.h"

#include <limits>
#include <utility>

namespace sprun::graph {

namespace {
enum class Message : uint8_t { kModel, kGraph, kNode, kAttribute, kTensor, kSparseTensor, kFunction };
enum class Action : uint8_t { kCopy, kDrop, kCut, kDescend };

struct Rule {
  Message message;
  uint32_t field;
  Action action;
  Message child = Message::kModel;
};

// Fields that are not listed are copied. Numbers are those of onnx.proto.
constexpr Rule kRules[] = {
    {Message::kModel, 6, Action::kDrop},                                // doc_string
    {Message::kModel, 7, Action::kDescend, Message::kGraph},            // graph
    {Message::kModel, 20, Action::kDrop},                               // training_info
    {Message::kModel, 25, Action::kDescend, Message::kFunction},        // functions
    {Message::kGraph, 1, Action::kDescend, Message::kNode},             // node
    {Message::kGraph, 5, Action::kDescend, Message::kTensor},           // initializer
    {Message::kGraph, 10, Action::kDrop},                               // doc_string
    {Message::kGraph, 13, Action::kDrop},                               // value_info
    {Message::kGraph, 14, Action::kDrop},                               // quantization_annotation
    {Message::kGraph, 15, Action::kDescend, Message::kSparseTensor},    // sparse_initializer
    {Message::kGraph, 16, Action::kDrop},                               // metadata_props
    {Message::kNode, 5, Action::kDescend, Message::kAttribute},         // attribute
    {Message::kNode, 6, Action::kDrop},                                 // doc_string
    {Message::kNode, 9, Action::kDrop},                                 // metadata_props
    {Message::kNode, 10, Action::kDrop},                                // device_configurations
    {Message::kAttribute, 5, Action::kDescend, Message::kTensor},       // t
    {Message::kAttribute, 6, Action::kDescend, Message::kGraph},        // g
    {Message::kAttribute, 10, Action::kDescend, Message::kTensor},      // tensors
    {Message::kAttribute, 11, Action::kDescend, Message::kGraph},       // graphs
    {Message::kAttribute, 13, Action::kDrop},                           // doc_string
    {Message::kAttribute, 22, Action::kDescend, Message::kSparseTensor},  // sparse_tensor
    {Message::kTensor, 9, Action::kCut},                                // raw_data
    {Message::kTensor, 12, Action::kDrop},                              // doc_string
    {Message::kTensor, 16, Action::kDrop},                              // metadata_props
    {Message::kTensor, kCutField, Action::kDrop},
    {Message::kSparseTensor, 1, Action::kDescend, Message::kTensor},    // values
    {Message::kSparseTensor, 2, Action::kDescend, Message::kTensor},    // indices
    {Message::kFunction, 7, Action::kDescend, Message::kNode},          // node
    {Message::kFunction, 8, Action::kDrop},                             // doc_string
    {Message::kFunction, 11, Action::kDescend, Message::kAttribute},    // attribute_proto
    {Message::kFunction, 12, Action::kDrop},                            // value_info
    {Message::kFunction, 14, Action::kDrop},                            // metadata_props
};

Rule rule_for(Message message, uint32_t field) {
  for (const Rule& rule : kRules) {
    if (rule.message == message && rule.field == field) return rule;
  }
  return {message, field, Action::kCopy};
}

// libprotobuf itself gives up below 100 nested messages.
constexpr int kMaxDepth = 90;
constexpr size_t kMaxProtoBytes = std::numeric_limits<int32_t>::max();
constexpr uint32_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;
// Lengths of rewritten messages are written in five bytes, so that they can be filled in afterwards.
constexpr size_t kLengthBytes = 5;

class Cutter {
 public:
  explicit Cutter(std::string_view in) : in_(in) {}

  Status walk(Message message, size_t begin, size_t end, int depth);
  CutModel take() { return std::move(out_); }

 private:
  struct Field {
    size_t begin = 0, payload = 0, end = 0;  // tag, contents, one past the field
    uint32_t number = 0, wire_type = 0;
  };

  Status next_field(size_t at, size_t end, Field* field) const;
  bool read_varint(size_t end, size_t* at, uint64_t* value) const;
  Status rewrite(const Field& field, Message child, int depth);
  void cut(const Field& field);
  void append_varint(uint64_t value);
  Status malformed(size_t at, const char* what) const {
    return {Code::kBadModel, "not an ONNX model: " + std::string(what) + " at byte " + std::to_string(at)};
  }

  std::string_view in_;
  CutModel out_;
};

bool Cutter::read_varint(size_t end, size_t* at, uint64_t* value) const {
  *value = 0;
  for (int shift = 0; shift < 64 && *at < end; shift += 7) {
    const auto byte = static_cast<uint8_t>(in_[(*at)++]);
    *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

Status Cutter::next_field(size_t at, size_t end, Field* field) const {
  field->begin = at;
  uint64_t tag = 0, length = 0;
  if (!read_varint(end, &at, &tag) || tag > std::numeric_limits<uint32_t>::max() || tag < 8) {
    return malformed(field->begin, "bad protobuf tag");
  }
  field->number = static_cast<uint32_t>(tag >> 3);
  field->wire_type = static_cast<uint32_t>(tag & 7);
  if (field->wire_type == kVarint) {
    field->payload = at;
    if (!read_varint(end, &at, &length)) return malformed(at, "bad protobuf integer");
    field->end = at;
    return {};
  }
  switch (field->wire_type) {
    case kFixed64: length = 8; break;
    case kFixed32: length = 4; break;
    case kBytes:
      if (!read_varint(end, &at, &length)) return malformed(at, "bad protobuf length");
      break;
    default: return malformed(field->begin, "unknown protobuf wire type");
  }
  if (length > end - at) return malformed(field->begin, "field is longer than the file or its message");
  field->payload = at;
  field->end = at + static_cast<size_t>(length);
  return {};
}

Status Cutter::walk(Message message, size_t begin, size_t end, int depth) {
  if (depth > kMaxDepth) return {Code::kBadModel, "model is nested too deeply"};
  for (size_t at = begin; at < end;) {
    Field field;
    SPRUN_TRY(next_field(at, end, &field));
    at = field.end;
    Rule rule = rule_for(message, field.number);
    if (rule.action == Action::kDrop) continue;
    if (field.wire_type == kBytes && rule.action == Action::kDescend) {
      SPRUN_TRY(rewrite(field, rule.child, depth));
    } else if (field.wire_type == kBytes && rule.action == Action::kCut && field.end - field.payload >= kCutBytes) {
      cut(field);
    } else {
      out_.proto.append(in_.substr(field.begin, field.end - field.begin));
    }
    if (out_.proto.size() > kMaxProtoBytes) {
      return {Code::kResourceLimit, "model has more than 2 GB outside of raw tensor data"};
    }
  }
  return {};
}

Status Cutter::rewrite(const Field& field, Message child, int depth) {
  append_varint(field.number << 3 | kBytes);
  const size_t length_at = out_.proto.size();
  out_.proto.append(kLengthBytes, '\0');
  SPRUN_TRY(walk(child, field.payload, field.end, depth + 1));
  size_t length = out_.proto.size() - length_at - kLengthBytes;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    out_.proto[length_at + i] = static_cast<char>((length & 0x7f) | (i + 1 < kLengthBytes ? 0x80 : 0));
    length >>= 7;
  }
  return {};
}

void Cutter::cut(const Field& field) {
  append_varint(uint64_t{kCutField} << 3 | kVarint);
  append_varint(out_.cuts.size());
  out_.cuts.push_back({field.payload, field.end - field.payload});
}

void Cutter::append_varint(uint64_t value) {
  while (value >= 0x80) {
    out_.proto.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out_.proto.push_back(static_cast<char>(value));
}
}  // namespace

Result<CutModel> cut_raw_data(std::string_view model) {
  Cutter cutter(model);
  SPRUN_TRY(cutter.walk(Message::kModel, 0, model.size(), 0));
  return cutter.take();
}

}  // namespace sprun::graph
