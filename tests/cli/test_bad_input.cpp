// test_bad_input.cpp - every mistake a user can make gets one line, an exit code, and costs nothing that was there before.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <mezzo/mezzo.h>

#include "cli/process.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

namespace {

/// Refused before anything was written: nothing on stdout, one line on stderr that begins with the command and has `part`.
void check_refused(const Arguments& arguments, int code, const std::string& part, const RunOptions& options = {}) {
  const Result r = run(arguments, options);
  std::string line;
  for (const auto& a : arguments) line += a + " ";
  CAPTURE(line);
  CAPTURE(r.err);
  CHECK(r.code == code);
  CHECK(r.out.empty());
  CHECK(r.lines().size() == 1);
  CHECK(r.err.starts_with("mezzo"));
  CHECK(r.err.find(part) != r.err.npos);
}

/// Training on a good text, in a directory of its own.
struct Case {
  Scratch dir;
  std::string text = dir / "text.txt", out = dir / "run";
  Case() { write(text, some_text(4000)); }
  Arguments train(const Arguments& more = {}) const {
    return join({"train", "--data", text, "--out", out, "--model", "gpt:layers=1,heads=2,width=16", "--batch", "2", "--seq", "16", "--steps", "4"},
                more);
  }
  /// The same, an option given another value.
  Arguments train_with(const std::string& option, const std::string& value) const {
    Arguments a = train();
    if (const auto it = std::find(a.begin(), a.end(), option); it != a.end()) *(it + 1) = value;
    else a.insert(a.end(), {option, value});
    return a;
  }
};

std::string listing(const fs::path& dir) {
  std::vector<std::string> all;
  for (const auto& e : fs::recursive_directory_iterator(dir))
    all.push_back(e.path().native() + (e.is_regular_file() ? fmt::format(" {}", e.file_size()) : ""));
  std::sort(all.begin(), all.end());
  std::string text;
  for (const auto& a : all) text += a + "\n";
  return text;
}

}  // namespace

