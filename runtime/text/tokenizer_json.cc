// tokenizer.json: each stage by its maker, then the added tokens.
#include "runtime/text/bpe.h"
#include "runtime/text/byte_model.h"
#include "runtime/text/tokenizer_impl.h"
#include "runtime/text/unigram.h"
#include "runtime/text/word_piece.h"

namespace sprun::text {
namespace {

constexpr Maker<TokenModelPtr> kModels[] = {
    {"BPE", make_bpe},
    {"ByteLevelIds", make_byte_model},
    {"Unigram", make_unigram},
    {"WordLevel", make_word_level},
    {"WordPiece", make_word_piece},
};

// Files of old versions leave the model's type out; its members tell.
std::string guessed_type(const Fields& model) {
  const Json* vocab = model.find("vocab");
  if (vocab != nullptr && vocab->is_array()) return "Unigram";
  return model.find("merges") != nullptr                      ? "BPE"
         : model.find("continuing_subword_prefix") != nullptr ? "WordPiece"
                                                              : "WordLevel";
}

// The stage under `key`; null if the file has none.
template <class Stage>
Status read_stage(const Fields& root, const char* key,
                  Result<Stage> (*make)(const Json&, const std::string&), Stage* out) {
  const Json* value = root.find(key);
  if (value == nullptr) return {};
  SPRUN_ASSIGN(*out, make(*value, key));
  return {};
}

// Tokens that the templates put around a text must exist, or decoding would fail later.
Status check_template(const Tokenizer::Impl& impl) {
  for (const auto& id : impl.around) {
    if (id && !impl.token_of(*id)) {
      return {Code::kBadModel,
              "post_processor: id " + std::to_string(*id) + " is no token of the vocabulary"};
    }
  }
  return {};
}

}  // namespace

Result<TokenModelPtr> make_model(const Json& value, const std::string& place) {
  SPRUN_ASSIGN(const Fields fields, Fields::of(value, place));
  if (fields.find("type") != nullptr) return make_by_type(kModels, value, place, 0);
  const std::string type = guessed_type(fields);
  for (const auto& model : kModels) {
    if (model.type == type) return model.make(fields, 0);
  }
  return Status(Code::kInternal, "no model type " + type);
}

Result<ImplPtr> load_tokenizer_json(const Json& root) {
  SPRUN_ASSIGN(const Fields fields, Fields::of(root, ""));
  const auto impl = std::make_shared<Tokenizer::Impl>();
  SPRUN_ASSIGN(const Json* model, fields.need("model"));
  SPRUN_ASSIGN(impl->model, make_model(*model, "model"));
  SPRUN_TRY(read_stage(fields, "normalizer", make_normalizer, &impl->normalizer));
  SPRUN_TRY(read_stage(fields, "pre_tokenizer", make_pre_tokenizer, &impl->pre_tokenizer));
  SPRUN_TRY(read_stage(fields, "post_processor", make_template, &impl->around));
  SPRUN_TRY(read_stage(fields, "decoder", make_decoder, &impl->decoder));
  if (impl->model->takes_bytes()) {
    if (impl->normalizer || impl->pre_tokenizer || impl->decoder) {
      return Status(Code::kBadModel,
                    "model: type ByteLevelIds takes no normalizer, pre_tokenizer or decoder");
    }
    impl->decoder = make_bytes()->decoder;
  }
  if (const Json* added = fields.find("added_tokens")) {
    SPRUN_ASSIGN(const std::vector<AddedToken> tokens, read_added_tokens(*added, "added_tokens"));
    for (const AddedToken& token : tokens) {
      const Status ok = impl->added.add(token);
      if (!ok.ok()) return ok.with_context("added_tokens");
    }
  }
  SPRUN_TRY(impl->added.finish(impl->normalizer.get()));
  SPRUN_TRY(check_template(*impl));
  return impl;
}

}  // namespace sprun::text
