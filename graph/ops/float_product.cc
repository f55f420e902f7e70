#include "graph/ops/float_product.h"

#include <algorithm>
#include <utility>

#include "kernels/elementwise/elementwise.h"

namespace sprun::graph {
namespace {

using kernels::align_scratch;

// The transposed problem: C^T = B^T A^T.
BatchedGemm transposed(const BatchedGemm& g) {
  BatchedGemm t = g;
  std::swap(t.m, t.n);
  t.a_batch = g.b_batch;
  t.b_batch = g.a_batch;
  t.a_row = g.b_col;
  t.a_col = g.b_row;
  t.b_row = g.a_col;
  t.b_col = g.a_row;
  t.c_row = g.c_col;
  t.c_col = g.c_row;
  return t;
}

// Strides of axes of size 1 mean nothing; give them the values that the kernels like.
void tidy_strides(BatchedGemm& g) {
  if (g.n == 1) g.c_col = 1;
  if (g.k == 1) g.a_col = 1;
}

// Operands that repeat one element along an axis (stride 0) can be far larger as matrices than in memory.
bool repeats_elements(const BatchedGemm& g) {
  return (g.k > 1 && (g.a_col == 0 || g.b_row == 0)) || (g.n > 1 && g.b_col == 0) || (g.m > 1 && g.a_row == 0);
}

bool has_no_batch(const BatchStrides& strides) { return strides == BatchStrides{}; }

// rows x cols of A at any strides to a dense copy; blocks keep both sides in cache when A is transposed.
void copy_rows(const BatchedGemm& g, const float* a, int64_t begin, int64_t end, float* out) {
  constexpr int64_t kBlock = 16;
  for (int64_t k0 = 0; k0 < g.k; k0 += kBlock) {
    const int64_t k1 = std::min(k0 + kBlock, g.k);
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t k = k0; k < k1; ++k) out[i * g.k + k] = a[i * g.a_row + k * g.a_col];
    }
  }
}

}  // namespace

Result<std::unique_ptr<const FloatProduct>> FloatProduct::prepare(PrepareContext& ctx, const BatchedGemm& gemm, int a,
                                                                  int b) {
  std::unique_ptr<const FloatProduct> none;
  std::unique_ptr<FloatProduct> made(new FloatProduct());
  FloatProduct& p = *made;
  const std::array<int, 2> inputs = {a, b};
  p.g_ = gemm;
  if (gemm.m == 0 || gemm.n == 0 || gemm.k == 0 || gemm.num_batches() == 0) return none;
  tidy_strides(p.g_);
  if (p.g_.c_col != 1 && p.g_.c_row == 1) {
    p.g_ = transposed(p.g_);
    p.swapped_ = true;
    std::swap(a, b);
    tidy_strides(p.g_);
  }
  if (p.g_.c_col != 1 || repeats_elements(p.g_)) {
    ctx.rejected.push_back({"gemm_f32", "no plain row-major product"});
    return none;
  }
  p.copy_a_ = p.g_.a_col != 1;
  if (!p.copy_a_) fold_batch_into_rows(p.g_);
  std::vector<kernels::Rejection> why_not;
  p.kernel_ = &kernels::select(kernels::gemm_f32_kernels(), kernels::available_isas(), &why_not);
  append_rejections(ctx.rejected, why_not);
  p.workers_ = ctx.max_threads();
  const WeightConstant weight = {&ctx.constant(b), p.g_.n, p.g_.k, p.g_.b_col, p.g_.b_row};
  if (!ctx.constant(b).empty() && has_no_batch(p.g_.b_batch) && weight.worth_packing(p.kernel_->kernel->nr)) {
    SPRUN_ASSIGN(p.packed_, pack_f32(ctx.packed(), *p.kernel_, weight));
    ctx.unread_inputs.push_back(b);
  }
  p.choose_mode(ctx);
  p.plan_widening(ctx, inputs[0], inputs[1]);
  ctx.kernel = std::string(p.kernel_->name) + (p.packed_.data ? "" : " (packs B)");
  ctx.regime = gemm_regime(p.g_.m);
  ctx.flops = 2.0 * static_cast<double>(gemm.m) * static_cast<double>(gemm.n) * static_cast<double>(gemm.k) *
              static_cast<double>(gemm.num_batches());
  return std::unique_ptr<const FloatProduct>(std::move(made));
}