TEST_CASE("a command line that is wrong: exit code 2, and no directory is made") {
  const Case c;
  for (const char* variable : {"MEZZO_NUM_THREADS", "MEZZO_ISA"}) {
    ::setenv(variable, "abc", 1);
    for (const auto& arguments : {c.train(), c.train({"--threads", "1"}), Arguments{"doctor"}})
      check_refused(arguments, 2, fmt::format("{}=abc is not", variable));
    CHECK(run({"train", "--help"}).code == 0);
    ::unsetenv(variable);
  }
  check_refused({"trian"}, 2, "did you mean `train`");
  check_refused({"finetune"}, 2, "--model");
  check_refused({"finetune", "--model", "absent", "--data", c.text, "--out", c.out, "--loss-scale", "large"}, 2, "dynamic, none or a number");
  check_refused({"nonsense"}, 2, "unknown command");
  check_refused(c.train({"--stpes", "9"}), 2, "did you mean `--steps`");
  check_refused(c.train({"extra"}), 2, "`extra`");
  check_refused(c.train_with("--precision", "fp61"), 2, "fp16");
  check_refused(c.train_with("--precision", "bf1"), 2, "did you mean `bf16`");
  check_refused(c.train_with("--precision", "bf16-khan"), 2, "bf16-kahan");
  check_refused(c.train_with("--optimizer", "adamv"), 2, "--optimizer adamv");
  check_refused(c.train_with("--state-dtype", "f16"), 2, "--state-dtype f16");
  check_refused(c.train_with("--vocab", "100"), 2, "--vocab 100 given");
  check_refused(c.train_with("--model", "gtp:layers=2"), 2, "did you mean `gpt`");
  check_refused(c.train_with("--model", "gpt:layer=2"), 2, "did you mean `layers`");
  check_refused(c.train_with("--model", "gpt:layers=two"), 2, "layers=two");
  check_refused(c.train_with("--model", "gpt:layers=0,heads=2,width=16"), 2, "1 or more");
  check_refused(c.train_with("--model", "gpt:layers=1,heads=3,width=16"), 2, "multiple of its 3 heads");
  check_refused(c.train_with("--model", "gpt:layers=1,heads=2,width=16,context=8"), 2, "context 8");
  check_refused(c.train_with("--model", "gpt:layers=1,heads=2,width=16,vocab=100"), 2, "vocab 100");
  check_refused(c.train_with("--batch", "0"), 2, "--batch 0");
  check_refused(c.train_with("--batch", "many"), 2, "--batch many");
  check_refused(c.train_with("--seq", "-4"), 2, "--seq -4");
  check_refused(c.train_with("--steps", "0"), 2, "--steps 0");
  check_refused(c.train_with("--lr", "-1"), 2, "--lr -1");
  check_refused(c.train_with("--lr", "fast"), 2, "--lr fast");
  check_refused(c.train_with("--warmup", "9"), 2, "--warmup 9");
  check_refused(c.train_with("--schedule", "cosin"), 2, "did you mean `cosine`");
  check_refused(c.train_with("--betas", "0.9,1"), 2, "--betas 1");
  check_refused(c.train_with("--val-fraction", "1"), 2, "--val-fraction 1");
  check_refused(c.train_with("--clip-norm", "-1"), 2, "--clip-norm -1");
  check_refused(c.train_with("--loss-scale", "dynamik"), 2, "did you mean `dynamic`");
  check_refused(c.train_with("--loss-scale", "0"), 2, "above 0");
  check_refused(c.train_with("--global-batch", "16"), 2, "--global-batch 16");
  check_refused(c.train_with("--threads", "-2"), 2, "--threads -2");
  check_refused({"train", "--data", c.text}, 2, "--out");
  check_refused({"train", "--out", c.out}, 2, "--data");
  check_refused({"train", "--resume"}, 2, "--out");
  check_refused({"eval", "--data", c.text}, 2, "--model");
  check_refused({"eval", "--model", c.out}, 2, "--data");
  check_refused({"generate", "--model", c.out}, 2, "--prompt");
  check_refused({"generate", "--model", c.out, "--prompt", "x", "--temperature", "-1"}, 2, "--temperature -1");
  check_refused({"generate", "--model", c.out, "--prompt", "\xff"}, 2, "UTF-8");
  check_refused({"bench", "--steps", "0"}, 2, "--steps 0");
  check_refused({"bench", "--precision", "half"}, 2, "half");
  check_refused({"plan", "--model", "gpt:heads=5"}, 2, "multiple of its 5 heads");
  check_refused({"plan", "--memory", "-1"}, 2, "--memory -1 given");
  check_refused({"plan", "--memory", "much"}, 2, "--memory much given");
  check_refused({"plan", "--overcommit=maybe"}, 2, "--overcommit=maybe given");
  check_refused({"plan", "--batch", "0"}, 2, "--batch 0");
  check_refused({"plan", "--model", c.dir / "nothing.gguf"}, 2, "nothing.gguf");
  check_refused({"--verison"}, 2, "unknown option `--verison`; did you mean `--version`?");
  check_refused(c.train_with("--memory", "0.00001"), 1, "--memory allows 10.5 KiB");
  CHECK(!fs::exists(c.out));
}

TEST_CASE("options that do nothing beside the others are refused, in a new run and in one that is resumed") {
  const Case c;
  for (const char* optimizer : {"adamw", "adam", "adagrad", "lion", "adafactor"})
    check_refused(join(c.train({"--optimizer", optimizer}), {"--momentum", "0.5"}), 2,
                  "--momentum given without --optimizer sgd, with which it goes");
  for (const char* optimizer : {"sgd", "adagrad", "adafactor"})
    check_refused(join(c.train({"--optimizer", optimizer}), {"--betas", "0.9,0.9"}), 2, "--betas given without --optimizer adamw or adam or lion");
  for (const char* guard : {"warn", "stop", "rollback"})
    check_refused(c.train({"--on-divergence", guard, "--fallbacks", "lr"}), 2, "--fallbacks given without --on-divergence fallback");
  for (const char* guard : {"warn", "stop", "fallback"})
    check_refused(c.train({"--on-divergence", guard, "--max-rollbacks", "2"}), 2, "--max-rollbacks given without --on-divergence rollback");
  check_refused({"plan", "--momentum", "0.5"}, 2, "--momentum given");
  check_refused({"plan", "--epochs", "2"}, 2, "--epochs given without --data, with which it goes");
  CHECK(!fs::exists(c.out));
  REQUIRE(run(c.train({"--optimizer", "sgd", "--momentum", "0.5", "--on-divergence", "fallback", "--fallbacks", "lr"})).code == 0);
  check_refused({"train", "--out", c.out, "--resume", "--betas", "0.9,0.9"}, 2, "--betas given");
  CHECK(run({"train", "--out", c.out, "--resume", "--momentum", "0.5", "--fallbacks", "lr,op"}).code == 0);  // it is the run that says what goes
}

