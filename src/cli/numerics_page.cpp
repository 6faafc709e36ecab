// numerics_page.cpp - picks the worst tensors of a run's inspections, and draws the maps.
#include "cli/numerics_page.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include <fmt/format.h>

#include "cli/html.h"

namespace mezzo::cli {

using inspect::Kind;
using inspect::Record;
using train::Inspection;

std::optional<int> headroom(const Record& r) {
  if (!(r.ranges.largest > 0)) return std::nullopt;
  return std::ilogb(format_info(r.dtype).max) - std::ilogb(r.ranges.largest);
}

double underflow(const Record& r) {
  if (r.ranges.count == 0) return 0;
  const int normal = std::ilogb(format_info(r.dtype).min_normal);
  return static_cast<double>(r.ranges.zero + r.ranges.below(normal)) / static_cast<double>(r.ranges.count);
}

namespace {

bool is_gradient(const Record& r) { return r.kind == Kind::gradient || r.kind == Kind::activation_gradient; }

std::string place(const Record& r) { return r.op.empty() ? r.module : r.module.empty() ? r.op : fmt::format("{} ({})", r.module, r.op); }
std::string kind_text(Kind kind) {
  std::string text(inspect::to_string(kind));
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}
/// A power of two as people read it.
std::string magnitude(double v) { return v == 0 || !std::isfinite(v) ? "-" : fmt::format("{:.2e}", v); }

/// The worst step of each tensor that `take` wants, the worst tensor first; `badness` rises with it.
struct Found {
  const Record* record;
  std::int64_t step;
  double badness;
};
std::vector<Found> worst(const std::vector<Inspection>& inspections, const std::function<std::optional<double>(const Record&)>& badness) {
  std::map<std::pair<Kind, std::string>, Found> by_tensor;
  for (const auto& i : inspections)
    for (const auto& r : i.records) {
      const auto b = badness(r);
      if (!b) continue;
      const auto [it, fresh] = by_tensor.try_emplace({r.kind, place(r)}, Found{&r, i.step, *b});
      if (!fresh && *b > it->second.badness) it->second = {&r, i.step, *b};
    }
  std::vector<Found> all;
  for (const auto& [key, found] : by_tensor) all.push_back(found);
  std::stable_sort(all.begin(), all.end(), [](const Found& a, const Found& b) { return a.badness > b.badness; });
  return all;
}

template <class Row> Table table_of(std::vector<std::string> headings, const std::vector<Found>& found, std::size_t rows, Row row) {
  Table table(std::move(headings));
  for (std::size_t i = 0; i < std::min(rows, found.size()); ++i) table.row(row(found[i]));
  return table;
}

std::optional<double> stalled_of(const Record& r) { return r.stalled && *r.stalled > 0 ? r.stalled : std::nullopt; }
std::optional<double> underflow_of(const Record& r) { return is_gradient(r) && underflow(r) > 0 ? std::optional(underflow(r)) : std::nullopt; }
std::optional<double> fullness_of(const Record& r) {
  const auto h = headroom(r);
  return h ? std::optional<double>(-*h) : std::nullopt;
}

}  // namespace

// ---- tables ----------------------------------------------------------------------------------

Table least_headroom(const std::vector<Inspection>& inspections, std::size_t rows) {
  return table_of({"closest to overflow", "binades left", "largest", "step", "dtype", "what"}, worst(inspections, fullness_of), rows,
                  [](const Found& f) -> std::vector<std::string> {
                    return {place(*f.record),
                            std::to_string(headroom(*f.record).value_or(0)),
                            magnitude(f.record->ranges.largest),
                            format_count(f.step),
                            std::string(name(f.record->dtype)),
                            kind_text(f.record->kind)};
                  });
}

Table most_underflow(const std::vector<Inspection>& inspections, std::size_t rows) {
  return table_of({"most lost to zero", "zero", "subnormal", "smallest", "step", "dtype", "what"}, worst(inspections, underflow_of), rows,
                  [](const Found& f) -> std::vector<std::string> {
                    const auto& r = f.record->ranges;
                    const double count = static_cast<double>(std::max<std::int64_t>(1, r.count));
                    return {place(*f.record),
                            format_share(static_cast<double>(r.zero) / count),
                            format_share(underflow(*f.record) - static_cast<double>(r.zero) / count),
                            magnitude(r.smallest),
                            format_count(f.step),
                            std::string(name(f.record->dtype)),
                            kind_text(f.record->kind)};
                  });
}

Table most_stalled(const std::vector<Inspection>& inspections, std::size_t rows) {
  return table_of({"updates that change nothing", "dtype", "stalled", "step"}, worst(inspections, stalled_of), rows,
                  [](const Found& f) -> std::vector<std::string> {
                    return {place(*f.record), std::string(name(f.record->dtype)), format_share(f.record->stalled.value_or(0)), format_count(f.step)};
                  });
}

Table format_table(const std::vector<Inspection>& inspections) {
  std::vector<std::string_view> formats;
  std::map<Kind, std::map<std::string_view, std::pair<std::vector<double>, double>>> by_kind;  // ratios, worst share flushed
  for (const auto& i : inspections)
    for (const auto& r : i.records)
      for (const auto& c : r.conversions) {
        if (std::find(formats.begin(), formats.end(), c.format) == formats.end()) formats.push_back(c.format);
        auto& [ratios, flushed] = by_kind[r.kind][c.format];
        if (r.ranges.nonzero() > 0) ratios.push_back(c.snr_db);
        flushed = std::max(flushed, c.flushed);
      }
  std::vector<std::string> headings{"if it were stored as"};
  for (const auto& [kind, columns] : by_kind) headings.push_back(kind_text(kind));
  Table table(std::move(headings));
  for (const auto f : formats) {
    std::vector<std::string> row{std::string(f)};
    for (auto& [kind, columns] : by_kind) {
      auto& [ratios, flushed] = columns[f];
      std::sort(ratios.begin(), ratios.end());
      const double middle = ratios.empty() ? std::nan("") : ratios[ratios.size() / 2];
      row.push_back(std::isnan(middle)   ? std::string("-")
                    : std::isinf(middle) ? fmt::format("exact, {}", format_share(flushed))
                                         : fmt::format("{:.0f} dB, {}", middle, format_share(flushed)));
    }
    table.row(std::move(row));
  }
  return table;
}

// ---- maps ------------------------------------------------------------------------------------

namespace {

/// Steps of a map: at most 24, evenly taken, the last one among them.
std::vector<const Inspection*> columns_of(const std::vector<Inspection>& inspections) {
  constexpr std::size_t kMost = 24;
  std::vector<const Inspection*> out;
  const std::size_t n = inspections.size(), wanted = std::min(n, kMost);
  for (std::size_t i = 0; i < wanted; ++i) out.push_back(&inspections[wanted == 1 ? n - 1 : i * (n - 1) / (wanted - 1)]);
  return out;
}

/// What a map's colours tell: how bad a record is, in [0, 1], and in words. None: the map does not speak of it.
struct Cell {
  std::string text;
  double heat;
};
using CellOf = std::function<std::optional<Cell>(const Record&)>;
using RowOf = std::function<std::string(const Record&)>;

/// One row for each name that `row` gives the last inspection's records, in their order; of several records of a name and step the worst is shown.
std::string heat_map(const std::vector<Inspection>& inspections, const std::string& heading, const RowOf& row, const CellOf& cell) {
  const auto columns = columns_of(inspections);
  std::vector<std::string> names;
  std::map<std::string, std::map<const Inspection*, Cell>> cells;
  for (const auto& r : columns.back()->records)
    if (cell(r) && std::find(names.begin(), names.end(), row(r)) == names.end()) names.push_back(row(r));
  for (const auto* c : columns)
    for (const auto& r : c->records)
      if (auto shown = cell(r)) {
        auto& of_row = cells[row(r)];
        const auto [it, fresh] = of_row.try_emplace(c, *shown);
        if (!fresh && shown->heat > it->second.heat) it->second = std::move(*shown);
      }
  std::string out = fmt::format("<div class=\"wide\"><table class=\"heat\"><thead><tr><th scope=\"col\">{}</th>", escape_html(heading));
  for (const auto* c : columns) out += fmt::format("<th scope=\"col\">{}</th>", format_count(c->step));
  out += "</tr></thead><tbody>\n";
  for (const auto& name : names) {
    out += fmt::format("<tr><th scope=\"row\">{}</th>", escape_html(name));
    for (const auto* c : columns) {
      const auto& of_row = cells[name];
      const auto shown = of_row.find(c);
      out += shown == of_row.end()
                 ? "<td></td>"
                 : fmt::format("<td style=\"--heat:{:.2f}\">{}</td>", std::clamp(shown->second.heat, 0.0, 1.0), escape_html(shown->second.text));
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

/// The module that a record's is a part of, as deep as models repeat themselves: "h.3.attn.c_proj.weight" is of "h.3", "ln_f.bias" of "ln_f".
std::string block_of(const Record& r) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const std::string& path = r.module;
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    if (end > begin && std::all_of(path.begin() + static_cast<std::ptrdiff_t>(begin), path.begin() + static_cast<std::ptrdiff_t>(end), digit))
      return path.substr(0, end);
    begin = end + 1;
  }
  for (const std::string_view leaf : {".weight", ".bias"})
    if (path.ends_with(leaf)) return path.substr(0, path.size() - leaf.size());
  return path.empty() ? r.op : path;
}

std::optional<Cell> underflow_cell(const Record& r) {
  if (!is_gradient(r)) return std::nullopt;
  const double share = underflow(r);
  return Cell{share == 0 ? "0" : share < 0.005 ? "<1" : fmt::format("{:.0f}", 100 * share), share};
}
/// Heat from 8 binades on: what a loss scale of 2^8 less would give back. Colder still the more there are, that the least is found.
std::optional<Cell> headroom_cell(const Record& r) {
  if (r.ranges.inf > 0 || r.ranges.nan > 0) return Cell{r.ranges.nan > 0 ? "NaN" : "Inf", 2};
  const auto h = headroom(r);
  return h ? std::optional(Cell{std::to_string(*h), 1 - *h / 8.0}) : std::nullopt;
}
CellOf headroom_of(Kind kind) {
  return [kind](const Record& r) { return r.kind == kind ? headroom_cell(r) : std::nullopt; };
}

}  // namespace

std::string numerics_section(const std::vector<Inspection>& inspections) {
  constexpr std::size_t kRows = 12;
  std::string out = "<h2>Numerics</h2>\n";
  out += paragraphs(
      {fmt::format("{} inspected, the last after step {}. Gradients are seen as they flow: multiplied by the loss scale ({:g} in the last one).",
                   inspections.size() == 1 ? "One step was" : fmt::format("{} steps were", inspections.size()), format_count(inspections.back().step),
                   inspections.back().scale)});
  out += "<h3>Underflow: percent of a gradient that is zero or subnormal</h3>\n" + heat_map(inspections, "percent", block_of, underflow_cell);
  out += "<h3>Headroom: binades left below overflow</h3>\n" + heat_map(inspections, "binades", block_of, headroom_cell);
  out += paragraphs({"Of each module and step the worst tensor: gradients for underflow; weights, activations and gradients for headroom."}, "soft");
  out += folded("Underflow by tensor and step", heat_map(inspections, "percent", place, underflow_cell));
  out +=
      folded("Headroom of gradients of activations, by op and step", heat_map(inspections, "binades", place, headroom_of(Kind::activation_gradient)));
  out += folded("Headroom of activations, by op and step", heat_map(inspections, "binades", place, headroom_of(Kind::activation)));
  out += "<h3>Worst tensors</h3>\n" + html_table(least_headroom(inspections, kRows)) + html_table(most_underflow(inspections, kRows));
  if (const Table stalled = most_stalled(inspections, kRows); stalled.rows().size() > 1) {
    out += html_table(stalled);
    out += paragraphs({"Of the elements that have a gradient: how many a step left bit for bit as they were, the master or remainder included."},
                      "soft");
  }
  if (const Table formats = format_table(inspections); formats.rows().size() > 1) {
    out += html_table(formats);
    out += paragraphs({"Median ratio of signal to rounding error, and the worst share of nonzero values that would become zero."}, "soft");
  }
  return out;
}

}  // namespace mezzo::cli
