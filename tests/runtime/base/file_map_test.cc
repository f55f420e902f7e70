#include "runtime/base/file_map.h"
#include "tests/support/own_path.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace sprun {
namespace {

TEST(FileMap, MapsRegularFilesOnly) {
  const std::string path = testing_support::own_path("file_map");
  std::ofstream(path) << "hello";
  const auto map = FileMap::open(path);
  ASSERT_TRUE(map.ok()) << map.status().message();
  EXPECT_EQ((*map)->bytes(), "hello");
  EXPECT_EQ(FileMap::open(testing::TempDir()).status().code(), Code::kBadInput);
  EXPECT_EQ(FileMap::open(path + "_absent").status().code(), Code::kBadInput);
  const std::string pipe = path + "_pipe";
  ::unlink(pipe.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(FileMap::open(pipe).status().code(), Code::kBadInput);
  ::unlink(pipe.c_str());
  ::unlink(path.c_str());
}

TEST(FileMap, EmptyFilesHaveNoBytes) {
  const std::string path = testing_support::own_path("file_map_empty");
  std::ofstream(path) << "";
  const auto map = FileMap::open(path);
  ASSERT_TRUE(map.ok());
  EXPECT_EQ((*map)->size(), 0);
  ::unlink(path.c_str());
}

TEST(FileMap, PinsKeepTheMappingAndReleaseItsPages) {
  const std::string path = testing_support::own_path("file_map_pin");
  std::ofstream(path) << std::string(100'000, 'x');
  auto map = FileMap::open(path);
  ASSERT_TRUE(map.ok());
  const char* data = (*map)->data();
  auto first = pin_range(*map, 1, 50'000);
  auto second = pin_range(*map, 10'000, 90'000);
  *map = nullptr;
  first.reset();
  EXPECT_EQ(data[20'000], 'x');  // given back, and read again
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace sprun