void FloatProduct::choose_mode(PrepareContext& ctx) {
  // Measured rates are not needed: the estimate only tells tiny products from ones worth a task.
  constexpr double kFlopsPerNs = 100.0, kBytesPerNs = 20.0, kTaskNs = 4000.0;
  constexpr int64_t kMaxOwnPack = int64_t{4} << 20;
  const kernels::GemmF32Kernel& kernel = *kernel_->kernel;
  own_bytes_ = align_scratch(kernel.scratch_bytes);
  packed_bytes_ = packed_.data ? 0 : align_scratch(kernels::packed_size_f32(g_.n, g_.k, kernel.nr) * 4);
  copy_bytes_ = copy_a_ ? align_scratch(g_.m * g_.k * 4) : 0;
  const int64_t entries = g_.num_batches();
  per_worker_ =
      entries > 1 && (workers_ == 1 || (entries >= 2 * workers_ && packed_bytes_ + copy_bytes_ <= kMaxOwnPack));
  grid_ = kernels::make_grid(g_.m, g_.n, g_.k, kernel.nr, 4, per_worker_ ? 1 : workers_);
  const double entry_ns = 2.0 * static_cast<double>(g_.m * g_.n) * static_cast<double>(g_.k) / kFlopsPerNs +
                          static_cast<double>(packed_bytes_ + copy_bytes_) / kBytesPerNs;
  grain_ = static_cast<int64_t>(std::min(kTaskNs / std::max(entry_ns, 1.0), 1e6)) + 1;
  ctx.scratch_bytes = per_worker_ ? (own_bytes_ + packed_bytes_ + copy_bytes_) * workers_
                                  : own_bytes_ * workers_ + packed_bytes_ + copy_bytes_;
}

kernels::GemmF32Args FloatProduct::args_for(const Operands& operands, const BatchOffsets& at,
                                            const float* packed) const {
  return {.m = g_.m,
          .n = g_.n,
          .k = g_.k,
          .x = operands.a + at.a,
          .ldx = g_.a_row,
          .w = packed,
          .y = operands.c + at.c,
          .ldy = g_.c_row,
          .epilogue = operands.epilogue};
}

// Scratch starts with the widened operands. `a` and `b` are the inputs in the caller's order.
void FloatProduct::plan_widening(PrepareContext& ctx, int a, int b) {
  dtype_ = ctx.input(a).dtype;
  if (dtype_ == DType::kF32) return;
  const auto is_packed = [&ctx](int input) {
    return std::find(ctx.unread_inputs.begin(), ctx.unread_inputs.end(), input) != ctx.unread_inputs.end();
  };
  wide_a_ = is_packed(a) ? 0 : ctx.input(a).num_elements();
  wide_b_ = is_packed(b) ? 0 : ctx.input(b).num_elements();
  wide_c_ = ctx.output(0).num_elements();
  for (int64_t count : {wide_a_, wide_b_, wide_c_}) ctx.scratch_bytes += align_scratch(count * 4);
}

void FloatProduct::run(ThreadPool& pool, const void* a, const void* b, void* c, const kernels::Epilogue& epilogue,
                       void* scratch, const ProductFinish& finish) const {
  if (pool.num_threads() > workers_) {  // scratch is for fewer
    ThreadPool serial(1);
    return run(serial, a, b, c, epilogue, scratch, finish);
  }
  char* memory = static_cast<char*>(scratch);
  if (dtype_ == DType::kF32) {
    float* y = static_cast<float*>(c);
    run_f32(pool, static_cast<const float*>(a), static_cast<const float*>(b), y, epilogue, memory);
    if (finish.fn != nullptr) finish.fn(finish.self, y);
    return;
  }
  constexpr int64_t kGrain = 16384;
  const kernels::ElementwiseKernel& convert = *kernels::best_elementwise().kernel;
  const bool half = dtype_ == DType::kF16;
  const auto take = [&memory](int64_t count) {
    float* at = reinterpret_cast<float*>(memory);
    memory += align_scratch(count * 4);
    return at;
  };
  const auto widen = [&](const void* from, int64_t count) {
    float* to = take(count);
    pool.parallel_for(count, kGrain, [&](int64_t begin, int64_t end, int) {
      (half ? convert.f16_to_f32 : convert.bf16_to_f32)(static_cast<const uint16_t*>(from) + begin, to + begin,
                                                        end - begin);
    });
    return to;
  };
  const float* wide_a = widen(a, wide_a_);
  const float* wide_b = widen(b, wide_b_);
  float* wide_c = take(wide_c_);
  run_f32(pool, wide_a, wide_b, wide_c, epilogue, memory);
  if (finish.fn != nullptr) finish.fn(finish.self, wide_c);
  pool.parallel_for(wide_c_, kGrain, [&](int64_t begin, int64_t end, int) {
    (half ? convert.f32_to_f16 : convert.f32_to_bf16)(wide_c + begin, static_cast<uint16_t*>(c) + begin, end - begin);
  });
}

