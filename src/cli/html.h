// html.h - the pieces that pages are made of: one file that needs nothing else, light or dark as the reader's system.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/chart.h"
#include "cli/format.h"

namespace mezzo::cli {

using Facts = std::vector<std::pair<std::string, std::string>>;

std::string paragraphs(const std::vector<std::string>& texts, std::string_view css = {});
/// The first `main_rows` rows stand out.
std::string html_table(const Table&, int main_rows = 0);
std::string facts_table(const Facts&);
/// Of two series and more.
std::string legend(const std::vector<Series>&);
/// Content that opens on a click.
std::string folded(std::string_view summary, const std::string& content);
/// The whole page.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace mezzo::cli
