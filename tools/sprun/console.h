// What the command says while and after it works: progress line, messages, JSON, interruption.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "sprun/status.h"

namespace sprun::tools {

// A line on standard error that says what is going on and since when. Shows only on a terminal, and
// only after one second; gone when the object is.
class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // Thread-safe.
  void set_label(std::string label);

 private:
  void loop();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string label_;
  bool done_ = false;
  std::thread thread_;
};

// Messages for people: standard error.
void message(std::string_view text);
// Results: standard output. kBadInput when it cannot be written (full disk, closed pipe).
Status print(std::string_view text);

// Writes a file that appears, or replaces the old one, only when it is complete. Devices and pipes
// are written as they are. kUsage, kResourceLimit (full disk), kBadInput for devices and pipes.
Status write_text(const std::string& path, std::string_view text);
// True for devices and pipes.
bool is_stream(const std::string& path);
// Writes JSON with a newline to FILE as write_text() does, or to standard output for "-".
Status write_json(const std::string& target, const nlohmann::ordered_json& json);
// JSON text that is always valid UTF-8.
std::string dump_json(const nlohmann::ordered_json& json, int indent);

// Columns padded to the widest cell; the first row is the header. Numbers (cells that start with a
// digit or sign) align right.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

// After watch_interrupts(), SIGINT or SIGTERM makes stop_token() ask for a stop; if the program has not ended
// two seconds later, or at a second signal, it ends with status 130. A file
// over the limit of the process becomes an error of the write. Call once, before any thread starts.
void watch_interrupts();
std::stop_token stop_token();
bool interrupted();

}  // namespace sprun::tools
