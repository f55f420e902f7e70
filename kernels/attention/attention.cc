// Cuts attention into blocks of query rows, hands them to the pool and picks the kernel.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "kernels/attention/attention_rows.h"
#include "kernels/isa.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {

#define SPRUN_ATTENTION_F32(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const AttentionKernel symbol;)
#define SPRUN_ATTENTION_BF16 SPRUN_ATTENTION_F32
#define SPRUN_ATTENTION_KV_BF16 SPRUN_ATTENTION_F32
#define SPRUN_ATTENTION_KV_S8 SPRUN_ATTENTION_F32
#include "kernels/attention/attention.def"

namespace {

constexpr KernelInfo<AttentionKernel> kKernels[] = {
#define SPRUN_ATTENTION_F32 SPRUN_KERNEL_ENTRY
#include "kernels/attention/attention.def"
};

constexpr KernelInfo<AttentionKernel> kKvBf16Kernels[] = {
#define SPRUN_ATTENTION_KV_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/attention/attention.def"
};

constexpr KernelInfo<AttentionKernel> kKvS8Kernels[] = {
#define SPRUN_ATTENTION_KV_S8 SPRUN_KERNEL_ENTRY
#include "kernels/attention/attention.def"
};

// With an entry for "none", so that the list is never empty.
constexpr KernelInfo<AttentionKernel> kBf16Kernels[] = {
#define SPRUN_ATTENTION_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/attention/attention.def"
    {"", Isa::kScalar, NumericClass::kReassociated, nullptr},
};

constexpr double kTaskFlops = 1e6;    // about 10 us: less is not worth a task of its own
constexpr int64_t kFewRows = 8;       // decode() is the better way for up to so many query rows,
constexpr int64_t kLongCache = 512;   // from so many keys on for all that it takes (1.3x to 2.1x at 12 to 24 rows)
constexpr int64_t kSplitKeys = 256;   // fewest keys of a part
constexpr int64_t kSplitUnit = 64;    // parts are multiples of a tile of keys
constexpr int64_t kSplitTasks = 256;  // tasks that are enough for any number of threads

bool takes_decode(const AttentionArgs& a, const AttentionKernel& kernel) {
  const int64_t most = a.kv_len < kLongCache ? std::min(kFewRows, kernel.decode_rows) : kernel.decode_rows;
  return a.heads / a.kv_heads * a.q_len <= most && a.k_strides.dim == 1;
}

// The kernel for a problem of the fast path. Products in bf16 give way where no kernel does them, and for few query
// rows, which read keys and values once.
const KernelInfo<AttentionKernel>& choose(const AttentionArgs& a, std::vector<Rejection>* why_not = nullptr) {
  const IsaSet isas = available_isas();
  const KernelInfo<AttentionKernel>& exact = select(attention_kernels(a.v_dtype), isas);
  if (!a.bf16_products) return exact;
  const bool decode = takes_decode(a, *exact.kernel);
  if (decode || a.v_dtype != DType::kF32) {
    const char* reason = decode ? "few query rows read K and V once" : "K and V are not stored as float32";
    if (why_not) why_not->push_back({"attention_bf16", reason});
    return exact;
  }
  const std::span<const KernelInfo<AttentionKernel>> list(kBf16Kernels);
  const KernelInfo<AttentionKernel>& bf16 = select(list, isas, why_not);
  return bf16.kernel ? bf16 : exact;
}

const AttentionKernel& kernel_of(const AttentionArgs& a) { return a.kernel ? *a.kernel : *choose(a).kernel; }

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// How a problem is cut into tasks: blocks of query rows, and parts of the keys where there are few blocks. Follows from
// sizes alone, so that results do not depend on the number of threads.
struct Cut {
  RowGroups groups;
  bool decode;
  int64_t height, blocks;  // rows of a block, blocks of a group
  int64_t max_parts;       // of the keys
  int64_t state_floats, worker_floats;

  Cut(const AttentionArgs& a, const AttentionKernel& kernel)
      : groups(a, kernel.max_rows), decode(takes_decode(a, kernel)), height(groups.rows), blocks(1), max_parts(1) {
    if (!decode) {
      const int64_t cuts = std::max<int64_t>((groups.rows + kernel.max_rows - 1) / kernel.max_rows, 1);
      height = round_up(std::max<int64_t>((groups.rows + cuts - 1) / cuts, 1), kernel.lanes);
      blocks = (groups.rows + height - 1) / height;
    }
    if (blocks == 1 && kernel.merge) {
      const int64_t wanted = (kSplitTasks + groups.count - 1) / std::max<int64_t>(groups.count, 1);
      max_parts = std::clamp<int64_t>(std::min(wanted, a.kv_len / kSplitKeys), 1, kAttentionMaxParts);
    }
    state_floats = round_up(groups.rows * (a.v_dim + 2), 16);
    worker_floats = round_up(decode ? kernel.decode_scratch_floats(a.head_dim, a.v_dim)
                                    : kernel.scratch_floats(a.head_dim, a.v_dim, a.kv_len), 16);
  }

