// The report as one page without scripts or outside files.
#include <fmt/format.h>

#include "tools/compress/report_rows.h"

namespace sprun::compress {
namespace {

constexpr const char* kStyle =
    "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:80em;padding:0 "
    "1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em "
    ".8em;text-align:right;border-bottom:1px solid #ddd}"
    "th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}"
    "tr:hover{background:#f4f6fa}.warning{color:#a00;font-weight:600}code{background:#f2f2f2;"
    "padding:.1em .3em}"
    ".bar{background:#dfe6f2;height:.7em;width:12em}.bar div{background:#3b6fb6;height:100%}";

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '&') out += "&amp;";
    else if (c == '"') out += "&quot;";
    else out += c;
  }
  return out;
}

std::string table(const Rows& rows) {
  std::string out = "<table>\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    const char* tag = r == 0 ? "th" : "td";
    out += "<tr>";
    for (const std::string& cell : rows[r]) out += fmt::format("<{0}>{1}</{0}>", tag, escape(cell));
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

// What is left of something, as a bar.
std::string bar(const char* label, int64_t after, int64_t before) {
  const double part = before == 0 ? 1 : static_cast<double>(after) / static_cast<double>(before);
  return fmt::format(
      "<tr><td>{}</td><td><div class=\"bar\"><div "
      "style=\"width:{:.1f}%\"></div></div></td><td>{:.1f}%</td></tr>\n",
      label, 100 * std::min(part, 1.0), 100 * part);
}

}  // namespace

std::string report_html(const Report& report) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>"
      "<style>{1}</style></head><body>\n<h1>{0}</h1>\n",
      escape("sprun compress: " + report.model), kStyle);
  out += fmt::format("<p>Result: <code>{}</code><br>Recipe: <code>{}</code></p>\n",
                     escape(report.result), escape(report.recipe));
  for (const std::string& line : summary_lines(report)) {
    const bool warning = line.starts_with("WARNING");
    out += fmt::format("<p{}>{}</p>\n", warning ? " class=\"warning\"" : "", escape(line));
  }
  const Report::Totals before = report.before(), after = report.after();
  out += "<h2>What is left</h2>\n<table>\n" +
         bar("parameters", after.parameters, before.parameters) +
         bar("effective MACs", after.macs, before.macs) +
         bar("bytes of linear layers", after.bytes, before.bytes) + "</table>\n";
  if (!report.outputs.empty())
    out += "<h2>Outputs, original against result</h2>\n" + table(output_rows(report));
  out += "<h2>Linear layers</h2>\n" + table(layer_rows(report));
  return out + "</body></html>\n";
}

}  // namespace sprun::compress
