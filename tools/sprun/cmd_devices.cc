// sprun devices: what this machine offers and what sprun will use of it.
#include <array>
#include <fstream>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kernels/isa.h"
#include "runtime/base/thread_pool.h"
#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/peak.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

struct DevicesArgs {
  std::string isa, json;
  bool no_peak = false, loop = false;
  int threads = 0;
};

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name"))
      return line.substr(std::min(line.size(), line.find(':') + 2));
  }
  return "unknown";
}

struct Cache {
  std::string level, type, size, shared_by;
};

// Of core 0, from sysfs; empty in places that hide it.
std::vector<Cache> caches() {
  std::vector<Cache> found;
  for (int i = 0; i < 8; ++i) {
    const std::string base = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}/", i);
    Cache cache{first_line(base + "level"), first_line(base + "type"), first_line(base + "size"),
                first_line(base + "shared_cpu_list")};
    if (!cache.level.empty()) found.push_back(std::move(cache));
  }
  return found;
}

struct IsaRow {
  std::string name, state;  // "used", or why not
  bool used = false;
};

std::vector<IsaRow> isa_rows(kernels::IsaSet allowed) {
  std::vector<IsaRow> rows;
  for (kernels::Isa isa : kernels::all_isas()) {
    const bool used = allowed.contains(isa);
    rows.push_back({std::string(kernels::isa_name(isa)),
                    used ? "used" : kernels::unavailable_reason(isa, allowed), used});
  }
  return rows;
}

// For bench/e2e: answers every "read N" of standard input with the rates of N passes over memory, as one line of JSON.
Status serve_loop(const DevicesArgs& args) {
  SPRUN_ASSIGN(MemoryReader reader, MemoryReader::create(args.threads));
  std::string word;
  for (int64_t count = 0; std::cin >> word;) {
    if (word != "read" || !(std::cin >> count) || count < 1) return {Code::kUsage, "--loop: read N"};
    Json answer;
    for (int64_t i = 0; i < count; ++i) answer["read_gbytes_per_s"].push_back(reader.read());
    SPRUN_TRY(print(dump_json(answer, -1) + "\n"));
  }
  return {};
}

Status devices(const DevicesArgs& args) {
  if (args.loop) return serve_loop(args);
  SPRUN_TRY(limit_isa(args.isa));
  const kernels::IsaSet allowed = kernels::available_isas();
  if (const kernels::MaxIsaEnv env = kernels::max_isa_env(); !env.known) {
    message(fmt::format("SPRUN_MAX_ISA='{}' is no level and is ignored; levels: {}", env.value,
                        fmt::join(kernels::isa_level_names(), ", ")));
  }
  const int cores = usable_cores();
  const int present = static_cast<int>(std::thread::hardware_concurrency());
  std::string text = fmt::format("cpu     {}\ncores   {} allowed ({} in the affinity mask)\n",
                                 cpu_model(), cores, present);
  Json json = {{"cpu", cpu_model()},     {"cores_allowed", cores}, {"cores_in_mask", present},
               {"isa", isa_in_use()},    {"isas", Json::array()},  {"isa_levels", Json::array()},
               {"caches", Json::array()}};
  for (std::string_view level : kernels::isa_level_names()) json["isa_levels"].push_back(level);
  for (const Cache& c : caches()) {
    text +=
        fmt::format("cache   L{} {} {}, shared by cpu {}\n", c.level, c.type, c.size, c.shared_by);
    json["caches"].push_back(
        {{"level", c.level}, {"type", c.type}, {"size", c.size}, {"shared_by", c.shared_by}});
  }
  for (const IsaRow& row : isa_rows(allowed)) {
    text += fmt::format("isa     {:<12} {}\n", row.name, row.state);
    json["isas"].push_back(
        {{"name", row.name}, {"used", row.used}, {"reason", row.used ? "" : row.state}});
  }
  text += fmt::format("levels  {} (SPRUN_MAX_ISA, --isa)\n",
                      fmt::join(kernels::isa_level_names(), ", "));
  if (!args.no_peak) {
    const Progress progress("measuring peak rates");
    json["peak"] = Json::array();
    for (int threads : std::set<int>{1, cores}) {
      const PeakRates peak = measure_peak(threads);
      text += fmt::format("peak    {}\n", to_text(peak));
      json["peak"].push_back(to_json(peak));
    }
  }
  if (args.json != "-") SPRUN_TRY(print(text));
  return args.json.empty() ? Status() : write_json(args.json, json);
}

}  // namespace

Action setup_devices(CLI::App& app) {
  auto args = std::make_shared<DevicesArgs>();
  app.add_option("--isa", args->isa, "Highest instruction set to consider");
  app.add_flag("--no-peak", args->no_peak, "Do not measure peak rates");
  app.add_option("--json", args->json, "Write JSON to FILE, or - for standard output");
  app.add_flag("--loop", args->loop)->group("");  // hidden: for bench/e2e
  app.add_option("--threads", args->threads)->group("");
  return [args] { return devices(*args); };
}

}  // namespace sprun::tools
