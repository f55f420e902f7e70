// Einsum (ai.onnx 12 and later): any number of operands, ellipsis, repeated letters.
//
// The equation becomes sizes and strides per letter. One or two operands whose letters group into batch, rows,
// columns and sums become one batched matrix product (matmul_util.h); everything else is a loop over all letters.
#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ops/float_product.h"
#include "graph/ops/matmul_util.h"
#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

// Letters of an equation with the ellipsis axes spelled out as the labels 128, 129, ...
using Term = std::vector<int>;
constexpr int kEllipsisLabel = 128;

struct Equation {
  std::vector<Term> inputs;
  Term output;
};

struct ParsedTerm {
  Term labels;  // an ellipsis is one kEllipsisLabel
  bool ellipsis = false;
};

Status equation_error(std::string_view equation, const std::string& why) {
  return {Code::kBadModel, "equation '" + std::string(equation) + "': " + why};
}

Result<ParsedTerm> parse_term(std::string_view equation, std::string_view text) {
  ParsedTerm term;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ') continue;
    if (c == '.') {
      if (text.substr(i, 3) != "..." || term.ellipsis) return equation_error(equation, "misplaced '.'");
      term.ellipsis = true;
      term.labels.push_back(kEllipsisLabel);
      i += 2;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
      term.labels.push_back(c);
    } else {
      return equation_error(equation, std::string("unexpected character '") + c + "'");
    }
  }
  return term;
}

// Replaces the ellipsis by `rank` labels, right-aligned among `max_rank`.
Term expand(const ParsedTerm& term, int rank, int max_rank) {
  Term labels;
  for (int label : term.labels) {
    if (label != kEllipsisLabel) {
      labels.push_back(label);
      continue;
    }
    for (int i = max_rank - rank; i < max_rank; ++i) labels.push_back(kEllipsisLabel + i);
  }
  return labels;
}

// Implicit output: the ellipsis, then every letter that occurs once, in ASCII order.
Term implicit_output(const std::vector<ParsedTerm>& terms, int ellipsis_rank) {
  std::array<int, 128> uses{};
  for (const ParsedTerm& term : terms) {
    for (int label : term.labels) {
      if (label < kEllipsisLabel) ++uses[static_cast<size_t>(label)];
    }
  }
  Term output;
  for (int i = 0; i < ellipsis_rank; ++i) output.push_back(kEllipsisLabel + i);
  for (int label = 0; label < kEllipsisLabel; ++label) {
    if (uses[static_cast<size_t>(label)] == 1) output.push_back(label);
  }
  return output;
}

Result<Equation> parse_equation(std::string_view text, std::span<const Shape> shapes) {
  const size_t arrow = text.find("->");
  std::string_view left = text.substr(0, arrow);
  std::vector<ParsedTerm> terms;
  while (true) {
    const size_t comma = left.find(',');
    SPRUN_ASSIGN(ParsedTerm term, parse_term(text, left.substr(0, comma)));
    terms.push_back(std::move(term));
    if (comma == std::string_view::npos) break;
    left.remove_prefix(comma + 1);
  }
  if (terms.size() != shapes.size()) {
    return equation_error(text,
                          std::to_string(terms.size()) + " terms for " + std::to_string(shapes.size()) + " inputs");
  }
  int max_rank = 0;
  for (size_t i = 0; i < terms.size(); ++i) {
    const int letters = static_cast<int>(terms[i].labels.size()) - (terms[i].ellipsis ? 1 : 0);
    const int rest = shapes[i].rank() - letters;
    if (rest < 0 || (rest > 0 && !terms[i].ellipsis)) {
      return equation_error(text, "term " + std::to_string(i) + " does not fit shape " + shapes[i].to_string());
    }
    max_rank = std::max(max_rank, terms[i].ellipsis ? rest : 0);
  }
  Equation equation;
  for (size_t i = 0; i < terms.size(); ++i) {
    const int letters = static_cast<int>(terms[i].labels.size()) - (terms[i].ellipsis ? 1 : 0);
    equation.inputs.push_back(expand(terms[i], shapes[i].rank() - letters, max_rank));
  }
  if (arrow == std::string_view::npos) {
    equation.output = implicit_output(terms, max_rank);
  } else {
    SPRUN_ASSIGN(const ParsedTerm out, parse_term(text, text.substr(arrow + 2)));
    equation.output = expand(out, max_rank, max_rank);
  }
  return equation;
}

// One letter: its size, and its stride in every operand (0 where it does not occur or is broadcast).
struct Label {
  int label = 0;
  int64_t size = 1;
  std::vector<int64_t> strides;  // per input
  int64_t out_stride = 0;
  bool in_output = false;
};

struct Problem {
  std::vector<Label> labels;  // those of the output first, in its order
  Shape out;
};

