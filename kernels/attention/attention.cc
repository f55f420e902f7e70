// Cuts attention into blocks of query rows, hands them to the pool and picks the kernel.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "kernels/isa.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {

#define SPRUN_ATTENTION_F32(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const AttentionKernel symbol;)
#define SPRUN_ATTENTION_BF16 SPRUN_ATTENTION_F32
#include "kernels/attention/attention.def"

namespace {

constexpr KernelInfo<AttentionKernel> kKernels[] = {
#define SPRUN_ATTENTION_F32(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa({#symbol, Isa::isa, NumericClass::numeric, &symbol}, )
#include "kernels/attention/attention.def"
};

// With an entry for "none", so that the list is never empty.
constexpr KernelInfo<AttentionKernel> kBf16Kernels[] = {
#define SPRUN_ATTENTION_BF16(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa({#symbol, Isa::isa, NumericClass::numeric, &symbol}, )
#include "kernels/attention/attention.def"
    {"", Isa::kScalar, NumericClass::kReassociated, nullptr},
};

constexpr int64_t kFarAway = int64_t{1} << 40;  // beyond any position
constexpr double kTaskFlops = 1e6;              // about 10 us: less is not worth a task of its own
constexpr int64_t kSplitKeys = 256;             // fewest keys of a part when the cache is split

bool takes_decode(const AttentionArgs& a, const AttentionKernel& kernel) {
  return a.heads / a.kv_heads * a.q_len <= kernel.decode_rows && a.k_strides.dim == 1;
}

// The kernel for a problem of the fast path. Products in bf16 give way where no kernel does them, and for few query
// rows, which read keys and values once.
const KernelInfo<AttentionKernel>& choose(const AttentionArgs& a, std::vector<Rejection>* why_not = nullptr) {
  const IsaSet isas = available_isas();
  const KernelInfo<AttentionKernel>& exact = select(attention_kernels(), isas);
  if (!a.bf16_products) return exact;
  if (takes_decode(a, *exact.kernel)) {
    if (why_not) why_not->push_back({"attention_bf16", "few query rows read K and V once"});
    return exact;
  }
  const std::span<const KernelInfo<AttentionKernel>> list(kBf16Kernels);
  const KernelInfo<AttentionKernel>& bf16 = select(list, isas, why_not);
  return bf16.kernel ? bf16 : exact;
}

const AttentionKernel& kernel_of(const AttentionArgs& a) { return a.kernel ? *a.kernel : *choose(a).kernel; }

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The query rows of one head, or of all heads that share a kv head when one head has too few to fill a block.
struct RowGroups {
  int64_t group;   // query heads that share a kv head
  bool folded;
  int64_t count;   // batch * heads, or batch * kv_heads when folded
  int64_t rows;    // rows of a group

  RowGroups(const AttentionArgs& a, int64_t max_rows) : group(a.heads / a.kv_heads) {
    folded = group > 1 && a.q_len < max_rows;
    count = a.batch * (folded ? a.kv_heads : a.heads);
    rows = a.q_len * (folded ? group : 1);
  }
};

// Row pointers and key ranges of a block, and the block itself.
class BlockBuilder {
 public:
  BlockBuilder(const AttentionArgs& a, const RowGroups& groups) : a_(a), groups_(groups) {
    block_.q = q_.data();
    block_.out = out_.data();
    block_.lo = lo_.data();
    block_.hi = hi_.data();
    block_.k_row = a.k_strides.row, block_.k_dim = a.k_strides.dim, block_.v_row = a.v_strides.row;
    block_.head_dim = a.head_dim, block_.v_dim = a.v_dim;
    block_.scale = a.scale, block_.softcap = a.softcap, block_.fill = a.frontier_fill;
    block_.mask_key = a.mask_key, block_.mask_is_bytes = a.mask_kind == MaskKind::kAllow;
  }

