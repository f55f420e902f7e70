// The "normalizer" stage of tokenizer.json.
#include <functional>

#include "runtime/text/byte_chars.h"
#include "runtime/text/char_map.h"
#include "runtime/text/pipeline.h"
#include "runtime/text/split.h"
#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

// Most normalizers are one function of the text.
class Rewrite : public Normalizer {
 public:
  using Function = std::function<Status(std::string*)>;
  explicit Rewrite(Function function) : function_(std::move(function)) {}
  Status apply(std::string* text) const override { return function_(text); }

 private:
  Function function_;
};

NormalizerPtr rewrite(Rewrite::Function function) {
  return std::make_shared<Rewrite>(std::move(function));
}

// Looks at each character by itself: visit(c, out) appends what becomes of it.
template <class Visit>
void map_chars(std::string* text, const Visit& visit) {
  std::string out;
  out.reserve(text->size());
  for (size_t pos = 0; pos < text->size();) visit(next_char(*text, &pos), &out);
  *text = std::move(out);
}

template <class Visit>
NormalizerPtr each_char(const Visit& visit) {
  return rewrite([visit](std::string* text) {
    map_chars(text, visit);
    return Status();
  });
}

template <NormalForm form>
Result<NormalizerPtr> make_form(const Fields&, int) {
  return rewrite([](std::string* text) {
    *text = normalise(*text, form);
    return Status();
  });
}

Result<NormalizerPtr> make_lowercase(const Fields&, int) {
  return rewrite([](std::string* text) {
    *text = lowercase(*text);
    return Status();
  });
}

Result<NormalizerPtr> make_strip_accents(const Fields&, int) {
  return each_char([](char32_t c, std::string* out) {
    if (!is_mark(c)) append_char(c, out);
  });
}

bool is_cjk(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

void clean_char(char32_t c, std::string* out) {
  const bool breaks = c == '\t' || c == '\n' || c == '\r';
  if (c == 0 || c == kReplacement || (!breaks && is_control(c))) return;
  if (is_whitespace(c)) {
    *out += ' ';
  } else {
    append_char(c, out);
  }
}

void space_cjk(char32_t c, std::string* out) {
  if (is_cjk(c)) *out += ' ';
  append_char(c, out);
  if (is_cjk(c)) *out += ' ';
}

Result<NormalizerPtr> make_bert(const Fields& fields, int) {
  SPRUN_ASSIGN(const bool clean, fields.flag("clean_text", true));
  SPRUN_ASSIGN(const bool cjk, fields.flag("handle_chinese_chars", true));
  SPRUN_ASSIGN(const bool lower, fields.flag("lowercase", true));
  SPRUN_ASSIGN(const bool strip, fields.flag("strip_accents", lower));
  return rewrite([=](std::string* text) {
    if (clean) map_chars(text, clean_char);
    if (cjk) map_chars(text, space_cjk);
    if (strip) {
      *text = normalise(*text, NormalForm::kNfd);
      map_chars(text, [](char32_t c, std::string* out) {
        if (!is_nonspacing_mark(c)) append_char(c, out);
      });
    }
    if (lower) *text = lowercase(*text);
    return Status();
  });
}

Result<NormalizerPtr> make_replace(const Fields& fields, int) {
  SPRUN_ASSIGN(Pattern pattern, Pattern::parse(fields, "pattern"));
  SPRUN_ASSIGN(std::string content, fields.text("content"));
  return rewrite([pattern, content](std::string* text) { return pattern.replace(content, text); });
}

Result<NormalizerPtr> make_prepend(const Fields& fields, int) {
  SPRUN_ASSIGN(std::string begin, fields.text("prepend"));
  return rewrite([begin](std::string* text) {
    if (!text->empty()) text->insert(0, begin);
    return Status();
  });
}

Result<NormalizerPtr> make_strip(const Fields& fields, int) {
  SPRUN_ASSIGN(const bool left, fields.flag("strip_left", true));
  SPRUN_ASSIGN(const bool right, fields.flag("strip_right", true));
  return rewrite([=](std::string* text) {
    size_t begin = 0, end = text->size();
    for (size_t pos = 0; left && pos < end; begin = pos) {
      if (!is_whitespace(next_char(*text, &pos))) break;
    }
    while (right && end > begin) {
      const size_t start = previous_start(*text, end);
      size_t pos = start;
      if (!is_whitespace(next_char(*text, &pos))) break;
      end = start;
    }
    *text = text->substr(begin, end - begin);
    return Status();
  });
}

// The clean-up that old SentencePiece models for translation use.
Result<NormalizerPtr> make_nmt(const Fields&, int) {
  return each_char([](char32_t c, std::string* out) {
    const bool dropped = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                         c == 0x8F || c == 0x9F;
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (!dropped) append_char(space ? U' ' : c, out);
  });
}

Result<NormalizerPtr> make_byte_level(const Fields&, int) {
  return rewrite([](std::string* text) {
    *text = bytes_to_chars(*text);
    return Status();
  });
}

Result<NormalizerPtr> make_precompiled(const Fields& fields, int) {
  SPRUN_ASSIGN(const std::string encoded, fields.text("precompiled_charsmap", ""));
  auto map = CharMap::parse_base64(encoded);
  if (!map.ok()) return map.status().with_context(fields.place_of("precompiled_charsmap"));
  return rewrite([map = std::make_shared<const CharMap>(std::move(*map))](std::string* text) {
    *text = map->apply(*text);
    return Status();
  });
}

Result<NormalizerPtr> make_sequence(const Fields& fields, int depth);

constexpr Maker<NormalizerPtr> kMakers[] = {
    {"BertNormalizer", make_bert},
    {"ByteLevel", make_byte_level},
    {"Lowercase", make_lowercase},
    {"NFC", make_form<NormalForm::kNfc>},
    {"NFD", make_form<NormalForm::kNfd>},
    {"NFKC", make_form<NormalForm::kNfkc>},
    {"NFKD", make_form<NormalForm::kNfkd>},
    {"Nmt", make_nmt},
    {"Precompiled", make_precompiled},
    {"Prepend", make_prepend},
    {"Replace", make_replace},
    {"Sequence", make_sequence},
    {"Strip", make_strip},
    {"StripAccents", make_strip_accents},
};

Result<NormalizerPtr> make_sequence(const Fields& fields, int depth) {
  SPRUN_ASSIGN(const std::vector<NormalizerPtr> parts,
               make_list(kMakers, fields, "normalizers", depth));
  return rewrite([parts](std::string* text) {
    for (const NormalizerPtr& part : parts) SPRUN_TRY(part->apply(text));
    return Status();
  });
}

}  // namespace

Result<NormalizerPtr> make_normalizer(const Json& value, const std::string& place) {
  return make_by_type(kMakers, value, place, 0);
}

}  // namespace sprun::text
