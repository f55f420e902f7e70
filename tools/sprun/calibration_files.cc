#include "tools/sprun/calibration_files.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "tools/sprun/calibration_text.h"
#include "tools/sprun/dims.h"
#include "tools/sprun/fill.h"
#include "tools/sprun/io/npz.h"
#include "tools/sprun/io/tensor_files.h"

namespace sprun::tools {

using compress::Batch;
using compress::Calibration;

namespace {

// Elements of the largest integer input (tokens) that run together, and samples for models without
// one.
constexpr int64_t kTokensPerBatch = 1024, kSamplesPerBatch = 8, kMaxSamplesPerBatch = 64;
constexpr int64_t kMaxHeldOut = 64;

Status bad(std::string message) { return {Code::kBadInput, "calibration: " + std::move(message)}; }

// Arrays of one shape each, with samples along the first axis.
struct SampleSet {
  std::map<std::string, Tensor> arrays;
  int64_t samples = 0, rows_per_sample = 1;
};
struct SampleRef {
  size_t set;
  int64_t index;
};

std::vector<TensorSpec> specs_of(const graph::Graph& graph) {
  std::vector<TensorSpec> specs;
  for (graph::ValueId v : graph.inputs()) {
    const graph::Value& value = graph.value(v);
    TensorSpec spec{value.name, value.dtype, value.declared.has_value(), {}};
    if (value.declared) {
      for (const graph::DimInfo& dim : *value.declared)
        spec.dims.push_back({dim.value, dim.symbol});
    }
    specs.push_back(std::move(spec));
  }
  return specs;
}

Status check_array(const TensorSpec& spec, const Tensor& t) {
  const std::string expected = fmt::format("{}{}", dtype_name(spec.dtype), spec.shape_string());
  const std::string got = fmt::format("{}{}", dtype_name(t.dtype()), t.shape().to_string());
  const auto misfit = [&] {
    return bad(fmt::format("input '{}': expected {}, got {}", spec.name, expected, got));
  };
  if (t.dtype() != spec.dtype) return misfit();
  if (!spec.has_shape) return t.shape().rank() > 0 ? Status() : misfit();
  if (t.shape().rank() != static_cast<int>(spec.dims.size()) || t.shape().rank() == 0)
    return misfit();
  for (int i = 1; i < t.shape().rank(); ++i) {
    const int64_t want = spec.dims[static_cast<size_t>(i)].value;
    if (want >= 0 && want != t.shape()[i]) return misfit();
  }
  const int64_t first = spec.dims[0].value;
  return first > 0 && t.shape()[0] % first != 0 ? misfit() : Status();
}

Status count_samples(const std::vector<TensorSpec>& specs, SampleSet& set) {
  std::string counted;
  for (const TensorSpec& spec : specs) {
    const auto it = set.arrays.find(spec.name);
    if (it == set.arrays.end()) continue;
    SPRUN_TRY(check_array(spec, it->second));
    const int64_t rows = spec.has_shape && spec.dims[0].value > 0 ? spec.dims[0].value : 1;
    const int64_t samples = it->second.shape()[0] / rows;
    if (counted.empty()) {
      set.samples = samples;
      set.rows_per_sample = rows;
      counted = spec.name;
    } else if (samples != set.samples || rows != set.rows_per_sample) {
      return bad(fmt::format("input '{}' has {} samples, input '{}' has {}", counted, set.samples,
                             spec.name, samples));
    }
  }
  return set.samples > 0 ? Status() : bad("no samples");
}

Result<SampleSet> make_set(const std::vector<TensorSpec>& specs, std::vector<NamedTensor> tensors) {
  SampleSet set;
  for (NamedTensor& t : tensors) {
    const bool known = std::any_of(specs.begin(), specs.end(),
                                   [&](const TensorSpec& s) { return s.name == t.name; });
    if (!known) {
      std::string names;
      for (const TensorSpec& spec : specs) names += (names.empty() ? "" : ", ") + spec.name;
      return bad(fmt::format("the model has no input '{}'; it has: {}", t.name, names));
    }
    set.arrays[t.name] = std::move(t.tensor);
  }
  SPRUN_TRY(count_samples(specs, set));
  return set;
}

Result<std::vector<SampleSet>> read_sets(const std::vector<TensorSpec>& specs,
                                         const std::string& source) {
  std::vector<std::string> archives;
  std::error_code error;
  if (std::filesystem::is_directory(source, error)) {
    for (const auto& entry : std::filesystem::directory_iterator(source, error)) {
      if (entry.path().extension() == ".npz") archives.push_back(entry.path().string());
    }
    std::sort(archives.begin(), archives.end());
  }
  if (archives.empty()) archives.push_back(source);
  std::vector<SampleSet> sets;
  for (const std::string& path : archives) {
    SPRUN_ASSIGN(std::vector<NamedTensor> tensors, read_tensors(path, TensorRole::kInput, specs));
    auto set = make_set(specs, std::move(tensors));
    if (!set.ok()) return set.status().with_context(path);
    sets.push_back(std::move(*set));
  }
  return sets;
}

Result<SampleSet> random_set(const graph::Graph& graph, std::vector<TensorSpec> specs,
                             const CalibrationArgs& args, int64_t samples) {
  SPRUN_ASSIGN(DimMap dims, parse_dims(args.dims));
  SPRUN_ASSIGN(DimResolver resolver, DimResolver::create(specs, std::move(dims)));
  SPRUN_TRY(resolver.complete(specs));
  FillOptions fill{
      .seed = args.seed, .limits = index_limits(graph), .total_length = resolver.total_length()};
  std::vector<NamedTensor> tensors;
  for (const TensorSpec& spec : specs) {
    SPRUN_ASSIGN(Shape shape, resolver.shape_of(spec));
    if (shape.rank() == 0)
      return bad(fmt::format("input '{}' is a single number: no random samples", spec.name));
    shape[0] *= samples;
    SPRUN_ASSIGN(Tensor tensor, fill_tensor(spec, shape, fill));
    tensors.push_back({spec.name, std::move(tensor)});
  }
  return make_set(specs, std::move(tensors));
}

// The samples of the set that `refs` name, in that order.
Result<Tensor> gather(const SampleSet& set, const Tensor& array, std::span<const SampleRef> refs) {
  Shape shape = array.shape();
  shape[0] = static_cast<int64_t>(refs.size()) * set.rows_per_sample;
  SPRUN_ASSIGN(Tensor part, Tensor::allocate(array.dtype(), shape));
  const int64_t bytes =
      set.rows_per_sample * shape.num_elements(1, shape.rank()) * dtype_size(array.dtype());
  auto* to = static_cast<char*>(part.mutable_view().data);
  for (const SampleRef& ref : refs) {
    std::memcpy(to, static_cast<const char*>(array.data()) + ref.index * bytes,
                static_cast<size_t>(bytes));
    to += bytes;
  }
  return part;
}

bool needs_no_data(const TensorSpec& spec, const Shape& shape) {
  if (shape.num_elements() == 0) return true;
  if (is_float(spec.dtype)) return false;
  constexpr std::array kWords = {"mask",    "position", "token_type",
                                 "segment", "seqlens",  "total_seq"};
  return std::any_of(kWords.begin(), kWords.end(),
                     [&](const char* word) { return spec.name.find(word) != std::string::npos; });
}

class BatchMaker {
 public:
  BatchMaker(const graph::Graph& graph, const std::vector<TensorSpec>& specs,
             const std::vector<SampleSet>& sets)
      : graph_(graph), specs_(specs), sets_(sets) {}

