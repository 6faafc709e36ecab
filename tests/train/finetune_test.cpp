// finetune_test.cpp - an existing model trained further: with adapters and whole, stopped and resumed, packed and padded, in three formats.
#include <array>
#include <cmath>

#include <doctest/doctest.h>

#include <mezzo/fast_language_model.h>

#include "io/file.h"
#include "text/chat_template.h"
#include "train/checkpoint.h"
#include "train/events.h"
#include "train/generate.h"
#include "train/options.h"
#include "train/run_model.h"
#include "train/tuning_support.h"

namespace mezzo::test {
namespace {

/// A base that has read such texts: a run of `mezzo train`.
fs::path trained_base(const TempDir& dir) {
  auto o = small_run(dir, "reader");
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += fmt::format("{}{}? It is {}.\n", i % 3 == 0 ? "What colour is number " : "Colour of ", i * 7 % 50, i % 2 ? "black" : "grey");
  spit(dir / "read.txt", text);
  o.data = dir / "read.txt";
  o.model = "llama:layers=2,heads=2,kv_heads=1,width=32,ffn=64,context=64";
  o.seq = 48;
  o.batch = 4;
  o.steps = 60;
  o.lr = 1e-2;
  run(o);
  return o.out;
}

}  // namespace

TEST_CASE("fine-tuning that was stopped goes on bit for bit: adapters and all weights, packed and padded") {
  struct Case {
    const char* precision;
    bool full, packing;
    int accumulate;
    const char* quantize = "";
  };
  const TempDir dir;
  int n = 0;
  for (const Case& c : {Case{"fp32", false, true, 1}, Case{"bf16", false, true, 2, "q8_0"}, Case{"fp16", false, false, 1},
                        Case{"bf16-sr", true, true, 2}, Case{"fp16-master", true, false, 2}}) {
    CAPTURE(c.precision);
    auto o = small_tuning(dir, fmt::format("straight-{}", ++n), c.precision, c.full);
    o.tune->packing = c.packing;
    o.tune->quantize_base = c.quantize;
    o.accumulate = c.accumulate;
    const auto straight = run(o);
    auto two = o;
    two.out = dir / fmt::format("two-{}", n);
    int asked = 0;
    const auto half = train::Trainer(two).run({}, [&] { return ++asked == 3; });
    CHECK(half.status == train::RunStatus::interrupted);
    two.resume = true;
    const auto whole = run(two);
    CHECK(whole.step == 6);
    CHECK(*whole.val_loss == *straight.val_loss);
    CHECK(whole.tokens == straight.tokens);
    CHECK(metrics_of(two.out) == metrics_of(o.out));
    for (const char* file : {"weights.safetensors", "optimizer.safetensors"})
      CHECK(slurp(whole.checkpoint / file) == slurp(straight.checkpoint / file));
  }
}

TEST_CASE("QLoRA in NF4: the base stays in 4 bits, the plan says so to the byte; stopped and resumed bit for bit; merged, it is what was trained") {
  const TempDir dir;
  auto o = small_tuning(dir, "straight", "bf16");
  o.model = write_base(dir, "wide", 5, 64).native();
  o.tune->quantize_base = "nf4";
  train::Trainer whole(o);
  const auto weights = [](const auto& m) { return m.bytes[static_cast<std::size_t>(Memory::weights)]; };
  const auto straight = whole.run();
  CHECK(weights(whole.memory()) == weights(straight));
  CHECK(whole.plan().frozen.find("in blocks (nf4), unpacked into bf16") != std::string::npos);
  auto plain = o;
  plain.tune->quantize_base = "";
  constexpr std::int64_t kMatrices = 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 128);  // of two layers: q o, k v, gate up down
  CHECK(weights(train::plan_bytes(plain)) - weights(train::plan_bytes(o)) == kMatrices * 2 - kMatrices / 64 * 34);

