// test_finetune.cpp - `mezzo finetune`, from a model that `mezzo train` made to one that answers; and what it refuses.
#include <algorithm>

#include <doctest/doctest.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <mezzo/models.h>

#include "cli/process.h"
#include "io/json.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

namespace {

/// A base with a chat template, and conversations for it.
struct Case {
  Scratch dir;
  std::string base = dir / "base/model", chat = dir / "chat.jsonl", out = dir / "tuned";
  Case() {
    write(dir / "text.txt", some_text(4000));
    const Result r = run({"train", "--data", dir / "text.txt", "--out", dir / "base", "--model", "llama:layers=1,heads=2,width=16,ffn=32,context=128",
                          "--batch", "2", "--seq", "32", "--steps", "3"});
    REQUIRE_MESSAGE(r.code == 0, r.err);
    write(base + "/chat_template.jinja",
          "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}");
    write(chat, conversations(12));
  }
  static std::string conversations(int n) {
    std::string lines;
    for (int i = 0; i < n; ++i)
      lines += fmt::format(
          "{{\"messages\": [{{\"role\": \"user\", \"content\": \"What is {} and {}?\"}}, {{\"role\": \"assistant\", \"content\": \"It is "
          "{}.\"}}]}}\n",
          i, i + 1, 2 * i + 1);
    return lines;
  }
  Arguments finetune(const Arguments& more = {}) const {
    return join({"finetune", "--model", base, "--data", chat, "--out", out, "--seq", "96", "--batch", "2", "--steps", "4", "--lora-rank", "2"}, more);
  }
  Arguments finetune_with(const std::string& option, const std::string& value) const {
    Arguments a = finetune();
    if (const auto it = std::find(a.begin(), a.end(), option); it != a.end()) *(it + 1) = value;
    else a.insert(a.end(), {option, value});
    return a;
  }
};

io::Json document(const Result& r) {
  INFO(r.err);
  REQUIRE(r.code == 0);
  return io::parse_json(r.out, "stdout");
}

void check_refused(const Arguments& arguments, int code, const std::string& part) {
  const Result r = run(arguments);
  std::string line;
  for (const auto& a : arguments) line += a + " ";
  CAPTURE(line);
  CAPTURE(r.err);
  CHECK(r.code == code);
  CHECK(r.out.empty());
  CHECK(r.lines().size() == 1);
  CHECK(r.err.find(part) != r.err.npos);
}

}  // namespace

TEST_CASE("finetune: adapters, evaluated and generated from; stopped and resumed") {
  const Case c;
  const auto planned = document(run({"plan", "--json", "--model", c.base, "--data", c.chat, "--seq", "96", "--batch", "2", "--lora-rank", "2"}));
  CHECK(planned["steps"].get<int>() > 0);
  const auto done = document(run(c.finetune({"--json"})));
  CHECK(done["status"] == "finished");
  CHECK(done["step"] == 4);
  CHECK(done["val_loss"].is_number());
  CHECK(done["best_step"].is_number());
  CHECK(done["peak_bytes"].get<std::int64_t>() <= planned["peak_bytes"].get<std::int64_t>());
  for (const char* file : {"config.json", "metrics.jsonl", "report.html", "model/adapter_model.safetensors", "model/adapter_config.json"})
    CHECK_MESSAGE(fs::exists(c.out + "/" + file), file);
  for (const std::string& model : {c.out, done["checkpoint"].get<std::string>()})
    CHECK(document(run({"eval", "--json", "--model", model, "--data", c.dir / "text.txt", "--seq", "32"}))["loss"].is_number());

  const std::string other = c.dir / "stopped", metrics = other + "/metrics.jsonl";
  const auto long_run = [&](const Arguments& more) {
    return run(join({"finetune", "--json", "--model", c.base, "--data", c.chat, "--out", other, "--seq", "96", "--steps", "100000", "--schedule",
                     "constant", "--eval-steps", "0", "--full", "--checkpoint-every", "1"},
                    more),
               {.interrupt_when = [&] { return fs::exists(metrics) && read(metrics).size() > 200; }});
  };
  const Result first = long_run({});
  CHECK(first.code == 130);
  const auto step = io::parse_json(first.out, "stdout")["step"].get<int>();
  const auto resumed = document(run({"finetune", "--json", "--out", other, "--resume", "--steps", std::to_string(step + 2)}));
  CHECK(resumed["step"] == step + 2);
  for (const char* file : {"model.safetensors", "config.json", "tokenizer_config.json", "chat_template.jinja"})
    CHECK_MESSAGE(fs::exists(other + "/model/" + file), file);
}