  // Rows [begin, begin + n) of group g.
  AttentionBlock& build(int64_t g, int64_t begin, int64_t n) {
    const int64_t per_batch = groups_.count / a_.batch;
    b_ = g / per_batch;
    const int64_t within = g % per_batch, first_head = groups_.folded ? within * groups_.group : within;
    const int64_t kv_head = first_head / groups_.group;
    block_.rows = n;
    block_.k = static_cast<const float*>(a_.k) + b_ * a_.k_strides.batch + kv_head * a_.k_strides.head;
    block_.v = static_cast<const float*>(a_.v) + b_ * a_.v_strides.batch + kv_head * a_.v_strides.head;
    set_key_end();
    set_biases(first_head);
    block_.band_begin = block_.key_end, block_.band_end = 0;
    int64_t head = first_head + begin / a_.q_len, i = begin % a_.q_len;
    for (int64_t r = 0; r < n; ++r) {
      set_row(r, head, i);
      if (++i == a_.q_len) ++head, i = 0;
    }
    if (block_.band_begin > block_.band_end) block_.band_begin = block_.band_end = 0;
    return block_;
  }

 private:
  void set_key_end() {
    int64_t end = std::min(a_.kv_len, a_.mask_keys);
    if (a_.batch_kv_len) end = std::min(end, a_.batch_kv_len[b_]);
    block_.key_end = std::max<int64_t>(end, 0);
  }

  // A mask that is the same for all rows is a bias per key.
  void set_biases(int64_t first_head) {
    block_.key_bias[0] = a_.key_bias ? a_.key_bias + b_ * a_.key_bias_stride : nullptr;
    block_.key_bias[1] = nullptr;
    block_.mask = a_.mask_kind == MaskKind::kNone ? nullptr : mask_.data();
    const bool per_key = a_.mask_kind == MaskKind::kAdd && a_.mask_row == 0 && a_.mask_key == 1 &&
                         (a_.mask_head == 0 || !groups_.folded);
    if (!per_key) return;
    block_.mask = nullptr;
    block_.key_bias[1] = static_cast<const float*>(a_.mask) + b_ * a_.mask_batch + first_head * a_.mask_head;
  }

  void set_row(int64_t r, int64_t head, int64_t i) {
    const auto at = static_cast<size_t>(r);
    q_[at] =
        static_cast<const float*>(a_.q) + b_ * a_.q_strides.batch + head * a_.q_strides.head + i * a_.q_strides.row;
    out_[at] = static_cast<float*>(a_.out) + b_ * a_.out_strides.batch + head * a_.out_strides.head +
               i * a_.out_strides.row;
    const int64_t p = (a_.batch_offset ? a_.batch_offset[b_] : a_.offset) + i;
    const int64_t lo = a_.left_window < 0 ? 0 : p - a_.left_window;
    int64_t hi = a_.causal ? p + 1 : kFarAway;
    if (a_.right_window >= 0) hi = std::min(hi, p + a_.right_window + 1);
    lo_[at] = std::clamp<int64_t>(lo, 0, block_.key_end);
    hi_[at] = std::clamp<int64_t>(hi, 0, block_.key_end);
    block_.band_begin = std::min(block_.band_begin, lo_[at]);
    block_.band_end = std::max(block_.band_end, hi_[at]);
    if (block_.mask) {
      const int64_t offset = b_ * a_.mask_batch + head * a_.mask_head + i * a_.mask_row;
      mask_[at] = static_cast<const char*>(a_.mask) + offset * (block_.mask_is_bytes ? 1 : int64_t{sizeof(float)});
    }
    if (a_.sink) {
      sink_[at] = a_.sink[head];
      block_.sink = sink_.data();
    }
  }