  // Samples of one set run together.
  Status make(std::span<const SampleRef> chosen, std::vector<Batch>& batches) const {
    std::vector<SampleRef> refs(chosen.begin(), chosen.end());
    std::stable_sort(refs.begin(), refs.end(),
                     [](const SampleRef& a, const SampleRef& b) { return a.set < b.set; });
    for (size_t i = 0; i < refs.size();) {
      const SampleSet& set = sets_[refs[i].set];
      const auto limit = static_cast<size_t>(samples_per_batch(set));
      size_t end = i + 1;
      while (end < refs.size() && end - i < limit && refs[end].set == refs[i].set) ++end;
      SPRUN_ASSIGN(Batch batch, make_batch(set, std::span(refs).subspan(i, end - i)));
      batches.push_back(std::move(batch));
      i = end;
    }
    return {};
  }

 private:
  int64_t samples_per_batch(const SampleSet& set) const {
    // A size that the file fixes is the size of every run.
    for (const TensorSpec& spec : specs_) {
      if (spec.has_shape && !spec.dims.empty() && spec.dims[0].value > 0 &&
          set.arrays.contains(spec.name))
        return 1;
    }
    int64_t tokens = 0;
    for (const auto& [name, array] : set.arrays) {
      if (is_integer(array.dtype())) tokens = std::max(tokens, array.num_elements() / set.samples);
    }
    return tokens == 0 ? kSamplesPerBatch
                       : std::clamp<int64_t>(kTokensPerBatch / tokens, 1, kMaxSamplesPerBatch);
  }

