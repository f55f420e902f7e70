// The "post_processor" stage of tokenizer.json, reduced to what it means for one text: the ids
// around it.
#include "runtime/text/pipeline.h"
#include "runtime/text/vocab.h"

namespace sprun::text {
namespace {

constexpr size_t kMaxTemplate = 1024;

Result<Template> make_nothing(const Fields&, int) { return Template{std::nullopt}; }

// ["[SEP]", 102]
Result<int64_t> pair_id(const Fields& fields, const char* key) {
  SPRUN_ASSIGN(const Json* pair, fields.array(key));
  const bool good = pair->size() == 2 && (*pair)[0].is_string() &&
                    (*pair)[1].is_number_unsigned() &&
                    (*pair)[1].get<uint64_t>() <= static_cast<uint64_t>(kMaxId);
  if (!good) return unexpected(fields.place_of(key), "[token, id]", *pair);
  return (*pair)[1].get<int64_t>();
}

Result<Template> make_around(const Fields& fields, int) {
  SPRUN_ASSIGN(const int64_t begin, pair_id(fields, "cls"));
  SPRUN_ASSIGN(const int64_t end, pair_id(fields, "sep"));
  return Template{begin, std::nullopt, end};
}

// Appends the ids of a special token by its name in the template.
Status append_special(const Fields& specials, const std::string& name, Template* out) {
  SPRUN_ASSIGN(const Fields special, specials.object(name.c_str()));
  SPRUN_ASSIGN(const Json* ids, special.array("ids"));
  for (const Json& id : *ids) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > static_cast<uint64_t>(kMaxId)) {
      return unexpected(special.place_of("ids"), "ids", id);
    }
    out->push_back(id.get<int64_t>());
  }
  return {};
}

Result<Template> make_template_processing(const Fields& fields, int) {
  SPRUN_ASSIGN(const Json* items, fields.array("single"));
  SPRUN_ASSIGN(const Fields specials, fields.object("special_tokens"));
  Template out;
  for (size_t i = 0; i < items->size(); ++i) {
    const std::string place = fields.place_of("single") + "[" + std::to_string(i) + "]";
    SPRUN_ASSIGN(const Fields item, Fields::of((*items)[i], place));
    if (item.find("SpecialToken") != nullptr) {
      SPRUN_ASSIGN(const Fields special, item.object("SpecialToken"));
      SPRUN_ASSIGN(const std::string name, special.text("id"));
      SPRUN_TRY(append_special(specials, name, &out));
    } else {
      SPRUN_TRY(item.object("Sequence").status());
      out.push_back(std::nullopt);
    }
    if (out.size() > kMaxTemplate)
      return Status(Code::kBadModel, place + ": more than 1024 tokens around a text");
  }
  return out;
}

Result<Template> make_sequence(const Fields& fields, int depth);

constexpr Maker<Template> kMakers[] = {
    {"BertProcessing", make_around},
    {"ByteLevel", make_nothing},  // concerns only offsets
    {"RobertaProcessing", make_around},
    {"Sequence", make_sequence},
    {"TemplateProcessing", make_template_processing},
};

// Each part is put around what the ones before it made.
Result<Template> make_sequence(const Fields& fields, int depth) {
  SPRUN_ASSIGN(const std::vector<Template> parts, make_list(kMakers, fields, "processors", depth));
  Template all{std::nullopt};
  for (const Template& part : parts) {
    Template next;
    for (const auto& id : part) {
      if (id) {
        next.push_back(id);
      } else {
        next.insert(next.end(), all.begin(), all.end());
      }
      if (next.size() > kMaxTemplate)
        return Status(Code::kBadModel, fields.place() + ": more than 1024 tokens around a text");
    }
    all = std::move(next);
  }
  return all;
}

}  // namespace

Result<Template> make_template(const Json& value, const std::string& place) {
  return make_by_type(kMakers, value, place, 0);
}

}  // namespace sprun::text