TEST_CASE("plan counts the tokens of examples as a run does; without them, all there is room for") {
  const Case c;
  const Arguments same{"--model", c.base, "--seq", "96", "--batch", "2", "--lora-rank", "2", "--steps", "2"};
  const auto tokens = [](const io::Json& plan) { return plan["tokens_per_second"].get<double>() * plan["step_ms"].get<double>() / 1000; };
  CHECK(tokens(document(run(join({"plan", "--json"}, same)))) == doctest::Approx(2 * 96));
  const auto done = document(run(join(c.finetune_with("--steps", "2"), {"--json"})));
  CHECK(tokens(document(run(join({"plan", "--json", "--data", c.chat}, same)))) == doctest::Approx(done["tokens"].get<double>() / 2));
  CHECK(done["tokens"].get<int>() < 2 * 2 * 96);
}

TEST_CASE("finetune: a validation loss that is not finite is a warning, and never the best") {
  const Case c;
  const Result r = run({"finetune", "--json",  "--model", c.base,   "--data",      c.chat, "--out", c.out, "--seq",    "96", "--batch",
                        "2",        "--steps", "2",       "--full", "--precision", "fp16", "--lr",  "100", "--warmup", "0"});
  const auto done = document(r);
  CHECK(done["val_loss"].is_null());
  CHECK(done["best_step"].is_null());
  CHECK(done["best_val_loss"].is_null());
  CHECK(r.err.find("validation loss nan, not the lowest") != r.err.npos);
  CHECK(r.err.find("-nan") == r.err.npos);
  const auto lines = r.lines();
  CHECK(std::count_if(lines.begin(), lines.end(), [](const std::string& l) { return l.find("the validation loss is not finite") != l.npos; }) == 1);
}