  Result<Batch> make_batch(const SampleSet& set, std::span<const SampleRef> refs) const {
    SPRUN_ASSIGN(DimResolver resolver, DimResolver::create(specs_, {}));
    std::map<std::string, Tensor> given;
    std::vector<TensorSpec> missing;
    for (const TensorSpec& spec : specs_) {
      const auto it = set.arrays.find(spec.name);
      if (it == set.arrays.end()) {
        missing.push_back(spec);
        continue;
      }
      SPRUN_ASSIGN(Tensor part, gather(set, it->second, refs));
      resolver.learn(spec, part.shape());
      given[spec.name] = std::move(part);
    }
    SPRUN_TRY(resolver.complete(missing));
    Batch batch;
    batch.samples = static_cast<int64_t>(refs.size());
    const FillOptions fill{.limits = index_limits(graph_),
                           .total_length = std::max<int64_t>(resolver.total_length(), 1)};
    for (const TensorSpec& spec : specs_) {
      if (const auto it = given.find(spec.name); it != given.end()) {
        batch.inputs.push_back(it->second);
        continue;
      }
      SPRUN_ASSIGN(const Shape shape, resolver.shape_of(spec));
      if (!needs_no_data(spec, shape))
        return bad(fmt::format("no array for input '{}'", spec.name));
      SPRUN_ASSIGN(Tensor tensor, fill_tensor(spec, shape, fill));
      batch.inputs.push_back(std::move(tensor));
    }
    return batch;
  }

  const graph::Graph& graph_;
  const std::vector<TensorSpec>& specs_;
  const std::vector<SampleSet>& sets_;
};

int64_t held_out_of(int64_t samples) { return std::clamp<int64_t>(samples / 8, 1, kMaxHeldOut); }

// Samples in the order in which the user has them, and the sets that hold their data.
struct Samples {
  std::vector<SampleSet> sets;
  std::vector<SampleRef> refs;

