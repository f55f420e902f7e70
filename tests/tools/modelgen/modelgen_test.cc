#include "tools/modelgen/modelgen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "graph/onnx/onnx_reader.h"
#include "graph/onnx/onnx_writer.h"
#include "tests/support/own_path.h"
#include "tools/modelgen/weights.h"

namespace sprun::modelgen {
namespace {

Config small(const std::string& name) {
  Config config = *preset(name);
  config.layers = 2;
  config.vocab = 100;
  config.max_seq = 32;
  config.image = 32;
  config.labels = config.family == Family::kVit ? 5 : 0;
  return config;
}

double zeros(const Tensor& tensor) {
  int64_t count = 0;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) count += tensor.as<float>()[i] == 0;
  return static_cast<double>(count) / static_cast<double>(tensor.num_elements());
}

TEST(Modelgen, EveryFamilyIsAValidModelOfSupportedOps) {
  const std::string path = testing_support::own_path("modelgen.onnx");
  for (const char* name : {"bert-mini", "gpt2-mini", "llama-mini", "vit-mini"}) {
    for (int opset : {11, 13, 17}) {
      for (Quantization type : {Quantization::kNone, Quantization::kU8, Quantization::kS8}) {
        Config config = small(name);
        config.opset = opset;
        config.quantization = type;
        config.per_channel = opset == 13;
        const auto graph = generate(config);
        ASSERT_TRUE(graph.ok()) << graph.status().message();
        ASSERT_TRUE(graph::write_onnx(*graph, path).ok());
        const auto model = graph::read_onnx(path);
        ASSERT_TRUE(model.ok()) << model.status().message();
        EXPECT_EQ(model->opsets.at(""), opset);
        EXPECT_EQ(model->graph->inputs().size(), graph->inputs().size());
        const Status supported = graph::unsupported_status(*model);
        EXPECT_TRUE(supported.ok()) << name << ": " << supported.message();
      }
    }
  }
  std::filesystem::remove(path);
}

TEST(Modelgen, EveryProductOfTheQdqFormReadsCodes) {
  const std::string path = testing_support::own_path("modelgen_qdq.onnx");
  for (const char* name : {"bert-mini", "vit-mini"}) {
    for (int opset : {11, 13, 17}) {
      Config config = small(name);
      config.opset = opset;
      config.quantization = opset == 17 ? Quantization::kU8 : Quantization::kS8;
      config.qdq = true;
      config.per_channel = opset == 13;
      const auto graph = generate(config);
      ASSERT_TRUE(graph.ok()) << graph.status().message();
      int products = 0;
      for (graph::NodeId n = 0; n < graph->num_nodes(); ++n) {
        const graph::Node& node = graph->node(n);
        if (!node.is("MatMul") && !node.is("Gemm")) continue;
        ++products;
        for (size_t i = 0; i < 2; ++i) {
          const graph::Node* codes = graph->producer(node.inputs[i]);
          ASSERT_TRUE(codes != nullptr && codes->is("DequantizeLinear")) << node.name;
          EXPECT_NE(graph->constant(codes->inputs[1]), nullptr);
        }
      }
      EXPECT_EQ(products, config.family == Family::kBert ? 2 * 8 + 1 : 2 * 6 + 1);
      ASSERT_TRUE(graph::write_onnx(*graph, path).ok());
      const auto model = graph::read_onnx(path);
      ASSERT_TRUE(model.ok()) << model.status().message();
      EXPECT_TRUE(graph::unsupported_status(*model).ok());
    }
  }
  std::filesystem::remove(path);
}

TEST(Modelgen, CacheHasTheNamesOfOptimum) {
  Config config = small("llama-mini");
  config.kv_heads = 2;
  const auto with = generate(config);
  ASSERT_TRUE(with.ok());
  EXPECT_EQ(with->inputs().size(), 3u + 2 * 2);
  const graph::Value& key = with->value(with->find_value("past_key_values.1.key"));
  ASSERT_TRUE(key.declared);
  EXPECT_EQ((*key.declared)[1].value, 2);
  EXPECT_EQ(with->value(with->outputs()[0]).name, "logits");
  EXPECT_EQ(with->value(with->outputs()[4]).name, "present.1.value");
  config.past = false;
  const auto without = generate(config);
  ASSERT_TRUE(without.ok());
  EXPECT_EQ(without->inputs().size(), 3u);
  EXPECT_EQ(without->outputs().size(), 1u);
}

TEST(Modelgen, EveryFeedForwardLayerIsAValidModelOfSupportedOps) {
  const std::string path = testing_support::own_path("modelgen_ffn.onnx");
  for (const char* kind : {"swiglu", "geglu", "reglu", "relu", "topk", "spark"}) {
    for (int opset : {13, 17, 18, 20}) {
      Config config = *preset("spark-mini");
      config.ffn_kind = *parse_ffn(kind);
      config.opset = opset;
      config.tied = opset != 20;
      config.nbits = opset == 18 ? 8 : opset == 17 ? 4 : 0;
      config.quantization = opset == 13 ? Quantization::kS8 : Quantization::kNone;
      const auto graph = generate(config);
      ASSERT_TRUE(graph.ok()) << graph.status().message();
      ASSERT_TRUE(graph::write_onnx(*graph, path).ok());
      const auto model = graph::read_onnx(path);
      ASSERT_TRUE(model.ok()) << model.status().message();
      EXPECT_EQ(model->opsets.contains("com.microsoft"), config.nbits != 0);
      const Status supported = graph::unsupported_status(*model);
      EXPECT_TRUE(supported.ok()) << kind << ": " << supported.message();
    }
  }
  std::filesystem::remove(path);
}

TEST(Modelgen, SizesOfDecoders) {
  const Config mini = *preset("spark-mini");
  const auto graph = generate(mini);
  ASSERT_TRUE(graph.ok()) << graph.status().message();
  const auto shape = [&](const char* name) { return graph->constant(graph->find_value(name))->shape(); };
  EXPECT_EQ(shape("layers.1.score_proj.weight"), (Shape{48, 384}));
  EXPECT_EQ(shape("layers.1.value_proj.weight"), (Shape{48, 384}));
  EXPECT_EQ(shape("layers.1.down_proj.weight"), (Shape{384, 96}));
  EXPECT_EQ(shape("layers.1.q_proj.weight"), (Shape{96, 64}));  // 4 heads of 16
  EXPECT_EQ(shape("layers.1.v_proj.weight"), (Shape{96, 32}));
  EXPECT_EQ(shape("lm_head.weight"), (Shape{96, 256}));
  const auto weights = [](const std::string& name) {
    const Config c = *preset(name);
    return c.hidden * c.ffn * (c.ffn_kind == Ffn::kSpark ? 2 : 3);
  };
  EXPECT_EQ(weights("spark-2b"), weights("spark-2b-dense"));
  EXPECT_EQ(weights("spark-mini"), weights("spark-mini-dense"));
}

TEST(Modelgen, BlockCodesApproximateTheWeight) {
  const Tensor weight = *random_tensor(1, "w", Shape{70, 5}, 0, 1);  // [inputs, outputs], the last block is short
  for (int bits : {4, 8}) {
    const auto q = quantize_blocks(weight, bits, 32);
    ASSERT_TRUE(q.ok());
    EXPECT_EQ(q->values.shape(), (Shape{5, 3, 32 * bits / 8}));
    for (int64_t n = 0; n < 5; ++n) {
      for (int64_t k = 0; k < 70; ++k) {
        const int64_t block = n * 3 + k / 32, at = k % 32;
        const int byte = q->values.as<uint8_t>()[(block * 32 + at) * bits / 8];
        const int code = bits == 8 ? byte : at % 2 == 0 ? byte & 15 : byte >> 4;
        const float scale = q->scale.as<float>()[block];
        EXPECT_NEAR(static_cast<float>(code - (1 << (bits - 1))) * scale, weight.as<float>()[k * 5 + n], scale * 0.51f);
      }
    }
  }
}

TEST(Modelgen, WeightsDependOnSeedAndNameOnly) {
  const auto weight = [](uint64_t seed, int64_t layers) {
    Config config = small("bert-mini");
    config.seed = seed;
    config.layers = layers;
    const auto graph = generate(config);
    return *graph->constant(graph->find_value("layers.0.att.q.weight"));
  };
  const Tensor a = weight(1, 1), b = weight(1, 2), c = weight(2, 1);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<size_t>(a.size_bytes())), 0);
  EXPECT_NE(std::memcmp(a.data(), c.data(), static_cast<size_t>(a.size_bytes())), 0);
}

