// test_commands.cpp - the program, from training to text, and stopped by Ctrl-C.
#include <signal.h>

#include <cmath>
#include <map>
#include <set>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "io/json.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kTiny{"--model", "gpt:layers=1,heads=2,width=16", "--batch", "2", "--seq", "16"};

/// The one document on stdout.
io::Json document(const Result& r) {
  INFO(r.err);
  REQUIRE(r.code == 0);
  return io::parse_json(r.out, "stdout");
}

std::set<std::string> keys(const io::Json& j) {
  std::set<std::string> all;
  for (const auto& [key, value] : j.items()) all.insert(key);
  return all;
}

bool includes(const std::set<std::string>& all, const std::set<std::string>& wanted) {
  return std::includes(all.begin(), all.end(), wanted.begin(), wanted.end());
}

const std::set<std::string> kCategories{"weights", "masters", "gradients", "optimizer", "activations", "cast_cache", "workspace", "data"};

std::int64_t line_count(const std::string& path) {
  const std::string text = read(path);
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace

TEST_CASE("help and version") {
  const Result all = run({"--help"});
  CHECK(all.code == 0);
  CHECK(all.err.empty());
  for (const char* command : {"train", "finetune", "eval", "generate", "plan", "inspect", "doctor", "bench", "demo"}) {
    CHECK(all.out.find(command) != all.out.npos);
    const Result one = run({command, "--help"}), other = run({"help", command});
    CHECK(one.code == 0);
    CHECK(one.err.empty());
    CHECK(one.out == other.out);
    for (const char* part : {"usage: mezzo ", "--json", "--threads N"}) CHECK_MESSAGE(one.out.find(part) != one.out.npos, command << " " << part);
  }
  CHECK(run({"--version"}).out.starts_with("mezzo "));
  CHECK(run({}).code == 2);
}

TEST_CASE("train, evaluate, generate") {
  const Scratch dir;
  write(dir / "text.txt", some_text(6000));
  const auto trained = document(run(join({"train", "--json", "--data", dir / "text.txt", "--out", dir / "run", "--steps", "12", "--eval-steps", "6",
                                          "--checkpoint-steps", "5", "--lr", "1e-2"},
                                         kTiny)));
  CHECK(trained["status"] == "finished");
  CHECK(trained["step"] == 12);
  CHECK(trained["tokens"] == 12 * 2 * 16);
  CHECK(trained["val_loss"].get<double>() < 5.6);
  CHECK(keys(trained["bytes"]) == kCategories);
  for (const char* file : {"config.json", "metrics.jsonl", "report.html", "model/model.safetensors", "model/config.json", "checkpoints/step-5",
                           "checkpoints/step-10", "checkpoints/step-12"})
    CHECK_MESSAGE(fs::exists(dir.path() / "run" / file), file);
  CHECK(line_count(dir / "run/metrics.jsonl") == 12);
  CHECK(read(dir / "run/report.html").find("</html>") != std::string::npos);

  const auto evaluated = document(run({"eval", "--json", "--model", dir / "run", "--data", dir / "text.txt"}));
  CHECK(keys(evaluated) == std::set<std::string>{"loss", "perplexity", "tokens", "precision", "seq", "stride"});
  CHECK((evaluated["precision"] == "fp32" || evaluated["precision"] == "bf16"));  // what auto chose
  CHECK(evaluated["seq"] == 16);
  CHECK(evaluated["stride"] == 16);
  CHECK(evaluated["perplexity"].get<double>() == doctest::Approx(std::exp(evaluated["loss"].get<double>())));
  CHECK(evaluated["tokens"] ==
        (static_cast<std::int64_t>(fs::file_size(dir / "text.txt")) - 1) / 16 * 16);  // whole windows of the context, each with its next token
  const auto shorter = document(run({"eval", "--json", "--model", dir / "run", "--data", dir / "text.txt", "--seq", "7", "--precision", "fp32"}));
  CHECK(shorter["tokens"] == (static_cast<std::int64_t>(fs::file_size(dir / "text.txt")) - 1) / 7 * 7);

  const std::vector<std::string> ask{"generate", "--model", dir / "run", "--prompt", "the \u00bd ", "--max-tokens", "20",
                                     "--seed",   "3",       "--top-k",   "5"};
  const Result text = run(ask), again = run(ask);
  CHECK(text.code == 0);
  CHECK(text.err.empty());
  CHECK(text.out.starts_with("the \u00bd "));
  CHECK(text.out == again.out);
  const auto generated = document(run(join(ask, {"--json"})));
  CHECK(generated["tokens"] == 20);
  CHECK(text.out == generated["prompt"].get<std::string>() + generated["text"].get<std::string>() + "\n");
  const Result longer = run({"generate", "--model", dir / "run", "--prompt", std::string(40, 'a'), "--max-tokens", "1"});
  CHECK(longer.code == 0);
  CHECK(longer.err == "mezzo generate: the prompt has 40 tokens, the model's context 16: it sees the last of them only\n");
}

TEST_CASE("export: a run as GGUF and as safetensors, read back by every command") {
  const Scratch dir;
  write(dir / "text.txt", some_text(4000));
  document(run(join({"train", "--json", "--data", dir / "text.txt", "--out", dir / "run", "--steps", "4", "--eval-steps", "0"}, kTiny)));
  for (const std::string format : {"gguf", "safetensors"}) {
    const std::string out = dir / ("out." + format), left = dir / ".tmp-1-0-out";  // by an export that was interrupted
    write(left, "half");
    const auto report = document(run({"export", "--json", "--model", dir / "run", "--format", format, "--type", "f32", "--out", out}));
    CHECK_FALSE(fs::exists(left));
    CHECK(report["parity"]["logit_difference_max"] == 0.0);  // f32 is the model itself
    CHECK(report["parity"]["same_likeliest_token"] == 1.0);
    CHECK(report["parity"]["perplexity_source"] == report["parity"]["perplexity_exported"]);
    CHECK(report["tokenizer"]["same_ids"] == true);
    CHECK(report["bytes"].get<std::int64_t>() > 1000);
    const std::vector<std::string> ask{"--prompt", "the ", "--max-tokens", "8", "--temperature", "0", "--precision", "fp32"};
    CHECK(run(join({"generate", "--model", out}, ask)).out == run(join({"generate", "--model", dir / "run"}, ask)).out);
    const auto loss = [&](const std::string& model) {
      return document(run({"eval", "--json", "--model", model, "--data", dir / "text.txt", "--seq", "16", "--stride", "4", "--precision", "fp32"}));
    };
    CHECK(loss(out) == loss(dir / "run"));
  }
  const Result half = run({"export", "--model", dir / "run", "--format", "gguf", "--out", dir / "half.gguf"});
  CHECK(half.code == 0);
  for (const char* part : {"half.gguf", "F16", "perplexity", "KL divergence", "chat template"})
    CHECK_MESSAGE(half.out.find(part) != half.out.npos, part);
}

TEST_CASE("a person reads the plan, then the summary") {
  const Scratch dir;
  write(dir / "text.txt", some_text(4000));
  const Result r = run(join(
      {"train", "--data", dir / "text.txt", "--out", dir / "run", "--steps", "3", "--precision", "fp16-master", "--global-batch", "4096"}, kTiny));
  CHECK(r.code == 0);
  for (const char* part : {"precision  fp16-master", "loss scale dynamic, from 65536", "at the peak",
                           "global batch of 4,096 tokens, of which each step runs 32", "validation loss", "report"})
    CHECK_MESSAGE(r.out.find(part) != r.out.npos, part);
}

TEST_CASE("Ctrl-C leaves a checkpoint, and --resume goes on from it") {
  const Scratch dir;
  write(dir / "text.txt", some_text(4000));
  const std::string run_dir = dir / "run", metrics = dir / "run/metrics.jsonl";
  const auto after = [&](std::int64_t lines) { return [=] { return fs::exists(metrics) && line_count(metrics) >= lines; }; };
  const Result first =
      run(join({"train", "--json", "--data", dir / "text.txt", "--out", run_dir, "--steps", "100000", "--eval-steps", "0", "--schedule", "constant"},
               kTiny),
          {.interrupt_when = after(3)});
  CHECK(first.code == 130);
  const auto stopped = io::parse_json(first.out, "stdout");
  CHECK(stopped["status"] == "interrupted");
  CHECK(stopped["val_loss"].is_null());
  const auto step = stopped["step"].get<std::int64_t>();
  CHECK(step >= 3);
  CHECK(line_count(metrics) == step);
  CHECK(fs::exists(dir.path() / "run/checkpoints" / ("step-" + std::to_string(step))));
  CHECK(first.err.find("writing a checkpoint") != first.err.npos);
  CHECK(read(run_dir + "/report.html").find("stopped; --resume continues it") != std::string::npos);

  const auto more = std::to_string(step + 4);
  const auto resumed = document(run({"train", "--json", "--out", run_dir, "--resume", "--steps", more}));  // the run's own options
  CHECK(resumed["status"] == "finished");
  CHECK(resumed["step"] == step + 4);
  CHECK(line_count(metrics) == step + 4);
}

TEST_CASE("a run that has ended, resumed: a line that nothing is left to do, its own figures, and no file of it changes") {
  const Scratch dir;
  write(dir / "text.txt", some_text(4000));
  for (const bool early : {false, true}) {
    CAPTURE(early);
    const std::string out = dir / (early ? "early" : "whole");
    const Arguments length = early ? Arguments{"--steps",    "40",       "--eval-steps", "2", "--early-stop", "2",   "--lr", "10",
                                               "--schedule", "constant", "--warmup",     "0", "--precision",  "fp32"}
                                   : Arguments{"--steps", "6"};
    const auto done = document(run(join(join({"train", "--json", "--data", dir / "text.txt", "--out", out}, kTiny), length)));
    CHECK(done["step"].get<int>() < 40);
    const auto contents = [&] {
      std::map<std::string, std::string> all;
      for (const auto& e : fs::recursive_directory_iterator(out))
        if (e.is_regular_file() && e.path().filename() != ".lock") all[e.path().native()] = read(e.path().native());
      return all;
    };
    const auto before = contents();
    CHECK(document(run({"train", "--json", "--out", out, "--resume"})) == done);
    const Result said = run({"train", "--out", out, "--resume"});
    CHECK(said.code == 0);
    CHECK(said.err.empty());
    CHECK(std::count(said.out.begin(), said.out.end(), '\n') == 1);
    CHECK(said.out.starts_with("nothing is left to do: the run has ended, after step " + std::to_string(done["step"].get<int>()) + " of "));
    CHECK(contents() == before);

    // What was lost of it is made again; nothing is measured then, and no events are added.
    fs::remove_all(out + "/model");
    const auto again = document(run({"train", "--json", "--out", out, "--resume"}));
    CHECK(fs::exists(out + "/model/model.safetensors"));
    CHECK(again["val_loss"] == done["val_loss"]);
    for (const char* figure : {"train_loss", "step_ms_median", "tokens_per_second", "peak_bytes", "bytes"})
      CHECK_MESSAGE(again[figure].is_null(), figure);
    CHECK(contents().size() == before.size());
    CHECK(read(out + "/report.html").find("not measured") != std::string::npos);
  }
}

TEST_CASE("plan: bytes before anything is allocated") {
  const auto plan = document(run(join({"plan", "--json", "--steps", "10", "--precision", "bf16-master"}, kTiny)));
  CHECK(includes(keys(plan), {"peak_bytes", "bytes", "step_ms"}));
  CHECK(keys(plan["bytes"]) == kCategories);
  std::int64_t sum = 0;
  for (const auto& [category, bytes] : plan["bytes"].items()) sum += bytes.get<std::int64_t>();
  CHECK(plan["peak_bytes"] == sum);
  CHECK(plan["step_ms"].get<double>() > 0);
  CHECK(plan["fits"] == true);
  CHECK(plan["bytes"]["masters"].get<std::int64_t>() > 0);

  const auto huge = document(run({"plan", "--json", "--model", "gpt:layers=400,heads=64,width=16384", "--batch", "1", "--seq", "16"}));
  CHECK(huge["fits"] == false);
  CHECK(huge["suggestions"].empty());  // nothing would help

  const std::vector<std::string> small{"plan", "--model", "gpt:layers=4,heads=4,width=64", "--batch", "16", "--seq", "64", "--precision", "bf16"};
  const auto whole = document(run(join(small, {"--json"})));
  CHECK(whole["suggestions"].empty());
  double parts = 0;
  for (const auto& [part, ms] : whole["parts"].items()) parts += ms.get<double>();
  CHECK(parts == doctest::Approx(whole["step_ms"].get<double>()));
  const auto peak = whole["peak_bytes"].get<std::int64_t>();
  const std::string half = std::to_string(static_cast<double>(peak) / 2 / (1 << 30));
  const auto tight = document(run(join(small, {"--json", "--memory", half})));
  CHECK(tight["fits"] == false);
  CHECK(tight["peak_bytes"] == peak);
  REQUIRE(tight["suggestions"].size() >= 3);
  CHECK(tight["suggestions"][0]["fits"] == true);
  CHECK(tight["suggestions"][0]["peak_bytes"].get<std::int64_t>() <= peak / 2);
  const Result text = run(join(small, {"--memory", half}));
  CHECK(text.code == 0);
  for (const char* part : {"does not fit; with one of these changes", "--accumulate", "--checkpoint-every", "the same bits"})
    CHECK_MESSAGE(text.out.find(part) != text.out.npos, part);
}

TEST_CASE("a run that does not fit is refused in a line that says what helps, unless it is told to begin") {
  const Scratch dir;
  write(dir / "text.txt", some_text(4000));
  const std::vector<std::string> train{
      "train",   "--data",      dir / "text.txt", "--out",    dir / "run", "--model", "gpt:layers=4,heads=2,width=32",
      "--batch", "16",          "--seq",          "32",       "--steps",   "2",       "--eval-steps",
      "0",       "--precision", "fp32",           "--memory", "0.002"};
  const Result refused = run(train);
  CHECK(refused.code == 1);
  CHECK(refused.lines().size() == 1);
  for (const char* part : {"this run needs ", "--memory allows 2.0 MiB", "Hint: --", "`mezzo plan`", "--overcommit"})
    CHECK_MESSAGE(refused.err.find(part) != refused.err.npos, refused.err);
  CHECK(!fs::exists(dir.path() / "run"));
  const Result told = run(join(train, {"--overcommit"}));
  CHECK(told.code == 0);
  CHECK(told.err.find("warning: this run needs ") != told.err.npos);
}

TEST_CASE("bench: the contract's figures") {
  const auto bench = document(run(join({"bench", "--json", "--precision", "bf16", "--steps", "3"}, kTiny)));
  CHECK(includes(keys(bench), {"step_ms_median", "tokens_per_second", "gflops", "gemm_peak_gflops", "fraction_of_peak", "peak_bytes",
                               "peak_rss_bytes", "bytes", "parts"}));
  CHECK(keys(bench["bytes"]) == kCategories);
  CHECK(includes(keys(bench["parts"]),
                 {"gemm_forward", "gemm_input_grad", "gemm_weight_grad", "attention", "norm", "activation", "head_loss", "optimizer"}));
  CHECK(bench["tokens_per_second"].get<double>() == doctest::Approx(1e3 * 32 / bench["step_ms_median"].get<double>()));
  CHECK(bench["gflops"].get<double>() == doctest::Approx(6 * bench["parameters"].get<double>() * 32 / bench["step_ms_median"].get<double>() / 1e6));
  CHECK(bench["fraction_of_peak"].get<double>() == doctest::Approx(bench["gflops"].get<double>() / bench["gemm_peak_gflops"].get<double>()));
  CHECK(bench["peak_rss_bytes"].get<std::int64_t>() > bench["peak_bytes"].get<std::int64_t>());
  for (const char* part : {"gemm_forward", "gemm_weight_grad", "attention", "norm", "activation", "head_loss", "optimizer"})
    CHECK_MESSAGE(bench["parts"][part].get<double>() > 0, part);
}

TEST_CASE("bench: what is reported is what was taken") {
  const auto check = [](const char* batch, const RunOptions& options, std::int64_t slack) {
    const auto bench = document(run({"bench", "--json", "--model", "gpt:layers=4,heads=4,width=256,vocab=2000", "--batch", batch, "--seq", "256",
                                     "--precision", "bf16", "--steps", "1", "--threads", "2"},
                                    options));
    const auto of = [&](const char* key) { return bench[key].get<std::int64_t>(); };
    const std::int64_t taken = of("anonymous_bytes") - of("start_anonymous_bytes"), reported = of("peak_bytes");
    INFO("batch ", batch, ": taken ", taken, ", reported ", reported);
    CHECK(std::abs(taken - reported) <= std::max(slack, reported * 3 / 100));
  };
  check("2", {}, 16 << 20);
  check("16", {}, 16 << 20);  // a step's memory grows beyond what is mapped at once
  // Where addresses are counted, what is mapped are regions apart, of each of which a part may be left over.
  check("16", {.address_limit = std::uint64_t{6} << 30}, 80 << 20);
}

TEST_CASE("--fuse-optimizer: the plan is what the bench takes, and both say what it saves") {
  const std::vector<std::string> model{
      "--model", "gpt:layers=6,heads=4,width=128", "--batch", "1", "--seq", "32", "--threads", "1", "--precision", "bf16", "--fuse-optimizer"};
  const auto plan = document(run(join({"plan", "--json", "--clip-norm", "0"}, model)));
  const auto bench = document(run(join({"bench", "--json", "--steps", "3"}, model)));
  CHECK(plan["peak_bytes"] == bench["peak_bytes"]);
  CHECK(plan["bytes"] == bench["bytes"]);
  CHECK(plan["fused_saves_bytes"] == bench["fused_saves_bytes"]);
  CHECK(plan["fused_saves_bytes"].get<std::int64_t>() > 1'000'000);

  const Result refused = run(join({"plan"}, model));
  CHECK(refused.code == 2);
  CHECK(refused.err.find("--fuse-optimizer with --clip-norm 1 given") != std::string::npos);
}

TEST_CASE("doctor: what this CPU does, and what auto chooses") {
  const auto doctor = document(run({"doctor", "--json", "--threads", "1"}));
  CHECK(doctor["threads"] == 1);
  for (const char* format : {"f32", "bf16", "f16"}) CHECK(doctor["gflops"][format].get<double>() > 0);
  CHECK(doctor["memory_gb_per_second"]["read"].get<double>() > 0);
  CHECK(!doctor["auto"]["reason"].get<std::string>().empty());
}

TEST_CASE("output that nobody takes is a failure, not a silence") {
  if (!fs::exists("/dev/full")) return;
  const Result r = run({"--help"}, {.stdout_path = "/dev/full"});
  CHECK(r.code == 1);
  CHECK(r.lines().size() == 1);
}

TEST_CASE("a second Ctrl-C ends the program at once, and the run goes on from its last checkpoint") {
  const Scratch dir;
  write(dir / "text.txt", some_text(20000));
  const std::string run_dir = dir / "run", metrics = dir / "run/metrics.jsonl";
  // A step of seconds: both signals fall into one.
  const std::vector<std::string> slow{"--model", "gpt:layers=8,heads=4,width=256", "--batch", "8", "--seq", "256", "--eval-steps", "0"};
  const Result killed = run(join({"train", "--data", dir / "text.txt", "--out", run_dir, "--steps", "100", "--schedule", "constant",
                                  "--checkpoint-steps", "1", "--precision", "fp32"},
                                 slow),
                            {.interrupt_when = [&] { return fs::exists(metrics) && line_count(metrics) >= 1; }, .interrupts = 2});
  CHECK(killed.code == 1000 + SIGINT);
  CHECK(killed.err.find("once more to quit at once") != killed.err.npos);
  const auto done = line_count(metrics);
  CHECK(done >= 1);
  CHECK(document(run({"train", "--json", "--out", run_dir, "--resume", "--steps", std::to_string(done + 1)}))["step"] == done + 1);
}

TEST_CASE("inspect: the numerics of a run, as tables, JSON and a page that say the same") {
  const Scratch dir;
  write(dir / "text.txt", some_text(6000));
  document(run(join(
      {"train", "--json", "--data", dir / "text.txt", "--out", dir / "run", "--steps", "6", "--inspect", "every=2", "--precision", "fp16"}, kTiny)));
  const auto j = document(run({"inspect", dir / "run", "--json", "--top", "3"}));
  CHECK(j["steps"] == io::Json({2, 4, 6}));
  CHECK(j["least_headroom"].size() == 3);
  CHECK(j["inspections"].size() == 3);
  const Result text = run({"inspect", dir / "run", "--top", "3"});
  CHECK(text.code == 0);
  const std::string page = read(dir / "run/inspect.html");
  for (const auto& row : j["least_headroom"]) {
    const auto place = row["place"].get<std::string>(), largest = row["largest"].get<std::string>();
    CHECK(row.contains("binades_left"));
    CHECK_MESSAGE(text.out.find(place) != text.out.npos, place);
    CHECK_MESSAGE(page.find("<td>" + largest + "</td>") != page.npos, largest);
  }
  CHECK(page.find("<h2>Numerics</h2>") != page.npos);
  CHECK(read(dir / "run/report.html").find("<h2>Numerics</h2>") != page.npos);
  CHECK(document(run({"inspect", dir / "run", "--json", "--step", "4"}))["steps"] == io::Json({4}));

  const auto refused = [&](const std::vector<std::string>& arguments, int code, const std::string& part) {
    const Result r = run(arguments);
    CHECK(r.code == code);
    CHECK(r.lines().size() == 1);
    CHECK_MESSAGE(r.err.find(part) != r.err.npos, r.err);
  };
  refused({"inspect", dir / "run", "--step", "5"}, 1, "inspected were the steps 2, 4, 6");
  refused({"inspect"}, 2, "no RUN_DIR given");
  refused({"inspect", dir / "nothing"}, 1, "not a run directory");
  refused(join({"train", "--data", dir / "text.txt", "--out", dir / "other", "--inspect", "often"}, kTiny), 2, "--inspect often given");
  document(run(join({"train", "--json", "--data", dir / "text.txt", "--out", dir / "plain", "--steps", "1"}, kTiny)));
  refused({"inspect", dir / "plain"}, 1, "nothing was inspected");
}
