// Runs whose weights are widened before the multiplications: for Lanes that would otherwise split
// each broadcast dword of weights again for every vector of tokens.
//
// Such Lanes have
//   kWidened                                bytes of stored weights that are widened together
//   widen(values, bytes, to)                to: kWidenedBytes bytes, addressed like `values`
// and weight(p) reads what widen() wrote. kWidened is chosen so that both fit into L1 beside X.
#pragma once

#include "kernels/bsr_spmm/token_lanes_impl.h"

namespace sprun::kernels::bsr {

template <class Lanes>
inline constexpr bool kWidens = requires { Lanes::kWidened; };

// Calls add(part) for the groups of a run, with widened values where Lanes wants them so.
// kBytes, kColumns: of one group.
template <class Lanes, int64_t kBytes, int64_t kColumns, class Sum, class Add>
SPRUN_INLINE void for_widened(const Groups<Sum>& g, const Add& add) {
  if constexpr (!kWidens<Lanes>) {
    add(g);
  } else {
    constexpr int64_t kMost = Lanes::kWidened / kBytes;
    alignas(64) uint8_t wide[Lanes::kWidenedBytes];
    Groups<Sum> part = {g.cols, wide, 0, g.start};
    int64_t done = 0;
    do {  // also once for a run without groups, whose sums begin all the same
      part.count = min_of(g.count - done, kMost);
      Lanes::widen(g.values + done * kBytes, part.count * kBytes, wide);
      add(part);
      part.cols += part.count * kColumns;
      part.start = nullptr;
      done += part.count;
    } while (done < g.count);
  }
}

}  // namespace sprun::kernels::bsr
