// Packs the weights of a sparse feed-forward layer into its blob.
#include <algorithm>
#include <cstring>

#include "kernels/gemm/pack.h"
#include "kernels/simd/half.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

int64_t packed_gate_bytes(const SparseFfn& ffn) {
  const SparseFfnShape& s = ffn.shape;
  switch (s.weights) {
    case FfnWeights::kF32:
      return 4 * packed_size_f32(s.d_ff, s.d_gate, ffn.gate_nr);
    case FfnWeights::kBf16:
      return 2 * packed_size_bf16(s.d_ff, s.d_gate, ffn.gate_nr);
    case FfnWeights::kInt8:
      return packed_size_s8(s.d_ff, s.d_gate, ffn.gate_nr);
  }
  return 0;
}

// Where everything goes; areas that the source does not need are at -1.
SparseFfn::Offsets layout(const SparseFfn& ffn, const SparseFfnSource& source) {
  const SparseFfnShape& s = ffn.shape;
  const bool int8 = s.weights == FfnWeights::kInt8;
  const bool up = s.gated();
  const auto zeros = [&](const SparseFfnMatrix& m) {
    return int8 && (m.codes_unsigned || m.zero_point != nullptr);
  };
  int64_t end = 0;
  const auto place = [&end](bool wanted, int64_t bytes) {
    if (!wanted) return int64_t{-1};
    const int64_t at = end;
    end += align_scratch(bytes);
    return at;
  };
  const int64_t ff4 = 4 * s.d_ff;
  SparseFfn::Offsets at{};
  at.gate = place(true, packed_gate_bytes(ffn));
  at.gate_bias = place(source.gate.bias != nullptr, ff4);
  at.gate_sum = place(int8, 4 * num_panels(s.d_ff, ffn.gate_nr) * ffn.gate_nr);
  at.gate_scale = place(int8, ff4);
  at.gate_zero = place(zeros(source.gate), ff4);
  at.up = place(up, s.d_ff * ffn.up_stride);
  at.up_bias = place(up && source.up.bias != nullptr, ff4);
  at.up_quant = place(up && int8, 2 * ff4);
  at.up_zero = place(up && zeros(source.up), ff4);
  at.down = place(true, s.d_ff * ffn.down_stride);
  at.down_bias = place(source.down.bias != nullptr, 4 * s.d_out);
  at.down_scale = place(int8, 4 * s.d_out);
  at.down_zero = place(zeros(source.down), 4 * s.d_out);
  at.end = end;
  return at;
}

// Code of W[n, k] as s8; u8 codes are shifted by 128, their zero points too.
int8_t code_at(const SparseFfnMatrix& m, int64_t n, int64_t k) {
  const int64_t i = n * m.stride_n + k * m.stride_k;
  const uint8_t code = static_cast<const uint8_t*>(m.codes)[i];
  return static_cast<int8_t>(m.codes_unsigned ? code ^ 0x80 : code);
}

void copy_scales(const SparseFfnMatrix& m, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = m.scale[i * m.scale_stride];
}

void copy_zeros(const SparseFfnMatrix& m, int64_t n, int32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t zero = m.zero_point == nullptr ? 0 : m.zero_point[i * m.zero_point_stride];
    out[i] = zero - (m.codes_unsigned ? 128 : 0);
  }
}

// Row of element(k), k < n, in the type of the layer's weights.
template <class Element>
void write_row(FfnWeights weights, int64_t n, char* out, const Element& element) {
  for (int64_t k = 0; k < n; ++k) {
    if (weights == FfnWeights::kF32) {
      reinterpret_cast<float*>(out)[k] = element(k);
    } else {
      reinterpret_cast<uint16_t*>(out)[k] = simd::f32_to_bf16(element(k));
    }
  }
}

// Rows [begin, end) of a neuron-major matrix: row j holds W(output(j, i), input(j, i)), i < n.
template <class At>
void pack_rows(const SparseFfn& ffn, const SparseFfnMatrix& m, const At& at, int64_t n,
               int64_t stride, int64_t begin, int64_t end, char* rows) {
  for (int64_t j = begin; j < end; ++j) {
    char* out = rows + j * stride;
    std::memset(out, 0, static_cast<size_t>(stride));
    if (ffn.shape.weights != FfnWeights::kInt8) {
      write_row(ffn.shape.weights, n, out, [&](int64_t i) { return m.f32[at(j, i)]; });
      continue;
    }
    const uint8_t* codes = static_cast<const uint8_t*>(m.codes);
    const uint8_t flip = m.codes_unsigned ? 0x80 : 0;
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<char>(codes[at(j, i)] ^ flip);
  }
}

