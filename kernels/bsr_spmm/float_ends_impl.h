// What float products with tokens as lanes do before and after the multiplications.
#pragma once

#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/epilogue_impl.h"

namespace sprun::kernels::bsr {

// Ops of TokenLanes but for add_run(). ArgsT: BsrF32Args or BsrBf16Args.
template <class ArchT, class ArgsT, int kValueBytesT, const BsrLayout& kLayoutT>
struct FloatEnds {
  using Arch = ArchT;
  using Args = ArgsT;
  using Gemm = decltype(Args::gemm);
  using Sum = float;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr const BsrLayout& kLayout = kLayoutT;
  static constexpr int kValueBytes = kValueBytesT;

  static void start_unit(const Gemm&, int64_t, float* start) {
    for (int64_t r = 0; r < kLayout.unit_rows; ++r) start[r] = 0.0F;
  }
  static bool needs_tiles(const Gemm& args) {
    return args.epilogue.activation != Activation::kNone;
  }
  static void finish_whole(const Gemm& args, int64_t m, int64_t n0, const float* sums) {
    const gemm::DirectOut out(args.epilogue, args.y, args.ldy, m, n0, true);
    const V alpha = V::broadcast(args.epilogue.alpha);
    turn_16x16<Arch>(
        sums, kLayout.slab_tokens, [&](int t, int c, V v) __attribute__((always_inline)) {
          out.write(t, c, v, alpha);
        });
  }
  template <int64_t kNr>
  static void finish_tile(const Gemm& args, int64_t m, int64_t rows, int64_t n0, int64_t cols,
                          const float* tile) {
    gemm::finish_f32<Arch, kNr>(args.epilogue, args.y, args.ldy, m, rows, n0, cols, tile);
  }
};

}  // namespace sprun::kernels::bsr
