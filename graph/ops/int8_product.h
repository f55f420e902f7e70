// A product with constant 8-bit weights and a kernel chosen for it: X is quantised (or taken as it is), multiplied
// in exact int32, and the sums become float, 8-bit codes, or stay int32.
//
//   A[m, n] = sum_k (Xq[m, k] - zx) * (W[n, k] - zw[n])
//   y = act(sx * sw[n] * A + bias[n]) + residual             then, for 8-bit results, saturate(round(y / sy) + zy)
//
// sprun.LinearInt8, sprun.Linear with precision int8, and the integer products of ONNX and com.microsoft share it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "graph/ops/linear_segments.h"
#include "graph/ops/sparse_int8.h"
#include "kernels/gemm/quantize_rows.h"

namespace sprun::graph {

// How X becomes u8.
enum class XQuant : uint8_t {
  kPerTensor,  // f32, ONNX DynamicQuantizeLinear over the whole tensor
  kPerRow,     // f32, the same for each row
  kStatic,     // f32, with the scale and zero point given when running
  kU8,         // is u8
  kS8,         // is s8
};

// Facts known when the kernel is chosen.
struct Int8Problem {
  int64_t m = 0, k = 0;
  XQuant x_quant = XQuant::kPerTensor;
  DType y_dtype = DType::kF32;  // kF32, kS32, kU8, kS8
  // X (kPerTensor with x_range, or kU8) and Y (kF32 or kU8, one weight) lie as columns.h has it. Sparse kernels that
  // takes_columns() names do that, no others.
  bool x_columns = false, y_columns = false;
};

// The zero points of a constant tensor of any integer type; empty when all are 0.
std::vector<int32_t> zero_point_values(const ConstTensorView& zero_point);

// What run() gets per weight.
struct Int8Segment {
  const float* w_scale = nullptr;
  int64_t w_scale_stride = 0;
  const float* bias = nullptr;
  void* y = nullptr;  // of y_dtype
  int64_t ldy = 0;
  const float* residual = nullptr;  // [M, N] f32
  int64_t ld_residual = 0;
};

struct Int8Run {
  const void* x = nullptr;   // [M, K] dense
  float x_scale = 1.0f;      // for kStatic, kU8, kS8
  int32_t x_zero_point = 0;  // of the u8 or s8 codes; kStatic: as u8 codes
  const float* x_range = nullptr;  // kPerTensor: min(0, smallest), max(0, largest) of X where known
  std::span<const Int8Segment> segments;
  kernels::Activation activation = kernels::Activation::kNone;
  float y_scale = 1.0f;
  int32_t y_zero_point = 0;
  float* y_range = nullptr;  // [2], with y_columns of floats: becomes min(0, smallest), max(0, largest) of Y
};

class Int8Product {
 public:
  // Longest K whose sums cannot overflow.
  static constexpr int64_t kMaxK = 65793;

  // Chooses kernels, sparse or dense, packs the weights, and sets kernel, detail, regime, flops and scratch_bytes of
  // ctx. The constants may be released afterwards.
  static Result<Int8Product> prepare(PrepareContext& ctx, const Int8Problem& problem,
                                     std::span<const Int8Constant> weights);

  void run(ThreadPool& pool, const Int8Run& run, void* scratch) const;
  int64_t n_total() const { return n_total_; }
  // Scales of float weights that were quantised here, [N].
  const float* weight_scale(size_t i) const { return sparse_ ? sparse_->scale(i) : weights_[i].packed.scale; }

 private:
  struct Scratch;
  struct Weight {  // dense
    PackedS8 packed;
    PackedBlob zero_blob;  // int32 zero points, as the packed weights count them; empty: all 0
    int64_t zero_stride = 0;
    const int32_t* zero() const { return static_cast<const int32_t*>(zero_blob.data.get()); }
  };
  Status pack_dense(PrepareContext& ctx, std::span<const Int8Constant> weights);
  void finish(PrepareContext& ctx);
  Scratch layout(void* scratch) const;
  void run_sparse(ThreadPool& pool, const Int8Run& run, const Scratch& memory) const;
  // The slabs of a block-sparse kernel; x: its rows of codes, if it lies as rows.
  const uint8_t* slabs(ThreadPool& pool, const Int8Run& run, const Scratch& memory, const uint8_t* x) const;
  const uint8_t* quantise(ThreadPool& pool, const Int8Run& run, const Scratch& memory) const;
  void row_sums(ThreadPool& pool, const uint8_t* x, const Scratch& memory) const;
  kernels::GemmU8S8Args args_for(const Int8Run& run, const Scratch& memory, const uint8_t* x, int segment) const;
  void finish_part(const Int8Run& run, const Scratch& memory, SparseInt8::Part part) const;

  Int8Problem problem_;
  std::vector<int64_t> n_;        // outputs of each weight
  std::vector<Weight> weights_;   // empty when sparse
  std::optional<SparseInt8> sparse_;
  PanelMap panels_;
  kernels::TileGrid grid_{};
  int workers_ = 1;
  int64_t n_total_ = 0, ldq_ = 0;
  bool needs_sums_ = false;
  const kernels::KernelInfo<kernels::GemmU8S8Kernel>* kernel_ = nullptr;
  const kernels::QuantizeRowsKernel* quantise_ = nullptr;
};

}  // namespace sprun::graph
