// Weights of 4 and 8 bits with scales of blocks of inputs: every variant against the sum in double over the codes.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/sparse_input/sparse_input.h"
#include "tests/support/aligned.h"
#include "tests/support/draw.h"

namespace sprun::kernels {
namespace {

struct Blocks {
  int64_t m, n, k, block_size;
  bool s4, shifts;
  int64_t width, panels, blocks;
  std::vector<float> x, params;
  std::vector<int> codes;  // [n, k], centred
  std::vector<uint8_t> packed;

  Blocks(int64_t rows, int64_t outputs, int64_t inputs, int64_t block, double density, bool nibbles, bool with_shifts, int workers)
      : m(rows), n(outputs), k(inputs), block_size(block), s4(nibbles), shifts(with_shifts) {
    std::mt19937 rng(testing_support::seed_or(91U) + static_cast<unsigned>(rows * 31 + outputs));
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < m * k; ++i) x.push_back(std::abs(uniform(rng)) < static_cast<float>(density) ? uniform(rng) : 0.0F);
    const unsigned levels = s4 ? 16 : 256;
    for (int64_t i = 0; i < n * k; ++i) codes.push_back(static_cast<int>(rng() % levels) - static_cast<int>(levels / 2));
    width = sparse_input_width(n, workers);
    panels = sparse_input_panels(n, width);
    blocks = (k + block_size - 1) / block_size;
    for (int64_t i = 0; i < panels * blocks * (shifts ? 2 : 1) * width; ++i) params.push_back(uniform(rng));
    packed.assign(static_cast<size_t>(panels * width * k), 0xee);
    if (s4) {
      const auto code = [&](int64_t c, int64_t i) { return codes[static_cast<size_t>(c * k + i)] + 8; };
      pack_sparse_input_s4(n, k, width, code, 0, panels, packed.data());
    } else {
      std::vector<uint8_t> bytes;
      for (int code : codes) bytes.push_back(static_cast<uint8_t>(code));
      pack_sparse_input<uint8_t>({bytes.data(), n, k, k, 1}, width, 0, packed.data());
    }
  }

  std::vector<double> expected() const {
    std::vector<double> y;
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          const float* p = params.data() + ((c / width * blocks + i / block_size) * (shifts ? 2 : 1)) * width + c % width;
          const double shift = shifts ? static_cast<double>(p[width]) : 0;
          sum += static_cast<double>(x[static_cast<size_t>(r * k + i)]) *
                 (codes[static_cast<size_t>(c * k + i)] * static_cast<double>(*p) + shift);
        }
        y.push_back(sum);
      }
    }
    return y;
  }

  std::vector<float> run(const SparseInputKernel& kernel) const {
    const int64_t ld_all = listed_capacity(k), ld = block_capacity(k, blocks);
    std::vector<int32_t> all(static_cast<size_t>(ld_all)), ids(static_cast<size_t>(ld));
    std::vector<float> all_values(static_cast<size_t>(m * ld_all), NAN), values(static_cast<size_t>(m * ld), NAN);
    std::vector<float> y(static_cast<size_t>(m * n));
    SparseInputArgs a;
    int64_t active = 0;
    const int64_t count = list_inputs(x.data(), k, m, k, all.data(), all_values.data(), ld_all, &active);
    a.listed = list_by_block(all.data(), all_values.data(), ld_all, count, m, block_size, ids.data(), values.data(), ld);
    EXPECT_EQ(a.listed % kSparseInputGroup, 0);
    EXPECT_LE(a.listed, ld);
    a.m = m, a.n = n, a.k = k;
    a.ids = ids.data(), a.x = values.data(), a.ldx = ld;
    a.w = packed.data(), a.width = width;
    a.block_params = params.data(), a.block_size = block_size, a.blocks = blocks, a.shifts = shifts;
    a.y = y.data(), a.ldy = n;
    const auto acc = testing_support::aligned(m * width * 4, 0x7f);
    for (int64_t p = 0; p < panels; ++p) kernel.run(a, p, p + 1, reinterpret_cast<float*>(acc.get()));
    return y;
  }
};

TEST(SparseInputBlocks, EveryVariantMatchesDouble) {
  for (bool s4 : {false, true}) {
    for (bool shifts : {false, true}) {
      for (double density : {0.0, 0.1, 0.5, 1.0}) {
        for (auto [m, n, k, block] : {std::array<int64_t, 4>{1, 1, 1, 16}, {2, 63, 31, 16}, {3, 65, 64, 32}, {1, 300, 131, 32},
                                      {8, 517, 67, 64}, {5, 1031, 40, 128}}) {
          const Blocks p(m, n, k, block, density, s4, shifts, m % 2 == 0 ? 3 : 1);
          const std::vector<double> want = p.expected();
          const double bound = 1.2e-7 * static_cast<double>(k + 4) * (s4 ? 9 : 130) * 2 + 1e-6;
          for (const auto& info : sparse_input_kernels(s4 ? SparseInputWeights::kS4 : SparseInputWeights::kS8)) {
            if (!available_isas().contains(info.isa)) continue;
            const std::vector<float> got = p.run(*info.kernel);
            for (size_t i = 0; i < got.size(); ++i) {
              ASSERT_NEAR(static_cast<double>(got[i]), want[i], bound) << info.name << " n " << n << " k " << k << " at " << i;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sprun::kernels
