// The checked shape of a convolution, and the plain loop over it that every element type can use.
#pragma once

#include <algorithm>

#include "graph/ops/op_util.h"
#include "graph/ops/window.h"

namespace sprun::graph {

// x [batch, in_channels, in...], w [out_channels, in_channels / groups, kernel...], y [batch,
// out_channels, out...]
struct ConvProblem {
  Window window;
  int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;

  int64_t group_in() const { return in_channels / groups; }
  int64_t group_out() const { return out_channels / groups; }
  Shape out_shape() const { return window.out_shape(batch, out_channels); }
};

// kBadModel with the reason when shapes and attributes do not fit together.
Result<ConvProblem> make_conv_problem(const AttrMap& attrs, const Shape& x, const Shape& w);
// The same for ConvTranspose: w is [in_channels, out_channels / groups, kernel...], window.in
// belongs to x.
Result<ConvProblem> make_conv_transpose_problem(const AttrMap& attrs, const Shape& x,
                                                const Shape& w);

// Calls finish(y_index, m, sum) for every output of channel rows [begin, end), a row being one line
// of the last axis: row = ((n * out_channels + m) * out[0] + d) * out[1] + h. sum is an Acc of
// term(x_index, w_index, m) over the window.
template <class Acc, class Term, class Finish>
void plain_conv_rows(const ConvProblem& p, int64_t begin, int64_t end, const Term& term,
                     const Finish& finish) {
  const auto& [ad, ah, aw] = p.window.axis;
  const int64_t kernel = p.window.kernel_size();
  for (int64_t row = begin; row < end; ++row) {
    const int64_t h = row % ah.out;
    const int64_t d = row / ah.out % ad.out;
    const int64_t m = row / (ah.out * ad.out) % p.out_channels;
    const int64_t n = row / (ah.out * ad.out * p.out_channels);
    const KernelRange kd = kernel_range(ad, ad.start(d), ad.in);
    const KernelRange kh = kernel_range(ah, ah.start(h), ah.in);
    const int64_t first_channel = n * p.in_channels + m / p.group_out() * p.group_in();
    for (int64_t w = 0; w < aw.out; ++w) {
      const KernelRange kw = kernel_range(aw, aw.start(w), aw.in);
      Acc sum{};
      for (int64_t c = 0; c < p.group_in(); ++c) {
        for (int64_t i = kd.begin; i < kd.end; ++i) {
          for (int64_t j = kh.begin; j < kh.end; ++j) {
            const int64_t line =
                ((first_channel + c) * ad.in + ad.start(d) + i * ad.dilation) * ah.in +
                ah.start(h) + j * ah.dilation;
            const int64_t x0 = line * aw.in + aw.start(w);
            const int64_t w0 = (m * p.group_in() + c) * kernel + (i * ah.kernel + j) * aw.kernel;
            for (int64_t k = kw.begin; k < kw.end; ++k)
              sum += term(x0 + k * aw.dilation, w0 + k, m);
          }
        }
      }
      finish(row * aw.out + w, m, sum);
    }
  }
}

// Output rows that are worth a task of their own in a plain loop.
inline int64_t plain_conv_grain(const ConvProblem& p) {
  constexpr int64_t kWork = 65536;
  const int64_t sums = std::min(p.window.axis[2].out, kWork);
  const int64_t terms =
      std::min(std::max<int64_t>(p.group_in(), 1) * p.window.kernel_size(), kWork);
  return std::max<int64_t>(1, kWork / std::max<int64_t>(sums * terms, 1));
}

// Splits the rows of plain_conv_rows over the pool.
template <class Acc, class Term, class Finish>
void plain_conv(const ConvProblem& p, ThreadPool& pool, const Term& term, const Finish& finish) {
  const auto& axis = p.window.axis;
  const int64_t rows = p.batch * p.out_channels * axis[0].out * axis[1].out;
  if (rows == 0 || axis[2].out == 0) return;
  pool.parallel_for(rows, plain_conv_grain(p), [&](int64_t begin, int64_t end, int) {
    plain_conv_rows<Acc>(p, begin, end, term, finish);
  });
}

}  // namespace sprun::graph
