#include "graph/ops/conv_problem.h"

#include <string>

namespace sprun::graph {

namespace {

Status bad(const std::string& text) { return {Code::kBadModel, text}; }

// Reads group and checks that it divides the channels.
Status set_groups(const AttrMap& attrs, const Shape& x, const Shape& w, ConvProblem* p) {
  if (x.rank() < 3 || x.rank() != w.rank()) {
    return bad("input shape " + x.to_string() + " and weight shape " + w.to_string() +
               " must have the same number of axes, at least 3");
  }
  p->batch = x[0];
  p->in_channels = x[1];
  p->groups = attrs.get_int("group", 1);
  if (p->groups < 1 || w[0] % p->groups != 0 || x[1] % p->groups != 0) {
    return bad("group " + std::to_string(p->groups) + " does not divide the channels of input " +
               x.to_string() + " and weight " + w.to_string());
  }
  return {};
}

}  // namespace

Result<ConvProblem> make_conv_problem(const AttrMap& attrs, const Shape& x, const Shape& w) {
  ConvProblem p;
  SPRUN_TRY(set_groups(attrs, x, w, &p));
  p.out_channels = w[0];
  if (w[1] != p.group_in()) {
    return bad("weight " + w.to_string() + " has " + std::to_string(w[1]) +
               " input channels, expected " + std::to_string(p.group_in()) + " for input " +
               x.to_string());
  }
  SPRUN_ASSIGN(const std::vector<int64_t> kernel, conv_kernel(attrs, w));
  SPRUN_ASSIGN(p.window, make_window(attrs, x, kernel));
  SPRUN_TRY(Shape::checked(p.out_shape().dims()).status());
  return p;
}

Result<ConvProblem> make_conv_transpose_problem(const AttrMap& attrs, const Shape& x,
                                                const Shape& w) {
  ConvProblem p;
  SPRUN_TRY(set_groups(attrs, x, w, &p));
  if (w[0] != x[1]) {
    return bad("weight " + w.to_string() + " does not fit input " + x.to_string() +
               ": their channels differ");
  }
  if (w[1] > kMaxElements / p.groups) return bad("too many output channels");
  p.out_channels = w[1] * p.groups;
  SPRUN_ASSIGN(const std::vector<int64_t> kernel, conv_kernel(attrs, w));
  SPRUN_ASSIGN(p.window, make_transposed_window(attrs, x, kernel));
  SPRUN_TRY(Shape::checked(p.out_shape().dims()).status());
  return p;
}

}  // namespace sprun::graph
