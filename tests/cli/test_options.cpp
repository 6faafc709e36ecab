// test_options.cpp - reading a command line, and numbers for people.
#include <cmath>

#include <doctest/doctest.h>

#include "cli/command.h"
#include "cli/format.h"
#include "cli/options.h"
#include "cli/train_options.h"

using namespace mezzo;
using namespace mezzo::cli;

namespace {

struct Targets {
  std::int64_t batch = 8;
  double lr = 0.001;
  std::string text;
  std::optional<std::int64_t> warmup;
  std::optional<std::array<double, 2>> betas = std::array{0.9, 0.95};
  optim::ScheduleKind schedule = optim::ScheduleKind::cosine;
  bool resume = false;
};

struct Line {
  Targets t;
  Options o{"mezzo try", "Tries."};
  Line() {
    o.group("numbers");
    o.value("--batch", "B", t.batch, "Sequences");
    o.value("--lr,--learning-rate", "X", t.lr, "Rate");
    o.value("--text", "TEXT", t.text, "Words");
    o.value("--warmup", "N", t.warmup, "Steps");
    o.value("--betas", "X,Y", t.betas, "Two");
    o.value("--schedule", "NAME", t.schedule, "Shape");
    o.flag("--resume", t.resume, "Go on");
  }
};

std::string refusal(const std::vector<std::string>& arguments) {
  Line line;
  try {
    line.o.parse(arguments);
  } catch (const UsageError& e) { return e.what(); }
  return "";
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace

TEST_CASE("values reach their targets, and the rest keeps its defaults") {
  Line line;
  CHECK(line.o.parse({"--batch", "12", "--learning-rate=2e-3", "--text=--batch", "--betas", "0.8,0.99", "--schedule", "wsd", "--resume"}) ==
        Options::Asked::run);
  CHECK(line.t.batch == 12);
  CHECK(line.t.lr == 2e-3);
  CHECK(line.t.text == "--batch");
  CHECK(!line.t.warmup);
  CHECK(line.t.betas == std::array{0.8, 0.99});
  CHECK(line.t.schedule == optim::ScheduleKind::wsd);
  CHECK(line.t.resume);
  CHECK(line.o.given("--lr"));
  CHECK(!line.o.given("--warmup"));
}

TEST_CASE("negative numbers are values") {
  Line line;
  CHECK(line.o.parse({"--batch", "-3", "--lr", "-0.5"}) == Options::Asked::run);
  CHECK(line.t.batch == -3);
  CHECK(line.t.lr == -0.5);
}

TEST_CASE("apply() puts what was given over values from elsewhere, and nothing else") {
  Line line;
  line.o.parse({"--batch", "12"});
  line.t = {};
  line.t.lr = 7;
  line.o.apply();
  CHECK(line.t.batch == 12);
  CHECK(line.t.lr == 7);
}

TEST_CASE("what cannot be understood is refused with its name") {
  CHECK(has(refusal({"--batch", "twelve"}), "--batch twelve given, a whole number wanted"));
  CHECK(has(refusal({"--batch", "12x"}), "--batch 12x"));
  CHECK(has(refusal({"--batch", "1e3"}), "whole number"));
  CHECK(has(refusal({"--batch", "99999999999999999999"}), "whole number"));
  CHECK(has(refusal({"--lr", "nan"}), "--lr nan given, a number wanted"));
  CHECK(has(refusal({"--lr", ""}), "a number wanted"));
  CHECK(has(refusal({"--betas", "0.9"}), "two numbers wanted"));
  CHECK(has(refusal({"--schedule", "cosin"}), "did you mean `cosine`"));
  CHECK(has(refusal({"--batch"}), "--batch needs a value"));
  CHECK(has(refusal({"--batch", "--lr", "1"}), "--batch needs a value, --lr follows"));
  CHECK(has(refusal({"--batch", "1", "--batch", "2"}), "--batch is given 2 times"));
  CHECK(has(refusal({"--resume=maybe"}), "--resume"));
  CHECK(has(refusal({"words"}), "`words` given"));
  CHECK(has(refusal({"--bacth", "4"}), "unknown option `--bacth`"));
  CHECK(has(refusal({"--bacth", "4"}), "did you mean `--batch`"));
  CHECK(has(refusal({"--bacth=4"}), "did you mean `--batch`"));
}

TEST_CASE("help names every option with what it takes and its default") {
  Line line;
  CHECK(line.o.parse({"--batch", "x", "--help"}) == Options::Asked::help);
  const std::string help = line.o.help();
  for (const char* part : {"Tries.", "usage: mezzo try", "numbers:", "--batch B", "Sequences [8]", "--lr,--learning-rate X", "--betas X,Y",
                           "[0.9,0.95]", "[cosine]", "--resume"})
    CHECK_MESSAGE(has(help, part), std::string(part));
}

TEST_CASE("every default of a training run survives its own command line") {
  TrainingArguments a;
  Options o("mezzo train", "");
  declare_training(o, a);
  const train::TrainOptions defaults;
  o.parse({});
  CHECK(a.options.batch == defaults.batch);
  CHECK(a.options.betas == defaults.betas);
  CHECK(a.options.schedule == defaults.schedule);
  CHECK(a.options.tensorboard == defaults.tensorboard);
}

TEST_CASE("numbers for people") {
  CHECK(format_bytes(0) == "0 bytes");
  CHECK(format_bytes(999) == "999 bytes");
  CHECK(format_bytes(1024) == "1.00 KiB");
  CHECK(format_bytes(12345678) == "11.8 MiB");
  CHECK(format_bytes(25276514304) == "23.5 GiB");
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(-1234567) == "-1,234,567");
  CHECK(format_seconds(0.04) == "0.0 s");
  CHECK(format_seconds(59.4) == "59 s");
  CHECK(format_seconds(80) == "1 min 20 s");
  CHECK(format_seconds(3661) == "1 h 01 min");
  CHECK(format_seconds(-1) == "?");
  CHECK(format_loss(-std::nan("")) == "nan");
  CHECK(format_loss(2.5) == "2.5000");
  CHECK(format_share(0) == "0.0 %");
  CHECK(format_share(0.662) == "66.2 %");
  CHECK(format_share(0.00004) == "0.004 %");
  CHECK(format_share(8e-7) == "under 0.001 %");
  CHECK(format_ms(1.234) == "1.23");
  CHECK(format_ms(99.99) == "100");
  CHECK(format_ms(536.2) == "536");
}

TEST_CASE("a table is aligned, by characters and not by bytes") {
  Table t({"", "value"});
  t.row({"\u00e4", "1"});
  t.row({"xyz", "1234567"});
  CHECK(t.text() == "       value\n\u00e4          1\nxyz  1234567\n");
}
