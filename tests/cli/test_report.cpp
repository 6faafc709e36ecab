// test_report.cpp - figures and pages.
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "cli/chart.h"
#include "cli/process.h"
#include "cli/report.h"

using namespace mezzo;
using namespace mezzo::cli;

namespace {

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

RunRecord made_up(std::string name, double skipped_at) {
  RunRecord r{.name = std::move(name), .about = "<made up>", .steps = {}, .summary = {}, .failure = {}};
  for (std::int64_t i = 1; i <= 600; ++i)
    r.steps.push_back({.step = i,
                       .loss = 5 / std::sqrt(static_cast<double>(i)),
                       .scale = i < 300 ? 65536.0 : 32768.0,
                       .zero_fraction = 0.25,
                       .val_loss = i % 100 == 0 ? 2.5 : std::nan(""),
                       .applied = static_cast<double>(i) != skipped_at});
  r.summary.step = 600;
  r.summary.skipped = 1;
  r.summary.val_loss = 2.5;
  r.summary.zero_fraction = 0.25;
  r.summary.steps_run = 600;
  r.summary.step_ms_median = 4;
  r.summary.bytes[0] = 1 << 20;
  r.summary.peak_bytes = 1 << 20;
  return r;
}

/// Every element that is opened is closed, in order; attributes are quoted. Void elements of HTML and self-closed ones of SVG aside.
std::string unbalanced(const std::string& html) {
  std::vector<std::string> open;
  for (auto at = html.find('<'); at != html.npos; at = html.find('<', at + 1)) {
    const auto end = html.find('>', at);
    if (end == html.npos) return "no end of a tag";
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (tag.starts_with('!') || tag.ends_with('/')) continue;
    const std::string name = tag.substr(tag.starts_with('/') ? 1 : 0, tag.find_first_of(" \n", 1) - (tag.starts_with('/') ? 1 : 0));
    if (name == "meta" || name == "wbr") continue;
    if (!tag.starts_with('/')) open.push_back(name);
    else if (open.empty() || open.back() != name) return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back());
    else open.pop_back();
  }
  return open.empty() ? "" : open.back() + " stays open";
}

}  // namespace

TEST_CASE("ticks are round, rising, and inside") {
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  for (const auto& [low, high] : {std::pair{1.97, 5.63}, {-3.0, 0.01}, {0.0, 1000.0}, {1e-9, 3e-9}}) {
    const auto t = round_ticks(low, high, 5);
    CHECK(t.size() >= 2);
    CHECK(t.size() <= 11);
    for (std::size_t i = 0; i < t.size(); ++i) {
      CHECK(t[i] >= low - 1e-9 * (high - low));
      CHECK(t[i] <= high + 1e-9 * (high - low));
      if (i > 0) CHECK(t[i] > t[i - 1]);
    }
  }
}

TEST_CASE("ticks of steps are whole and distinct, however short the run") {
  for (int steps = 1; steps <= 40; ++steps) {
    Series s{.name = "n", .x = {}, .y = {}};
    for (int i = 1; i <= steps; ++i) s.x.push_back(i), s.y.push_back(1.0 / i);
    const std::string svg = draw(LineChart{.label = "l", .x_title = "step", .y_title = "y", .series = {s}});
    constexpr std::string_view kTick = "text-anchor=\"middle\">";
    std::vector<std::string> ticks;
    for (auto at = svg.find(kTick); at != svg.npos; at = svg.find(kTick, at + 1))
      ticks.push_back(svg.substr(at + kTick.size(), svg.find('<', at + kTick.size()) - at - kTick.size()));
    REQUIRE(ticks.size() >= 2);
    CHECK(ticks.back() == "step");
    ticks.pop_back();
    CAPTURE(steps);
    CHECK(ticks.size() <= 11);
    for (std::size_t i = 1; i < ticks.size(); ++i) CHECK(std::stoi(ticks[i]) > std::stoi(ticks[i - 1]));
  }
}

TEST_CASE("a curve is interrupted where a number is not finite") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const std::string svg = draw(LineChart{
      .label = "l", .x_title = "x", .y_title = "y", .series = {{.name = "n", .style = 3, .x = {1, 2, 3, 4, 5, 6}, .y = {1, 2, nan, 3, inf, 4}}}});
  CHECK(count(svg, "nan") == 0);
  CHECK(count(svg, "inf") == 0);
  const auto line = svg.find("class=\"line s3\"");
  REQUIRE(line != svg.npos);
  CHECK(count(svg.substr(line, svg.find("</path>", line) - line), "M") == 3);
}

