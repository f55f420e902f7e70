#include "graph/ops/int8_product.h"

#include <algorithm>

#include "graph/ops/quant_util.h"

namespace sprun::graph {

using kernels::align_scratch;

struct Int8Product::Scratch {
  char* kernel = nullptr;
  char* range = nullptr;
  uint8_t* x = nullptr;       // [M, ldq_]
  float* x_scale = nullptr;   // [M] or [1]
  int32_t* x_zero = nullptr;  // [M] or [1]
  int32_t* x_sums = nullptr;  // [M]
  float* y = nullptr;         // [M, n_total_], for 8-bit results
  int64_t total = 0;
};

namespace {

// Hands out aligned parts of one block; works on a null block too, to find its size.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    char* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += align_scratch(count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(at);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// Rows that are a multiple of a page apart would all fall into one cache set.
int64_t row_stride(int64_t k) {
  const int64_t rounded = (k + 63) / 64 * 64;
  return rounded % 2048 == 0 ? rounded + 64 : rounded;
}

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

}  // namespace

std::vector<int32_t> zero_point_values(const ConstTensorView& zero_point) {
  std::vector<int32_t> values;
  const ZeroPointReader read(zero_point);
  bool any = false;
  for (int64_t i = 0; i < zero_point.num_elements(); ++i) {
    values.push_back(read[i]);
    any = any || values.back() != 0;
  }
  if (!any) values.clear();
  return values;
}

namespace {

// Zero points as packed dense weights count them (u8 weights lie as W - 128). Empty blob when all are 0.
Result<PackedBlob> packed_zero_points(const SparseSource& source) {
  const int32_t shift = source.weight.tensor->dtype() == DType::kU8 ? 128 : 0;
  const int32_t none[] = {0};
  const std::span<const int32_t> values = source.zero_point.empty() ? none : source.zero_point;
  if (std::all_of(values.begin(), values.end(), [&](int32_t v) { return v == shift; })) return PackedBlob();
  SPRUN_ASSIGN(PackedBlob blob, allocate_blob(static_cast<int64_t>(values.size()) * 4));
  for (size_t i = 0; i < values.size(); ++i) static_cast<int32_t*>(blob.data.get())[i] = values[i] - shift;
  return blob;
}

// The activation for results that become 8-bit codes of this scale. From 1e-3 on an absolute error of 7e-7 is below a
// thousandth of a step, so that it moves a code only where the exact value lies that near the middle of two.
kernels::Activation activation_for_codes(kernels::Activation activation, float scale) {
  return activation == kernels::Activation::kGeluErf && scale >= 1e-3F ? kernels::Activation::kGeluErfCodes : activation;
}

}  // namespace

Result<Int8Product> Int8Product::prepare(PrepareContext& ctx, const Int8Problem& problem,
                                         std::span<const Int8Constant> weights) {
  Int8Product product;
  product.problem_ = problem;
  product.workers_ = ctx.max_threads();
  product.quantise_ = kernels::select(kernels::quantize_rows_kernels(), kernels::available_isas()).kernel;
  product.ldq_ = row_stride(problem.k);
  for (const Int8Constant& weight : weights) {
    product.n_.push_back(weight.source.weight.n);
    product.n_total_ += product.n_.back();
  }
  SPRUN_ASSIGN(product.sparse_,
               SparseInt8::choose(ctx, problem.m, weights, is_byte(problem.y_dtype) && !problem.y_columns));
  if ((problem.x_columns || problem.y_columns) && !(product.sparse_ && product.sparse_->takes_columns())) {
    return Status(Code::kInternal, "columns for a kernel that does not take them");
  }
  if (!product.sparse_) SPRUN_TRY(product.pack_dense(ctx, weights));
  product.finish(ctx);
  return product;
}

Status Int8Product::pack_dense(PrepareContext& ctx, std::span<const Int8Constant> weights) {
  std::vector<kernels::Rejection> why_not;
  kernel_ = &kernels::select(kernels::gemm_u8s8_kernels(), kernels::available_isas(), &why_not);
  append_rejections(ctx.rejected, why_not);
  for (const Int8Constant& constant : weights) {
    const WeightConstant& w = constant.source.weight;
    Weight weight;
    if (constant.quantise()) {
      SPRUN_ASSIGN(weight.packed, quantise_s8(ctx.packed(), *kernel_, w, constant.alpha));
    } else {
      SPRUN_ASSIGN(weight.packed, pack_s8(ctx.packed(), *kernel_, w));
      SPRUN_ASSIGN(weight.zero_blob, packed_zero_points(constant.source));
      weight.zero_stride = constant.source.zero_point.size() > 1 ? 1 : 0;
    }
    panels_.add(kernels::num_panels(w.n, kernel_->kernel->nr));
    needs_sums_ = needs_sums_ || weight.zero() != nullptr;
    weights_.push_back(std::move(weight));
  }
  return {};
}

Int8Product::Scratch Int8Product::layout(void* scratch) const {
  Carver carve(scratch);
  Scratch s;
  const int64_t m = problem_.m;
  s.kernel = carve.take<char>(sparse_ ? sparse_->scratch_bytes(workers_)
                                      : kernels::gemm_scratch_bytes(*kernel_->kernel, workers_));
  s.range = carve.take<char>(kernels::quantize_per_tensor_scratch_bytes(workers_));
  s.x_scale = carve.take<float>(m);
  s.x_zero = carve.take<int32_t>(m);
  s.x_sums = carve.take<int32_t>(m);
  s.x = carve.take<uint8_t>(problem_.x_quant == XQuant::kU8 || problem_.x_columns ? 0 : m * ldq_);
  const bool needs_floats = is_byte(problem_.y_dtype) && !problem_.y_columns && !(sparse_ && sparse_->keeps_floats());
  s.y = carve.take<float>(needs_floats ? m * n_total_ : 0);
  s.total = carve.used();
  return s;
}

void Int8Product::finish(PrepareContext& ctx) {
  ctx.regime = gemm_regime(problem_.m);
  ctx.scratch_bytes = layout(nullptr).total;
  const double dense = static_cast<double>(n_total_) * static_cast<double>(problem_.k);
  ctx.flops = 2.0 * static_cast<double>(problem_.m) * (sparse_ ? sparse_->stored() : dense);
  if (sparse_) {
    ctx.kernel = std::string(sparse_->kernel_name());
    return;
  }
  const int64_t nr = kernel_->kernel->nr;
  grid_ = kernels::make_grid(problem_.m, panels_.total() * nr, problem_.k, nr, 1, workers_);
  ctx.kernel = std::string(kernel_->name);
}

void Int8Product::row_sums(ThreadPool& pool, const uint8_t* x, const Scratch& memory) const {
  const int64_t ld = problem_.x_quant == XQuant::kU8 ? problem_.k : ldq_;
  pool.parallel_for(problem_.m, kernels::quantize_grain(problem_.k), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      int32_t sum = 0;
      for (int64_t i = 0; i < problem_.k; ++i) sum += x[r * ld + i];
      memory.x_sums[r] = sum;
    }
  });
}

