// What the phases of one call share: sizes, scratch, the inputs as the products read them, and what
// is known so far of the active neurons. Internal to the family.
#pragma once

#include <algorithm>

#include "kernels/gemm/quantize_rows.h"
#include "kernels/sparse_ffn/cost.h"
#include "kernels/sparse_ffn/sparse_ffn.h"

namespace sprun::kernels::sparse_ffn {

inline constexpr int64_t kZeroNeurons = 2048;

// Lists of each token: neurons of up whose rows a cache holds while all tokens pass, and bytes of a
// piece of down, which it holds likewise.
inline constexpr int64_t kListUpNeurons = 256;
inline constexpr int64_t kListDownBytes = 256 * 1024;
inline constexpr int64_t kMostListBlock = kListDownBytes / 256;  // neurons of a list's block

// From here on packing panels costs less than the faster products save.
inline constexpr int64_t kManyTokens = 32;

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t ceil_div(int64_t n, int64_t step) { return (n + step - 1) / step; }

int64_t weight_bytes(const SparseFfn& ffn);

// Sizes that follow from shape and tokens, in elements.
struct Sizes {
  int64_t tokens, gate_panels, gate_unit, gate_units;
  int64_t ld_g;         // rows of g and h
  int64_t ld_acc;       // outputs, whole lines
  int64_t ld_x, ld_up;  // rows of converted x
  int64_t accs;         // sets of sums: workers or segments
  int64_t acc_rows;     // of a set
  int64_t ld_codes;     // rows of h as the dense GEMM reads them
  // Lists of each token are cut into blocks of list_block neurons, whose ids and values start at
  // fixed places.
  int64_t list_block, list_blocks;
  int64_t ld_ids;        // rows of ids
  int64_t list_groups;   // of kListUpNeurons neurons
  int64_t list_columns;  // outputs of a unit of down

  Sizes(const SparseFfn& ffn, int64_t tokens, int workers);
};

struct RowQuant {
  float* scale;
  int32_t* zero;
  int32_t* sum;
};

struct Buffers {
  float* g;         // [tokens, ld_g]: gate values, then s
  float* h;         // [tokens, ld_g] by place in the list
  double* moments;  // [gate_units, tokens, 2]
  float* theta;     // [tokens]
  int32_t* ids;     // listed neurons
  int64_t* counts;  // [2, zero units]: listed, active
  char *x_gate, *x_up;
  RowQuant gate_quant, up_quant;
  QuantParams* h_quant;  // [tokens]
  float* h_range;        // [workers, 2, ld_range]
  int64_t ld_range;
  char* acc;          // [accs, acc_rows, ld_acc] of 4 bytes
  int64_t* acc_used;  // [accs, 8]
  char* unit;         // per worker: codes and sums of a unit
  int64_t unit_bytes;
  char* gemm;
  int64_t gemm_bytes;
  char* topk;
  int64_t topk_bytes;  // of a worker; one set only without lists
  // Many tokens only.
  char* codes;     // [tokens, ld_codes] int8 or bf16
  int32_t* h_sum;  // [tokens] of codes
  int32_t* w_sum;  // per worker, a panel
  char* panels;    // per worker
  int64_t panel_bytes;
  // Lists of each token only.
  int32_t* list_ids;     // [tokens, ld_ids]; lies in h, which they do not use
  int32_t* list_ends;    // [tokens, list_groups]: place in its block behind each group of neurons
  int32_t* list_count;   // [tokens, list_blocks, 2]: negative and all entries as down takes them
  int64_t* list_active;  // [tokens]
  char* list_acc;        // per worker [tokens, list_columns]
  int64_t list_acc_bytes;
  char* list_piece;  // per worker kListDownBytes
  int64_t end;

  // Carves `scratch`, or with null only counts.
  Buffers(const SparseFfn& ffn, const Sizes& sizes, int workers, void* scratch);
};

// x as the products read it.
struct InputRows {
  const void* x;
  int64_t ld;
  const float* scale;
  const int32_t* zero;
  const int32_t* sum;
};

struct Call {
  Call(const SparseFfn& layer, const SparseFfnArgs& given, int threads, void* scratch)
      : ffn(layer),
        args(given),
        shape(layer.shape),
        sizes(layer, given.tokens, threads),
        mem(layer, sizes, threads, scratch),
        blob(static_cast<const char*>(given.weights)),
        int8(layer.shape.weights == FfnWeights::kInt8),
        workers(threads) {}

  // An area of the blob; null where it is not there.
  template <class T>
  const T* weights(int64_t offset) const {
    return offset < 0 ? nullptr : reinterpret_cast<const T*>(blob + offset);
  }

  const SparseFfn& ffn;
  const SparseFfnArgs& args;
  const SparseFfnShape& shape;
  const Sizes sizes;
  const Buffers mem;
  const char* blob;
  const bool int8;
  const int64_t workers;
  InputRows gate{}, up{};
  int64_t active = 0, union_active = 0;
  int64_t listed = 0;  // neurons that are computed
  int64_t segments = 0;
  FfnPath path = FfnPath::kSparse;
  bool weight_sums = false;  // zero points need sums of weights
  bool many = false;         // up and down by the dense GEMM
  bool make_lists = false;   // one for every token
  bool lists = false;        // they are what up and down work on
  bool expand = false;       // lists were made and are not wanted
};

}  // namespace sprun::kernels::sparse_ffn
