// Settings of "Metaspace", in the present and the older spelling.
#include "runtime/text/metaspace.h"

namespace sprun::text {

Result<Metaspace> Metaspace::parse(const Fields& fields) {
  Metaspace space;
  SPRUN_ASSIGN(space.mark, fields.character("replacement", "\xE2\x96\x81"));
  SPRUN_ASSIGN(const bool old_form, fields.flag("add_prefix_space", true));
  SPRUN_ASSIGN(const std::string prepend,
               fields.text("prepend_scheme", old_form ? "always" : "never"));
  if (prepend == "always") {
    space.prepend = Prepend::kAlways;
  } else if (prepend == "first") {
    space.prepend = Prepend::kFirst;
  } else if (prepend == "never") {
    space.prepend = Prepend::kNever;
  } else {
    return unexpected(fields.place_of("prepend_scheme"), "always, first or never", prepend);
  }
  return space;
}

}  // namespace sprun::text
