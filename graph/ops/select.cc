// Ops that pick or reorder elements by value: NonZero, Compress, TopK, ReverseSequence.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

// --- NonZero-9, 13: [rank, count] coordinates in row-major order

// True for elements that are not 0; both zeros of a float are 0.
template <class T>
bool is_nonzero(T v) {
  return load(v) != ComputeType<T>(0);
}

DType bool_as_byte(DType dtype) { return dtype == DType::kBool ? DType::kU8 : dtype; }

Status infer_non_zero(InferContext& ctx) {
  if (!ctx.has_data(0)) return ctx.needs_data();
  const ConstTensorView& in = ctx.input(0);
  int64_t count = 0;
  SPRUN_TRY(dispatch_numeric(ctx, bool_as_byte(in.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    count = std::count_if(in.as<T>(), in.as<T>() + in.num_elements(), is_nonzero<T>);
    return Status();
  }));
  ctx.set_output(0, DType::kS64, {in.shape.rank(), count});
  return {};
}

Status run_non_zero(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const int64_t count = ctx.output(0).shape[1];
  int64_t* out = ctx.output(0).as<int64_t>();
  return dispatch_numeric(ctx, bool_as_byte(in.dtype), [&](auto tag) {
    using T = typename decltype(tag)::type;
    int64_t found = 0;
    for (int64_t i = 0; i < in.num_elements() && found < count; ++i) {
      if (!is_nonzero(in.as<T>()[i])) continue;
      int64_t rest = i;
      for (int axis = in.shape.rank(); axis-- > 0;) {
        out[axis * count + found] = rest % in.shape[axis];
        rest /= in.shape[axis];
      }
      ++found;
    }
    return Status();
  });
}

// --- Compress-9, 11, 28: slices along `axis`, or elements of the flattened input, where condition is true

struct CompressView {
  int64_t outer = 1, size = 0, inner = 1;
};

template <class Ctx>
Result<CompressView> compress_view(const Ctx& ctx, const Shape& in) {
  if (!ctx.attrs().has("axis")) return CompressView{1, in.num_elements(), 1};
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), in.rank()));
  return CompressView{in.num_elements(0, axis), in[axis], in.num_elements(axis + 1, in.rank())};
}

Status infer_compress(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const CompressView view, at_node(ctx, compress_view(ctx, in)));
  if (ctx.dtype(1) != DType::kBool) return ctx.error("condition must be bool");
  if (!ctx.has_data(1)) return ctx.needs_data();
  const ConstTensorView& condition = ctx.input(1);
  const uint8_t* flags = condition.as<uint8_t>();
  const int64_t length = std::min(condition.num_elements(), view.size);
  const int64_t count = std::count_if(flags, flags + length, [](uint8_t flag) { return flag != 0; });
  Shape out{count};
  if (ctx.attrs().has("axis")) {
    SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), in.rank()));
    out = in;
    out[axis] = count;
  }
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status run_compress(RunContext& ctx) {
  const ConstTensorView &in = ctx.input(0), &condition = ctx.input(1);
  SPRUN_ASSIGN(const CompressView view, compress_view(ctx, in.shape));
  const int64_t row_bytes = view.inner * dtype_size(in.dtype);
  const int64_t length = std::min(condition.num_elements(), view.size);
  if (ctx.output(0).num_elements() == 0) return {};
  char* out = ctx.output(0).as<char>();
  for (int64_t outer = 0; outer < view.outer; ++outer) {
    for (int64_t i = 0; i < length; ++i) {
      if (condition.as<uint8_t>()[i] == 0) continue;
      std::memcpy(out, static_cast<const char*>(in.data) + (outer * view.size + i) * row_bytes,
                  static_cast<size_t>(row_bytes));
      out += row_bytes;
    }
  }
  return {};
}

// --- TopK-1..24: k is an attribute up to version 9; `largest` since 11

