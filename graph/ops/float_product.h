// A float matrix product with a kernel chosen for it: constant B packed at load, or B packed when running.
// 16-bit operands are widened to float32 and the result is rounded once.
//
//   C[b] = act(alpha * A[b] B[b] + bias) + residual,   strides as in matmul_util.h
//
// prepare() answers nullptr where only the plain loop fits; ops then run gemm_ref(). MatMul, Gemm, FusedMatMul,
// Einsum and sprun.Linear with a weight that is computed use it.
#pragma once

#include <memory>

#include "graph/ops/linear_segments.h"
#include "graph/ops/matmul_util.h"

namespace sprun::graph {

// What still happens to the float32 result before it is rounded to a 16-bit type: fn(self, y) with y all of C.
struct ProductFinish {
  const void* self = nullptr;
  void (*fn)(const void* self, float* y) = nullptr;
};

class FloatProduct : public OpState {
 public:
  // a and b are the input numbers of the operands. Sets kernel, regime, flops, scratch_bytes, rejected and
  // unread_inputs of ctx when it takes the problem.
  static Result<std::unique_ptr<const FloatProduct>> prepare(PrepareContext& ctx, const BatchedGemm& gemm, int a,
                                                             int b);

  // Operands in the order of the inputs a and b of prepare(), of their type; scratch as asked for there. bias is [N]
  // and residual [M, N] of C, float32; both need a product that is not transposed by prepare(), as those of
  // plan_matmul() are.
  void run(ThreadPool& pool, const void* a, const void* b, void* c, const kernels::Epilogue& epilogue, void* scratch,
           const ProductFinish& finish = {}) const;

 private:
  struct Operands {
    const float *a, *b;
    float* c;
    kernels::Epilogue epilogue;
  };

  FloatProduct() = default;
  void choose_mode(PrepareContext& ctx);
  void plan_widening(PrepareContext& ctx, int a, int b);
  void run_f32(ThreadPool& pool, const float* a, const float* b, float* c, const kernels::Epilogue& epilogue,
               char* scratch) const;
  void run_entry(ThreadPool& pool, const Operands& operands, int64_t entry, char* scratch) const;
  void run_entries(const Operands& operands, int64_t begin, int64_t end, char* scratch) const;
  kernels::GemmF32Args args_for(const Operands& operands, const BatchOffsets& at, const float* packed) const;
  kernels::WeightSource<float> source(const float* b) const { return {b, g_.n, g_.k, g_.b_col, g_.b_row}; }

  BatchedGemm g_;
  bool swapped_ = false;     // computes the transposed product: operands change places
  bool copy_a_ = false;      // rows of A are not contiguous: copied to scratch first
  bool per_worker_ = false;  // batch entries in parallel, each packed and multiplied by one worker
  int64_t grain_ = 1;        // entries a task takes, when per_worker_
  int workers_ = 1;
  const kernels::KernelInfo<kernels::GemmF32Kernel>* kernel_ = nullptr;
  PackedBlob packed_;         // constant B
  kernels::TileGrid grid_{};  // of one entry
  DType dtype_ = DType::kF32;
  int64_t wide_a_ = 0, wide_b_ = 0, wide_c_ = 0;               // 16-bit operands: elements widened into scratch
  int64_t own_bytes_ = 0, packed_bytes_ = 0, copy_bytes_ = 0;  // scratch parts: kernel, B, A
};

}  // namespace sprun::graph