  // States of all parts and, of every group, how many of its parts are done.
  int64_t state_bytes() const {
    if (max_parts == 1) return 0;
    return groups.count * max_parts * state_floats * int64_t{sizeof(float)} +
           round_up(groups.count * int64_t{sizeof(int32_t)}, 64);
  }
  int64_t bytes(int threads) const { return state_bytes() + threads * worker_floats * int64_t{sizeof(float)}; }
};

// A row may only look outside of its band after all of the band was seen, which a part of the keys cannot know.
bool can_split(const AttentionArgs& a) {
  return a.frontier_fill == -std::numeric_limits<float>::infinity() ||
         (!a.causal && a.left_window < 0 && a.right_window < 0);
}

void take_part(AttentionBlock& block, int64_t part, int64_t parts) {
  const int64_t end = block.band_end;
  const int64_t keys = round_up((end - block.band_begin + parts - 1) / parts, kSplitUnit);
  block.band_begin = std::min(block.band_begin + part * keys, end);
  block.band_end = std::min(block.band_begin + keys, end);
  block.fill = -std::numeric_limits<float>::infinity();  // can_split: no score is filled in
  if (part > 0) block.sink = nullptr;
}

// Runs the tasks. The one that completes a group's parts merges them.
class Driver {
 public:
  Driver(const AttentionArgs& a, const AttentionKernel& kernel, const Cut& cut, char* scratch)
      : a_(a), kernel_(kernel), cut_(cut), parts_(can_split(a) ? cut.max_parts : 1) {
    states_ = reinterpret_cast<float*>(scratch);
    workers_ = reinterpret_cast<float*>(scratch + cut.state_bytes());
    done_ = reinterpret_cast<int32_t*>(states_ + cut.groups.count * cut.max_parts * cut.state_floats);
    if (parts_ > 1) std::fill(done_, done_ + cut.groups.count, 0);
  }

  void run(ThreadPool& pool) const {
    const int64_t tasks = cut_.groups.count * cut_.blocks * parts_;
    const double flops = attention_flops(a_) / static_cast<double>(std::max<int64_t>(tasks, 1));
    const double least = cut_.decode ? kTaskFlops / 4 : kTaskFlops;
    const auto grain = static_cast<int64_t>(std::max(1.0, least / std::max(flops, 1.0)));
    pool.parallel_for(tasks, grain, [&](int64_t begin, int64_t end, int worker) { run_tasks(begin, end, worker); });
  }

 private:
  void run_tasks(int64_t begin, int64_t end, int worker) const {
    BlockBuilder builder(a_, cut_.groups);
    float* own = workers_ + worker * cut_.worker_floats;
    const auto run = cut_.decode ? kernel_.decode : kernel_.run;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t part = t % parts_, block_index = t / parts_;
      const int64_t group = block_index / cut_.blocks, first = block_index % cut_.blocks * cut_.height;
      AttentionBlock& block = builder.build(group, first, std::min(cut_.height, cut_.groups.rows - first));
      if (kernel_.load && (t == begin || first == 0)) kernel_.load(block, own);
      if (parts_ == 1) {
        run(block, nullptr, own);
        continue;
      }
      take_part(block, part, parts_);
      run(block, states_ + t * cut_.state_floats, own);
      if (std::atomic_ref(done_[group]).fetch_add(1, std::memory_order_acq_rel) + 1 < parts_) continue;
      kernel_.merge(block, states_ + group * parts_ * cut_.state_floats, parts_, cut_.state_floats);
    }
  }

  const AttentionArgs& a_;
  const AttentionKernel& kernel_;
  const Cut& cut_;
  int64_t parts_;
  float *states_, *workers_;
  int32_t* done_;
};

}  // namespace

std::span<const KernelInfo<AttentionKernel>> attention_kernels(DType kv) {
  if (kv == DType::kBf16) return kKvBf16Kernels;
  if (kv == DType::kS8) return kKvS8Kernels;
  return kKernels;
}

std::span<const KernelInfo<AttentionKernel>> attention_bf16_kernels() {
  return std::span(kBf16Kernels).first(std::size(kBf16Kernels) - 1);
}

bool attention_is_fast(const AttentionArgs& a) {
  const bool narrow = (a.v_dtype == DType::kBf16 || a.v_dtype == DType::kS8) && a.k_strides.dim == 1;
  return a.dtype == DType::kF32 && key_dtype(a) == a.v_dtype && (a.v_dtype == DType::kF32 || narrow) &&
         a.score_output == ScoreOutput::kNone &&
         (a.softmax_dtype == DType::kUndefined || a.softmax_dtype == DType::kF32) &&
         (a.mask_kind != MaskKind::kAdd || a.mask_dtype == DType::kF32) && a.q_strides.dim == 1 &&
         a.v_strides.dim == 1 && a.out_strides.dim == 1;
}

int64_t attention_scratch_bytes(const AttentionArgs& a, int max_threads) {
  if (!attention_is_fast(a)) return 0;
  AttentionArgs shorter = a;  // may be cut in another way
  shorter.kv_len = std::min(a.kv_len, kLongCache - 1);
  return std::max(Cut(a, kernel_of(a)).bytes(max_threads), Cut(shorter, kernel_of(shorter)).bytes(max_threads));
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
  const Cut cut(a, kernel);
  Driver(a, kernel, cut, static_cast<char*>(scratch)).run(pool);
}

}  // namespace sprun::kernels
