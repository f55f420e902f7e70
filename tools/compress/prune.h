// Methods that choose which weights of one layer become zero, and what the others become.
//
// A method is one file prune_<name>.cc with
//   Status prune_<name>(const PruneProblem& problem, Matrix& w, PruneOutcome& outcome)
// and one line in prune_methods.def. It may assume that inputs has what its line asks for.
//
// With a pattern of R x C blocks exactly round(sparsity * blocks) blocks are chosen, in the scope
// that the method states; blocks that stick out of the matrix count as blocks. N:M keeps N of each
// M consecutive inputs of an output, fewer in a last group that is shorter.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/input_statistics.h"
#include "tools/compress/matrix.h"
#include "tools/compress/pattern.h"

namespace sprun::compress {

struct PruneProblem {
  PruneSpec spec;
  const InputStatistics* inputs =
      nullptr;            // of the layer's input; null only for methods without needs
  double damping = 0.01;  // part of the mean of diag(H) that is added to it
  // One per output: survivors are rounded to multiples in the same pass, -127 to 127 of them.
  // Methods that do not correct for errors ignore it: rounding afterwards is the same.
  std::optional<Vector> int8_scale;
  ThreadPool* pool = nullptr;
};

struct PruneOutcome {
  double damping = 0;    // used in the end; 0 when there was none
  bool rounded = false;  // the weights are multiples of int8_scale
};

struct PruneMethod {
  std::string_view name;
  enum class Needs : uint8_t { kNothing, kInputs } needs;
  Status (*run)(const PruneProblem& problem, Matrix& w, PruneOutcome& outcome);
};

#define SPRUN_PRUNE_METHOD(needs, name) \
  Status prune_##name(const PruneProblem& problem, Matrix& w, PruneOutcome& outcome);
#include "tools/compress/prune_methods.def"
#undef SPRUN_PRUNE_METHOD

// nullptr if there is none of that name.
const PruneMethod* find_prune_method(std::string_view name);
// "magnitude, wanda, sparsegpt"
std::string prune_method_names();

}  // namespace sprun::compress
