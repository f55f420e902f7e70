// SPRUN_MAX_ISA for the length of a scope.
#pragma once

#include <cstdlib>
#include <string>

namespace sprun::testing_support {

// Sets SPRUN_MAX_ISA and puts the old value back.
class ScopedMaxIsa {
 public:
  explicit ScopedMaxIsa(const char* value) {
    const char* old = std::getenv("SPRUN_MAX_ISA");
    had_ = old != nullptr;
    if (had_) old_ = old;
    setenv("SPRUN_MAX_ISA", value, 1);
  }
  ScopedMaxIsa(const ScopedMaxIsa&) = delete;
  ScopedMaxIsa& operator=(const ScopedMaxIsa&) = delete;
  ~ScopedMaxIsa() {
    if (had_) {
      setenv("SPRUN_MAX_ISA", old_.c_str(), 1);
    } else {
      unsetenv("SPRUN_MAX_ISA");
    }
  }

 private:
  bool had_ = false;
  std::string old_;
};

}  // namespace sprun::testing_support
