// ONNX TensorProto <-> Tensor. Every encoding: raw_data, the typed fields, external data, two 4-bit elements a byte.
//
//   SPRUN_ASSIGN(NamedTensor x, read_tensor_proto_file("test_data_set_0/input_0.pb"));
#pragma once

#include <string>
#include <string_view>

#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun::graph {

// The DType of a TensorProto.DataType number; kUndefined if tensors of that type cannot be held (strings, complex,
// 8-bit floats, 2-, 4- and 6-bit floats and integers other than int4 and uint4).
DType dtype_of_onnx(int32_t data_type);
// "float8e4m3fn", also for types without a DType; "type 99" for unknown numbers.
std::string onnx_type_name(int32_t data_type);

// A serialized TensorProto as a tensor that owns its memory, and its name. External data is refused.
// kBadModel if it is malformed, if data and shape do not fit, or, with a text that begins with "unsupported", if
// tensors of its element type cannot be held.
Result<NamedTensor> decode_tensor_proto(std::string_view bytes);
// The same for a file that holds one TensorProto. Files that hold a sequence, map or optional cannot always be told
// from a broken TensorProto; they give an error in any case.
Result<NamedTensor> read_tensor_proto_file(const std::string& path);

// The file form of the elements of `tensor`: little endian, 4-bit types two a byte. Any alignment.
std::string raw_bytes_of(const ConstTensorView& tensor);
// A serialized TensorProto with raw_data. Precondition: a dtype with dtype_size() > 0.
std::string encode_tensor_proto(const std::string& name, const ConstTensorView& tensor);

}  // namespace sprun::graph
