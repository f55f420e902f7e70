// Sizes for the symbolic dimensions of a model's inputs.
//
//   DimMap given = parse_dims({"batch=1,seq=128"}).value();
//   Result<Shape> shape = resolve_shape(spec, symbols);
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"

namespace sprun::tools {

using DimMap = std::map<std::string, int64_t>;

// A list of sizes per symbol, for sweeps.
using DimLists = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// "batch=1,seq=32,128,384": a part without '=' adds a size to the symbol before it. A size may be a
// range: A..B (step 1), A..B+S, A..B*F. kUsage.
Result<DimLists> parse_dim_lists(const std::vector<std::string>& arguments);
// The same with one size per symbol.
Result<DimMap> parse_dims(const std::vector<std::string>& arguments);
// "1,2,4" or a range, as above.
Result<std::vector<int64_t>> parse_int_list(const std::string& text);

// Works out the shapes of inputs from what the user gave, from inputs that are already there, and
// from defaults.
//
// A symbol may be a sum such as "past_sequence_length + 1". An unnamed dimension is called
// INPUT[AXIS]. Defaults by name, the first rule that fits: past -> 0; total -> past + sequence;
// batch -> 1; seq, len, tokens -> 128; channel -> 3; height, width -> 224. The letters b, n, s,
// l, p and t stand for batch, batch, sequence, length, past and total. An unnamed dimension is 1 on
// axis 0, and 128 on axis 1 of an integer matrix.
class DimResolver {
 public:
  // A name in `given` may be the start of a dimension's: seq for sequence_length. kUsage if no dimension or more than one
  // is meant; the message lists those there are.
  static Result<DimResolver> create(std::span<const TensorSpec> inputs, DimMap given);

  // Takes over the sizes of a tensor the user supplied: its symbols get the tensor's sizes unless
  // given before.
  void learn(const TensorSpec& spec, const Shape& shape);
  // Adds a default for each symbol that has no size yet. kUsage naming every symbol without a
  // default.
  Status complete(std::span<const TensorSpec> unfilled_inputs);
  // Precondition: complete() was called with this spec among others. kUsage if the rank is unknown.
  Result<Shape> shape_of(const TensorSpec& spec) const;
  // Sum of the sizes of the past and of the sequence, as far as they are symbols.
  int64_t total_length() const;

 private:
  std::optional<int64_t> evaluate(const std::string& symbol) const;
  DimMap sizes_;
};

}  // namespace sprun::tools