  const auto resumed = run_in_two(o, dir / "two");
  CHECK(*resumed.val_loss == *straight.val_loss);
  CHECK(slurp(resumed.checkpoint / "weights.safetensors") == slurp(straight.checkpoint / "weights.safetensors"));

  // Merged: the levels that training saw, plus the adapter; another base under the same adapter is another model.
  const auto trained = train::load_run_model(straight.checkpoint);
  trained.model->eval();
  const Tensor ids = from_span(std::span<const std::int32_t>(std::array<std::int32_t, 6>{7, 99, 104, 3, 250, 32}), {1, 6});
  const auto logits = (*trained.model)(ids).to_vector();
  fs::create_directories(dir / "merged");
  train::write_merged(trained, dir / "merged", f32);
  const auto merged = (*train::load_run_model(dir / "merged").model)(ids).to_vector();
  double most = 0, apart = 0, rounded_away = 0;
  const auto adapter_alone = train::load_run_model(o.out / "model");  // beside the base as its file has it
  adapter_alone.model->eval();
  const auto unrounded = (*adapter_alone.model)(ids).to_vector();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    most = std::max(most, static_cast<double>(std::abs(logits[i])));
    apart = std::max(apart, static_cast<double>(std::abs(logits[i] - merged[i])));
    rounded_away = std::max(rounded_away, static_cast<double>(std::abs(logits[i] - unrounded[i])));
  }
  CHECK(apart <= 1e-5 * most);
  CHECK(rounded_away > 1e-3 * most);
}