TEST_CASE("text that cannot be trained on") {
  const Case c;
  const std::string empty = c.dir / "empty.txt", latin1 = c.dir / "latin1.txt", tiny = c.dir / "tiny.txt", hidden = c.dir / "unreadable.txt";
  write(empty, "");
  write(latin1, some_text(500) + "caf\xe9 " + some_text(500));
  write(tiny, "too short");
  write(hidden, some_text(1000));
  fs::create_directory(c.dir.path() / "nothing");
  check_refused(c.train_with("--data", c.dir / "absent.txt"), 1, "absent.txt");
  check_refused(c.train_with("--data", empty), 1, "empty.txt");
  check_refused(c.train_with("--data", latin1), 1, "UTF-8");
  check_refused(c.train_with("--data", tiny), 1, "tiny.txt");
  check_refused(c.train_with("--data", c.dir / "nothing"), 1, "no text file");
  fs::permissions(hidden, fs::perms::none);
  if (::geteuid() != 0) check_refused(c.train_with("--data", hidden), 1, "unreadable.txt");  // root reads everything
  CHECK(!fs::exists(c.out));
}

TEST_CASE("a model that does not fit is counted, not tried") {
  const Case c;
  check_refused(c.train_with("--model", "gpt:layers=400,heads=64,width=16384"), 1, "this machine has");
  for (const char* command : {"plan", "bench"})
    check_refused({command, "--model", "gpt:layers=1000000000,heads=1,width=1"}, 2, "1000000000 layers given, at most 10000 wanted");
  check_refused({"bench", "--model", "gpt:layers=400,heads=64,width=16384"}, 1, "this machine has");
  CHECK(!fs::exists(c.out));
}

TEST_CASE("a directory that is taken, and resuming what does not continue") {
  const Case c;
  REQUIRE(run(c.train({"--checkpoint-steps", "2"})).code == 0);
  const std::string before = listing(c.out);
  check_refused(c.train(), 1, "already holds a run");
  check_refused(join(c.train_with("--lr", "0.5"), {"--resume"}), 1, "--lr");
  check_refused(join(c.train_with("--model", "gpt:layers=2,heads=2,width=16"), {"--resume"}), 1, "--model");
  check_refused(join(c.train_with("--precision", "fp16"), {"--resume"}), 1, "--precision");
  check_refused(join(c.train_with("--steps", "40"), {"--resume"}), 1, "--steps");
  write(c.dir / "other.txt", some_text(5000));
  check_refused(join(c.train_with("--data", c.dir / "other.txt"), {"--resume"}), 1, "text");
  check_refused({"train", "--out", c.out, "--resume-step", "3"}, 1, "2, 4");
  check_refused({"train", "--out", c.dir / "nowhere", "--resume"}, 1, "not a run directory");
  CHECK(listing(c.out) == before);
  write(c.dir / "file", "");
  check_refused(c.train_with("--out", c.dir / "file"), 1, "not a directory");
}

TEST_CASE("a checkpoint that was altered or cut short is noticed, and the one before offered") {
  const Case c;
  REQUIRE(run(c.train({"--checkpoint-steps", "2"})).code == 0);
  fs::remove_all(c.dir.path() / "run/model");
  fs::path largest;
  for (const auto& e : fs::directory_iterator(c.dir.path() / "run/checkpoints/step-4"))
    if (e.is_regular_file() && (largest.empty() || e.file_size() > fs::file_size(largest))) largest = e.path();
  std::string bytes = read(largest.native());
  const std::string good = bytes;
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write(largest.native(), bytes);
  check_refused({"train", "--out", c.out, "--resume"}, 1, "--resume-step 2");
  check_refused({"generate", "--model", c.out, "--prompt", "x"}, 1, largest.filename().native());
  write(largest.native(), good.substr(0, good.size() - 7));
  check_refused({"train", "--out", c.out, "--resume"}, 1, "--resume-step 2");
  CHECK(run({"train", "--out", c.out, "--resume-step", "2"}).code == 0);
}