Result<Label> make_label(int label, const Equation& equation, std::span<const Shape> shapes) {
  Label result;
  result.label = label;
  bool found = false;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto strides = row_major_strides(shapes[i]);
    int64_t total = 0;
    for (size_t axis = 0; axis < equation.inputs[i].size(); ++axis) {
      if (equation.inputs[i][axis] != label) continue;
      const int64_t dim = shapes[i][static_cast<int>(axis)];
      if (found && dim != result.size && dim != 1 && result.size != 1) {
        return Status(Code::kBadModel,
                      "a letter has sizes " + std::to_string(result.size) + " and " + std::to_string(dim));
      }
      if (!found || dim != 1) result.size = dim;
      found = true;
      if (dim != 1) total += strides[axis];
    }
    result.strides.push_back(total);
  }
  if (!found) return Status(Code::kBadModel, "a letter of the output is in no input");
  return result;
}

Result<Problem> make_problem(std::string_view text, std::span<const Shape> shapes) {
  SPRUN_ASSIGN(const Equation equation, parse_equation(text, shapes));
  Problem problem;
  const auto find = [&problem](int label) {
    return std::any_of(problem.labels.begin(), problem.labels.end(),
                       [label](const Label& l) { return l.label == label; });
  };
  std::vector<int64_t> dims;
  for (int label : equation.output) {
    if (find(label)) return equation_error(text, "a letter occurs twice in the output");
    auto made = make_label(label, equation, shapes);
    if (!made.ok()) return equation_error(text, made.status().message());
    made->in_output = true;
    dims.push_back(made->size);
    problem.labels.push_back(std::move(*made));
  }
  SPRUN_ASSIGN(problem.out, Shape::checked(dims));
  const auto out_strides = row_major_strides(problem.out);
  for (size_t i = 0; i < dims.size(); ++i) problem.labels[i].out_stride = out_strides[i];
  for (const Term& term : equation.inputs) {
    for (int label : term) {
      if (find(label)) continue;
      auto made = make_label(label, equation, shapes);
      if (!made.ok()) return equation_error(text, made.status().message());
      problem.labels.push_back(std::move(*made));
    }
  }
  return problem;
}

// --- as a matrix product

// Appends `label` to a group of letters that act as one axis: sizes multiply when strides nest.
struct Group {
  int64_t size = 1;
  std::array<int64_t, 3> strides{};  // in A, B and C of the innermost letter
};

bool merge(Group& group, int64_t size, const std::array<int64_t, 3>& strides) {
  if (size == 1) return true;
  if (group.size == 1) {
    group = {size, strides};
    return true;
  }
  for (size_t i = 0; i < 3; ++i) {  // the earlier letter is the outer one
    if (group.strides[i] != strides[i] * size) return false;
  }
  group = {group.size * size, strides};
  return true;
}

// Letters of two operands sorted into the roles of a product; false when they do not fit one.
bool as_gemm(const Problem& problem, BatchedGemm& g) {
  Group rows, cols, sums;
  g = BatchedGemm();
  for (const Label& label : problem.labels) {
    const std::array<int64_t, 3> strides = {label.strides[0], label.strides[1], label.out_stride};
    const bool in_a = strides[0] != 0, in_b = strides[1] != 0;
    if (label.size == 1) continue;
    Group* group = !label.in_output ? &sums : in_a && in_b ? nullptr : in_a ? &rows : &cols;
    if (group != nullptr && merge(*group, label.size, strides)) continue;
    if (!label.in_output || g.batch.rank() == kMaxRank) return false;
    const auto axis = static_cast<size_t>(g.batch.rank());
    g.a_batch[axis] = strides[0];
    g.b_batch[axis] = strides[1];
    g.c_batch[axis] = strides[2];
    g.batch.push_back(label.size);
  }
  g.m = rows.size;
  g.n = cols.size;
  g.k = sums.size;
  g.a_row = rows.strides[0];
  g.c_row = rows.strides[2];
  g.a_col = sums.strides[0];
  g.b_row = sums.strides[1];
  g.b_col = cols.strides[1];
  g.c_col = cols.strides[2];
  return true;
}

// --- the loop over all letters

constexpr size_t kMaxInputs = 16, kMaxLabels = 32;

template <class T>
struct LoopContext {
  const Problem& problem;
  std::array<const T*, kMaxInputs> inputs{};
  size_t num_inputs = 0;
};

// Sum over the letters that are not in the output, at the offsets of one output element.
template <class T>
SumType<T> sum_products(const LoopContext<T>& loop, std::array<int64_t, kMaxInputs> at, int64_t count) {
  using Sum = SumType<T>;
  const auto& labels = loop.problem.labels;
  const auto first = static_cast<size_t>(loop.problem.out.rank());
  std::array<int64_t, kMaxLabels> index{};
  Sum sum{};
  for (int64_t step = 0; step < count; ++step) {
    Sum product = static_cast<Sum>(load(loop.inputs[0][at[0]]));
    for (size_t i = 1; i < loop.num_inputs; ++i) product *= static_cast<Sum>(load(loop.inputs[i][at[i]]));
    sum += product;
    for (size_t l = labels.size(); l-- > first;) {
      const bool carry = ++index[l] == labels[l].size;
      if (carry) index[l] = 0;
      for (size_t i = 0; i < loop.num_inputs; ++i) {
        at[i] += carry ? -labels[l].strides[i] * (labels[l].size - 1) : labels[l].strides[i];
      }
      if (!carry) break;
    }
  }
  return sum;
}

