// chart.h - figures as inline SVG; colours are classes that the page's style sheet defines, so one figure serves light and dark.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mezzo::cli {

/// Text that HTML and SVG take as it is meant.
std::string escape_html(std::string_view);

/// A line of a chart. `style` picks colour and dashes: class "s0", "s1", ...
struct Series {
  std::string name;
  int style = 0;
  std::vector<double> x, y;   // a y that is not finite interrupts the line
  bool markers_only = false;  // points instead of a line
};

/// x is whole: a step.
struct LineChart {
  std::string label;  // for those who do not see it
  std::string x_title, y_title;
  std::vector<Series> series;
  bool log2_y = false;   // powers of two are equally far apart
  bool stairs = false;   // a value holds until the next
  bool percent = false;  // y is a share: ticks in percent, from 0
};
std::string draw(const LineChart&);

/// Horizontal bars cut into parts: class "c0", "c1", ... in order.
struct Bar {
  std::string name, total;  // total: text at its end
  std::vector<double> parts;
  std::vector<std::string> titles;  // of the parts, shown on hovering
};
struct BarChart {
  std::string label;
  std::vector<Bar> bars;
};
std::string draw(const BarChart&);

/// Positions of about `wanted` round values inside [low, high], `least` apart or more; low < high.
std::vector<double> round_ticks(double low, double high, int wanted, double least = 0);

}  // namespace mezzo::cli
