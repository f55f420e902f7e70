#include "runtime/base/atomic_file.h"
#include "tests/support/own_path.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace sprun {
namespace {

class AtomicFileTest : public testing::Test {
 protected:
  AtomicFileTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~AtomicFileTest() override { std::filesystem::remove_all(folder_); }

  std::string contents() const {
    std::ifstream in(path_);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  auto num_files() const {
    return std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator());
  }

  std::string folder_ = testing_support::own_path("atomic_file");
  std::string path_ = folder_ + "/out";
};

TEST_F(AtomicFileTest, ReplacesTheFileOnCommit) {
  std::ofstream(path_) << "old";
  auto file = AtomicFile::create(path_);
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_TRUE(file->write("new").ok());
  ASSERT_TRUE(file->pad_to(4).ok());
  EXPECT_EQ(file->size(), 4);
  EXPECT_EQ(contents(), "old");
  ASSERT_TRUE(file->commit().ok());
  EXPECT_EQ(contents(), std::string("new\0", 4));
  EXPECT_EQ(num_files(), 1);
}

TEST_F(AtomicFileTest, LeavesNothingWithoutCommit) {
  {
    auto file = AtomicFile::create(path_);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->write("new").ok());
  }
  EXPECT_EQ(num_files(), 0);
}

TEST_F(AtomicFileTest, ReportsFoldersThatDoNotExist) {
  EXPECT_EQ(AtomicFile::create(folder_ + "/absent/out").status().code(), Code::kUsage);
}

}  // namespace
}  // namespace sprun