template <class T>
void run_loop(RunContext& ctx, const LoopContext<T>& loop, T* y) {
  const auto& labels = loop.problem.labels;
  const int rank = loop.problem.out.rank();
  int64_t sums = 1;
  for (size_t l = static_cast<size_t>(rank); l < labels.size(); ++l) sums *= labels[l].size;
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(sums, 1));
  ctx.pool().parallel_for(loop.problem.out.num_elements(), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t e = begin; e < end; ++e) {
      std::array<int64_t, kMaxInputs> at{};
      int64_t rest = e;
      for (int axis = rank - 1; axis >= 0; --axis) {
        const Label& label = labels[static_cast<size_t>(axis)];
        const int64_t coordinate = rest % label.size;
        rest /= label.size;
        for (size_t i = 0; i < loop.num_inputs; ++i) at[i] += coordinate * label.strides[i];
      }
      y[e] = scale_sum<T>(sum_products(loop, at, sums), 1.0f);
    }
  });
}

// --- the op

template <class Ctx>
Result<Problem> problem_of(const Ctx& ctx) {
  std::vector<Shape> shapes;
  for (int i = 0; i < ctx.num_inputs(); ++i) shapes.push_back(ctx.input(i).shape);
  return make_problem(ctx.attrs().get_string("equation", ""), shapes);
}

Status infer_einsum(InferContext& ctx) {
  SPRUN_TRY(ctx.check(static_cast<size_t>(ctx.num_inputs()) <= kMaxInputs, "more than 16 inputs"));
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    SPRUN_TRY(ctx.check(ctx.has_input(i) && ctx.dtype(i) == ctx.dtype(0), "inputs differ in type"));
  }
  auto problem = problem_of(ctx);
  if (!problem.ok()) return ctx.error(problem.status().message());
  SPRUN_TRY(ctx.check(problem->labels.size() <= kMaxLabels, "more than 32 letters"));
  int64_t work = 1;
  for (const Label& label : problem->labels) {
    SPRUN_TRY(ctx.check(!__builtin_mul_overflow(work, std::max<int64_t>(label.size, 1), &work), "too many products"));
  }
  ctx.set_output(0, ctx.dtype(0), problem->out);
  return {};
}

struct EinsumState : OpState {
  Problem problem;
  bool is_gemm = false;
  BatchedGemm gemm;
  std::unique_ptr<const FloatProduct> product;  // float32 products that the kernels take
};

Status prepare_einsum(PrepareContext& ctx) {
  std::vector<Shape> shapes;
  for (const ConstTensorView& input : ctx.inputs_) shapes.push_back(input.shape);
  auto state = std::make_unique<EinsumState>();
  SPRUN_ASSIGN(state->problem, make_problem(ctx.attrs().get_string("equation", ""), shapes));
  state->is_gemm = shapes.size() == 2 && as_gemm(state->problem, state->gemm);
  if (state->is_gemm && is_float(ctx.input(0).dtype) && ctx.input(0).dtype != DType::kF64) {
    SPRUN_ASSIGN(state->product, FloatProduct::prepare(ctx, state->gemm, 0, 1));
  }
  ctx.state = std::move(state);
  return {};
}

Status run_with(RunContext& ctx, const Problem& problem, const BatchedGemm* gemm) {
  return dispatch_numeric(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* y = ctx.output(0).as<T>();
    if (gemm != nullptr) {
      gemm_ref(ctx.pool(), *gemm, ctx.input(0).as<T>(), ctx.input(1).as<T>(), y);
      return Status();
    }
    LoopContext<T> loop = {.problem = problem, .inputs = {}, .num_inputs = static_cast<size_t>(ctx.num_inputs())};
    for (int i = 0; i < ctx.num_inputs(); ++i) loop.inputs[static_cast<size_t>(i)] = ctx.input(i).as<T>();
    run_loop(ctx, loop, y);
    return Status();
  });
}

Status run_einsum(RunContext& ctx) {
  if (const auto* state = static_cast<const EinsumState*>(ctx.state())) {
    if (!state->product) return run_with(ctx, state->problem, state->is_gemm ? &state->gemm : nullptr);
    state->product->run(ctx.pool(), ctx.input(0).data, ctx.input(1).data, ctx.output(0).data, {}, ctx.scratch());
    return {};
  }
  auto problem = problem_of(ctx);
  if (!problem.ok()) return ctx.error(problem.status().message());
  return run_with(ctx, *problem, nullptr);
}

constexpr OpDef kOps[] = {
    {.name = "Einsum",
     .since = 12,
     .inputs = {1, kVariadic},
     .infer = infer_einsum,
     .run = run_einsum,
     .prepare = prepare_einsum},
};

}  // namespace

extern const std::span<const OpDef> k_einsum_ops;
const std::span<const OpDef> k_einsum_ops = kOps;

}  // namespace sprun::graph