TEST_CASE("finetune: a GPT-2 as it is published, with dropout in its file: adapters, exported alone and merged, and all weights") {
  const Case c;
  const std::string gpt = c.dir / "gpt/model";
  REQUIRE(run({"train", "--data", c.dir / "text.txt", "--out", c.dir / "gpt", "--model", "gpt:layers=2,heads=2,width=32,context=128,dropout=0.1",
               "--batch", "2", "--seq", "32", "--steps", "3"})
              .code == 0);
  fs::copy_file(c.base + "/chat_template.jinja", gpt + "/chat_template.jinja");
  const auto tuned = [&](const std::string& model, const std::string& out, const Arguments& more) {
    return join({"finetune", "--json", "--model", model, "--data", c.chat, "--out", c.dir / out, "--seq", "96", "--batch", "2", "--steps", "4",
                 "--precision", "fp32"},
                more);
  };
  CHECK(document(run(tuned(gpt, "whole", {"--full"})))["step"] == 4);
  CHECK(document(run(tuned(gpt, "dropped", {"--full", "--dropout", "0.1", "--no-packing"})))["step"] == 4);
  check_refused(tuned(gpt, "x", {"--dropout", "0.1"}), 2, "--dropout 0.1 given, and attention weights of packed examples");
  check_refused(tuned(gpt, "x", {"--dropout", "1"}), 2, "--dropout 1 given");
  const Result none = run({"finetune", "--model", c.base, "--data", c.chat, "--out", c.dir / "x", "--epochs", "0"});
  CHECK(none.code == 2);
  CHECK(none.err == "mezzo finetune: --epochs 0 given, 1 or more wanted, or --steps\n");
  CHECK(run({"plan", "--model", c.base, "--batch", "0"}).err.starts_with("mezzo plan: --batch 0 given"));
  CHECK(run(c.finetune_with("--batch", "0")).err.starts_with("mezzo finetune: --batch 0 given"));
  check_refused(tuned(c.base, "x", {"--dropout", "0.1", "--no-packing"}), 1, "which has none");
  check_refused(tuned(gpt, "x", {"--lora-targets", "q_proj"}), 1, "there are c_attn, c_proj, c_fc, all-linear");
  check_refused({"plan", "--model", "gpt:layers=1,heads=2,width=16", "--dropout", "0.1"}, 2, "--dropout given");
  CHECK(!fs::exists(c.dir / "x"));

  const std::string gguf = c.dir / "gpt.gguf";
  REQUIRE(run({"export", "--model", gpt, "--format", "gguf", "--type", "q8_0", "--out", gguf}).code == 0);
  for (const std::string& base : {gpt, gguf}) {
    CAPTURE(base);
    const std::string name = base == gpt ? "hf" : "blocks", out = c.dir / name;
    document(run(tuned(base, name, {"--lora-rank", "2", "--lora-targets", "c_attn,mlp.c_proj"})));
    const io::Json config = io::read_json(out + "/model/adapter_config.json");
    CHECK(config["fan_in_fan_out"] == true);
    CHECK(config["target_modules"] == io::Json({"c_attn", "mlp.c_proj"}));
    for (const char* format : {"gguf", "safetensors"})
      for (const char* what : {"--adapter", "--merge"}) {
        CAPTURE(std::string(format) + what);
        const auto parity =
            document(run({"export", "--json", "--model", out, what, "--format", format, "--out", out + format + what, "--type", "f32"}))["parity"];
        CHECK(parity["logit_difference_relative"].get<double>() < 1e-5);
        CHECK(parity["perplexity_exported"].get<double>() == doctest::Approx(parity["perplexity_source"].get<double>()).epsilon(1e-4));
      }
  }
}

TEST_CASE("finetune: a run that cannot be is refused in one line") {
  const Case c;
  check_refused({"finetune", "--data", c.chat, "--out", c.out}, 2, "--model");
  check_refused({"finetune", "--model", c.base, "--out", c.out}, 2, "--data");
  check_refused(c.finetune({"--full"}), 2, "--lora-rank given, which is for adapters, together with --full");
  check_refused({"finetune", "--model", c.base, "--data", c.chat, "--out", c.out, "--full", "--quantize-base", "q8_0"}, 2,
                "--full with --quantize-base");
  check_refused(c.finetune({"--epochs", "2"}), 2, "--steps and --epochs");
  check_refused(c.finetune({"--fuse-optimizer", "--clip-norm", "0", "--precision", "fp16"}), 2, "--precision fp16, which scales the loss,");
  check_refused(c.finetune_with("--overlong", "splitt"), 2, "did you mean `split`");
  check_refused(c.finetune_with("--train-on", "user"), 2, "--train-on user");
  check_refused(c.finetune_with("--chat-template", c.dir / "absent.jinja"), 1, "absent.jinja");
  check_refused({"eval", "--model", c.base, "--data", c.chat, "--chat-template", c.chat}, 2, "--chat-template given without --chat");
  check_refused({"eval", "--model", c.base, "--data", c.chat, "--chat", "--stride", "4"}, 2, "--stride with --chat given");
  check_refused({"eval", "--model", c.base, "--data", c.chat, "--skip-bad-lines"}, 2, "--skip-bad-lines given without --chat");
  check_refused({"generate", "--model", c.base, "--prompt", "a", "--chat-template", c.chat}, 2, "--chat-template given without --chat");
  check_refused(c.finetune_with("--quantize-base", "q4_1"), 2, "--quantize-base q4_1");
  check_refused(c.finetune_with("--lora-rank", "0"), 2, "--lora-rank 0");
  check_refused(c.finetune_with("--lora-dropout", "1"), 2, "--lora-dropout 1");
  check_refused(c.finetune_with("--lora-targets", "q_proj,,v_proj"), 2, "--lora-targets q_proj,,v_proj");
  check_refused(c.finetune({"--eval-data", c.chat, "--val-fraction", "0.2"}), 2, "--eval-data and --val-fraction");
  check_refused(c.finetune({"--vocab", "300"}), 2, "--vocab");
  check_refused({"plan", "--model", "gpt:layers=1,heads=2,width=16", "--lora-rank", "2"}, 2, "--lora-rank given");
  check_refused({"plan", "--model", c.base, "--vocab", "300"}, 2, "--vocab given");

  check_refused(c.finetune_with("--lora-targets", "q_prj"), 1, "did you mean `q_proj`");
  check_refused(c.finetune_with("--model", c.dir / "absent.gguf"), 1, "absent.gguf");
  check_refused(c.finetune_with("--model", c.chat), 1, "chat.jsonl");
  check_refused(c.finetune_with("--seq", "4096"), 1, "the model's context of 128");
  check_refused(c.finetune_with("--data", c.dir / "absent.jsonl"), 1, "absent.jsonl");
  write(c.dir / "bad.jsonl", Case::conversations(2) + "{\"messages\": 3}\n");
  check_refused(c.finetune_with("--data", c.dir / "bad.jsonl"), 1, "bad.jsonl:3");
  check_refused(join(c.finetune_with("--seq", "8"), {"--overlong", "drop"}), 1, "chat.jsonl");
  fs::remove(c.base + "/chat_template.jinja");
  check_refused(c.finetune(), 1, "template");
  CHECK(!fs::exists(c.out));
}