// X as u8, with its scales, zero points and row sums in scratch.
const uint8_t* Int8Product::quantise(ThreadPool& pool, const Int8Run& run, const Scratch& memory) const {
  const auto parallel_for = [&pool](int64_t n, int64_t grain, const auto& fn) { pool.parallel_for(n, grain, fn); };
  const int64_t m = problem_.m, k = problem_.k;
  const kernels::QuantizeRowsArgs args = {.x = static_cast<const float*>(run.x),
                                          .ldx = k,
                                          .rows = m,
                                          .k = k,
                                          .y = memory.x,
                                          .ldy = ldq_,
                                          .scale = memory.x_scale,
                                          .zero_point = memory.x_zero,
                                          .sums = needs_sums_ ? memory.x_sums : nullptr};
  *memory.x_scale = run.x_scale;
  *memory.x_zero = run.x_zero_point + (problem_.x_quant == XQuant::kS8 ? 128 : 0);
  const uint8_t* x = memory.x;
  switch (problem_.x_quant) {
    case XQuant::kPerTensor: {
      const kernels::QuantParams params =
          run.x_range != nullptr ? kernels::dynamic_quant_params(run.x_range[0], run.x_range[1])
                                 : kernels::measure_per_tensor(*quantise_, args, workers_, memory.range, parallel_for);
      *memory.x_scale = params.scale;
      *memory.x_zero = params.zero_point;
      if (!problem_.x_columns) kernels::quantize_all(*quantise_, args, params, workers_, parallel_for);
      return x;
    }
    case XQuant::kPerRow:
      kernels::quantize_per_row(*quantise_, args, workers_, parallel_for);
      return x;
    case XQuant::kStatic:
      pool.parallel_for(m, kernels::quantize_grain(k), [&](int64_t begin, int64_t end, int) {
        quantise_->quantize(args.x + begin * k, k, end - begin, k, run.x_scale, run.x_zero_point, args.y + begin * ldq_,
                            ldq_, args.sums == nullptr ? nullptr : args.sums + begin);
      });
      return x;
    case XQuant::kU8:
      x = static_cast<const uint8_t*>(run.x);
      break;
    case XQuant::kS8:
      pool.parallel_for(m, kernels::quantize_grain(k), [&](int64_t begin, int64_t end, int) {
        const int8_t* codes = static_cast<const int8_t*>(run.x);
        for (int64_t r = begin; r < end; ++r) kernels::s8_to_u8(codes + r * k, k, memory.x + r * ldq_);
      });
      break;
  }
  if (needs_sums_) row_sums(pool, x, memory);
  return x;
}

