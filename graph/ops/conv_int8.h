// 8-bit convolutions with constant weights on the packed integer kernels: im2col of one image, a
// product in exact int32, and a finish that the op supplies.
#pragma once

#include <memory>

#include "graph/ops/conv_problem.h"
#include "graph/ops/int8_product.h"

namespace sprun::graph {

struct Int8ConvInputs {
  int x, w, w_zero;  // input numbers; w_zero may be absent
};

class Int8Conv : public OpState {
 public:
  // Sets state, scratch and kernel of ctx, or records why only the plain loop fits.
  static Status prepare(PrepareContext& ctx, const ConvProblem& problem,
                        const Int8ConvInputs& inputs);

  // Calls finish(y_index, m, sum) with the exact sums of sum (x - x_zero) * (w - w_zero).
  template <class Finish>
  void run(RunContext& ctx, const ConstTensorView& x, int32_t x_zero, const Finish& finish) const;

 private:
  Int8Conv(const ConvProblem& problem, Int8Product product)
      : problem_(problem), product_(std::move(product)) {}

  // Rows [begin, end) of the columns of image n: [positions, depth] bytes as x has them.
  void gather(const ConstTensorView& x, int64_t n, uint8_t outside, int64_t begin, int64_t end,
              uint8_t* columns) const;
  const int32_t* multiply(RunContext& ctx, const ConstTensorView& x, int64_t n,
                          int32_t x_zero) const;

  ConvProblem problem_;
  Int8Product product_;
  int64_t sums_at_ = 0, columns_at_ = 0;  // in bytes, behind the scratch of the product
};

template <class Finish>
void Int8Conv::run(RunContext& ctx, const ConstTensorView& x, int32_t x_zero,
                   const Finish& finish) const {
  const int64_t positions = problem_.window.out_size();
  const int64_t channels = problem_.out_channels;
  constexpr int64_t kBlock = 16;  // of the transpose from [positions, channels]
  for (int64_t n = 0; n < problem_.batch; ++n) {
    const int32_t* sums = multiply(ctx, x, n, x_zero);
    const int64_t blocks = (channels + kBlock - 1) / kBlock;
    const int64_t grain = 16384 / (positions * kBlock) + 1;
    ctx.pool().parallel_for(blocks, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t first = begin * kBlock; first < std::min(end * kBlock, channels);
           first += kBlock) {
        const int64_t last = std::min(first + kBlock, channels);
        for (int64_t at = 0; at < positions; at += kBlock) {
          for (int64_t m = first; m < last; ++m) {
            for (int64_t o = at; o < std::min(at + kBlock, positions); ++o) {
              finish((n * channels + m) * positions + o, m, int64_t{sums[o * channels + m]});
            }
          }
        }
      }
    });
  }
}

}  // namespace sprun::graph