TEST_CASE("charts of nothing, of one point, of a constant") {
  for (const auto& y : {std::vector<double>{}, {5}, {65536, 65536}, {0, 0}})
    for (const bool log2_y : {false, true}) {
      Series s{.name = "n", .x = {}, .y = y};
      for (std::size_t i = 0; i < y.size(); ++i) s.x.push_back(static_cast<double>(i));
      const std::string svg = draw(LineChart{.label = "l", .x_title = "x", .y_title = "y", .series = {s}, .log2_y = log2_y, .stairs = log2_y});
      CHECK(unbalanced(svg) == "");
      CHECK(count(svg, "nan") == 0);
      CHECK(count(svg, "inf") == 0);
    }
}

TEST_CASE("a stairs curve keeps its last step") {
  const std::string svg = draw(LineChart{
      .label = "l", .x_title = "x", .y_title = "y", .series = {{.name = "n", .x = {1, 2, 3, 4}, .y = {8, 8, 4, 4}}}, .log2_y = true, .stairs = true});
  const auto line = svg.find("class=\"line");
  const std::string path = svg.substr(line, svg.find("</path>", line) - line);
  CHECK(count(path, "H") == 2);  // to the change, and to the end
}

TEST_CASE("the page needs nothing else, escapes text, and has every figure in a table too") {
  Report r{.title = "A & B",
           .lede = {"one < two"},
           .runs = {made_up("fp32", -1), made_up("fp16", 300)},
           .findings = {"found"},
           .sample_title = "Sample",
           .sample = "a<b>\x01",
           .settings = {{"seed", "1"}},
           .machine = machine_facts()};
  const std::string html = to_html(r);
  CHECK(unbalanced(html) == "");
  for (const char* outside : {"http:", "https:", "src=", "href=", "url(", "@import", "<script"}) CHECK_MESSAGE(count(html, outside) == 0, outside);
  CHECK(html.find("A &amp; B") != html.npos);
  CHECK(html.find("a&lt;b&gt;") != html.npos);
  CHECK(html.find('\x01') == html.npos);
  CHECK(html.find("&lt;made up&gt;") != html.npos);
  CHECK(count(html, "<svg viewBox=\"0 0 720") == 4);  // loss, scale, zeros, memory
  CHECK(count(html, "class=\"line s0\"") >= 3);
  CHECK(count(html, "class=\"line s1\"") >= 3);
  CHECK(html.find("one step skipped, step 300") != html.npos);
  CHECK(html.find("prefers-color-scheme:dark") != html.npos);
  CHECK(html.find("name=\"viewport\"") != html.npos);
  CHECK(html.find("<td>65536</td>") != html.npos);
  CHECK(html.find("2.5000") != html.npos);
}

TEST_CASE("without scaling there is no section on it; one run shows its validation points") {
  auto run = made_up("bf16", -1);
  for (auto& s : run.steps) s.scale = 1;
  const std::string html =
      to_html({.title = "t", .lede = {}, .runs = {run}, .findings = {}, .sample_title = {}, .sample = {}, .settings = {}, .machine = {}});
  CHECK(unbalanced(html) == "");
  CHECK(html.find("<h2>Loss scale</h2>") == html.npos);
  CHECK(count(html, "<circle") == 6 + 1);  // and its swatch
}

TEST_CASE("steps are read back; a torn line and other lines are passed over") {
  const test::Scratch dir;
  test::write(dir / "metrics.jsonl",
              "{\"step\":1,\"loss\":5.5,\"scale\":65536,\"applied\":false,\"zero_fraction\":0.5}\n[]\nnot "
              "json\n{\"step\":2,\"loss\":null,\"scale\":32768,\"applied\":true,\"val_loss\":3.25}\n{\"step\":3,\"lo");
  const auto steps = read_steps(dir.path());
  REQUIRE(steps.size() == 2);
  CHECK(steps[0].loss == 5.5);
  CHECK(!steps[0].applied);
  CHECK(steps[0].zero_fraction == 0.5);
  CHECK(std::isnan(steps[0].val_loss));
  CHECK(std::isnan(steps[1].loss));
  CHECK(steps[1].scale == 32768);
  CHECK(steps[1].applied);
  CHECK(steps[1].val_loss == 3.25);
}

TEST_CASE("the summary's table: one column a run") {
  auto failed = made_up("fp16", 3);
  failed.failure = "step 7: NaN";
  failed.summary.step_ms_median = 8;
  const auto rows = summary_table({made_up("fp32", -1), failed}).rows();
  CHECK(rows[0] == std::vector<std::string>{"", "fp32, <made up>", "fp16, <made up>"});
  CHECK(rows[1] == std::vector<std::string>{"validation loss", "2.5000", "failed"});
  CHECK(rows[5] == std::vector<std::string>{"speed against fp32", "1.00x", "0.50x"});
  CHECK(rows.size() == 7 + kMemoryCategories);
}