TEST_CASE("models and texts that eval and generate cannot use") {
  const Case c;
  REQUIRE(run(c.train()).code == 0);
  check_refused({"eval", "--model", c.dir / "absent", "--data", c.text}, 1, "absent");
  check_refused({"eval", "--model", c.dir.path().native(), "--data", c.text}, 1, "no model");
  check_refused({"eval", "--model", c.out, "--data", c.dir / "absent.txt"}, 1, "absent.txt");
  check_refused({"eval", "--model", c.out, "--data", c.text, "--seq", "99"}, 1, "context of 16");
  check_refused({"eval", "--model", c.out, "--data", c.text, "--bos"}, 2, "--bos");
  write(c.dir / "short.txt", "short");
  check_refused({"eval", "--model", c.out, "--data", c.dir / "short.txt"}, 1, "too short: 5 tokens, at least 17");
  for (const Arguments& ask : {Arguments{"eval", "--data", c.text}, Arguments{"generate", "--prompt", "x"}})
    for (const auto& precision : train::recipe_names()) {
      const Result r = run(join(ask, {"--model", c.out, "--precision", precision}));
      CAPTURE(precision);
      CHECK(r.code == 0);  // what it was trained in is a way to ask it
      CHECK(run({ask[0], "--help"}).out.find(precision) != std::string::npos);
    }
  check_refused({"generate", "--model", c.out, "--prompt", "x", "--chat"}, 2, "no chat template");
  check_refused({"generate", "--model", c.out, "--prompt", "x", "--system", "y"}, 2, "without --chat");
  check_refused({"generate", "--model", c.out, "--prompt", "x", "--top-p", "0"}, 2, "--top-p 0");
  check_refused({"generate", "--model", c.out, "--prompt", "x", "--repetition-penalty", "-1"}, 2, "--repetition-penalty -1");
  check_refused({"eval", "--model", c.out, "--data", c.text, "--seq", "8", "--stride", "9"}, 2, "--stride 9");
  const std::string broken = c.dir / "broken";
  const auto model = models::make_model(models::model_from_spec("llama:layers=1,heads=2,width=32,vocab=256,context=16"));
  {
    const autograd::NoGrad off;
    fill_(model->parameters().back(), 1e38);
  }
  models::save_pretrained(*model, broken);
  fs::copy_file(fs::path(c.out) / "model/tokenizer_config.json", fs::path(broken) / "tokenizer_config.json");
  check_refused({"eval", "--model", broken, "--data", c.text, "--precision", "fp16"}, 1, "the loss is nan");
  const Result cut = run({"generate", "--model", broken, "--prompt", "x", "--precision", "fp16"});
  CHECK(cut.code == 1);
  CHECK(cut.out == "x\n");  // the prompt was there already: the error stands on a line of its own
  check_refused({"export", "--model", broken, "--format", "gguf", "--out", c.dir / "broken.gguf"}, 1, "its perplexity over the text");
  CHECK_FALSE(fs::exists(c.dir / "broken.gguf"));
  write(c.out + "/model/model.safetensors", "not a model");
  check_refused({"generate", "--model", c.out, "--prompt", "x"}, 1, "model.safetensors");
}

