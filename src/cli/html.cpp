// html.cpp
#include "cli/html.h"

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

std::string html_table(const Table& t, int main_rows) {
  std::string out = "<div class=\"wide\"><table><thead><tr>";
  for (const auto& h : t.rows().front()) out += fmt::format("<th scope=\"col\">{}</th>", escape_html(h));
  out += "</tr></thead><tbody>\n";
  for (std::size_t r = 1; r < t.rows().size(); ++r) {
    const auto& row = t.rows()[r];
    out += static_cast<int>(r) <= main_rows ? "<tr class=\"main\">" : "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i)
      out += i == 0 ? fmt::format("<th scope=\"row\"{}>{}</th>", row[0].starts_with("  ") ? " class=\"sub\"" : "", escape_html(row[0]))
                    : fmt::format("<td>{}</td>", escape_html(row[i]));
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
  return fmt::format("<details><summary>{}</summary>\n{}</details>\n", summary, content);
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