TEST(Modelgen, RandomTensorsHaveTheWantedMoments) {
  const Tensor tensor = *random_tensor(3, "t", Shape{100'000}, 2.0f, 0.5f);
  double sum = 0, squares = 0;
  for (int i = 0; i < 100'000; ++i) {
    sum += static_cast<double>(tensor.as<float>()[i]);
    squares += std::pow(static_cast<double>(tensor.as<float>()[i]) - 2.0, 2);
  }
  EXPECT_NEAR(sum / 100'000, 2.0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / 100'000), 0.5, 0.005);
}

TEST(Modelgen, PrunesWholeBlocks) {
  for (const auto& [text, rows, cols] : {std::tuple("unstructured", 1, 1), {"4x1", 4, 1}, {"1x4", 1, 4},
                                         {"16x4", 16, 4}, {"32x32", 32, 32}}) {
    Tensor weight = *random_tensor(1, text, Shape{128, 64}, 0, 1);  // [inputs, outputs]
    prune(&weight, *parse_pattern(text), 0.75);
    EXPECT_EQ(zeros(weight), 0.75) << text;
    for (int64_t k = 0; k < 128; ++k) {
      for (int64_t n = 0; n < 64; ++n) {
        const float first = weight.as<float>()[k / cols * cols * 64 + n / rows * rows];
        EXPECT_EQ(weight.as<float>()[k * 64 + n] == 0, first == 0) << text;
      }
    }
  }
}

TEST(Modelgen, KeepsTheLargestOfEveryGroup) {
  Tensor weight = *random_tensor(1, "w", Shape{8, 3}, 0, 1);
  const Tensor before = *Tensor::copy_of(weight.view());
  prune(&weight, *parse_pattern("2:4"), 0.9);
  EXPECT_EQ(zeros(weight), 0.5);
  for (int64_t n = 0; n < 3; ++n) {
    for (int64_t group = 0; group < 8; group += 4) {
      float kept = 100, dropped = 0;
      for (int64_t k = group; k < group + 4; ++k) {
        const float size = std::abs(before.as<float>()[k * 3 + n]);
        if (weight.as<float>()[k * 3 + n] == 0) dropped = std::max(dropped, size);
        else kept = std::min(kept, size);
      }
      EXPECT_GE(kept, dropped);
    }
  }
}

TEST(Modelgen, BlocksMayBeLargerThanWhatIsLeft) {
  Tensor weight = *random_tensor(1, "w", Shape{5, 7}, 0, 1);
  prune(&weight, *parse_pattern("4x4"), 0.5);
  EXPECT_GT(zeros(weight), 0.0);
  EXPECT_LT(zeros(weight), 1.0);
}

template <class T>
void expect_close(const Tensor& weight, const QuantizedWeight& q, bool per_channel) {
  const int64_t columns = weight.shape()[1];
  for (int64_t i = 0; i < weight.num_elements(); ++i) {
    const int64_t c = per_channel ? i % columns : 0;
    const float scale = q.scale.as<float>()[c];
    const float value = (static_cast<float>(q.values.as<T>()[i]) - static_cast<float>(q.zero_point.as<T>()[c])) * scale;
    EXPECT_NEAR(value, weight.as<float>()[i], scale * 1.001f);
    EXPECT_TRUE(weight.as<float>()[i] != 0 || value == 0);
  }
}

TEST(Modelgen, QuantisesWithinOneStepAndKeepsZeros) {
  Tensor weight = *random_tensor(1, "w", Shape{64, 16}, 0.1f, 1);
  prune(&weight, {}, 0.5);
  for (bool per_channel : {false, true}) {
    const auto s8 = quantize_weight(weight, Quantization::kS8, per_channel);
    ASSERT_TRUE(s8.ok());
    EXPECT_EQ(s8->scale.num_elements(), per_channel ? 16 : 1);
    expect_close<int8_t>(weight, *s8, per_channel);
    const auto u8 = quantize_weight(weight, Quantization::kU8, per_channel);
    ASSERT_TRUE(u8.ok());
    expect_close<uint8_t>(weight, *u8, per_channel);
  }
}

TEST(Modelgen, RefusesWhatMakesNoModel) {
  EXPECT_EQ(preset("bert-huge").status().code(), Code::kUsage);
  for (const char* text : {"", "x", "4x", "0x4", "4:2", "-1x4", "4x4x4", "4.5x1"}) {
    EXPECT_EQ(parse_pattern(text).status().code(), Code::kUsage) << text;
  }
  const auto refused = [](auto change) {
    Config config = small("bert-mini");
    change(config);
    return generate(config).status().code() == Code::kUsage;
  };
  EXPECT_TRUE(refused([](Config& c) { c.layers = 0; }));
  EXPECT_TRUE(refused([](Config& c) { c.hidden = 255; }));
  EXPECT_TRUE(refused([](Config& c) { c.heads = 0; }));
  EXPECT_TRUE(refused([](Config& c) { c.kv_heads = 2; }));
  EXPECT_TRUE(refused([](Config& c) { c.opset = 21; }));
  EXPECT_TRUE(refused([](Config& c) { c.nbits = 3; }));
  EXPECT_TRUE(refused([](Config& c) { c.ffn_kind = Ffn::kGeGlu; }));
  EXPECT_TRUE(refused([](Config& c) { c = *preset("spark-mini"), c.active = 0; }));
  EXPECT_TRUE(refused([](Config& c) { c = *preset("spark-mini"), c.score_inputs = c.hidden; }));
  EXPECT_TRUE(refused([](Config& c) { c = *preset("spark-mini"), c.head_size = 15; }));
  EXPECT_EQ(parse_ffn("mlp").status().code(), Code::kUsage);
  EXPECT_TRUE(refused([](Config& c) { c.sparsity = 1; }));
  EXPECT_TRUE(refused([](Config& c) { c.past = true; }));
  EXPECT_TRUE(refused([](Config& c) { c.ffn = int64_t{1} << 40; }));
  EXPECT_TRUE(refused([](Config& c) { c.qdq = true; }));
  EXPECT_TRUE(refused([](Config& c) {
    c = small("gpt2-mini");
    c.quantization = Quantization::kS8;
    c.qdq = true;
  }));
  EXPECT_TRUE(refused([](Config& c) {
    c.quantization = Quantization::kS8;
    c.qdq = c.per_channel = true;
    c.opset = 12;
  }));
}

}  // namespace
}  // namespace sprun::modelgen