kernels::GemmU8S8Args Int8Product::args_for(const Int8Run& run, const Scratch& memory, const uint8_t* x,
                                            int segment) const {
  const Int8Segment& part = run.segments[static_cast<size_t>(segment)];
  const int64_t x_stride = problem_.x_quant == XQuant::kPerRow ? 1 : 0;
  kernels::GemmU8S8Args args = {.m = problem_.m,
                                .n = n_[static_cast<size_t>(segment)],
                                .k = problem_.k,
                                .x = x,
                                .ldx = problem_.x_quant == XQuant::kU8 ? problem_.k : ldq_,
                                .x_zero_point = memory.x_zero,
                                .x_zero_point_stride = x_stride,
                                .x_sum = memory.x_sums,
                                .x_scale = memory.x_scale,
                                .x_scale_stride = x_stride,
                                .w_scale = part.w_scale,
                                .w_scale_stride = part.w_scale_stride,
                                .ldy = part.ldy,
                                .epilogue = {}};
  if (!sparse_) {
    const Weight& weight = weights_[static_cast<size_t>(segment)];
    args.w = weight.packed.weights;
    args.w_sum = weight.packed.sums;
    args.w_zero_point = weight.zero();
    args.w_zero_point_stride = weight.zero_stride;
  }
  if (problem_.y_dtype == DType::kS32) {
    args.y_s32 = static_cast<int32_t*>(part.y);
    return args;
  }
  args.y = static_cast<float*>(part.y);
  args.epilogue = {
      .bias = part.bias, .residual = part.residual, .ld_residual = part.ld_residual, .activation = run.activation};
  if (is_byte(problem_.y_dtype)) {
    int64_t column = 0;
    for (int i = 0; i < segment; ++i) column += n_[static_cast<size_t>(i)];
    args.y = memory.y + column;
    args.ldy = n_total_;
    args.epilogue.activation = activation_for_codes(run.activation, run.y_scale);
  }
  return args;
}

