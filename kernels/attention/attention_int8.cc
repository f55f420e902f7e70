// Cuts integer attention into blocks of query rows, hands them to the pool and picks the kernel.
#include "kernels/attention/attention_int8.h"

#include <algorithm>
#include <array>

#include "kernels/isa.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {

#define SPRUN_ATTENTION_INT8(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const AttentionInt8Kernel symbol;)
#include "kernels/attention/attention.def"

namespace {

constexpr KernelInfo<AttentionInt8Kernel> kKernels[] = {
#define SPRUN_ATTENTION_INT8 SPRUN_KERNEL_ENTRY
#include "kernels/attention/attention.def"
};

constexpr double kTaskFlops = 4e6;  // about 10 us: less is not worth a task of its own

const AttentionInt8Kernel& kernel_of(const AttentionInt8Args& a) {
  return a.kernel ? *a.kernel : *select(attention_int8_kernels(), available_isas()).kernel;
}

// Zero point and flip of codes that are worked on as `wanted`.
int32_t zero_as(const CodeParams& p, DType wanted, uint8_t* flip) {
  *flip = p.dtype == wanted ? 0 : 0x80;
  if (p.dtype == wanted) return p.zero;
  return p.zero + (wanted == DType::kU8 ? 128 : -128);
}

// Row pointers of a block, and the block itself.
class BlockBuilder {
 public:
  explicit BlockBuilder(const AttentionInt8Args& args) : args_(args), a_(args.shape) {
    uint8_t p_flip = 0;
    block_.q_zero = zero_as(args.q, DType::kU8, &block_.q_flip);
    block_.k_zero = zero_as(args.k, DType::kS8, &block_.k_flip);
    block_.v_zero = zero_as(args.v, DType::kS8, &block_.v_flip);
    block_.p_zero = zero_as(args.p, DType::kU8, &p_flip);
    block_.y_zero = zero_as(args.y, DType::kU8, &block_.y_flip);
    block_.score_scale = a_.scale * (args.q.scale * args.k.scale);
    block_.p_inverse = 1.0F / args.p.scale;
    block_.out_scale = args.p.scale * args.v.scale;
    block_.y_inverse = 1.0F / args.y.scale;
    block_.requantise = args.requantise;
    block_.q = q_.data(), block_.out = out_.data();
    block_.k_row = a_.k_strides.row, block_.k_dim = a_.k_strides.dim, block_.v_row = a_.v_strides.row;
    block_.head_dim = a_.head_dim, block_.v_dim = a_.v_dim, block_.keys = a_.kv_len;
    block_.mask_key = a_.mask_key, block_.mask_is_bytes = a_.mask_kind == MaskKind::kAllow;
  }

  // Rows [begin, begin + n) of a head.
  const AttentionInt8Block& build(int64_t b, int64_t head, int64_t begin, int64_t n) {
    const int64_t kv_head = head / (a_.heads / a_.kv_heads);
    block_.rows = n;
    block_.k = static_cast<const uint8_t*>(a_.k) + b * a_.k_strides.batch + kv_head * a_.k_strides.head;
    block_.v = static_cast<const uint8_t*>(a_.v) + b * a_.v_strides.batch + kv_head * a_.v_strides.head;
    const int64_t mask = b * a_.mask_batch + head * a_.mask_head;
    const bool per_key = a_.mask_kind == MaskKind::kAdd && a_.mask_row == 0 && a_.mask_key == 1;
    block_.key_bias = per_key ? static_cast<const float*>(a_.mask) + mask : nullptr;
    block_.mask = per_key || a_.mask_kind == MaskKind::kNone ? nullptr : mask_.data();
    const int64_t out_size = args_.requantise ? 1 : int64_t{sizeof(float)};
    const int64_t mask_size = block_.mask_is_bytes ? 1 : int64_t{sizeof(float)};
    for (int64_t r = 0; r < n; ++r) {
      const auto at = static_cast<size_t>(r);
      const int64_t i = begin + r;
      q_[at] = static_cast<const uint8_t*>(a_.q) + b * a_.q_strides.batch + head * a_.q_strides.head +
               i * a_.q_strides.row;
      const int64_t to = b * a_.out_strides.batch + head * a_.out_strides.head + i * a_.out_strides.row;
      out_[at] = static_cast<char*>(a_.out) + to * out_size;
      if (block_.mask) mask_[at] = static_cast<const char*>(a_.mask) + (mask + i * a_.mask_row) * mask_size;
    }
    return block_;
  }

 private:
  const AttentionInt8Args& args_;
  const AttentionArgs& a_;
  AttentionInt8Block block_{};
  std::array<const uint8_t*, kAttentionInt8MaxRows> q_;
  std::array<void*, kAttentionInt8MaxRows> out_;
  std::array<const void*, kAttentionInt8MaxRows> mask_;
};

int64_t worker_bytes(const AttentionInt8Args& args, const AttentionInt8Kernel& kernel) {
  return (kernel.scratch_bytes(args.shape.head_dim, args.shape.v_dim, args.shape.kv_len) + 63) / 64 * 64;
}

}  // namespace

std::span<const KernelInfo<AttentionInt8Kernel>> attention_int8_kernels() { return kKernels; }

int64_t attention_int8_scratch_bytes(const AttentionInt8Args& args, int max_threads) {
  return max_threads * worker_bytes(args, kernel_of(args));
}

std::string_view attention_int8_kernel_name(const AttentionInt8Args&, std::vector<Rejection>* why_not) {
  return select(attention_int8_kernels(), available_isas(), why_not).name;
}

void attention_int8(const AttentionInt8Args& args, ThreadPool& pool, void* scratch) {
  const AttentionArgs& a = args.shape;
  if (a.batch == 0 || a.heads == 0 || a.q_len == 0 || a.v_dim == 0) return;
  const AttentionInt8Kernel& kernel = kernel_of(args);
  const int64_t blocks = (a.q_len + kernel.max_rows - 1) / kernel.max_rows, tasks = a.batch * a.heads * blocks;
  const double flops = attention_flops(a) / static_cast<double>(tasks);
  const auto grain = static_cast<int64_t>(std::max(1.0, kTaskFlops / std::max(flops, 1.0)));
  const int64_t bytes = worker_bytes(args, kernel);
  pool.parallel_for(tasks, grain, [&](int64_t begin, int64_t end, int worker) {
    BlockBuilder builder(args);
    char* own = static_cast<char*>(scratch) + worker * bytes;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t head = t / blocks, first = t % blocks * kernel.max_rows;
      const int64_t rows = std::min(kernel.max_rows, a.q_len - first);
      const AttentionInt8Block& block = builder.build(head / a.heads, head % a.heads, first, rows);
      if (t == begin || first == 0) kernel.load(block, own);
      kernel.run(block, own);
    }
  });
}

}  // namespace sprun::kernels
