// Status, Result and Error: the error model of sprun.
//
// Everything that can fail returns Status or Result<T>; the library never prints, exits or aborts on input.
//   auto model = sprun::Model::load("bert.onnx");            // style 1: check
//   if (!model.ok()) return report(model.status());
//   auto same = sprun::Model::load("bert.onnx").value();     // style 2: throws sprun::Error
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "sprun/export.h"

namespace sprun {

// What went wrong, coarsely. The command line maps each code to one exit code.
enum class Code : uint8_t {
  kOk,
  kInternal,       // a bug in sprun
  kUsage,          // the caller asked for something that does not exist (flag, option, name)
  kBadModel,       // the model file is broken, or uses something unsupported
  kBadInput,       // an input tensor or data file has the wrong name, dtype, rank, shape or value
  kMismatch,       // a comparison found different numbers
  kResourceLimit,  // a size or memory limit
  kNotSupported,   // the CPU or device cannot do it
  kCancelled,      // stop token or deadline
};

SPRUN_API std::string_view code_name(Code code);

// Thrown only by Status::value() and Result::value().
class SPRUN_API Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const noexcept { return code_; }

 private:
  Code code_;
};

// Success, or a code with a message that says what, where, expected and got. Cheap when ok.
class [[nodiscard]] SPRUN_API Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  // Returns when ok, else throws Error.
  void value() const;
  // The same code with "context: " before the message. Ok stays ok.
  Status with_context(std::string_view context) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

// A T, or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}               // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) {        // NOLINT: implicit on purpose
    if (status_.ok()) status_ = Status(Code::kInternal, "Result built from an ok Status without a value");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  // Precondition of the four below: ok().
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  // The value, or throws Error.
  T value() && {
    status_.value();
    return std::move(*value_);
  }
  const T& value() const& {
    status_.value();
    return *value_;
  }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace sprun

// Returns the Status from the enclosing function unless it is ok.
#define SPRUN_TRY(expr)                                    \
  do {                                                     \
    if (auto sprun_status_ = (expr); !sprun_status_.ok()) { \
      return sprun_status_;                                \
    }                                                      \
  } while (false)

#define SPRUN_CONCAT_INNER_(a, b) a##b
#define SPRUN_CONCAT_(a, b) SPRUN_CONCAT_INNER_(a, b)

// SPRUN_ASSIGN(auto x, f()): declares or assigns x from a Result, or returns its Status.
#define SPRUN_ASSIGN(lhs, expr) SPRUN_ASSIGN_IMPL_(lhs, expr, SPRUN_CONCAT_(sprun_result_, __LINE__))
#define SPRUN_ASSIGN_IMPL_(lhs, expr, tmp) \
  auto tmp = (expr);                       \
  if (!tmp.ok()) return tmp.status();      \
  lhs = std::move(*tmp)