TEST_CASE("finetune: a damaged model, or one with another's tokenizer, is refused in one line, and nothing is written") {
  const Case c;
  const std::string gguf = c.dir / "base.gguf", bad = c.dir / "bad.gguf", hf = c.dir / "hf";
  REQUIRE(run({"export", "--model", c.base, "--format", "gguf", "--type", "f32", "--out", gguf}).code == 0);
  const std::string whole = read(gguf);
  const auto refused = [&](std::string bytes, const std::string& part) {
    write(bad, bytes);
    check_refused(c.finetune_with("--model", bad), 1, part);
  };
  const std::string huge("\0\0\0\0\0\0\0\x10", 8);  // 2^60
  refused(whole.substr(0, whole.size() / 2), "bad.gguf");
  refused(whole.substr(0, 20), "bad.gguf");
  refused(std::string(whole).replace(8, 8, huge), "bad.gguf: byte 8: 1152921504606846976 tensors");
  refused(std::string(whole).replace(16, 8, huge), "bad.gguf: byte 16: 1152921504606846976 key-value pairs");
  refused("", "bad.gguf");

  const auto directory = [&](const std::string& file, const std::string& bytes) {
    fs::remove_all(hf);
    fs::copy(c.base, hf);
    write(hf + "/" + file, bytes);
    return c.finetune_with("--model", hf);
  };
  const std::string weights = read(c.base + "/model.safetensors");
  check_refused(directory("model.safetensors", weights.substr(0, weights.size() - 5)), 1, "truncated");
  check_refused(directory("model.safetensors", std::string(weights).replace(0, 8, huge)), 1, "model.safetensors");
  check_refused(directory("config.json", "{"), 1, "config.json");
  check_refused(directory("config.json", R"({"model_type": "mamba"})"), 1, "mamba");

  directory("config.json", "");
  models::save_pretrained(*models::make_model(models::model_from_spec("llama:layers=1,heads=2,width=16,ffn=32,vocab=100,context=128")), hf);
  check_refused(c.finetune_with("--model", hf), 1, "its tokenizer has 256 tokens, its model 100. Hint: are both of the same model?");
  CHECK(!fs::exists(c.out));
}

