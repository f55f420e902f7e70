#include <algorithm>
#include <chrono>

#include "graph/ir/verifier.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

#define SPRUN_PASS(stage, name) Result<int> pass_##name(Graph&, PassContext&);
#include "graph/passes/passes.def"
#undef SPRUN_PASS

std::span<const PassInfo> pass_table() {
  static constexpr PassInfo kPasses[] = {
#define SPRUN_PASS(stage, name) {#name, PassStage::stage, pass_##name},
#include "graph/passes/passes.def"
#undef SPRUN_PASS
  };
  return kPasses;
}

Status check_pass_names(std::span<const std::string> names) {
  for (const std::string& name : names) {
    const auto table = pass_table();
    if (std::none_of(table.begin(), table.end(), [&](const PassInfo& pass) { return pass.name == name; })) {
      return {Code::kUsage, "there is no graph pass named '" + name + "'"};
    }
  }
  return {};
}

Status run_passes(Graph& graph, PassContext& ctx, std::span<const std::string> disabled,
                  std::vector<PassRecord>& records) {
  using Clock = std::chrono::steady_clock;
  for (const PassInfo& pass : pass_table()) {
    if (pass.stage != PassStage::kBoth && pass.stage != ctx.stage) continue;
    PassRecord record{.name = pass.name, .stage = ctx.stage, .nodes_before = graph.num_live_nodes()};
    record.disabled = std::find(disabled.begin(), disabled.end(), pass.name) != disabled.end();
    if (!record.disabled) {
      const auto start = Clock::now();
      SPRUN_ASSIGN(record.rewrites, pass.run(graph, ctx));
      record.milliseconds = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
      if (Status status = verify(graph); !status.ok()) {
        return {Code::kInternal, "after pass " + std::string(pass.name) + ": " + status.message()};
      }
    }
    record.nodes_after = graph.num_live_nodes();
    records.push_back(record);
  }
  return {};
}

}  // namespace sprun::graph