  void add(SampleSet set) {
    for (int64_t i = 0; i < set.samples; ++i) refs.push_back({sets.size(), i});
    sets.push_back(std::move(set));
  }
};

Result<Tensor> concatenated(const std::vector<Tensor>& parts) {
  Shape shape = parts[0].shape();
  shape[0] = static_cast<int64_t>(parts.size());
  SPRUN_ASSIGN(Tensor all, Tensor::allocate(parts[0].dtype(), shape));
  auto* to = static_cast<char*>(all.mutable_view().data);
  for (const Tensor& part : parts) {
    std::memcpy(to, part.data(), static_cast<size_t>(part.size_bytes()));
    to += part.size_bytes();
  }
  return all;
}

// Samples of one length become one set.
Result<Samples> text_sets(const std::vector<TensorSpec>& specs, const CalibrationArgs& args) {
  const TextSamples text{args.source, args.tokenizer, args.length,
                         args.samples + held_out_of(args.samples * 8 / 7 + 1)};
  SPRUN_ASSIGN(const auto samples, text_samples(text, specs));
  Samples result;
  std::map<int64_t, std::map<std::string, std::vector<Tensor>>> by_length;
  std::map<int64_t, size_t> set_of;
  for (const auto& sample : samples) {
    const int64_t length = sample[0].tensor.shape()[1];
    const size_t set = set_of.emplace(length, set_of.size()).first->second;
    auto& arrays = by_length[length];
    result.refs.push_back({set, static_cast<int64_t>(arrays[sample[0].name].size())});
    for (const NamedTensor& t : sample) arrays[t.name].push_back(t.tensor);
  }
  result.sets.resize(set_of.size());
  for (const auto& [length, arrays] : by_length) {
    std::vector<NamedTensor> tensors;
    for (const auto& [name, parts] : arrays) {
      SPRUN_ASSIGN(Tensor all, concatenated(parts));
      tensors.push_back({name, std::move(all)});
    }
    SPRUN_ASSIGN(result.sets[set_of[length]], make_set(specs, std::move(tensors)));
  }
  return result;
}

Result<Samples> read_samples(const graph::Graph& graph, const std::vector<TensorSpec>& specs,
                             const CalibrationArgs& args) {
  Samples samples;
  if (args.source == "random") {
    SPRUN_ASSIGN(SampleSet set,
                 random_set(graph, specs, args, args.samples + held_out_of(args.samples)));
    samples.add(std::move(set));
    return samples;
  }
  if (std::filesystem::path(args.source).extension() == ".txt") return text_sets(specs, args);
  SPRUN_ASSIGN(std::vector<SampleSet> sets, read_sets(specs, args.source));
  for (SampleSet& set : sets) samples.add(std::move(set));
  return samples;
}

}  // namespace

Result<Calibration> load_calibration(const graph::Graph& graph, const CalibrationArgs& args) {
  Calibration calibration;
  if (args.source.empty()) return calibration;
  const std::vector<TensorSpec> specs = specs_of(graph);
  SPRUN_ASSIGN(const Samples samples, read_samples(graph, specs, args));
  const auto total = static_cast<int64_t>(samples.refs.size());
  const int64_t held_out = args.source == "random" ? total - args.samples : held_out_of(total);
  calibration.held_out_is_seen = total == 1;
  const int64_t used = total == 1 ? 1 : std::min(args.samples, total - held_out);
  const BatchMaker maker(graph, specs, samples.sets);
  const std::span all(samples.refs);
  SPRUN_TRY(maker.make(all.first(static_cast<size_t>(used)), calibration.batches));
  SPRUN_TRY(maker.make(all.last(static_cast<size_t>(held_out)), calibration.held_out));
  calibration.source = args.source == "random"
                           ? fmt::format("random, seed {}", args.seed)
                           : std::filesystem::path(args.source).filename().string();
  return calibration;
}

Result<Batch> first_sample(const graph::Graph& graph, const Calibration& calibration) {
  const Batch& batch = calibration.held_out.front();
  Batch sample;
  sample.samples = 1;
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Tensor& t = batch.inputs[i];
    Shape shape = t.shape();
    if (shape.rank() > 0 && batch.samples > 1 && shape[0] == batch.samples) shape[0] = 1;
    SPRUN_ASSIGN(Tensor part, Tensor::copy_of({t.data(), t.dtype(), shape}));
    sample.inputs.push_back(std::move(part));
  }
  return sample;
}

}  // namespace sprun::tools