template <class Ctx>
Result<int64_t> top_k_count(const Ctx& ctx, int64_t size) {
  int64_t k = 0;
  if (ctx.opset() < 10) {
    k = ctx.attrs().get_int("k", 0);
  } else {
    SPRUN_ASSIGN(k, read_scalar_int(ctx.input(1)));
  }
  if (k < 0 || k > size) {
    return Status(Code::kBadModel,
                  "k is " + std::to_string(k) + ", the axis has " + std::to_string(size) + " elements");
  }
  return k;
}

Status infer_top_k(InferContext& ctx) {
  Shape out = ctx.shape(0);
  SPRUN_ASSIGN(const int axis, at_node(ctx, normalize_axis(ctx.attrs().get_int("axis", -1), out.rank())));
  if (ctx.opset() >= 10 && !ctx.has_input(1)) return ctx.error("the k input is missing");
  if (ctx.opset() >= 10 && !ctx.has_data(1)) return ctx.needs_data();
  SPRUN_ASSIGN(out[axis], at_node(ctx, top_k_count(ctx, out[axis])));
  ctx.set_output(0, ctx.dtype(0), out);
  ctx.set_output(1, DType::kS64, out);
  return {};
}

// a orders before b by value: NaN counts as larger than every number, as in numpy's sort.
template <class C>
bool value_less(C a, C b) {
  if constexpr (std::is_floating_point_v<C>) {
    if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
  }
  return a < b;
}

template <class C>
struct Candidate {
  C value;
  int64_t index;
};

template <class C>
struct Before {
  bool largest;
  bool operator()(const Candidate<C>& a, const Candidate<C>& b) const {
    if (largest ? value_less(b.value, a.value) : value_less(a.value, b.value)) return true;
    if (largest ? value_less(a.value, b.value) : value_less(b.value, a.value)) return false;
    return a.index < b.index;
  }
};

// Keeps the k candidates that come first out of a line of `size` elements, in order. `best` is scratch and result.
template <class T, class C = ComputeType<T>>
void find_first(const T* line, int64_t stride, int64_t size, int64_t k, bool largest, std::vector<Candidate<C>>& best) {
  const Before<C> before{largest};
  const auto at = [&](int64_t i) { return Candidate<C>{load(line[i * stride]), i}; };
  best.clear();
  if (k * 16 >= size) {
    for (int64_t i = 0; i < size; ++i) best.push_back(at(i));
    if (k < size) std::nth_element(best.begin(), best.begin() + k, best.end(), before);
    best.resize(static_cast<size_t>(k));
    std::sort(best.begin(), best.end(), before);
    return;
  }
  // A heap with the worst of the best on top. Most elements fail the first comparison; ties lose by their index.
  for (int64_t i = 0; i < k; ++i) best.push_back(at(i));
  std::make_heap(best.begin(), best.end(), before);
  for (int64_t i = k; i < size; ++i) {
    const C value = load(line[i * stride]), worst = best.front().value;
    if (largest ? value <= worst : value >= worst) continue;
    if (!before({value, i}, best.front())) continue;  // NaN fails no comparison
    std::pop_heap(best.begin(), best.end(), before);
    best.back() = {value, i};
    std::push_heap(best.begin(), best.end(), before);
  }
  std::sort_heap(best.begin(), best.end(), before);
}

template <class T>
void top_k(RunContext& ctx, int axis, bool largest) {
  using C = ComputeType<T>;
  const ConstTensorView& in = ctx.input(0);
  const Shape& shape = in.shape;
  const int64_t size = shape[axis], inner = shape.num_elements(axis + 1, shape.rank());
  const int64_t lines = shape.num_elements(0, axis) * inner;
  const TensorView &values = ctx.output(0), &indices = ctx.output(1);
  const int64_t k = (ctx.has_output(0) ? values : indices).shape[axis];
  if (k == 0) return;
  ctx.pool().parallel_for(lines, std::max<int64_t>(1, 4096 / size), [&](int64_t begin, int64_t end, int) {
    std::vector<Candidate<C>> best;
    best.reserve(static_cast<size_t>(k * 16 < size ? k : size));
    for (int64_t l = begin; l < end; ++l) {
      const int64_t first = l / inner * size * inner + l % inner, first_out = l / inner * k * inner + l % inner;
      find_first(in.as<T>() + first, inner, size, k, largest, best);
      for (int64_t i = 0; i < k; ++i) {
        const Candidate<C>& candidate = best[static_cast<size_t>(i)];
        const int64_t to = first_out + i * inner;
        if (ctx.has_output(0)) values.as<T>()[to] = in.as<T>()[first + candidate.index * inner];
        if (ctx.has_output(1)) indices.as<int64_t>()[to] = candidate.index;
      }
    }
  });
}

