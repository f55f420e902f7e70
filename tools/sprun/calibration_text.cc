#include "tools/sprun/calibration_text.h"

#include <algorithm>
#include <fstream>

#include <fmt/format.h>

#include "sprun/tokenizer.h"

namespace sprun::tools {
namespace {

constexpr int64_t kPadding = 32;

bool is_integer_matrix(const TensorSpec& spec) {
  return (spec.dtype == DType::kS64 || spec.dtype == DType::kS32) && spec.dims.size() == 2;
}

const TensorSpec* find_ids(const std::vector<TensorSpec>& specs) {
  for (const char* word : {"input_ids", "ids", "token", "input"}) {
    for (const TensorSpec& spec : specs) {
      const auto has = [&](const char* part) { return spec.name.find(part) != std::string::npos; };
      const bool other = has("mask") || has("position") || has("token_type") || has("segment");
      if (is_integer_matrix(spec) && has(word) && !other) return &spec;
    }
  }
  return nullptr;
}

// Masks that cover the tokens themselves, not a cache before them too.
const TensorSpec* find_mask(const std::vector<TensorSpec>& specs) {
  for (const TensorSpec& spec : specs) {
    if (is_integer_matrix(spec) && spec.name.find("mask") != std::string::npos) return &spec;
  }
  return nullptr;
}

// values, then zeros up to `length`.
Result<Tensor> row(const TensorSpec& spec, const std::vector<int64_t>& values, int64_t length) {
  SPRUN_ASSIGN(Tensor t, Tensor::zeros(spec.dtype, Shape{1, length}));
  for (size_t i = 0; i < values.size(); ++i) {
    if (spec.dtype == DType::kS64) static_cast<int64_t*>(t.mutable_view().data)[i] = values[i];
    else static_cast<int32_t*>(t.mutable_view().data)[i] = static_cast<int32_t>(values[i]);
  }
  return t;
}

class SampleMaker {
 public:
  SampleMaker(const TextSamples& text, const TensorSpec& ids, const TensorSpec* mask)
      : ids_(ids), mask_(mask) {
    fixed_ = ids.dims[1].value;
    most_ = fixed_ > 0 ? fixed_ : text.length;
  }

  int64_t most() const { return most_; }

  Result<std::vector<NamedTensor>> make(const std::vector<int64_t>& tokens) const {
    const int64_t length = padded(static_cast<int64_t>(tokens.size()));
    std::vector<NamedTensor> sample;
    SPRUN_ASSIGN(Tensor ids, row(ids_, tokens, length));
    sample.push_back({ids_.name, std::move(ids)});
    if (mask_ == nullptr) return sample;
    SPRUN_ASSIGN(Tensor mask, row(*mask_, std::vector<int64_t>(tokens.size(), 1), length));
    sample.push_back({mask_->name, std::move(mask)});
    return sample;
  }

 private:
  int64_t padded(int64_t size) const {
    if (fixed_ > 0) return fixed_;
    return mask_ == nullptr ? size : std::min((size + kPadding - 1) / kPadding * kPadding, most_);
  }

  const TensorSpec& ids_;
  const TensorSpec* mask_;
  int64_t fixed_ = -1, most_ = 0;  // fixed_: tokens that the model wants exactly
};

}  // namespace

Result<std::vector<std::vector<NamedTensor>>> text_samples(const TextSamples& text,
                                                           const std::vector<TensorSpec>& specs) {
  const TensorSpec* ids_spec = find_ids(specs);
  if (ids_spec == nullptr)
    return Status(Code::kUsage,
                  "calibration with text: no input of the model looks like token ids");
  SPRUN_ASSIGN(const Tokenizer tokenizer, Tokenizer::load(text.tokenizer));
  std::ifstream file(text.path, std::ios::binary);
  if (!file) return Status(Code::kBadInput, "calibration: cannot read " + text.path);
  const SampleMaker maker(text, *ids_spec, find_mask(specs));
  std::vector<std::vector<NamedTensor>> samples;
  for (std::string line;
       static_cast<int64_t>(samples.size()) < text.count && std::getline(file, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    SPRUN_ASSIGN(const std::vector<int64_t> ids, tokenizer.encode(line));
    for (auto at = ids.begin();
         at != ids.end() && static_cast<int64_t>(samples.size()) < text.count;) {
      const auto end =
          at + std::min<ptrdiff_t>(ids.end() - at, static_cast<ptrdiff_t>(maker.most()));
      SPRUN_ASSIGN(std::vector<NamedTensor> sample, maker.make({at, end}));
      samples.push_back(std::move(sample));
      at = end;
    }
  }
  if (samples.empty()) return Status(Code::kBadInput, "calibration: no text in " + text.path);
  return samples;
}

}  // namespace sprun::tools
