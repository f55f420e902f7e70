// Ids that are bytes.
#include "runtime/text/byte_model.h"

#include "runtime/text/tokenizer_impl.h"

namespace sprun::text {

ByteModel::ByteModel() {
  for (int b = 0; b < 256; ++b)
    static_cast<void>(vocab_.add(byte_token(static_cast<uint8_t>(b)), b));
}

Status ByteModel::encode(std::string_view piece, std::vector<int64_t>* ids) const {
  for (const char c : piece) ids->push_back(static_cast<unsigned char>(c));
  return {};
}

Result<TokenModelPtr> make_byte_model(const Fields&, int) {
  return TokenModelPtr(std::make_shared<ByteModel>());
}

ImplPtr make_bytes() {
  const auto impl = std::make_shared<Tokenizer::Impl>();
  impl->model = std::make_shared<ByteModel>();
  impl->decoder =
      *make_decoder({{"type", "RawBytes"}}, "decoder");  // a type that exists, without settings
  impl->description = "bytes";
  return impl;
}

}  // namespace sprun::text
