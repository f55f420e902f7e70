#include "kernels/move/strided_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

// The definition, one element at a time.
void reference_copy(const StridedCopy& copy, int64_t bytes, const char* src, char* dst) {
  int64_t count = 1;
  for (int i = 0; i < copy.rank; ++i) count *= copy.dims[static_cast<size_t>(i)];
  for (int64_t k = 0; k < count; ++k) {
    int64_t rest = k, from = 0, to = 0;
    for (size_t i = static_cast<size_t>(copy.rank); i-- > 0;) {
      from += rest % copy.dims[i] * copy.src_strides[i];
      to += rest % copy.dims[i] * copy.dst_strides[i];
      rest /= copy.dims[i];
    }
    std::memcpy(dst + to * bytes, src + from * bytes, static_cast<size_t>(bytes));
  }
}

class StridedCopyTest : public testing::TestWithParam<int64_t> {
 protected:
  // Compares with the definition; `elements` bounds both sides, `offset` is where the source starts.
  void check(const StridedCopy& copy, int64_t elements, int64_t offset = 0) {
    const auto bytes = static_cast<size_t>(elements * GetParam());
    std::vector<char> src(bytes);
    for (char& c : src) c = static_cast<char>(random_());
    std::vector<char> expected(bytes, 7), got(bytes, 7);
    const char* from = src.data() + offset * GetParam();
    reference_copy(copy, GetParam(), from, expected.data());
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      std::fill(got.begin(), got.end(), static_cast<char>(7));
      strided_copy(copy, GetParam(), from, got.data(), pool);
      ASSERT_EQ(got, expected) << "element bytes " << GetParam() << ", threads " << threads;
    }
  }

  // A permutation of the axes of a row-major tensor.
  void check_permutation(std::vector<int64_t> dims, const std::vector<size_t>& perm) {
    std::vector<int64_t> strides(dims.size(), 1);
    for (size_t i = dims.size(); i-- > 1;) strides[i - 1] = strides[i] * dims[i];
    const int64_t elements = strides[0] * dims[0];
    StridedCopy copy;
    int64_t left = elements;
    for (const size_t axis : perm) {
      left /= dims[axis];
      copy.add_axis(dims[axis], strides[axis], left);
    }
    check(copy, elements);
  }

  std::minstd_rand random_{42};
};

TEST_P(StridedCopyTest, PermutesAxesOfEverySize) {
  check_permutation({5}, {0});
  check_permutation({1, 1, 1}, {2, 0, 1});
  for (const int64_t n : {1, 3, 4, 7, 8, 9, 63, 64, 65, 131}) {
    check_permutation({n, 17}, {1, 0});
    check_permutation({33, n}, {1, 0});
    check_permutation({2, n, 5, 8}, {0, 2, 1, 3});
    check_permutation({2, 3, n, 9}, {0, 1, 3, 2});
  }
  std::vector<size_t> perm = {0, 1, 2, 3, 4};
  do {
    check_permutation({3, 2, 5, 4, 2}, perm);
  } while (std::next_permutation(perm.begin(), perm.end()));
}

TEST_P(StridedCopyTest, BroadcastsReversesAndSkips) {
  StridedCopy broadcast;
  broadcast.add_axis(7, 0, 60);
  broadcast.add_axis(4, 15, 15);
  broadcast.add_axis(15, 0, 1);
  check(broadcast, 7 * 60);
  StridedCopy reversed;
  reversed.add_axis(6, -20, 20);
  reversed.add_axis(20, -1, 1);
  check(reversed, 120, 119);
  StridedCopy every_third;
  every_third.add_axis(5, 30, 10);
  every_third.add_axis(10, 3, 1);
  check(every_third, 150);
}

TEST_P(StridedCopyTest, WritesOnlyItsPartOfALargerTensor) {
  StridedCopy copy;
  copy.add_axis(9, 8, 24);
  copy.add_axis(8, 1, 1);
  check(copy, 9 * 24);
}

TEST_P(StridedCopyTest, IgnoresCopiesWithoutElements) {
  ThreadPool pool(1);
  StridedCopy copy;
  copy.add_axis(3, 0, 0);
  copy.add_axis(0, 1, 1);
  strided_copy(copy, GetParam(), nullptr, nullptr, pool);
}

TEST_P(StridedCopyTest, SplitsLargeCopiesOverThreads) {
  StridedCopy copy;
  copy.add_axis(2, int64_t{1} << 18, int64_t{1} << 18);
  copy.add_axis((int64_t{1} << 18) - 1, 1, 1);
  check(copy, int64_t{1} << 19);
  check_permutation({300, 700}, {1, 0});
}

INSTANTIATE_TEST_SUITE_P(ElementBytes, StridedCopyTest, testing::Values(1, 2, 4, 8, 16));

TEST(ParallelCopy, CopiesAndFillsEverySize) {
  ThreadPool pool(3);
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{4097}, (int64_t{1} << 20) + 3}) {
    std::vector<char> src(static_cast<size_t>(bytes)), dst(static_cast<size_t>(bytes));
    std::iota(src.begin(), src.end(), 0);
    parallel_copy(src.data(), dst.data(), bytes, pool);
    EXPECT_EQ(dst, src);
  }
  std::vector<uint16_t> filled(100'003);
  const uint16_t value = 0xabcd;
  parallel_fill(&value, 2, filled.data(), static_cast<int64_t>(filled.size()), pool);
  EXPECT_EQ(std::count(filled.begin(), filled.end(), value), 100'003);
}

}  // namespace
}  // namespace sprun::kernels
