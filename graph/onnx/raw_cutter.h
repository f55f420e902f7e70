// Takes the large weights out of the bytes of a model before libprotobuf sees them.
//
// libprotobuf copies every field and refuses files over 2 GB. So the wire format is walked once: raw_data fields of
// kCutBytes and more are replaced by the index of their place in the file, and fields that nothing reads (doc strings,
// per-node metadata, value_info, training info) are dropped. What remains is small, whatever the size of the weights.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/status.h"

namespace sprun::graph {

struct ByteRange {
  size_t offset = 0, size = 0;
};

struct CutModel {
  std::string proto;             // a ModelProto
  std::vector<ByteRange> cuts;   // places of the removed raw_data in the original bytes
};

inline constexpr size_t kCutBytes = 4096;
// A TensorProto without its raw_data holds the index of the cut as a varint field of this number (the largest that
// protobuf allows, so that no version of ONNX uses it). A file that brings such a field itself loses it.
inline constexpr uint32_t kCutField = 536870911;

// `model` is a serialized ModelProto. kBadModel for bytes that are not protobuf or that nest too deeply,
// kResourceLimit if more than 2 GB remain. Every length is checked against the bytes that are there.
Result<CutModel> cut_raw_data(std::string_view model);

}  // namespace sprun::graph
