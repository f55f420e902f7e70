#include "sprun/status.h"

namespace sprun {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::kOk: return "ok";
    case Code::kInternal: return "internal error";
    case Code::kUsage: return "usage error";
    case Code::kBadModel: return "bad model";
    case Code::kBadInput: return "bad input";
    case Code::kMismatch: return "mismatch";
    case Code::kResourceLimit: return "resource limit";
    case Code::kNotSupported: return "not supported here";
    case Code::kCancelled: return "cancelled";
  }
  return "unknown";
}

void Status::value() const {
  if (!ok()) throw Error(code_, message_);
}

Status Status::with_context(std::string_view context) const {
  if (ok()) return {};
  return {code_, std::string(context) + ": " + message_};
}

}  // namespace sprun