Status run_top_k(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", -1), in.shape.rank()));
  const bool largest = ctx.opset() < 11 || ctx.attrs().get_int("largest", 1) != 0;
  return dispatch_numeric(ctx, in.dtype, [&](auto tag) {
    top_k<typename decltype(tag)::type>(ctx, axis, largest);
    return Status();
  });
}

// --- ReverseSequence-10, 28: out[t, b] = in[lens[b] - 1 - t, b] for t < lens[b], in[t, b] behind

Status infer_reverse_sequence(InferContext& ctx) {
  const Shape& in = ctx.shape(0);
  const int64_t batch_axis = ctx.attrs().get_int("batch_axis", 1), time_axis = ctx.attrs().get_int("time_axis", 0);
  if (in.rank() < 2 || batch_axis + time_axis != 1 || (batch_axis != 0 && batch_axis != 1)) {
    return ctx.error("batch_axis and time_axis must be 0 and 1 of a tensor of rank 2 or more");
  }
  if (ctx.dtype(1) != DType::kS64) return ctx.error("sequence_lens must be int64");
  if (ctx.shape(1) != Shape{in[static_cast<int>(batch_axis)]}) {
    return ctx.error("sequence_lens of shape " + ctx.shape(1).to_string() + " does not fit " + in.to_string());
  }
  return infer_same_as_input(ctx);
}

Status run_reverse_sequence(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const bool batch_first = ctx.attrs().get_int("batch_axis", 1) == 0;
  const int64_t batch = in.shape[batch_first ? 0 : 1], time = in.shape[batch_first ? 1 : 0];
  const int64_t* lengths = ctx.input(1).as<int64_t>();
  for (int64_t b = 0; b < batch; ++b) {
    if (lengths[b] < 0 || lengths[b] > time) {
      return ctx.error("sequence length " + std::to_string(lengths[b]) + " of batch item " + std::to_string(b) +
                       " is outside [0, " + std::to_string(time) + "]");
    }
  }
  if (in.num_elements() == 0) return {};
  const int64_t row_bytes = in.shape.num_elements(2, in.shape.rank()) * dtype_size(in.dtype);
  const auto* src = static_cast<const char*>(in.data);
  auto* dst = ctx.output(0).as<char>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < time; ++t) {
      const int64_t from = t < lengths[b] ? lengths[b] - 1 - t : t;
      const int64_t to_row = batch_first ? b * time + t : t * batch + b;
      const int64_t from_row = batch_first ? b * time + from : from * batch + b;
      std::memcpy(dst + to_row * row_bytes, src + from_row * row_bytes, static_cast<size_t>(row_bytes));
    }
  }
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Compress", .since = 9, .inputs = {2, 2}, .infer = infer_compress, .run = run_compress},
    {.name = "NonZero", .since = 9, .infer = infer_non_zero, .run = run_non_zero},
    {.name = "ReverseSequence",
     .since = 10,
     .inputs = {2, 2},
     .infer = infer_reverse_sequence,
     .run = run_reverse_sequence},
    {.name = "TopK", .inputs = {1, 2}, .outputs = {1, 2}, .infer = infer_top_k, .run = run_top_k},
};

}  // namespace

extern const std::span<const OpDef> k_select_ops;
const std::span<const OpDef> k_select_ops = kOps;

}  // namespace sprun::graph
