// u8 x s8 block-sparse products with tokens as lanes, instantiated per Arch and pattern.
//
// Rx4 blocks multiply lines of quads as they are (lines_impl.h); 4x1 blocks make the quads from
// four columns of X.
#pragma once

#include <type_traits>

#include "kernels/bsr_spmm/column_loop_avx512vnni.h"
#include "kernels/bsr_spmm/columns_impl.h"
#include "kernels/bsr_spmm/columns_out_impl.h"
#include "kernels/bsr_spmm/lines_impl.h"
#include "kernels/bsr_spmm/pack_x_impl.h"
#include "kernels/bsr_spmm/rows_of_columns_impl.h"
#include "kernels/gemm/finish_u8s8_impl.h"
#include "kernels/simd/dot4_pairs.h"
#include "kernels/simd/interleave.h"

namespace sprun::kernels::bsr {

template <class ArchT, class DotT = simd::Dot4<ArchT>>
struct U8S8Lanes {
  using Arch = ArchT;
  using Dot = DotT;
  using Acc = typename Dot::Acc;
  using Sum = int32_t;
  using X = typename Dot::A;
  static constexpr int kInputs = 4;
  static constexpr bool kSkipsPadding = false;
  SPRUN_INLINE static X load(const uint8_t* p) {
    return Dot::split_u8(simd::Interleave<simd::VecArch<Arch>>::load(p));
  }
  template <int kFirst, int kCount>
  SPRUN_INLINE static void columns(const uint8_t* const (&rows)[4], X (&x)[kCount]) {
    using VecArch = simd::VecArch<Arch>;
    typename simd::Interleave<VecArch>::Raw raw[kCount];
    simd::quads<VecArch, kFirst, kCount>(rows[0], rows[1], rows[2], rows[3], raw);
#pragma GCC unroll 4
    for (int v = 0; v < kCount; ++v) x[v] = Dot::split_u8(raw[v]);
  }
  SPRUN_INLINE static typename Dot::B weight(const uint8_t* p) {
    return Dot::broadcast_s8(simd::load_quad(p));
  }
  SPRUN_INLINE static void accumulate(Acc& acc, X x, typename Dot::B w) {
    Dot::accumulate(acc, x, w);
  }
};

#if defined(__AVX512VNNI__)
template <class Dot>
struct ColumnLoop<U8S8Lanes<simd::Avx512Vnni, Dot>> : ColumnLoopAvx512Vnni {};
#endif

// Without VNNI: weights split into even and odd inputs once for all tokens of a slab (widened_impl.h).
template <class ArchT>
struct U8S8WideLanes : U8S8Lanes<ArchT> {
  using Base = U8S8Lanes<ArchT>;
  using Dot = typename Base::Dot;
  using Acc = typename Base::Acc;
  static constexpr int64_t kWidened = 4096;
  // The odd inputs of a dword lie so far behind its even ones: not a multiple of 4 KiB.
  static constexpr int64_t kOddAt = kWidened + 64, kWidenedBytes = kOddAt + kWidened;

  // bytes: a multiple of 16.
  SPRUN_INLINE static void widen(const uint8_t* values, int64_t bytes, uint8_t* to) {
    constexpr int64_t kBytes = 4 * Acc::kLanes;
    int64_t i = 0;
    for (; i + kBytes <= bytes; i += kBytes) widen_vector<Dot, simd::VecArch<ArchT>>(values + i, to + i);
    for (; i < bytes; i += 16) widen_vector<simd::Dot4<simd::Sse2>, simd::Sse2>(values + i, to + i);
  }
  SPRUN_INLINE static typename Dot::B weight(const uint8_t* p) {
    return {Acc::broadcast(simd::load_quad(p)).v, Acc::broadcast(simd::load_quad(p + kOddAt)).v};
  }

 private:
  template <class Split, class VecArch>
  SPRUN_INLINE static void widen_vector(const uint8_t* from, uint8_t* to) {
    using S = simd::Interleave<VecArch>;
    const typename Split::B w = Split::from_s8(S::load(from));
    S::store(to, w.even);
    S::store(to + kOddAt, w.odd);
  }
};

// See Shape in lines_impl.h and columns_impl.h.
template <class Arch>
struct U8S8Shape {
  static constexpr int kColumnVectors = 2, kPassRows = 4, kPassVectors = 1, kSets = 1;
};
template <>
struct U8S8Shape<simd::Avx2> {
  static constexpr int kColumnVectors = 2, kPassRows = 4, kPassVectors = 2, kSets = 1;
};
template <>
struct U8S8Shape<simd::AvxVnni> {
  static constexpr int kColumnVectors = 2, kPassRows = 4, kPassVectors = 2, kSets = 1;
};
template <>
struct U8S8Shape<simd::Avx512> {
  static constexpr int kColumnVectors = 2, kPassRows = 4, kPassVectors = 2, kSets = 1;
};
template <>
struct U8S8Shape<simd::Avx512Vnni> {
  static constexpr int kColumnVectors = 4, kPassRows = 8, kPassVectors = 2, kSets = 2;
};

// What all patterns do before and after the multiplications: Ops of TokenLanes but for add_run().
template <class ArchT, const BsrLayout& kLayoutT>
struct U8S8Ends {
  using Arch = ArchT;
  using Args = BsrU8S8Args;
  using Sum = int32_t;
  using I = typename simd::Dot4<Arch>::Acc;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr const BsrLayout& kLayout = kLayoutT;
  static constexpr int kValueBytes = 1;
  static constexpr int64_t kUnit = kLayout.unit_rows;