void FloatProduct::run_f32(ThreadPool& pool, const float* a, const float* b, float* c,
                           const kernels::Epilogue& epilogue, char* memory) const {
  const Operands operands = {swapped_ ? b : a, swapped_ ? a : b, c, epilogue};
  const int64_t entries = g_.num_batches();
  if (!per_worker_) {
    for (int64_t entry = 0; entry < entries; ++entry) run_entry(pool, operands, entry, memory);
    return;
  }
  const int64_t own = own_bytes_ + packed_bytes_ + copy_bytes_;
  pool.parallel_for(entries, grain_, [&](int64_t begin, int64_t end, int worker) {
    run_entries(operands, begin, end, memory + own * worker);
  });
}

// One entry, all workers.
void FloatProduct::run_entry(ThreadPool& pool, const Operands& operands, int64_t entry, char* scratch) const {
  const auto parallel_for = [&pool](int64_t n, int64_t grain, const auto& fn) { pool.parallel_for(n, grain, fn); };
  const kernels::GemmF32Kernel& kernel = *kernel_->kernel;
  const BatchOffsets at = batch_offsets(g_, entry);
  const float* packed = static_cast<const float*>(packed_.data.get());
  char* memory = scratch + own_bytes_ * workers_;
  if (packed == nullptr) {
    float* out = reinterpret_cast<float*>(memory);
    kernels::gemm_f32_pack_b(kernel, source(operands.b + at.b), workers_, out, parallel_for);
    packed = out;
  }
  kernels::GemmF32Args args = args_for(operands, at, packed);
  if (copy_a_) {
    float* copy = reinterpret_cast<float*>(memory + packed_bytes_);
    pool.parallel_for(g_.m, 64 * 1024 / g_.k + 1,
                      [&](int64_t begin, int64_t end, int) { copy_rows(g_, operands.a + at.a, begin, end, copy); });
    args.x = copy;
    args.ldx = g_.k;
  }
  kernels::run_grid(kernel, args, grid_, scratch, parallel_for);
}

// Entries [begin, end), this worker alone.
void FloatProduct::run_entries(const Operands& operands, int64_t begin, int64_t end, char* scratch) const {
  const kernels::GemmF32Kernel& kernel = *kernel_->kernel;
  const int64_t panels = kernels::num_panels(g_.n, kernel.nr);
  float* own_pack = reinterpret_cast<float*>(scratch + own_bytes_);
  int64_t packed_from = -1;  // offset of the entry of B that is packed now; neighbours may share it
  for (int64_t entry = begin; entry < end; ++entry) {
    const BatchOffsets at = batch_offsets(g_, entry);
    const float* packed = static_cast<const float*>(packed_.data.get());
    if (packed == nullptr) {
      if (packed_from != at.b) kernel.pack(source(operands.b + at.b), 0, panels, own_pack);
      packed_from = at.b;
      packed = own_pack;
    }
    kernels::GemmF32Args args = args_for(operands, at, packed);
    if (copy_a_) {
      float* copy = reinterpret_cast<float*>(scratch + own_bytes_ + packed_bytes_);
      copy_rows(g_, operands.a + at.a, 0, g_.m, copy);
      args.x = copy;
      args.ldx = g_.k;
    }
    kernel.run(args, {0, g_.m, 0, panels}, scratch);
  }
}

}  // namespace sprun::graph
