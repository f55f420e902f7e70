#include "kernels/bsr_spmm/pack.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace sprun::kernels {
namespace {

// One run before it is written: which outputs, which stored block columns.
struct Run {
  int64_t row = 0;  // inside the unit
  std::vector<int32_t> cols;
};

// Calls fn(runs) for each unit: its runs by K block, longest first inside a K block.
template <class Fn>
void for_each_unit(const BsrLayout& layout, const NonZeros& bits, const Fn& fn) {
  const int64_t runs_per_unit = layout.unit_rows / layout.block.rows;
  const int64_t units = (bits.n() + layout.unit_rows - 1) / layout.unit_rows;
  const int64_t block_cols = (bits.k() + layout.block.cols - 1) / layout.block.cols;
  const int64_t part =
      layout.k_block == 0 ? std::max<int64_t>(block_cols, 1) : layout.k_block / layout.block.cols;
    std::vector<uint64_t> words(static_cast<size_t>(bits.row_words()));
  for (int64_t u = 0; u < units; ++u) {
    std::vector<std::vector<int32_t>> cols(static_cast<size_t>(runs_per_unit));
    for (int64_t r = 0; r < runs_per_unit; ++r) {
      const int64_t block_row = u * runs_per_unit + r;
      if (block_row * layout.block.rows >= bits.n()) break;
      bits.block_bits(layout.block, block_row, words);
      for (size_t i = 0; i < words.size(); ++i) {
        for (uint64_t word = words[i]; word != 0; word &= word - 1) {
          cols[static_cast<size_t>(r)].push_back(static_cast<int32_t>(i) * 64 +
                                                 std::countr_zero(word));
        }
      }
    }
    std::vector<Run> runs;
    for (int64_t begin = 0; begin < std::max<int64_t>(block_cols, 1); begin += part) {
      const size_t first = runs.size();
      for (int64_t r = 0; r < runs_per_unit; ++r) {
        const auto& all = cols[static_cast<size_t>(r)];
        const auto from = std::lower_bound(all.begin(), all.end(), begin);
        const auto to = std::lower_bound(from, all.end(), begin + part);
        runs.push_back({r * layout.block.rows, {from, to}});
      }
      std::stable_sort(runs.begin() + static_cast<std::ptrdiff_t>(first), runs.end(),
                       [](const Run& a, const Run& b) { return a.cols.size() > b.cols.size(); });
    }
    fn(u, runs);
  }
}

// Where the values of block `i` of a run of `blocks` are: element (0, 0), counted from the start of
// the run, and the distance of its rows.
struct BlockPlace {
  int64_t at, row_stride;
};

BlockPlace block_place(const BsrLayout& layout, int64_t i, int64_t blocks) {
  const int64_t cols = layout.block.cols;
  const int64_t together = layout.tile_blocks > 1 ? layout.tile_blocks : layout.group_blocks;
  const int64_t first = i / together * together;
  const int64_t width = layout.tile_blocks > 1 ? std::min(together, blocks - first) : together;
  return {first * layout.block.size() + (i - first) * cols, width * cols};
}

int64_t groups_of(const BsrLayout& layout, const Run& run) {
  const auto blocks = static_cast<int64_t>(run.cols.size());
  return (blocks + layout.group_blocks - 1) / layout.group_blocks;
}

}  // namespace

std::string bsr_refusal(const BsrLayout& layout, int64_t n, int64_t k) {
  constexpr int64_t kMaxCols = 65535;  // BsrRun counts the groups of a run in 16 bits
  if (n == 0 || k == 0) return "empty weight";
  if ((k + layout.block.cols - 1) / layout.block.cols > kMaxCols) {
    return "K has over " + std::to_string(kMaxCols) + " block columns";
  }
  return {};
}

BsrSize bsr_size(const BsrLayout& layout, const NonZeros& bits) {
  BsrSize size;
  size.group_cols = layout.group_blocks;
  size.group_values = int64_t{layout.block.rows} * layout.group_blocks * layout.block.cols;
  for_each_unit(layout, bits, [&](int64_t, const std::vector<Run>& runs) {
    ++size.units;
    size.runs += static_cast<int64_t>(runs.size());
    for (const Run& run : runs) size.groups += groups_of(layout, run);
  });
  return size;
}

bool bsr_pairs_fit(const int8_t* values, int64_t count) {
  for (int64_t i = 0; i + 1 < count; i += 2) {
    const int a = values[i], b = values[i + 1];
    if (std::max(a, 0) + std::max(b, 0) > 128 || std::min(a, 0) + std::min(b, 0) < -128) return false;
  }
  return true;
}

BsrWeights bsr_view(const BsrSize& size, const void* blob) {
  const char* base = static_cast<const char*>(blob);
  return {reinterpret_cast<const BsrUnit*>(base),
          reinterpret_cast<const BsrRun*>(base + size.runs_at()),
          reinterpret_cast<const uint16_t*>(base + size.cols_at()), base + size.values_at(),
          size.units, false};
}

BsrWeights bsr_pack(const BsrLayout& layout, const NonZeros& bits, const BsrSize& size, void* blob,
                    const std::function<void(int64_t at, int64_t n, int64_t k)>& place) {
  char* base = static_cast<char*>(blob);
  auto* units = reinterpret_cast<BsrUnit*>(base);
  auto* runs_out = reinterpret_cast<BsrRun*>(base + size.runs_at());
  auto* cols_out = reinterpret_cast<uint16_t*>(base + size.cols_at());
  int32_t next_run = 0, next_group = 0;
  const auto write_block = [&](int64_t at, int64_t row_stride, int64_t n0, int64_t col) {
    for (int64_t r = 0; r < layout.block.rows; ++r) {
      for (int64_t c = 0; c < layout.block.cols; ++c) {
        const int64_t n = n0 + r, k = col * layout.block.cols + c;
        if (n >= bits.n() || k >= bits.k()) continue;
        place(at + r * row_stride + c, n, k);
      }
    }
  };
  for_each_unit(layout, bits, [&](int64_t u, const std::vector<Run>& runs) {
    units[u] = {next_run, next_group};
    for (const Run& run : runs) {
      const int64_t groups = groups_of(layout, run);
      runs_out[next_run++] = {static_cast<uint16_t>(run.row), static_cast<uint16_t>(groups)};
      for (int64_t i = 0; i < groups * layout.group_blocks; ++i) {
        const auto blocks = static_cast<int64_t>(run.cols.size());
        const bool stored = i < blocks;
        // Padding repeats the last column: it is in cache, and its weights are 0.
        const int32_t col = stored ? run.cols[static_cast<size_t>(i)] : run.cols.back();
        cols_out[int64_t{next_group} * layout.group_blocks + i] = static_cast<uint16_t>(col);
        if (!stored) continue;
        const BlockPlace in_run = block_place(layout, i, blocks);
        write_block(next_group * size.group_values + in_run.at, in_run.row_stride,
                    u * layout.unit_rows + run.row, col);
      }
      next_group += static_cast<int32_t>(groups);
    }
  });
  units[size.units] = {next_run, next_group};
  return bsr_view(size, blob);
}

}  // namespace sprun::kernels