  // 0, or -zero point * (sum of the weights) where one zero point serves all rows.
  static void start_unit(const GemmU8S8Args& args, int64_t u, int32_t* start) {
    const bool common = args.x_zero_point != nullptr && args.x_zero_point_stride == 0;
    const int32_t zero = common ? *args.x_zero_point : 0;
    for (int64_t r = 0; r < kUnit; ++r) {
      start[r] = zero == 0 ? 0 : -zero * args.w_sum[u * kUnit + r];
    }
  }

  static bool needs_tiles(const GemmU8S8Args& args) {
    if (args.x_zero_point != nullptr && args.x_zero_point_stride != 0) return true;
    if (args.y_s32 != nullptr) return false;
    return args.epilogue.activation != Activation::kNone;
  }

  static void finish_whole(const GemmU8S8Args& args, int64_t m, int64_t n0, const int32_t* sums) {
    constexpr int64_t kSlab = kLayout.slab_tokens;
    if (args.y_s32 != nullptr) {
      int32_t* y = args.y_s32 + m * args.ldy + n0;
      turn_16x16<Arch>(sums, kSlab, [&](int t, int c, V v) __attribute__((always_inline)) {
        I::as_i32(v).store(y + t * args.ldy + c);
      });
      return;
    }
    const gemm::DirectOut out(args.epilogue, args.y, args.ldy, m, n0, true);
    const float* x_scale = args.x_scale + m * args.x_scale_stride;
    const float* w_scale = args.w_scale + n0 * args.w_scale_stride;
    const V common = V::broadcast(*w_scale);  // of all outputs, with stride 0
    const bool own = args.w_scale_stride != 0;
    turn_16x16<Arch>(sums, kSlab, [&](int t, int c, V v) __attribute__((always_inline)) {
      const V scale = V::broadcast(x_scale[t * args.x_scale_stride]) * (own ? V::load(w_scale + c) : common);
      out.write(t, c, I::as_i32(v).to_f32(), scale);
    });
  }

  // Own zero points per row, then scales, bias, activation, residual.
  template <int64_t kNr>
  static void finish_tile(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0,
                          int64_t cols, int32_t* tile) {
    if (args.x_zero_point != nullptr && args.x_zero_point_stride != 0) {
      for (int64_t r = 0; r < rows; ++r) {
        const I zero = I::broadcast(args.x_zero_point[(m + r) * args.x_zero_point_stride]);
        for (int64_t c = 0; c < cols; c += I::kLanes) {
          int32_t* at = tile + r * kNr + c;
          (I::load(at) - zero * I::load(args.w_sum + n0 + c)).store(at);
        }
      }
    }
    gemm::FinishU8S8<Arch, kNr>::run(args, m, rows, n0, cols, tile);
  }
};

// How weights of any size are multiplied, and how those that BsrWeights::pairs_fit vouches for.
template <class Arch, const BsrLayout& kLayout>
struct U8S8Forms {
  using Any = U8S8Lanes<Arch>;
};
template <class Arch, const BsrLayout& kLayout>
  requires simd::kHasPairs<Arch>
struct U8S8Forms<Arch, kLayout> {
  // A single output does not repay the widening.
  using Any = std::conditional_t<kLayout.block.rows == 1, U8S8Lanes<Arch>, U8S8WideLanes<Arch>>;
  using Bounded = U8S8Lanes<Arch, simd::Dot4Pairs<Arch>>;
};

template <class Lanes, const BsrLayout& kLayout>
using U8S8Product = TokenLanes<
    LanesOps<std::conditional_t<kLayout.x_layout == XLayout::kColumnSlabs,
                                Columns<Lanes, U8S8Shape<typename Lanes::Arch>, kLayout>,
                                Lines<Lanes, U8S8Shape<typename Lanes::Arch>, kLayout>>,
             U8S8Ends<typename Lanes::Arch, kLayout>>>;

// fn() gets the product for these weights.
template <class Arch, const BsrLayout& kLayout, class Fn>
SPRUN_INLINE void with_form(const BsrWeights& w, const Fn& fn) {
  using Forms = U8S8Forms<Arch, kLayout>;
  if constexpr (simd::kHasPairs<Arch>) {
    if (w.pairs_fit) return fn(U8S8Product<typename Forms::Bounded, kLayout>());
  }
  fn(U8S8Product<typename Forms::Any, kLayout>());
}

template <class Arch, const BsrLayout& kLayout>
void run_u8s8(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
  with_form<Arch, kLayout>(args.w, [&](auto product) { product.run(args, range, scratch); });
}

template <class Arch, const BsrLayout& kLayout>
void run_columns_u8s8(const BsrU8S8Args& args, const BsrColumns& y, const BsrRange& range, void* scratch) {
  with_form<Arch, kLayout>(args.w, [&](auto product) { ColumnsOut<decltype(product)>::run(args, y, range, scratch); });
}

template <class Arch, const BsrLayout& kLayout>
constexpr BsrU8S8Kernel make_u8s8(int64_t min_m) {
  using Forms = U8S8Forms<Arch, kLayout>;
  BsrU8S8Kernel kernel = {kLayout, min_m, U8S8Product<typename Forms::Any, kLayout>::kScratchBytes,
                          run_u8s8<Arch, kLayout>, nullptr};
  kernel.has_bounded_form = simd::kHasPairs<Arch>;
  if constexpr (kLayout.x_layout == XLayout::kColumnSlabs) {
    kernel.pack_x = pack_x_columns<Arch>;
    kernel.run_columns = run_columns_u8s8<Arch, kLayout>;
    kernel.quantize_columns = quantize_columns<Arch>;
    kernel.rows_of_columns = rows_of_columns<Arch>;
  } else {
    kernel.pack_x = pack_x_quads<Arch, kLayout.slab_tokens>;
  }
  return kernel;
}

}  // namespace sprun::kernels::bsr
