// report.cpp - the sections of the page, figure by figure.
#include "cli/report.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include "cli/html.h"
#include "cli/numerics_page.h"
#include "io/file.h"
#include "train/options.h"

namespace mezzo::cli {
namespace {

constexpr std::size_t kPoints = 250;  // of a curve: more would not be seen

std::string full_name(const RunRecord& r) { return r.about.empty() ? r.name : fmt::format("{}, {}", r.name, r.about); }

/// Curve of a figure against the step, as means over groups of `group` steps.
Series curve(const RunRecord& run, int style, std::size_t group, double StepRecord::*figure) {
  Series s{.name = full_name(run), .style = style, .x = {}, .y = {}};
  for (std::size_t i = 0; i < run.steps.size(); i += group) {
    const std::size_t end = std::min(i + group, run.steps.size());
    double sum = 0;
    for (std::size_t k = i; k < end; ++k) sum += run.steps[k].*figure;
    s.x.push_back(static_cast<double>(run.steps[end - 1].step));
    s.y.push_back(sum / static_cast<double>(end - i));
  }
  return s;
}

/// Style 0 is the wide pale line that others are compared with: of one run alone there is nothing to compare.
int first_style(const std::vector<RunRecord>& runs) { return runs.size() > 1 ? 0 : 1; }

std::size_t group_of(const std::vector<RunRecord>& runs) {
  std::size_t longest = 0;
  for (const auto& r : runs) longest = std::max(longest, r.steps.size());
  return std::max<std::size_t>(1, (longest + kPoints - 1) / kPoints);
}

// ---- sections --------------------------------------------------------------------------------

/// A figure at eleven steps of each run.
std::string figures_table(const std::vector<RunRecord>& runs, double StepRecord::*figure, const char* format, bool share = false) {
  std::vector<std::string> headings{"step"};
  std::size_t longest = 0;
  const RunRecord* reference = nullptr;
  for (const auto& r : runs) {
    headings.push_back(full_name(r));
    if (r.steps.size() > longest) {
      longest = r.steps.size();
      reference = &r;
    }
  }
  Table table(std::move(headings));
  if (!reference) return {};
  for (int tenth = 0; tenth <= 10; ++tenth) {
    const std::size_t i = std::min(longest - 1, longest * static_cast<std::size_t>(tenth) / 10);
    std::vector<std::string> row{format_count(reference->steps[i].step)};
    for (const auto& r : runs) {
      const double v = i < r.steps.size() ? r.steps[i].*figure : std::nan("");
      row.push_back(i >= r.steps.size() ? "" : !std::isfinite(v) ? "not finite" : share ? format_share(v) : fmt::format(fmt::runtime(format), v));
    }
    table.row(std::move(row));
  }
  return html_table(table);
}

std::string loss_section(const Report& report) {
  const std::size_t group = group_of(report.runs);
  LineChart chart{.label = "Training loss against the step; the numbers stand in the table below",
                  .x_title = "step",
                  .y_title = "loss, nats a token",
                  .series = {}};
  int style = first_style(report.runs);
  for (const auto& run : report.runs) chart.series.push_back(curve(run, style++, group, &StepRecord::loss));
  if (report.runs.size() == 1) {
    Series validation{.name = "validation", .style = 3, .x = {}, .y = {}, .markers_only = true};
    for (const auto& s : report.runs.front().steps)
      if (std::isfinite(s.val_loss)) {
        validation.x.push_back(static_cast<double>(s.step));
        validation.y.push_back(s.val_loss);
      }
    chart.series.front().name = "training";
    if (!validation.x.empty()) chart.series.push_back(std::move(validation));
  }
  const std::string caption = group > 1 ? fmt::format("Training loss; each point is the mean of {} steps.", group) : "Training loss of each step.";
  return fmt::format("<h2>Loss</h2>\n{}<figure><div>{}</div><figcaption>{}</figcaption></figure>\n{}", legend(chart.series), draw(chart), caption,
                     folded("Training loss in numbers, of single steps", figures_table(report.runs, &StepRecord::loss, "{:.4f}")));
}

std::string scale_section(const Report& report) {
  LineChart chart{.label = "Loss scale against the step; the numbers stand in the table below",
                  .x_title = "step",
                  .y_title = "loss scale (powers of two)",
                  .series = {},
                  .log2_y = true,
                  .stairs = true};
  std::vector<RunRecord> scaled;
  std::string skipped;
  int style = first_style(report.runs);
  for (const auto& run : report.runs) {
    Series s{.name = full_name(run), .style = style++, .x = {}, .y = {}};
    for (const auto& p : run.steps) {
      s.x.push_back(static_cast<double>(p.step));
      s.y.push_back(p.scale);
    }
    if (std::all_of(run.steps.begin(), run.steps.end(), [](const StepRecord& p) { return p.scale == 1; })) continue;
    std::string list;
    int count = 0;
    for (const auto& p : run.steps)
      if (!p.applied && ++count <= 40) list += fmt::format("{}{}", list.empty() ? "" : ", ", p.step);
    skipped += fmt::format("<p>{}: {} (Inf or NaN in a gradient).</p>\n", escape_html(full_name(run)),
                           count == 0 ? "no step was skipped"
                                      : fmt::format("{} skipped, step{} {}{}", count == 1 ? "one step" : fmt::format("{} steps", count),
                                                    count == 1 ? "" : "s", list, count > 40 ? ", ..." : ""));
    chart.series.push_back(std::move(s));
    scaled.push_back(run);
  }
  if (chart.series.empty()) return {};
  return fmt::format(
      "<h2>Loss scale</h2>\n{}<figure><div>{}</div><figcaption>What the loss was multiplied by before the backward pass.</figcaption></figure>\n{}{}",
      legend(chart.series), draw(chart), skipped, folded("Loss scale in numbers", figures_table(scaled, &StepRecord::scale, "{:g}")));
}

std::string zero_section(const Report& report) {
  const std::size_t group = group_of(report.runs);
  LineChart chart{.label = "Share of gradient elements that are zero, against the step; the numbers stand in the table below",
                  .x_title = "step",
                  .y_title = "zero gradient elements",
                  .series = {},
                  .percent = true};
  int style = first_style(report.runs);
  for (const auto& run : report.runs) chart.series.push_back(curve(run, style++, group, &StepRecord::zero_fraction));
  return fmt::format(
      "<h2>Gradients lost to zero</h2>\n{}<figure><div>{}</div><figcaption>Share of the elements of all parameter gradients that are exactly 0: what "
      "lies below the format's smallest number, and what is 0 in any format, as rows of an embedding whose tokens a step does not hold, or the first "
      "half of an adapter while its second half is still 0.</figcaption></figure>\n{}",
      legend(chart.series), draw(chart),
      folded("Zero gradient elements in numbers, of single steps", figures_table(report.runs, &StepRecord::zero_fraction, "{}", true)));
}

/// What a run computes and stores in which format, and why: config.json's precision plan.
Facts precision_facts(const io::Json& config) {
  const auto& p = config.at("precision");
  const auto text = [&](const char* key) { return p.at(key).get<std::string>(); };
  const std::string storage = text("storage"), weights = text("weights");
  const bool asked = text("requested") == text("recipe");
  Facts f{{"recipe", asked ? text("recipe") : fmt::format("{}, for {}: {}", text("recipe"), text("requested"), text("reason"))},
          {"products", p.at("autocast").is_string() ? fmt::format("of {} operands (autocast)", p.at("autocast").get<std::string>())
                                                    : fmt::format("of {} operands", weights)},
          {"weights", fmt::format("stored in {}{}", weights,
                                  storage == "master"       ? ", beside masters in f32"
                                  : storage == "split"      ? ", completed to f32 by 16 more bits in the optimizer"
                                  : storage == "kahan"      ? ", with what rounding lost beside them in bf16"
                                  : storage == "stochastic" ? ", rounded by chance"
                                  : storage == "pure"       ? ", rounded to nearest, with nothing beside them"
                                                            : "")},
          {"a parameter", fmt::format("{:g} bytes with AdamW", p.at("bytes_per_parameter").get<double>())}};
  if (const auto& s = p.at("scaler"); s.is_null()) f.emplace_back("loss scale", "none");
  else
    f.emplace_back("loss scale", s.at("dynamic").get<bool>() ? fmt::format("from {:g}, times {:g} after {} steps without overflow, times {:g} at one",
                                                                           s.at("init_scale").get<double>(), s.at("growth_factor").get<double>(),
                                                                           s.at("growth_interval").get<int>(), s.at("backoff_factor").get<double>())
                                                             : fmt::format("{:g}, fixed", s.at("init_scale").get<double>()));
  if (p.at("frozen").is_string()) f.emplace_back("frozen", text("frozen"));
  if (const auto& ops = config.at("options").at("f32_ops"); !ops.empty())
    f.emplace_back("asked for in f32", fmt::format("{}", fmt::join(ops.get<std::vector<std::string>>(), ", ")));
  for (const auto& why : p.at("stays_f32")) f.emplace_back(&why == &p.at("stays_f32").front() ? "in f32" : "", why.get<std::string>());
  f.emplace_back("kernels", text("isa"));
  for (const auto& w : p.at("warnings")) f.emplace_back("warning", w.get<std::string>());
  return f;
}

std::string precision_section(const Report& report) {
  std::string out;
  for (const auto& run : report.runs) {
    if (!run.config.contains("precision")) continue;
    const std::string facts = facts_table(precision_facts(run.config));
    out += report.runs.size() > 1 ? folded(escape_html(full_name(run)), facts) : facts;
  }
  return out.empty() ? out : "<h2>Precision plan</h2>\n" + out;
}

/// Where no summary says what a run held: what it planned to hold, and the largest sum of bytes that a step wrote down.
std::string planned_memory(const RunRecord& run) {
  std::int64_t largest = 0;
  for (const auto& s : run.steps) largest = std::max(largest, s.peak_bytes);
  Table table({"bytes at the peak of a step", ""});
  table.row({"held, of all steps the most", format_bytes(largest)});
  if (run.config.contains("planned_bytes_by_category")) {
    table.row({"planned", format_bytes(run.config.at("planned_bytes").get<std::int64_t>())});
    for (const auto& [category, bytes] : run.config.at("planned_bytes_by_category").items())
      table.row({"  " + category, format_bytes(bytes.get<std::int64_t>())});
  }
  return "<h2>Memory</h2>\n" + html_table(table, 1);
}

std::string memory_section(const Report& report) {
  BarChart chart{.label = "Bytes by category at the peak of a step; the numbers stand in the table above", .bars = {}};
  for (const auto& run : report.runs) {
    Bar bar{.name = full_name(run), .total = format_bytes(run.summary.peak_bytes), .parts = {}, .titles = {}};
    for (std::size_t c = 0; c < kMemoryCategories; ++c) {
      bar.parts.push_back(static_cast<double>(run.summary.bytes[c]));
      bar.titles.push_back(fmt::format("{}: {}", name(static_cast<Memory>(c)), format_bytes(run.summary.bytes[c])));
    }
    chart.bars.push_back(std::move(bar));
  }
  std::string list = "<ul class=\"legend\">\n";
  for (std::size_t c = 0; c < kMemoryCategories; ++c)
    list += fmt::format("<li><svg viewBox=\"0 0 28 12\" aria-hidden=\"true\"><rect class=\"c{}\" width=\"28\" height=\"12\"/></svg>{}</li>\n", c,
                        name(static_cast<Memory>(c)));
  return fmt::format(
      "<h2>Memory</h2>\n{}</ul>\n<figure><div>{}</div><figcaption>Bytes that tensors and kernels held at the peak of a step, counted by the "
      "allocator. The "
      "program itself and its libraries come on top.</figcaption></figure>\n",
      list, draw(chart));
}

std::string events_section(const std::vector<train::Event>& events) {
  constexpr std::size_t kShown = 200;
  Table table({"step", "what happened"});
  for (std::size_t i = events.size() - std::min(kShown, events.size()); i < events.size(); ++i)
    table.row({format_count(events[i].step), events[i].text});
  const std::string heading = events.size() > kShown
                                  ? fmt::format("The last {} of {} events", kShown, format_count(static_cast<std::int64_t>(events.size())))
                                  : std::string("Events");
  return fmt::format("<h2>{}</h2>\n{}", heading, html_table(table));
}

}  // namespace

std::string to_html(const Report& r) {
  std::string out;
  out += paragraphs(r.lede);
  if (r.ended) out += "<h2>Result</h2>\n" + html_table(summary_table(r.runs), 1) + paragraphs(r.findings);
  out += loss_section(r) + scale_section(r) + zero_section(r);
  if (!r.events.empty()) out += events_section(r.events);
  if (!r.inspections.empty()) out += numerics_section(r.inspections);
  out += precision_section(r);
  const bool measured = std::any_of(r.runs.begin(), r.runs.end(), [](const RunRecord& run) { return run.summary.steps_run > 0; });
  out += measured ? memory_section(r) : planned_memory(r.runs.front());
  if (!r.sample.empty()) out += fmt::format("<h2>{}</h2>\n<pre>{}</pre>\n", escape_html(r.sample_title), escape_html(r.sample));
  if (!r.settings.empty()) out += "<h2>Settings</h2>\n" + facts_table(r.settings);
  if (!r.machine.empty()) out += "<h2>Machine</h2>\n" + facts_table(r.machine);
  return html_page(r.title, out);
}

Facts machine_facts() {
  const auto& cpu = cpu_info();
  return {{"CPU", cpu.model},
          {"threads", fmt::format("{} (cores: {})", num_threads(), cpu.cores)},
          {"kernels", std::string(name(active_isa()))},
          {"caches", fmt::format("L1 {}, L2 {}, L3 {}", format_bytes(cpu.l1d), format_bytes(cpu.l2), format_bytes(cpu.l3))},
          {"memory", format_bytes(cpu.memory)}};
}

std::string optimizer_text(const train::TrainOptions& o) {
  std::string text = o.optimizer;
  if (o.betas && (o.optimizer == "adamw" || o.optimizer == "adam" || o.optimizer == "lion"))
    text += fmt::format(", betas {}, {}", (*o.betas)[0], (*o.betas)[1]);
  if (o.optimizer == "sgd") text += fmt::format(", momentum {}", o.momentum);
  if (!o.state_dtype.empty()) text += fmt::format(", states in {}", o.state_dtype);
  return text;
}

Facts setting_facts(const train::TrainOptions& o, const models::ModelOptions& m) {
  const auto own = train::tokens_of_step(o);
  Facts f{{o.tune ? "examples" : "text", o.data.native()},
          {"model", fmt::format("{}: {} parameters", models::to_spec(m), format_count(models::parameter_count(m)))},
          {"a step", fmt::format("{}{} tokens: {} sequences of {}{}", o.tune ? "up to " : "", format_count(own), o.batch * o.accumulate, o.seq,
                                 o.accumulate > 1 ? fmt::format(", in {} micro-batches", o.accumulate) : "")},
          {"the loss", o.global_batch > own
                           ? fmt::format("the mean over {} tokens, of which a step runs {}: divided by {:g} more", format_count(o.global_batch),
                                         format_count(own), train::loss_divisor(o))
                           : std::string(o.tune ? "the mean over the step's tokens that carry loss" : "the mean over the step's tokens")},
          {"optimizer", fmt::format("{}, weight decay {} on matrices, {}", optimizer_text(o), o.weight_decay,
                                    o.clip_norm > 0 ? fmt::format("gradients clipped at norm {}", o.clip_norm) : "no clipping")},
          {"learning rate", fmt::format("{}, {} schedule to {:g} of it over {} steps, {} of warm-up", o.lr, optim::name(o.schedule),
                                        o.schedule == optim::ScheduleKind::constant ? 1 : o.final_fraction, o.steps, o.warmup.value_or(0))},
          {"seed", std::to_string(o.seed)}};
  if (!o.tune) return f;
  const auto& lora = o.tune->lora;
  f.insert(f.begin() + 1, {"base", o.model});
  f.insert(f.begin() + 3,
           {"trained", o.tune->full ? std::string("all weights")
                                    : fmt::format("adapters of rank {}, alpha {}{}, dropout {}, on {}", lora.rank, lora.alpha,
                                                  lora.rslora ? " (over the root of the rank)" : "", lora.dropout, fmt::join(lora.targets, ", "))});
  return f;
}

void write_report(const std::filesystem::path& run_directory, const train::Trainer& trainer, const train::TrainSummary& summary) {
  const auto& plan = trainer.plan();
  Report r{.title = fmt::format("mezzo: {}, {}", run_directory.filename().native(), plan.recipe.name),
           .lede = {fmt::format("{} of {} steps{}.", format_count(summary.step), format_count(trainer.options().steps),
                                summary.status == train::RunStatus::interrupted ? ", stopped; --resume continues it" : "")},
           .runs = {{.name = plan.recipe.name,
                     .about = {},
                     .steps = read_steps(run_directory),
                     .summary = summary,
                     .failure = {},
                     .config = read_config(run_directory)}},
           .findings = trainer.warnings(),
           .inspections = train::read_inspections(run_directory),
           .events = train::read_events(run_directory),
           .sample_title = {},
           .sample = {},
           .settings = setting_facts(trainer.options(), trainer.model_options()),
           .machine = machine_facts()};
  io::write_file(run_directory / "report.html", to_html(r));
}

}  // namespace mezzo::cli
