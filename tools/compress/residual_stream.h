// The residual stream of a transformer: where a graph adds to it, and what reads it.
//
// A point is a value that norms read: x[.., width], a sum of terms. Pre-norm blocks add to the
// point before them, post-norm blocks to its norm. Points that no later point is made of are last:
// nothing of theirs and after them ever changes, so that whatever stands behind the stream (heads,
// poolers, several outputs) may look as it likes. What reads a last point itself and not its norm
// sees its mean too, so that the points it is made of have to keep theirs.
//
//   SPRUN_ASSIGN(const ResidualStream stream, find_residual_stream(graph));
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// A product with constant weights next to the stream, MatMul or Gemm, and what stands between them.
struct StreamLinear {
  graph::NodeId product = graph::kNoNode;
  std::vector<graph::NodeId> reshapes;      // they change leading dimensions only
  graph::NodeId bias_add = graph::kNoNode;  // an Add of a constant [outputs] behind the product
  size_t bias_slot = 0;
};

// One term of the sum that makes a point.
struct StreamTerm {
  enum class Kind : uint8_t {
    kPoint,     // an earlier point, index
    kNorm,      // the norm of an earlier point, index
    kLinear,    // the result of a linear layer that nothing else reads
    kTable,     // rows of an embedding table that nothing else reads
    kConstant,  // a constant [.., width]
    kOther,     // anything else of that width
  };
  Kind kind = Kind::kOther;
  graph::NodeId add =
      graph::kNoNode;  // that reads the term at input `slot`; kNoNode: the term is the point
  size_t slot = 0;
  graph::ValueId value = graph::kNoValue;
  int index = -1;
  StreamLinear linear;
};

struct StreamPoint {
  std::string name;
  graph::ValueId value = graph::kNoValue;
  int64_t width = 0;
  bool subtracts_mean = false;  // its norms do: LayerNorm, else RMSNorm
  bool keeps_mean = false;      // they do, but something behind the stream reads the mean
  bool is_last = true;
  std::vector<StreamTerm> terms;
  std::vector<int> norms;
};

// out = (x - mean if subtracts_mean) / sqrt(mean square + epsilon) * gamma + beta, x being the
// value of `point`.
struct StreamNorm {
  std::string name;
  int point = -1;
  graph::ValueId out = graph::kNoValue;
  Vector gamma, beta;
  double epsilon = 0;
  bool subtracts_mean = false;
};

// A linear layer that reads the norm `norm`.
struct StreamReader {
  int norm = -1;
  StreamLinear linear;
};

// Points, norms and readers in the order in which they run. Ids are those of the graph that was
// searched.
struct ResidualStream {
  std::vector<StreamPoint> points;
  std::vector<StreamNorm> norms;
  std::vector<StreamReader> readers;  // of points that are not last
  bool is_post_norm = false;          // some term is a norm
};

// LayerNorm and RMSNorm may be single nodes or spelled out. kBadModel with the name of a node and
// the reason if there is no stream of at least two points, or if anything but norms, sums and
// linear layers touches a point that is not last.
Result<ResidualStream> find_residual_stream(const graph::Graph& graph);

}  // namespace sprun::compress