  const AttentionArgs& a_;
  const RowGroups& groups_;
  AttentionBlock block_{};
  int64_t b_ = 0;
  std::array<const float*, kAttentionMaxRows> q_;
  std::array<float*, kAttentionMaxRows> out_;
  std::array<int64_t, kAttentionMaxRows> lo_, hi_;
  std::array<const void*, kAttentionMaxRows> mask_;
  std::array<float, kAttentionMaxRows> sink_;
};

// --- many query rows

int64_t block_scratch_floats(const AttentionArgs& a, const AttentionKernel& kernel) {
  return round_up(kernel.scratch_floats(a.head_dim, a.v_dim, a.kv_len), 16);
}

void run_blocks(const AttentionArgs& a, const AttentionKernel& kernel, ThreadPool& pool, float* scratch) {
  const RowGroups groups(a, kernel.max_rows);
  const int64_t cuts = (groups.rows + kernel.max_rows - 1) / kernel.max_rows;
  const int64_t height = round_up((groups.rows + cuts - 1) / cuts, kernel.lanes);
  const int64_t blocks = (groups.rows + height - 1) / height, tasks = groups.count * blocks;
  const double flops = attention_flops(a) / static_cast<double>(tasks);
  const auto grain = static_cast<int64_t>(std::max(1.0, kTaskFlops / std::max(flops, 1.0)));
  const int64_t scratch_floats = block_scratch_floats(a, kernel);
  pool.parallel_for(tasks, grain, [&](int64_t begin, int64_t end, int worker) {
    BlockBuilder builder(a, groups);
    float* own = scratch + worker * scratch_floats;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t % blocks * height;
      const AttentionBlock& block = builder.build(t / blocks, first, std::min(height, groups.rows - first));
      if (kernel.load && (t == begin || first == 0)) kernel.load(block, own);
      kernel.run(block, own);
    }
  });
}

// --- few query rows: the cache of a kv head is split when there are too few heads to go round

struct DecodeShape {
  RowGroups groups;
  int64_t max_splits, state_floats, scratch_floats;

  DecodeShape(const AttentionArgs& a, const AttentionKernel& kernel, int threads)
      : groups(a, kernel.max_rows),
        max_splits(groups.count >= 2 * threads ? 1
                                               : (4 * threads + groups.count - 1) / std::max<int64_t>(groups.count, 1)),
        state_floats(round_up(groups.rows * (a.v_dim + 2), 16)),
        scratch_floats(round_up(kernel.decode_scratch_floats(a.head_dim, a.v_dim), 16)) {}

  int64_t total_floats(int threads) const {
    return threads * scratch_floats + (max_splits > 1 ? groups.count * max_splits * state_floats : 0);
  }
};

// A row may only look outside of its band after all of the band was seen, which a part of the cache cannot know.
bool can_split(const AttentionArgs& a) {
  return a.frontier_fill == -std::numeric_limits<float>::infinity() ||
         (!a.causal && a.left_window < 0 && a.right_window < 0);
}

// Combines the states of `splits` parts into the output rows.
void merge_states(const AttentionBlock& block, const float* states, int64_t splits, int64_t state_floats) {
  const int64_t pitch = block.v_dim + 2;
  for (int64_t r = 0; r < block.rows; ++r) {
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t s = 0; s < splits; ++s) top = std::max(top, states[s * state_floats + r * pitch + block.v_dim]);
    float* out = block.out[r];
    std::fill(out, out + block.v_dim, 0.0F);
    float sum = 0.0F;
    for (int64_t s = 0; s < splits; ++s) {
      const float* state = states + s * state_floats + r * pitch;
      const float factor = state[block.v_dim + 1] == 0.0F ? 0.0F : std::exp(state[block.v_dim] - top);
      sum += factor * state[block.v_dim + 1];
      for (int64_t d = 0; d < block.v_dim; ++d) out[d] += factor * state[d];
    }
    const float inverse = sum == 0.0F ? 0.0F : 1.0F / sum;
    for (int64_t d = 0; d < block.v_dim; ++d) out[d] *= inverse;
  }
}

