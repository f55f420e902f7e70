#include "tools/sprun/console.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include <fmt/format.h>

#include "runtime/base/atomic_file.h"

namespace sprun::tools {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kQuietTime = std::chrono::seconds(1);
constexpr auto kRefresh = std::chrono::milliseconds(250);

std::stop_source& stop_source() {
  static std::stop_source source;
  return source;
}

void wait_for_interrupt(sigset_t set) {
  int number = 0;
  sigwait(&set, &number);
  stop_source().request_stop();
  const timespec grace{2, 0};
  sigtimedwait(&set, nullptr, &grace);
  AtomicFile::discard_unfinished();
  _exit(130);
}

bool looks_numeric(std::string_view cell) {
  return !cell.empty() && (std::string_view("+-.").find(cell.front()) != std::string_view::npos ||
                           (cell.front() >= '0' && cell.front() <= '9'));
}

}  // namespace

Progress::Progress(std::string label) : label_(std::move(label)) {
  if (isatty(STDERR_FILENO) != 0) thread_ = std::thread([this] { loop(); });
}

Progress::~Progress() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Progress::set_label(std::string label) {
  const std::lock_guard lock(mutex_);
  label_ = std::move(label);
}

void Progress::loop() {
  const auto start = Clock::now();
  std::unique_lock lock(mutex_);
  if (changed_.wait_for(lock, kQuietTime, [this] { return done_; })) return;
  while (!done_) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    fmt::print(stderr, "\r\033[K{} ... {:.1f} s", label_, seconds);
    std::fflush(stderr);
    changed_.wait_for(lock, kRefresh, [this] { return done_; });
  }
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
}

void message(std::string_view text) {
  std::fflush(stdout);
  fmt::print(stderr, "sprun: {}\n", text);
}

Status print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0)
    return {Code::kBadInput, "cannot write to standard output"};
  return {};
}

std::string dump_json(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Status write_json(const std::string& target, const nlohmann::ordered_json& json) {
  const std::string text = dump_json(json, 2) + "\n";
  return target == "-" ? print(text) : write_text(target, text);
}

bool is_stream(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_type type = std::filesystem::status(path, error).type();
  return type == std::filesystem::file_type::character || type == std::filesystem::file_type::fifo;
}

Status write_text(const std::string& path, std::string_view text) {
  if (is_stream(path)) {
    std::ofstream file(path, std::ios::binary);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.close();
    return file ? Status() : Status(Code::kBadInput, "cannot write " + path);
  }
  SPRUN_ASSIGN(AtomicFile file, AtomicFile::create(path));
  SPRUN_TRY(file.write(text));
  return file.commit();
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::vector<bool> right(widths.size(), rows.size() > 1);
  for (size_t r = 1; r < rows.size(); ++r) {
    for (size_t i = 0; i < rows[r].size(); ++i) {
      if (!rows[r][i].empty() && !looks_numeric(rows[r][i])) right[i] = false;
    }
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      line += right[i] ? padding + row[i] : row[i] + padding;
      line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

void watch_interrupts() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);  // threads started later inherit it
  signal(SIGXFSZ, SIG_IGN);  // a file over the limit is an error of write, like a full disk
  (void)stop_source();
  std::thread(wait_for_interrupt, set).detach();
}

std::stop_token stop_token() { return stop_source().get_token(); }

bool interrupted() { return stop_source().stop_requested(); }

}  // namespace sprun::tools