TEST_CASE("finetune: lines that cannot be used and examples that are too long are counted where one sees it, before the first step") {
  const Case c;
  write(c.chat, Case::conversations(9) + "{\"messages\": 3}\n{\"prompt\"\n" +
                    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]})" + "\n" + R"({"text": ")" +
                    std::string(150, 'x') + "\"}\n");
  const auto tuned = [&](const char* policy) {
    Arguments a = c.finetune({"--overlong", policy, "--skip-bad-lines", "--val-fraction", "0", "--precision", "bf16"});
    *(std::find(a.begin(), a.end(), "--out") + 1) = c.dir / policy;
    return run(a);
  };
  const Result split = tuned("split"), dropped = tuned("drop");
  INFO(split.out, split.err, dropped.out, dropped.err);
  REQUIRE(split.code == 0);
  REQUIRE(dropped.code == 0);
  const auto says = [](const Result& r, const std::string& part) { return (r.out + r.err).find(part) != std::string::npos; };
  CHECK(says(split, "3 of 13 lines passed over; the first: " + c.chat + ":10: "));
  CHECK(says(split, "1 of 13 lines are longer than --seq 96: split, 0 examples dropped"));
  CHECK(says(dropped, "1 of 13 lines are longer than --seq 96: drop, 1 examples dropped"));
  CHECK(says(split, "chat.jsonl: 11 ("));  // the long one in two
  CHECK(says(dropped, "chat.jsonl: 9 ("));
  // What is 16-bit, what stays f32 and why, and the bytes: all before the first step.
  for (const char* part : {"precision ", "16-bit ", "f32 ", "softmax", "frozen ", "loss scale", "at the peak"})
    CHECK_MESSAGE(says(split, part), part);
  check_refused(c.finetune(), 1, c.chat + ":10: ");
}

TEST_CASE("eval --chat: the held-out loss of a run, and that of another template") {
  const Case c;
  write(c.dir / "held.jsonl", Case::conversations(7));
  const auto tuned = document(run(c.finetune({"--json", "--eval-data", c.dir / "held.jsonl", "--precision", "fp32"})));
  const Arguments ask{"eval", "--json", "--model", c.out, "--data", c.dir / "held.jsonl", "--chat", "--seq", "96", "--precision", "fp32"};
  const auto r = document(run(ask));
  CHECK(r["loss"].get<double>() == doctest::Approx(tuned["val_loss"].get<double>()).epsilon(1e-6));
  CHECK(r["lines"] == 7);
  CHECK(r["tokens"] == 7 * std::string("It is 7.</s>").size() + 2);  // bytes; two answers have two digits
  write(c.dir / "mixed.jsonl", Case::conversations(7) + "{\"messages\": 5}\n");
  Arguments mixed = ask;
  mixed[5] = c.dir / "mixed.jsonl";
  check_refused(mixed, 1, "mixed.jsonl:8");
  mixed.emplace_back("--skip-bad-lines");
  const auto passed = document(run(mixed));
  CHECK(passed["loss"] == r["loss"]);
  CHECK(passed["bad_lines"] == 1);
  write(c.dir / "other.jinja", "{% for m in messages %}({{ m.content }}){% endfor %}{% if add_generation_prompt %}({% endif %}");
  const auto other = document(run(join(ask, {"--chat-template", c.dir / "other.jinja"})));
  CHECK(other["tokens"] == 7 * std::string("It is 7.)").size() + 2);
  CHECK(other["loss"] != r["loss"]);
}

TEST_CASE("finetune: a run goes on with its own base and examples alone") {
  const Case c;
  const auto done = document(run(c.finetune({"--json"})));
  check_refused(c.finetune(), 1, "--resume continues it");
  const std::string report = read(c.out + "/report.html");
  CHECK(document(run({"finetune", "--json", "--out", c.out, "--resume"})) == done);
  CHECK(run({"finetune", "--out", c.out, "--resume"}).out.starts_with("nothing is left to do: the run has ended, after step 4 of 4"));
  CHECK(read(c.out + "/report.html") == report);
  check_refused({"train", "--out", c.out, "--resume"}, 2, "is a run of mezzo finetune");
  check_refused({"finetune", "--out", c.dir / "base", "--resume"}, 2, "is a run of mezzo train");
  check_refused({"finetune", "--out", c.out, "--resume", "--lora-rank", "4"}, 1, "--lora-rank: 2 in the run, 4 given");
  write(c.chat, Case::conversations(13));
  check_refused({"finetune", "--out", c.out, "--resume"}, 1, "the examples (their fingerprint)");
}