void run_decode(const AttentionArgs& a, const AttentionKernel& kernel, ThreadPool& pool, float* scratch) {
  const int threads = pool.num_threads();
  const DecodeShape shape(a, kernel, threads);
  const RowGroups& groups = shape.groups;
  float* states = scratch + threads * shape.scratch_floats;
  int64_t splits = std::min(shape.max_splits, (a.kv_len + kSplitKeys - 1) / kSplitKeys);
  if (splits < 1 || !can_split(a)) splits = 1;
  const double flops = attention_flops(a) / static_cast<double>(groups.count * splits);
  const auto grain = static_cast<int64_t>(std::max(1.0, kTaskFlops / 4 / std::max(flops, 1.0)));
  pool.parallel_for(groups.count * splits, grain, [&](int64_t begin, int64_t end, int worker) {
    BlockBuilder builder(a, groups);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t part = t % splits;
      AttentionBlock& block = builder.build(t / splits, 0, groups.rows);
      float* own = scratch + worker * shape.scratch_floats;
      if (splits == 1) {
        kernel.decode(block, nullptr, own);
        continue;
      }
      const int64_t from = block.band_begin, width = block.band_end - from;
      block.band_begin = from + width * part / splits;
      block.band_end = from + width * (part + 1) / splits;
      if (part > 0) block.sink = nullptr;
      kernel.decode(block, states + t * shape.state_floats, own);
    }
  });
  if (splits == 1) return;
  BlockBuilder builder(a, groups);
  for (int64_t g = 0; g < groups.count; ++g) {
    merge_states(builder.build(g, 0, groups.rows), states + g * splits * shape.state_floats, splits,
                 shape.state_floats);
  }
}

}  // namespace

std::span<const KernelInfo<AttentionKernel>> attention_kernels() { return kKernels; }

std::span<const KernelInfo<AttentionKernel>> attention_bf16_kernels() {
  return std::span(kBf16Kernels).first(std::size(kBf16Kernels) - 1);
}

bool attention_is_fast(const AttentionArgs& a) {
  return a.dtype == DType::kF32 && a.v_dtype == DType::kF32 && a.score_output == ScoreOutput::kNone &&
         (a.softmax_dtype == DType::kUndefined || a.softmax_dtype == DType::kF32) &&
         (a.mask_kind != MaskKind::kAdd || a.mask_dtype == DType::kF32) && a.q_strides.dim == 1 &&
         a.v_strides.dim == 1 && a.out_strides.dim == 1;
}

int64_t attention_scratch_bytes(const AttentionArgs& a, int max_threads) {
  if (!attention_is_fast(a)) return 0;
  const AttentionKernel& kernel = kernel_of(a);
  const int64_t floats = takes_decode(a, kernel)
                             ? DecodeShape(a, kernel, max_threads).total_floats(max_threads)
                             : max_threads * block_scratch_floats(a, kernel);
  return floats * static_cast<int64_t>(sizeof(float));
}

AttentionArgs with_bounded_positions(AttentionArgs a) {
  a.offset = std::clamp(a.offset, -kFarAway, kFarAway);
  a.left_window = std::min(a.left_window, 4 * kFarAway);
  a.right_window = std::min(a.right_window, 4 * kFarAway);
  return a;
}

double attention_flops(const AttentionArgs& a) {
  return 2.0 * static_cast<double>(a.batch * a.heads) * static_cast<double>(a.q_len) * static_cast<double>(a.kv_len) *
         static_cast<double>(a.head_dim + a.v_dim);
}

std::string_view attention_kernel_name(const AttentionArgs& a, std::vector<Rejection>* why_not) {
  return attention_is_fast(a) ? choose(a, why_not).name : "attention_ref";
}

bool attention_is_decode(const AttentionArgs& a) { return takes_decode(a, kernel_of(a)); }

void attention(const AttentionArgs& args, ThreadPool& pool, void* scratch) {
  if (args.batch == 0 || args.heads == 0 || args.q_len == 0 || args.v_dim == 0) {
    if (args.score_output == ScoreOutput::kNone) return;
  }
  const AttentionArgs a = with_bounded_positions(args);
  if (!attention_is_fast(a)) return attention_reference(a, pool);
  const AttentionKernel& kernel = kernel_of(a);
  if (takes_decode(a, kernel)) run_decode(a, kernel, pool, static_cast<float*>(scratch));
  else run_blocks(a, kernel, pool, static_cast<float*>(scratch));
}

}  // namespace sprun::kernels