void pack_gate(const SparseFfn& ffn, const SparseFfnMatrix& m, ThreadPool& pool, char* blob) {
  const SparseFfnShape& s = ffn.shape;
  void* out = blob + ffn.at.gate;
  const int64_t panels = num_panels(s.d_ff, ffn.gate_nr);
  const WeightSource<float> w{m.f32, s.d_ff, s.d_gate, m.stride_n, m.stride_k};
  pool.parallel_for(panels, 8, [&](int64_t begin, int64_t end, int) {
    if (s.weights == FfnWeights::kF32) {
      ffn.gate_f32->pack(w, begin, end, static_cast<float*>(out));
    } else if (s.weights == FfnWeights::kBf16) {
      ffn.gate_bf16->pack(w, begin, end, static_cast<uint16_t*>(out));
    } else {
      int32_t* sums = reinterpret_cast<int32_t*>(blob + ffn.at.gate_sum);
      int8_t* packed = static_cast<int8_t*>(out);
      const int64_t nr = ffn.gate_nr;
      if (m.codes_unsigned) {
        const auto* codes = static_cast<const uint8_t*>(m.codes);
        pack_u8({codes, s.d_ff, s.d_gate, m.stride_n, m.stride_k}, nr, begin, end, packed, sums);
      } else {
        const auto* codes = static_cast<const int8_t*>(m.codes);
        pack_s8({codes, s.d_ff, s.d_gate, m.stride_n, m.stride_k}, nr, begin, end, packed, sums);
      }
    }
  });
}

void pack_up(const SparseFfn& ffn, const SparseFfnMatrix& m, ThreadPool& pool, char* blob) {
  const SparseFfnShape& s = ffn.shape;
  pool.parallel_for(s.d_ff, 64, [&](int64_t begin, int64_t end, int) {
    const auto at = [&m](int64_t j, int64_t k) { return j * m.stride_n + k * m.stride_k; };
    pack_rows(ffn, m, at, s.d_up, ffn.up_stride, begin, end, blob + ffn.at.up);
    if (s.weights != FfnWeights::kInt8) return;
    FfnRowQuant* quant = reinterpret_cast<FfnRowQuant*>(blob + ffn.at.up_quant);
    for (int64_t j = begin; j < end; ++j) {
      int32_t sum = 0;
      for (int64_t k = 0; k < s.d_up; ++k) sum += code_at(m, j, k);
      quant[j] = {m.scale[j * m.scale_stride], sum};
    }
  });
}

void pack_down(const SparseFfn& ffn, const SparseFfnMatrix& m, ThreadPool& pool, char* blob) {
  const SparseFfnShape& s = ffn.shape;
  pool.parallel_for(s.d_ff, 64, [&](int64_t begin, int64_t end, int) {
    const auto at = [&m](int64_t j, int64_t n) { return n * m.stride_n + j * m.stride_k; };
    pack_rows(ffn, m, at, s.d_out, ffn.down_stride, begin, end, blob + ffn.at.down);
  });
}

void copy_floats(const float* from, int64_t n, char* blob, int64_t at) {
  if (at >= 0) std::copy_n(from, n, reinterpret_cast<float*>(blob + at));
}

}  // namespace

int64_t plan_sparse_ffn(SparseFfn* ffn, const SparseFfnSource& source) {
  ffn->at = layout(*ffn, source);
  return ffn->at.end;
}

void pack_sparse_ffn(const SparseFfn& ffn, const SparseFfnSource& source, ThreadPool& pool,
                     void* blob) {
  const SparseFfn::Offsets& at = ffn.at;
  const SparseFfnShape& s = ffn.shape;
  char* base = static_cast<char*>(blob);
  if (s.d_gate > 0) pack_gate(ffn, source.gate, pool, base);
  if (s.gated()) pack_up(ffn, source.up, pool, base);
  pack_down(ffn, source.down, pool, base);
  copy_floats(source.gate.bias, s.d_ff, base, at.gate_bias);
  copy_floats(source.up.bias, s.d_ff, base, at.up_bias);
  copy_floats(source.down.bias, s.d_out, base, at.down_bias);
  const auto ints = [base](int64_t offset) { return reinterpret_cast<int32_t*>(base + offset); };
  const auto floats = [base](int64_t offset) { return reinterpret_cast<float*>(base + offset); };
  if (at.gate_scale >= 0 && s.d_gate > 0) copy_scales(source.gate, s.d_ff, floats(at.gate_scale));
  if (at.down_scale >= 0) copy_scales(source.down, s.d_out, floats(at.down_scale));
  if (at.gate_zero >= 0) copy_zeros(source.gate, s.d_ff, ints(at.gate_zero));
  if (at.up_zero >= 0) copy_zeros(source.up, s.d_ff, ints(at.up_zero));
  if (at.down_zero >= 0) copy_zeros(source.down, s.d_out, ints(at.down_zero));
}

}  // namespace sprun::kernels