TEST_CASE("exports that cannot be: refused, and nothing is written") {
  const Case c;
  REQUIRE(run(c.train()).code == 0);
  const std::string to = c.dir / "out";
  const auto with = [&](const Arguments& more) { return join({"export", "--model", c.out, "--out", to}, more); };
  check_refused(with({}), 2, "--format");
  check_refused(with({"--format", "onnx"}), 2, "--format onnx");
  check_refused(with({"--format", "gguf", "--type", "q3_k"}), 2, "--type q3_k");
  check_refused(with({"--format", "gguf", "--type", "q6_k"}), 2, "q8_0 or q4_0 wanted");
  check_refused(with({"--format", "gguf", "--type", "nf4"}), 2, "--type nf4 given, f32, f16, bf16, q8_0 or q4_0 wanted");
  check_refused(with({"--format", "safetensors", "--type", "q8_0"}), 2, "f32, f16 or bf16 wanted");
  check_refused(with({"--format", "gguf", "--adapter"}), 2, "no adapters");
  check_refused(with({"--format", "gguf", "--merge"}), 2, "--merge given, but ");
  write(c.dir / "empty.txt", "");
  check_refused(with({"--format", "gguf", "--data", c.dir / "empty.txt"}), 1, "empty.txt given: 0 tokens, 2 or more wanted");
  check_refused(with({"--format", "gguf", "--data", c.dir / "absent.txt"}), 1, "absent.txt");
  CHECK_FALSE(fs::exists(to));
  check_refused(with({"--format", "gguf", "--adapter", "--merge"}), 2, "--merge and --adapter");
  check_refused({"export", "--model", c.out, "--format", "gguf", "--out", c.text}, 2, "is there already");
  check_refused({"export", "--model", c.dir / "absent", "--format", "gguf", "--out", to}, 1, "absent");
  check_refused({"export", "--model", c.out, "--format", "gguf", "--out", c.dir / "no/such/out.gguf"}, 1, "no/such");

  // The same model with adapters, in a directory that names it as its base.
  const std::string llama = c.dir / "llama", adapter = c.dir / "adapter";
  models::save_pretrained(*models::make_model(models::model_from_spec("llama:layers=1,heads=2,width=32,vocab=256,context=16")), llama);
  fs::copy_file(fs::path(c.out) / "model/tokenizer_config.json", fs::path(llama) / "tokenizer_config.json");
  FastLanguageModel::from_pretrained(llama).add_lora({.rank = 2}).save_adapter(adapter);
  check_refused({"export", "--model", adapter, "--format", "gguf", "--out", to}, 2, "neither --merge nor --adapter");
  check_refused({"export", "--model", adapter, "--format", "gguf", "--adapter", "--type", "q8_0", "--out", to}, 2, "adapters are written in f32");
  CHECK_FALSE(fs::exists(to));
  for (const std::string format : {"gguf", "safetensors"})
    for (const std::string what : {"--merge", "--adapter"})
      CHECK(run({"export", "--model", adapter, "--format", format, what, "--out", to + format + what}).code == 0);
  fs::copy_file(to + "gguf--adapter", c.dir / "adapter.gguf");
  check_refused({"generate", "--model", c.dir / "adapter.gguf", "--prompt", "x"}, 1, "adapter.gguf: an adapter alone, a model wanted");
  fs::remove_all(llama);
  check_refused({"generate", "--model", adapter, "--prompt", "x"}, 1, "the base model");
}

TEST_CASE("a disk that is full ends the run with one line; what was written stays") {
  const Case c;
  const Result r = run(c.train_with("--steps", "400"), {.file_limit = 20000});  // metrics.jsonl reaches it
  CHECK(r.code == 1);
  REQUIRE(!r.lines().empty());
  CHECK(r.lines().back().starts_with("mezzo train: "));
  CHECK(r.lines().back().find("limit") != std::string::npos);
  CHECK(fs::exists(c.dir.path() / "run/config.json"));
}

TEST_CASE("a run of which no step was applied says so") {
  const Case c;
  const Result r = run(join(c.train_with("--precision", "fp16"), {"--loss-scale", "1e30"}));
  CHECK(r.code == 0);
  CHECK(r.err.find("none of the 4 steps was applied") != std::string::npos);
}

TEST_CASE("a loss that is not a number stops an fp32 run, with the step and the tensor") {
  const Case c;
  const Result r = run(join(c.train_with("--lr", "1e30"), {"--precision", "fp32", "--warmup", "0", "--clip-norm", "0"}));
  CHECK(r.code == 1);
  REQUIRE(!r.lines().empty());
  const std::string last = r.lines().back();
  CAPTURE(last);
  CHECK(last.starts_with("mezzo train: step "));
  CHECK(last.find("first bad tensor is") != last.npos);
  CHECK(last.find("--resume") == last.npos);  // there is no checkpoint yet
}
