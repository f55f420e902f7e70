// The loop of Columns::pass for 4x1 blocks of u8 x s8 and 64 tokens, in assembly.
//
// The same multiplications as the intrinsics give; sums are exact, so the bits are the same too. What it is for: 16
// sums, 4 vectors of X and 4 weights fit into registers, but gcc 12 moves some sums from one register to another in
// every step (1.15x slower), and, depending on what surrounds the loop, keeps them in memory (2.5x slower).
//
// A step takes 16 multiplications and 8 shuffles: 8 cycles where multiplications go to two ports and shuffles to two, one of
// which is not among the first.
#pragma once

#include <cstdint>

#include "kernels/bsr_spmm/columns_impl.h"
#include "kernels/simd/arch.h"

#if defined(__AVX512VNNI__)

// zmm0 - 15: sums[row][vector], zmm16 - 19: columns and pairs of them, 20 - 23: quads, 24 - 27: weights.
#define SPRUN_ROW_(w, s0, s1, s2, s3)            \
  "vpdpbusd %%zmm" #w ", %%zmm20, %%zmm" #s0 "\n" \
  "vpdpbusd %%zmm" #w ", %%zmm21, %%zmm" #s1 "\n" \
  "vpdpbusd %%zmm" #w ", %%zmm22, %%zmm" #s2 "\n" \
  "vpdpbusd %%zmm" #w ", %%zmm23, %%zmm" #s3 "\n"
#define SPRUN_SAME_(from, a, b, c)             \
  "vmovdqa64 %%zmm" #from ", %%zmm" #a "\n"    \
  "vmovdqa64 %%zmm" #from ", %%zmm" #b "\n"    \
  "vmovdqa64 %%zmm" #from ", %%zmm" #c "\n"
#define SPRUN_SUM_(op, i) op(#i, "64*" #i "(%[sums])")
#define SPRUN_ALL_SUMS_(op)                                                                             \
  SPRUN_SUM_(op, 0) SPRUN_SUM_(op, 1) SPRUN_SUM_(op, 2) SPRUN_SUM_(op, 3) SPRUN_SUM_(op, 4)             \
  SPRUN_SUM_(op, 5) SPRUN_SUM_(op, 6) SPRUN_SUM_(op, 7) SPRUN_SUM_(op, 8) SPRUN_SUM_(op, 9)             \
  SPRUN_SUM_(op, 10) SPRUN_SUM_(op, 11) SPRUN_SUM_(op, 12) SPRUN_SUM_(op, 13) SPRUN_SUM_(op, 14)        \
  SPRUN_SUM_(op, 15)
#define SPRUN_LOAD_(i, at) "vmovdqu64 " at ", %%zmm" i "\n"
#define SPRUN_STORE_(i, at) "vmovdqu64 %%zmm" i ", " at "\n"

namespace sprun::kernels::bsr {

struct ColumnLoopAvx512Vnni {
  static constexpr bool kExists = true;

  // sums: [4][64] of a run, from g.start[row], or from what they are where g.start is null.
  // x: [K][64] (kColumnSlabs). g.values: 16 bytes a group.
  template <int64_t kAhead, int64_t kColsAhead>
  SPRUN_INLINE static void run(const Groups<int32_t>& g, const uint8_t* x, int32_t* sums) {
    const uint16_t* cols = g.cols;
    const uint8_t* values = g.values;
    int64_t groups = g.count;
    uint64_t a, b, c, d;
    asm volatile(
        "test %[start], %[start]\n"
        "jz 1f\n"
        "vpbroadcastd (%[start]), %%zmm0\n"
        "vpbroadcastd 4(%[start]), %%zmm4\n"
        "vpbroadcastd 8(%[start]), %%zmm8\n"
        "vpbroadcastd 12(%[start]), %%zmm12\n"
        SPRUN_SAME_(0, 1, 2, 3)
        SPRUN_SAME_(4, 5, 6, 7)
        SPRUN_SAME_(8, 9, 10, 11)
        SPRUN_SAME_(12, 13, 14, 15)
        "jmp 2f\n"
        "1:\n"
        SPRUN_ALL_SUMS_(SPRUN_LOAD_)
        "2:\n"
        "test %[groups], %[groups]\n"
        "jle 4f\n"
        ".p2align 6\n"
        "3:\n"
        "mov (%[cols]), %[d]\n"  // 64 times each of four columns
        "rorx $58, %[d], %[a]\n"
        "rorx $10, %[d], %[b]\n"
        "rorx $26, %[d], %[c]\n"
        "rorx $42, %[d], %[d]\n"
        "and $0x3fffc0, %[a]\n"
        "and $0x3fffc0, %[b]\n"
        "and $0x3fffc0, %[c]\n"
        "and $0x3fffc0, %[d]\n"
        "vmovdqu64 (%[x],%[a]), %%zmm16\n"
        "vmovdqu64 (%[x],%[b]), %%zmm17\n"
        "vmovdqu64 (%[x],%[c]), %%zmm18\n"
        "vmovdqu64 (%[x],%[d]), %%zmm19\n"
        "vpunpcklbw %%zmm17, %%zmm16, %%zmm28\n"
        "vpunpcklbw %%zmm19, %%zmm18, %%zmm29\n"
        "vpunpcklwd %%zmm29, %%zmm28, %%zmm20\n"
        "vpunpckhwd %%zmm29, %%zmm28, %%zmm21\n"
        "vpunpckhbw %%zmm17, %%zmm16, %%zmm28\n"
        "vpunpckhbw %%zmm19, %%zmm18, %%zmm29\n"
        "vpunpcklwd %%zmm29, %%zmm28, %%zmm22\n"
        "vpunpckhwd %%zmm29, %%zmm28, %%zmm23\n"
        "vpbroadcastd (%[values]), %%zmm24\n"
        SPRUN_ROW_(24, 0, 1, 2, 3)
        "vpbroadcastd 4(%[values]), %%zmm25\n"
        SPRUN_ROW_(25, 4, 5, 6, 7)
        "vpbroadcastd 8(%[values]), %%zmm26\n"
        SPRUN_ROW_(26, 8, 9, 10, 11)
        "vpbroadcastd 12(%[values]), %%zmm27\n"
        SPRUN_ROW_(27, 12, 13, 14, 15)
        "prefetcht0 %c[ahead](%[values])\n"
        "prefetcht0 %c[cols_ahead](%[cols])\n"
        "add $8, %[cols]\n"
        "add $16, %[values]\n"
        "dec %[groups]\n"
        "jnz 3b\n"
        "4:\n"
        SPRUN_ALL_SUMS_(SPRUN_STORE_)
        : [cols] "+r"(cols), [values] "+r"(values), [groups] "+r"(groups), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c),
          [d] "=&r"(d)
        : [x] "r"(x), [start] "r"(g.start), [sums] "r"(sums), [ahead] "i"(kAhead),
          [cols_ahead] "i"(kColsAhead)
        : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
          "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29");
  }
};

}  // namespace sprun::kernels::bsr

#undef SPRUN_ROW_
#undef SPRUN_SAME_
#undef SPRUN_SUM_
#undef SPRUN_ALL_SUMS_
#undef SPRUN_LOAD_
#undef SPRUN_STORE_

#endif  // __AVX512VNNI__
