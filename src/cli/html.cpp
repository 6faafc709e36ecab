// html.cpp - tables, legends and the frame of a page.
#include "cli/html.h"

#include <algorithm>
#include <ctime>

#include <fmt/core.h>

#include <mezzo/runtime.h>

#include "cli/report_style.h"

namespace mezzo::cli {

std::string paragraphs(const std::vector<std::string>& texts, std::string_view css) {
  std::string out;
  for (const auto& t : texts) out += fmt::format("<p{}>{}</p>\n", css.empty() ? "" : fmt::format(" class=\"{}\"", css), escape_html(t));
  return out;
}

namespace {

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + by.size())) text.replace(at, what.size(), by);
  return text;
}
/// A figure and its unit stay together.
std::string figure_html(std::string_view text) { return replaced(replaced(escape_html(text), " %", "&nbsp;%"), " dB", "&nbsp;dB"); }
/// Paths of modules may be broken at their dots.
std::string name_html(std::string_view text) { return replaced(escape_html(text), ".", ".<wbr>"); }

}  // namespace

std::string html_table(const Table& t, int main_rows) {
  constexpr std::size_t kSentence = 40;  // characters: a column with a cell of more of them is text, which wraps
  std::vector<bool> text(t.rows().front().size());
  for (std::size_t r = 1; r < t.rows().size(); ++r)
    for (std::size_t i = 1; i < std::min(text.size(), t.rows()[r].size()); ++i) text[i] = text[i] || t.rows()[r][i].size() > kSentence;
  const auto css = [&](std::size_t i) { return text[i] ? " class=\"text\"" : ""; };
  std::string out = "<div class=\"wide\"><table><thead><tr>";
  for (std::size_t i = 0; i < text.size(); ++i) out += fmt::format("<th scope=\"col\"{}>{}</th>", css(i), escape_html(t.rows().front()[i]));
  out += "</tr></thead><tbody>\n";
  for (std::size_t r = 1; r < t.rows().size(); ++r) {
    const auto& row = t.rows()[r];
    out += static_cast<int>(r) <= main_rows ? "<tr class=\"main\">" : "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i)
      out += i == 0 ? fmt::format("<th scope=\"row\"{}>{}</th>", row[0].starts_with("  ") ? " class=\"sub\"" : "", name_html(row[0]))
                    : fmt::format("<td{}>{}</td>", css(i), figure_html(row[i]));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string facts_table(const Facts& facts) {
  std::string out = "<div class=\"wide\"><table class=\"facts\"><tbody>\n";
  for (const auto& [name, value] : facts)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape_html(name), escape_html(value));
  return out + "</tbody></table></div>\n";
}

std::string legend(const std::vector<Series>& series) {
  if (series.size() < 2) return {};
  std::string out = "<ul class=\"legend\">\n";
  for (const auto& s : series) {
    const std::string swatch = s.markers_only ? fmt::format("<g class=\"mark s{}\"><circle cx=\"14\" cy=\"6\" r=\"4\"/></g>", s.style)
                                              : fmt::format("<path class=\"line s{}\" d=\"M0 6H28\"/>", s.style);
    out += fmt::format("<li><svg viewBox=\"0 0 28 12\" aria-hidden=\"true\">{}</svg>{}</li>\n", swatch, escape_html(s.name));
  }
  return out + "</ul>\n";
}

std::string folded(std::string_view summary, const std::string& content) {
  return fmt::format("<div><details><summary>{}</summary>\n{}</details></div>\n", summary, content);
}

namespace {
std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &utc)};
}
}  // namespace

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n"
      "<meta name=\"generator\" content=\"mezzo {0}\">\n<title>{1}</title>\n<style>{2}</style>\n</head>\n<body>\n<main>\n<h1>{1}</h1>\n{3}"
      "<footer>Written by mezzo {0} on {4}.</footer>\n</main>\n</body>\n</html>\n",
      version(), escape_html(title), kReportStyle, body, today());
}

}  // namespace mezzo::cli