TEST_CASE("a template that writes the date is told that of the run's first start, whenever it is resumed") {
  const TempDir dir;
  auto o = small_tuning(dir, "run");
  spit(dir / "base/chat_template.jinja",
       "{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if add_generation_prompt "
       "%}[assistant]{% endif %}");
  std::string lines;
  for (int i = 0; i < 10; ++i)
    lines += fmt::format("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}},{{\"role\":\"assistant\",\"content\":\"yes\"}}]}}\n", i);
  spit(dir / "dated.jsonl", lines);
  o.data = dir / "dated.jsonl";
  o.steps = 2;
  o.tune->started = 1'000'000'000;  // 2001
  run(o);
  CHECK(train::run_options(o.out).tune->started == 1'000'000'000);
  auto more = o;
  more.tune->started = 0;  // as a program that knows nothing of it
  more.resume = true;
  CHECK(run(more).step == 2);
  more.tune->started = 1'100'000'000;
  CHECK(contains(refused(more), "the examples (their fingerprint)"));
}

TEST_CASE("a checkpoint of adapters holds adapters, and goes with its base and its examples alone") {
  const TempDir dir;
  const auto o = small_tuning(dir, "run", "bf16");
  const auto s = run(o);
  const auto weights = weights_of(s.checkpoint);
  CHECK(weights.size() == 2 * 2 * 7);  // A and B, layers, projections
  for (const auto& [name, w] : weights) {
    CHECK(contains(name, ".lora_"));
    CHECK(w.dtype() == f32);
  }
  const auto config = io::read_json(o.out / "config.json");
  CHECK(config["model"]["base"]["path"] == (dir / "base").native());
  CHECK(config["model"]["trained"].get<std::int64_t>() < config["model"]["parameters"].get<std::int64_t>());
  CHECK(contains(config["precision"]["frozen"].get<std::string>(), "bf16"));

  auto again = train::run_options(o.out);
  CHECK(again.tune->lora.rank == 4);
  CHECK(again.tune->overlong == text::Overlong::split);
  again.resume = true;
  again.tune->lora.rank = 8;
  CHECK(contains(refused(again), "--lora-rank: 4 in the run, 8 given"));
  again.tune->lora.rank = 4;
  write_base(dir, "other", 6);
  again.model = (dir / "other").native();
  CHECK(contains(refused(again), "the base model (its fingerprint)"));
  again.model = o.model;
  spit(dir / "others.jsonl", some_examples(24));
  again.data = dir / "others.jsonl";
  CHECK(contains(refused(again), "the examples (their fingerprint)"));
  again = o;
  again.resume = true;
  again.tune.reset();
  again.model = "llama:layers=2,heads=2,kv_heads=1,width=32,ffn=64,vocab=256,context=64";
  again.epochs = 0;
  again.seq = 48;
  CHECK(contains(refused(again), "a run of mezzo finetune"));
}

TEST_CASE("the loss of a step does not hang on how its examples are laid out") {
  const TempDir dir;
  auto o = small_tuning(dir, "padded");
  o.val_fraction = 0;
  o.tune->lora.dropout = 0;
  spit(dir / "six.jsonl", some_examples(6));
  o.data = dir / "six.jsonl";
  o.steps = 4;
  o.batch = 6;  // all examples in a step
  o.tune->packing = false;
  const auto tokens = run(o).tokens;
  const auto padded = losses_of(o.out);
  CHECK(padded[3] < padded[0]);
  CHECK(tokens == 4 * io::read_json(o.out / "config.json")["data"]["tokens"].get<std::int64_t>());  // padding is none

  o.out = dir / "packed";
  o.tune->packing = true;
  CHECK(run(o).tokens == tokens);
  o.out = dir / "accumulated";  // one example a micro-batch, few or many tokens: each token counts the same
  o.tune->packing = false;
  o.batch = 1;
  o.accumulate = 6;
  CHECK(run(o).tokens == tokens);
  for (const char* other : {"packed", "accumulated"}) {
    const auto losses = losses_of(dir / other);
    for (std::size_t i = 0; i < padded.size(); ++i) CHECK(losses[i] == doctest::Approx(padded[i]).epsilon(1e-4));  // sums in another order
  }
}

TEST_CASE("held-out loss falls alike in fp32, bf16 and fp16, with adapters and with all weights") {
  const TempDir dir;
  const fs::path base = trained_base(dir);
  for (const bool full : {false, true}) {
    std::vector<double> ends;
    for (const char* precision : {"fp32", "bf16", "fp16"}) {
      auto o = small_tuning(dir, fmt::format("{}-{}", precision, full), precision, full);
      o.model = base.native();
      o.steps = 0;
      o.epochs = 12;
      o.eval_steps = 0;
      train::Trainer trainer(o);
      CHECK(trainer.options().steps > 12);
      const auto before = *trainer.workload().validate(trainer.model(), trainer.plan().recipe, 0);
      const auto s = trainer.run();
      MESSAGE(fmt::format("{}, {}: held-out loss {:.3f} to {:.3f}", full ? "all weights" : "adapters", precision, before, *s.val_loss));
      CHECK(*s.val_loss < 0.7 * before);
      ends.push_back(*s.val_loss);
    }
    for (const double end : ends) CHECK(end == doctest::Approx(ends[0]).epsilon(0.1));
  }
}

TEST_CASE("a model whose numbers f16 does not hold goes on in bf16, with a line that says so") {
  const TempDir dir;
  const fs::path base = write_base(dir);
  // Activations of some 1e6 in the MLP of the second layer: bf16 and f32 hold them.
  StateDict weights = load(base / "model.safetensors");
  for (auto& [name, w] : weights)
    if (contains(name, "layers.1.mlp.gate_proj") || contains(name, "layers.1.mlp.up_proj")) w = mul(w, 2000.0);
  save(weights, base / "model.safetensors");

  auto o = small_tuning(dir, "run", "fp16", true);
  o.steps = 24;
  o.eval_steps = 0;
  const auto s = run(o);
  CHECK(std::isfinite(s.train_loss));
  CHECK(s.rollbacks == 1);
  CHECK(io::read_json(o.out / "config.json")["history"][0]["precision"] == "bf16");
  const auto events = train::read_events(o.out);
  const auto moved = std::find_if(events.begin(), events.end(), [](const train::Event& e) { return e.kind == "fallback"; });
  REQUIRE(moved != events.end());
  CHECK(contains(moved->text, "it began in swiglu in model.layers.1.mlp"));
  CHECK(contains(moved->text, "Back to the beginning and past the data since, in bf16"));

  auto stopped = small_tuning(dir, "stopped", "fp16", true);
  stopped.steps = 24;
  stopped.on_divergence = train::OnDivergence::stop;
  CHECK(contains(error_of([&] { run(stopped); }), "no loss scale changes that"));
}

TEST_CASE("a run that no longer gets better ends, and leaves its best weights") {
  const TempDir dir;
  auto o = small_tuning(dir, "run");
  // What is held out has nothing of what is learnt: its loss rises from the first step on.
  o.tune->eval_data = dir / "other.jsonl";
  spit(o.tune->eval_data, "{\"prompt\": \"@@\", \"completion\": \"@@@@@@@@\"}\n");
  o.steps = 40;
  o.eval_steps = 2;
  o.early_stop = 3;
  o.keep = 1;
  o.schedule = optim::ScheduleKind::constant;
  o.warmup = 0;
  const auto s = run(o);
  CHECK(s.status == train::RunStatus::finished);
  CHECK(s.best_step == 2);
  CHECK(s.step == 8);
  CHECK(*s.val_loss == s.best_loss);
  CHECK(train::checkpoint_steps(o.out) == std::vector<std::int64_t>{s.best_step, s.step});
  auto again = o;
  again.resume = true;  // has ended: nothing is left to do
  const auto t = run(again);
  CHECK(t.step == s.step);
  CHECK(*t.val_loss == s.best_loss);
}

TEST_CASE("the plan of fine-tuning is no less than what it takes") {
  const TempDir dir;
  for (const bool packing : {true, false})
    for (const char* precision : {"fp32", "bf16", "bf16-sr"}) {
      auto o = small_tuning(dir, fmt::format("{}-{}", precision, packing), precision, std::string_view(precision) == "bf16-sr");
      o.tune->packing = packing;
      train::Trainer trainer(o);
      const auto plan = trainer.memory();
      const auto s = trainer.run();
      MESSAGE(fmt::format("{}: planned {}, used {}", precision, plan.peak, s.peak_bytes));
      CHECK(plan.peak >= s.peak_bytes);
      for (const Memory c : {Memory::weights, Memory::masters, Memory::optimizer})
        CHECK(plan.bytes[static_cast<std::size_t>(c)] == s.bytes[static_cast<std::size_t>(c)]);
    }
}

TEST_CASE("where windows are full, fine-tuning takes what the plan says, within 5 %: adapters and whole models, in every recipe for them") {
  const TempDir dir;
  write_base(dir, "base", 5, 64);
  std::string lines;  // windows that are full: texts longer than one
  for (int i = 0; i < 40; ++i) lines += fmt::format("{{\"text\": \"{}\"}}\n", std::string(2000, static_cast<char>('a' + i % 26)));
  spit(dir / "long.jsonl", lines);
  struct Case {
    const char* precision;
    bool full;
    std::int64_t batch;
    int accumulate = 1;
    bool packing = true;
    const char* quantize = "";
    int checkpoint_every = 0;
  };
  int n = 0;
  for (const Case& c :
       {Case{"fp32", false, 2}, Case{"bf16", false, 4}, Case{"bf16", false, 2, 2, false}, Case{"bf16", false, 2, 1, true, "nf4"},
        Case{"fp16", false, 2}, Case{"bf16", false, 4, 1, true, "", 1}, Case{"fp32", true, 2}, Case{"bf16", true, 4}, Case{"bf16-split", true, 2},
        Case{"bf16-sr", true, 2, 2}, Case{"fp16-master", true, 2}, Case{"bf16", true, 2, 1, false, "", 1}}) {
    auto o = small_tuning(dir, fmt::format("full-{}", n++), c.precision, c.full);
    o.data = dir / "long.jsonl";
    o.batch = c.batch;
    o.accumulate = c.accumulate;
    o.tune->packing = c.packing;
    o.tune->quantize_base = c.quantize;
    o.checkpoint_every = c.checkpoint_every;
    o.steps = 4;
    o.eval_steps = 0;
    train::Trainer trainer(o);
    const auto plan = trainer.memory();
    const auto s = trainer.run();
    const double ratio = static_cast<double>(plan.peak) / static_cast<double>(s.peak_bytes);
    const std::string what =
        fmt::format("{} {} B {}: planned {}, used {}: {:.4f}", c.precision, c.full ? "full" : "adapters", c.batch, plan.peak, s.peak_bytes, ratio);
    MESSAGE(what);
    CHECK_MESSAGE(std::abs(ratio - 1) <= 0.05, what);
  }
}

std::string conversations(int n) {
  std::string lines;
  for (int i = 0; i < n; ++i)
    lines +=
        fmt::format("{{\"messages\": [{{\"role\": \"user\", \"content\": \"{}?\"}}, {{\"role\": \"assistant\", \"content\": \"{}.\"}}]}}\n", i, i);
  return lines;
}

TEST_CASE("a model's template stops a run that needs it, and no other; one that is given takes its place and stays with the run") {
  const TempDir dir;
  auto o = small_tuning(dir, "run");
  o.steps = 2;
  o.eval_steps = 0;
  o.tune->lora.dropout = 0;
  spit(dir / "base/chat_template.jinja", "{% for m in messages %}\n{% frob %}{% endfor %}");
  run(o);  // prompts and completions
  o.out = dir / "talk";
  o.data = dir / "talk.jsonl";
  spit(o.data, conversations(8));
  CHECK(contains(refused(o), "base/chat_template.jinja:2: statement `frob` is not supported"));
  o.tune->skip_bad_lines = true;
  CHECK(contains(refused(o), "base/chat_template.jinja:2: statement `frob` is not supported"));
  o.tune->skip_bad_lines = false;

  const fs::path mine = dir / "mine.txt";
  const std::string text = "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
  spit(mine, text);
  o.tune->chat_template = dir / "absent.txt";
  CHECK(contains(refused(o), "absent.txt"));
  spit(dir / "bad.txt", "{{ 'x' | frobnicate }}");
  o.tune->chat_template = dir / "bad.txt";
  CHECK(contains(refused(o), "bad.txt:1: "));
  CHECK_FALSE(fs::exists(o.out));
  o.tune->chat_template = mine;
  o.steps = 4;
  int asked = 0;
  train::Trainer(o).run({}, [&] { return ++asked == 2; });
  fs::remove(mine);
  auto again = train::run_options(o.out);
  again.resume = true;
  CHECK(run(again).step == 4);

  for (const fs::path& path : {o.out, o.out / "model", o.out / "checkpoints/step-4"}) {
    CAPTURE(path);
    const auto m = train::load_run_model(path);
    CHECK(text::read_chat_template(m.chat) == text);
    CHECK(m.tokenizer->decode(train::chat_prompt(m.chat, *m.tokenizer, "7?").ids) == "<u>7?<a>");
  }
  // What is written of it for others has it too.
  const auto m = train::load_run_model(o.out);
  fs::create_directories(dir / "merged");
  train::write_merged(m, dir / "merged", f32);
  CHECK(text::read_chat_template(dir / "merged") == text);
  auto model = FastLanguageModel::from_pretrained(o.out);
  model.save_gguf(dir / "model.gguf", "f32");
  CHECK(text::read_chat_template(dir / "model.gguf") == text);
  spit(mine, "[{{ messages[0].content }}]");
  auto other = FastLanguageModel::from_pretrained(dir / "merged", {.chat_template = mine});
  other.save_merged(dir / "other");
  CHECK(text::read_chat_template(dir / "other") == "[{{ messages[0].content }}]");
  CHECK(contains(error_of([&] { FastLanguageModel::from_pretrained(dir / "merged", {.chat_template = dir / "absent.jinja"}); }), "absent.jinja"));
}

TEST_CASE("--seq left open is the model's context where that is below 1,024") {
  const TempDir dir;
  auto o = small_tuning(dir, "run");
  o.seq = train::tuning_defaults(false).seq;
  CHECK(train::plan_bytes(o).peak > 0);
  const train::Trainer trainer(o);
  CHECK(trainer.options().seq == 64);
}

TEST_CASE("what cannot be fine-tuned is refused in a line, and nothing is written") {
  const TempDir dir;
  const auto o = small_tuning(dir, "run");
  const auto with = [&](auto change) {
    auto changed = o;
    change(changed);
    return refused(changed);
  };
  CHECK(contains(with([&](auto& x) { x.model = (dir / "absent.gguf").native(); }), "nothing of that name"));
  CHECK(contains(with([&](auto& x) { x.model = (dir / "chat.jsonl").native(); }), "chat.jsonl"));
  fs::create_directories(dir / "hollow");
  CHECK(contains(with([&](auto& x) { x.model = (dir / "hollow").native(); }), "no model.safetensors is in it"));
  fs::create_directories(dir / "tuned/model");
  spit(dir / "tuned/model/adapter_config.json", "{}");
  for (const char* at : {"tuned", "tuned/model"})
    CHECK(contains(with([&](auto& x) { x.model = (dir / at).native(); }), "a model with adapters; one without wanted. Hint: `mezzo export --merge"));
  CHECK(contains(with([&](auto& x) { x.seq = 65; }), "--seq 65 given, at most the model's context of 64"));
  CHECK(contains(with([&](auto& x) { x.tune->lora.targets = {"q_prj"}; }), "did you mean `q_proj`"));
  CHECK(contains(with([&](auto& x) { x.tune->lora.rank = 0; }), "--lora-rank 0"));
  CHECK(contains(with([&](auto& x) { x.tune->quantize_base = "q4_1"; }), "--quantize-base q4_1 given, one of q8_0, q4_0, nf4 wanted"));
  CHECK(contains(with([&](auto& x) { x.tune->quantize_base = "nf_4"; }), "did you mean `nf4`"));
  CHECK(contains(with([&](auto& x) { x.tune->quantize_base = "nf4"; }), "has rows of 32 elements, whole blocks of 64 wanted for NF4"));
  CHECK(contains(with([&](auto& x) { x.tune->full = true, x.tune->quantize_base = "q8_0"; }), "--full with --quantize-base"));
  CHECK(contains(with([&](auto& x) { x.early_stop = 2, x.eval_steps = 0; }), "--early-stop"));
  spit(dir / "bad.jsonl", some_examples(3) + "{\"prompt\": \n" + some_examples(3));
  CHECK(contains(with([&](auto& x) { x.data = dir / "bad.jsonl"; }), "bad.jsonl:4"));
  CHECK_FALSE(fs::exists(o.out));

  auto skipping = o;
  skipping.data = dir / "bad.jsonl";
  skipping.tune->skip_bad_lines = true;
  train::Trainer trainer(skipping);
  CHECK(trainer.workload().describe()["bad_lines"] == 1);
}

TEST_CASE("an optimizer that hardly moves adapters is warned of") {
  const TempDir dir;
  auto o = small_tuning(dir, "run");
  CHECK(train::Trainer(o).warnings().empty());
  o.optimizer = "adafactor";
  const auto warnings = train::Trainer(o).warnings();
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings[0], "adapters begin at zero"));
  o.tune->full = true;
  o.tune->lora = {};
  CHECK(train::Trainer(o).warnings().empty());
}

}  // namespace mezzo::test
