#include "tools/sprun/dims.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sprun::tools {
namespace {

TensorSpec spec(std::string name, std::vector<DimSpec> dims, DType dtype = DType::kS64) {
  return {.name = std::move(name), .dtype = dtype, .has_shape = true, .dims = std::move(dims)};
}
DimSpec symbol(std::string name) { return {-1, std::move(name)}; }

Result<Shape> shape_with(const TensorSpec& input, const std::vector<std::string>& arguments) {
  const std::vector<TensorSpec> inputs = {input};
  SPRUN_ASSIGN(const DimMap given, parse_dims(arguments));
  SPRUN_ASSIGN(DimResolver resolver, DimResolver::create(inputs, given));
  SPRUN_TRY(resolver.complete(inputs));
  return resolver.shape_of(input);
}

TEST(Dims, ListsAndRanges) {
  EXPECT_EQ(parse_int_list("1,2,4").value(), (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(parse_int_list("1..3").value(), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(parse_int_list("32..128+32").value(), (std::vector<int64_t>{32, 64, 96, 128}));
  EXPECT_EQ(parse_int_list("128..1024*2,7").value(), (std::vector<int64_t>{128, 256, 512, 1024, 7}));
  for (const char* bad : {"", "a", "1..", "0..8*2", "1..9*1", "1..9+0", "-1", "1,,2", "1..1000000000"}) {
    EXPECT_EQ(parse_int_list(bad).status().code(), Code::kUsage) << bad;
  }
}

TEST(Dims, CommasSeparateSymbolsAndSizes) {
  const DimLists lists = parse_dim_lists({"batch=1,seq=32,128", "heads=4"}).value();
  ASSERT_EQ(lists.size(), 3U);
  EXPECT_EQ(lists[1].first, "seq");
  EXPECT_EQ(lists[1].second, (std::vector<int64_t>{32, 128}));
  EXPECT_EQ(parse_dims({"seq=1,2"}).status().code(), Code::kUsage);
  EXPECT_EQ(parse_dims({"seq=1", "seq=2"}).status().code(), Code::kUsage);
  EXPECT_EQ(parse_dims({"32"}).status().code(), Code::kUsage);
}

TEST(Dims, DefaultsByName) {
  EXPECT_EQ(shape_with(spec("ids", {symbol("batch_size"), symbol("sequence_length")}), {}).value(), (Shape{1, 128}));
  EXPECT_EQ(shape_with(spec("ids", {symbol("batch_size"), symbol("sequence_length")}), {"sequence_length=7"}).value(),
            (Shape{1, 7}));
  EXPECT_EQ(shape_with(spec("past", {{2, ""}, symbol("past_sequence_length")}), {}).value(), (Shape{2, 0}));
}

TEST(Dims, UnnamedDimensions) {
  EXPECT_EQ(shape_with(spec("ids", {{-1, ""}, {-1, ""}}), {}).value(), (Shape{1, 128}));
  EXPECT_EQ(shape_with(spec("ids", {{-1, ""}, {-1, ""}}), {"ids[1]=9"}).value(), (Shape{1, 9}));
  EXPECT_EQ(shape_with(spec("x", {{-1, ""}, {-1, ""}}, DType::kF32), {}).status().code(), Code::kUsage);
}

TEST(Dims, NumberedNamesSayNoMoreThanNone) {
  EXPECT_EQ(shape_with(spec("ids", {symbol("s10"), symbol("s86")}), {}).value(), (Shape{1, 128}));
  EXPECT_EQ(shape_with(spec("ids", {symbol("unk__3"), symbol("s86")}), {"s86=9"}).value(), (Shape{1, 9}));
  EXPECT_EQ(shape_with(spec("x", {symbol("s10"), symbol("s21")}, DType::kF32), {}).status().code(), Code::kUsage);
  EXPECT_EQ(shape_with(spec("ids", {symbol("crops10"), {4, ""}}), {}).status().code(), Code::kUsage);
}

TEST(Dims, SumsOfSymbols) {
  const auto mask = spec("mask", {symbol("batch"), symbol("past_length + seq")});
  EXPECT_EQ(shape_with(mask, {"past_length=3", "seq=2"}).value(), (Shape{1, 5}));
  EXPECT_EQ(shape_with(mask, {"past_length + seq=9"}).value(), (Shape{1, 9}));
}

TEST(Dims, TotalIsPastPlusSequence) {
  const std::vector<TensorSpec> inputs = {spec("ids", {symbol("seq")}), spec("past", {symbol("past")}),
                                          spec("mask", {symbol("total_seq")})};
  DimResolver resolver = DimResolver::create(inputs, {{"seq", 4}, {"past", 10}}).value();
  ASSERT_TRUE(resolver.complete(inputs).ok());
  EXPECT_EQ(resolver.shape_of(inputs[2]).value(), (Shape{14}));
}

TEST(Dims, GivenInputsTeachTheirSizes) {
  const std::vector<TensorSpec> inputs = {spec("ids", {symbol("b"), symbol("foo")}), spec("mask", {symbol("foo")})};
  DimResolver resolver = DimResolver::create(inputs, {}).value();
  resolver.learn(inputs[0], Shape{2, 33});
  ASSERT_TRUE(resolver.complete(std::span(inputs).subspan(1)).ok());
  EXPECT_EQ(resolver.shape_of(inputs[1]).value(), (Shape{33}));
}

TEST(Dims, ErrorsNameWhatIsUnknown) {
  const Status unset = shape_with(spec("x", {symbol("foo"), symbol("bar")}), {}).status();
  EXPECT_EQ(unset.code(), Code::kUsage);
  EXPECT_NE(unset.message().find("foo"), std::string::npos);
  EXPECT_NE(unset.message().find("bar"), std::string::npos);
  const Status wrong = shape_with(spec("x", {symbol("foo")}), {"baz=1"}).status();
  EXPECT_EQ(wrong.code(), Code::kUsage);
  EXPECT_NE(wrong.message().find("foo"), std::string::npos);
}

TEST(Dims, TheStartOfANameIsEnough) {
  const auto ids = spec("ids", {symbol("batch_size"), symbol("sequence_length")});
  EXPECT_EQ(shape_with(ids, {"batch=2,seq=7"}).value(), (Shape{2, 7}));
  const auto exact = spec("ids", {symbol("seq"), symbol("seq_length")});
  EXPECT_EQ(shape_with(exact, {"seq=3", "seq_length=4"}).value(), (Shape{3, 4}));
  const auto sum = spec("mask", {symbol("past_length"), symbol("past_length + seq")});
  EXPECT_EQ(shape_with(sum, {"past=3,seq=2"}).value(), (Shape{3, 5}));
  const Status two = shape_with(spec("x", {symbol("seq_a"), symbol("seq_b")}), {"seq=1"}).status();
  EXPECT_EQ(two.code(), Code::kUsage);
  EXPECT_NE(two.message().find("more than one"), std::string::npos);
  EXPECT_EQ(shape_with(ids, {"seq=1", "sequence_length=2"}).status().code(), Code::kUsage);
}

TEST(Dims, HugeShapesAreALimitNotACrash) {
  const auto status = shape_with(spec("x", {symbol("batch"), symbol("seq")}),
                                 {"batch=4000000000000", "seq=4000000000000"}).status();
  EXPECT_EQ(status.code(), Code::kResourceLimit);
}

}  // namespace
}  // namespace sprun::tools