// The floats of a finished part as codes, while they are in cache; or codes that still lie as columns.
void Int8Product::finish_part(const Int8Run& run, const Scratch& memory, SparseInt8::Part part) const {
  if (!is_byte(problem_.y_dtype)) return;
  part.m_end = std::min(part.m_end, problem_.m);
  part.n_end = std::min(part.n_end, n_[static_cast<size_t>(part.segment)]);
  const int segment = part.segment;
  const Int8Segment& to = run.segments[static_cast<size_t>(segment)];
  int64_t column = part.n_begin;
  const int64_t count = part.n_end - part.n_begin, rows = part.m_end - part.m_begin;
  uint8_t* y = static_cast<uint8_t*>(to.y) + part.m_begin * to.ldy + column;
  const bool is_signed = problem_.y_dtype == DType::kS8;
  if (part.codes != nullptr) return sparse_->write_codes(part, is_signed ? 0x80 : 0, y, to.ldy);
  for (int i = 0; i < segment; ++i) column += n_[static_cast<size_t>(i)];
  const float* floats = part.y != nullptr ? part.y : memory.y + part.m_begin * n_total_ + column;
  quantise_->quantize(floats, part.y != nullptr ? part.ldy : n_total_, rows, count, run.y_scale,
                      run.y_zero_point + (is_signed ? 128 : 0), y, to.ldy, nullptr);
  if (!is_signed) return;
  for (int64_t r = 0; r < rows; ++r) {  // u8 codes with zero point + 128 to s8
    for (int64_t j = 0; j < count; ++j) y[r * to.ldy + j] ^= 0x80;
  }
}

const uint8_t* Int8Product::slabs(ThreadPool& pool, const Int8Run& run, const Scratch& memory,
                                  const uint8_t* x) const {
  if (!problem_.x_columns) {
    return sparse_->pack(pool, x, problem_.x_quant == XQuant::kU8 ? problem_.k : ldq_, memory.kernel);
  }
  if (problem_.x_quant == XQuant::kU8) return x;  // the layer before wrote them
  return sparse_->quantise(pool, static_cast<const float*>(run.x), {*memory.x_scale, *memory.x_zero}, memory.kernel);
}

void Int8Product::run_sparse(ThreadPool& pool, const Int8Run& run, const Scratch& memory) const {
  const uint8_t* x = quantise(pool, run, memory);
  const uint8_t* packed = slabs(pool, run, memory, x);
  const auto args = [&](int segment) { return args_for(run, memory, x, segment); };
  if (problem_.y_columns) {
    kernels::BsrColumns y = {.range = run.y_range, .scale = run.y_scale, .zero_point = run.y_zero_point};
    if (is_byte(problem_.y_dtype)) y.codes = static_cast<uint8_t*>(run.segments[0].y);
    else y.floats = static_cast<float*>(run.segments[0].y);
    return sparse_->run_columns(pool, packed, args(0), y, memory.kernel);
  }
  const int32_t shift = problem_.y_dtype == DType::kS8 ? 128 : 0;  // codes are u8 until they are written
  sparse_->run(pool, packed, memory.kernel, args, {run.y_scale, run.y_zero_point + shift},
               [&](const SparseInt8::Part& part) { finish_part(run, memory, part); });
}

void Int8Product::run(ThreadPool& pool, const Int8Run& run, void* scratch) const {
  if (pool.num_threads() > workers_) {  // scratch is for fewer
    ThreadPool serial(1);
    return this->run(serial, run, scratch);
  }
  const Scratch memory = layout(scratch);
  if (sparse_) return run_sparse(pool, run, memory);
  const uint8_t* x = quantise(pool, run, memory);
  const auto args = [&](int segment) { return args_for(run, memory, x, segment); };
  run_segments(pool, *kernel_->kernel, grid_, panels_, memory.kernel, args,
               [&](int segment, const kernels::TileRange& tile) {
                 const int64_t nr = kernel_->kernel->nr;
                 finish_part(run, memory, {segment, tile.m_begin, tile.m_end, tile.panel_begin * nr, tile.panel_end * nr});
               });
}

}  // namespace sprun::graph
