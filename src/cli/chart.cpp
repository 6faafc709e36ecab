// chart.cpp - scales, ticks and paths of line and bar charts, drawn into SVG.
#include "cli/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/core.h>

#include "cli/format.h"

namespace mezzo::cli {
namespace {

// Units of the viewBox; the page scales them to its width.
constexpr double kWidth = 720, kHeight = 390, kRight = 18, kTop = 38, kBottom = 60;
constexpr double kCharacter = 13.5;  // of the larger type that small screens get

struct Limits {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  void open(double by) {  // a range of more than a point, also around nothing
    if (low > high) low = high = 0;
    if (low == high) {
      low -= by;
      high += by;
    }
  }
};

std::string tick_text(double v, const LineChart& c) {
  if (c.percent) return fmt::format("{:g} %", 100 * v);
  if (c.log2_y)
    return std::abs(v) <= 20 ? (v < 0 ? fmt::format("{:.3g}", std::exp2(v)) : format_count(std::llround(std::exp2(v)))) : fmt::format("2^{:g}", v);
  return fmt::format("{:g}", v);
}

std::vector<double> whole_ticks(double low, double high, int wanted) {
  const double step = std::max(1.0, std::ceil((high - low) / wanted));
  std::vector<double> ticks;
  for (double v = std::ceil(low / step) * step; v <= high + 1e-9; v += step) ticks.push_back(v);
  return ticks;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;  // control characters have no place in HTML
    }
  return out;
}

std::vector<double> round_ticks(double low, double high, int wanted, double least) {
  const double rough = (high - low) / wanted, power = std::pow(10, std::floor(std::log10(rough)));
  const double step = std::max(least, power * (rough / power <= 1 ? 1 : rough / power <= 2 ? 2 : rough / power <= 5 ? 5 : 10));
  std::vector<double> ticks;
  for (auto i = static_cast<std::int64_t>(std::ceil(low / step - 1e-9)); static_cast<double>(i) * step <= high + 1e-9 * step; ++i)
    ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::string draw(const LineChart& c) {
  const auto value = [&](double v) { return c.log2_y ? std::log2(v) : v; };
  Limits x, y;
  for (const auto& s : c.series) {
    for (const double v : s.x) x.add(v);
    for (const double v : s.y) y.add(value(v));
  }
  if (c.percent) {
    y.add(0);
    y.add(0.01);
  }
  x.open(1);
  y.open(c.log2_y ? 2 : c.percent ? 0.01 : 0.5);
  if (c.percent) y.low = 0;
  const double margin = c.percent ? 0 : 0.03 * (y.high - y.low);
  y.low -= margin;
  y.high += 0.03 * (y.high - y.low);
  const auto ticks = c.log2_y ? whole_ticks(y.low, y.high, 6) : round_ticks(y.low, y.high, 5);
  std::size_t widest = 0;
  for (const double t : ticks) widest = std::max(widest, tick_text(t, c).size());
  const double left = 12 + kCharacter * static_cast<double>(widest), right = kWidth - kRight, bottom = kHeight - kBottom;
  const auto px = [&](double v) { return left + (v - x.low) / (x.high - x.low) * (right - left); };
  const auto py = [&](double v) { return bottom - (v - y.low) / (y.high - y.low) * (bottom - kTop); };

  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, kHeight, escape_html(c.label));
  svg += fmt::format("<text class=\"title\" x=\"0\" y=\"18\">{}</text>\n", escape_html(c.y_title));
  for (const double t : ticks)
    svg += fmt::format(
        "<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/><text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\" "
        "dy=\".35em\">{}</text>\n",
        left, py(t), right, left - 8, py(t), tick_text(t, c));
  for (const double t : round_ticks(x.low, x.high, 5, 1))
    svg +=
        fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}v5\"/><text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                    px(t), bottom, px(t), bottom + 24, format_count(std::llround(t)));
  svg += fmt::format("<path class=\"axis\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>\n", left, bottom, right);
  svg += fmt::format("<text class=\"title\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", (left + right) / 2, kHeight - 8,
                     escape_html(c.x_title));
  for (const auto& s : c.series) {
    std::string path, points;
    bool pen = false;
    double before = 0;
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      const double v = value(s.y[i]);
      if (!std::isfinite(v)) {
        pen = false;
        continue;
      }
      if (s.markers_only) points += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", px(s.x[i]), py(v));
      else if (pen && c.stairs) path += v == before && i + 1 < s.x.size() ? "" : fmt::format("H{:.1f}V{:.1f}", px(s.x[i]), py(v));
      else path += fmt::format("{}{:.1f} {:.1f}", pen ? 'L' : 'M', px(s.x[i]), py(v));
      pen = true;
      before = v;
    }
    const std::string title = fmt::format("<title>{}</title>", escape_html(s.name));
    if (s.markers_only) svg += fmt::format("<g class=\"mark s{}\">{}{}</g>\n", s.style, title, points);
    else svg += fmt::format("<path class=\"line s{}\" d=\"{}\">{}</path>\n", s.style, path, title);
  }
  return svg + "</svg>\n";
}

std::string draw(const BarChart& c) {
  constexpr double kRow = 64, kThick = 26, kEnd = 125;  // kEnd: room for the total
  double largest = 0;
  for (const auto& b : c.bars) {
    double sum = 0;
    for (const double p : b.parts) sum += p;
    largest = std::max(largest, sum);
  }
  const double scale = largest > 0 ? (kWidth - kEnd) / largest : 0;
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, kRow * static_cast<double>(c.bars.size()),
                                escape_html(c.label));
  for (std::size_t i = 0; i < c.bars.size(); ++i) {
    const auto& b = c.bars[i];
    const double top = kRow * static_cast<double>(i);
    svg += fmt::format("<text class=\"name\" x=\"0\" y=\"{:.1f}\">{}</text>\n", top + 20, escape_html(b.name));
    double x = 0;
    for (std::size_t k = 0; k < b.parts.size(); ++k) {
      const double width = b.parts[k] * scale;
      if (width < 0.05) continue;
      svg += fmt::format("<rect class=\"c{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\"><title>{}</title></rect>\n", k, x, top + 28,
                         width, kThick, k < b.titles.size() ? escape_html(b.titles[k]) : "");
      x += width;
    }
    svg += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x + 8, top + 28 + kThick * 0.7, escape_html(b.total));
  }
  return svg + "</svg>\n";
}

}  // namespace mezzo::cli
