// f32 convolution bodies, instantiated per Arch by conv_f32_<isa>.cc.
#pragma once

#include "kernels/conv/conv_depthwise_impl.h"
#include "kernels/conv/conv_dot_impl.h"
#include "kernels/conv/conv_gemm_impl.h"

namespace sprun::kernels::conv {

template <class Arch>
inline constexpr ConvKernel kConvF32 = {Gemm<Arch>::kNr,
                                        Gemm<Arch>::run,
                                        Gemm<Arch>::scratch_floats,
                                        Depthwise<Arch>::run,
                                        Depthwise<Arch>::scratch_floats,
                                        Dot<Arch>::run,
                                        Dot<Arch>::scratch_floats};

}  // namespace sprun::kernels::conv
