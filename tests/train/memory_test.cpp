// memory_test.cpp - bytes counted from shapes against bytes that were taken; a loop that asks the system for nothing.
#include <doctest/doctest.h>

#include "core/allocator.h"
#include "train/lighter.h"
#include "train/options.h"
#include "train/support.h"

namespace mezzo::test {

TEST_CASE("the plan is what then happens") {
  const TempDir dir;
  write_small_text(dir, 40000);
  struct Case {
    const char *recipe, *model;
    std::int64_t batch, seq;
    int accumulate;
    const char *optimizer = "adamw", *state_dtype = "";
    int checkpoint_every = 0;
  };
  const Case cases[] = {
      {"fp32", "gpt:layers=2,heads=4,width=64", 8, 64, 1},
      {"bf16", "gpt:layers=3,heads=4,width=128", 4, 64, 1},
      {"bf16-master", "gpt:layers=2,heads=4,width=128", 4, 128, 1},
      {"fp16-master", "gpt:layers=2,heads=4,width=64", 4, 64, 3},
      {"fp16", "gpt:layers=2,heads=2,width=64,dropout=0.1", 8, 64, 2},
      {"bf16", "gpt:layers=1,heads=2,width=256,vocab=2000", 1, 16, 1},  // weights, not activations, decide
      {"fp32", "gpt:layers=2,heads=2,width=128,dropout=0.1", 2, 32, 1},
      {"bf16", "llama:layers=2,heads=4,kv_heads=2,width=64", 4, 64, 2},
      {"bf16-split", "gpt:layers=2,heads=4,width=128", 4, 64, 1},
      {"bf16-kahan", "gpt:layers=1,heads=2,width=256,vocab=2000", 1, 16, 1},
      {"bf16-sr", "gpt:layers=1,heads=2,width=256,vocab=2000", 1, 16, 2},
      {"bf16-pure", "gpt:layers=2,heads=4,width=128", 4, 64, 1, "lion"},
      {"fp16-pure", "gpt:layers=1,heads=2,width=128", 4, 64, 1, "sgd"},
      {"bf16", "gpt:layers=1,heads=2,width=256,vocab=2000", 1, 16, 1, "adamw", "u8"},
      {"bf16-sr", "gpt:layers=1,heads=2,width=256,vocab=2000", 1, 16, 1, "adafactor"},
      {"bf16", "gpt:layers=3,heads=4,width=128,dropout=0.1", 4, 64, 1, "adamw", "", 1},
      {"fp32", "llama:layers=3,heads=4,kv_heads=2,width=64", 4, 64, 2, "adamw", "", 2},
  };
  int n = 0;
  for (const auto& c : cases) {
    auto o = small_run(dir, fmt::format("run-{}", n++), c.recipe);
    o.model = c.model;
    o.batch = c.batch;
    o.seq = c.seq;
    o.accumulate = c.accumulate;
    o.optimizer = c.optimizer;
    o.state_dtype = c.state_dtype;
    o.checkpoint_every = c.checkpoint_every;
    o.steps = 4;
    train::Trainer trainer(o);
    const auto plan = trainer.memory();
    const auto s = trainer.run();
    CAPTURE(c.recipe);
    CAPTURE(c.model);
    std::string table;
    for (std::size_t k = 0; k < kMemoryCategories; ++k) table += fmt::format("{} {}/{} ", name(static_cast<Memory>(k)), plan.bytes[k], s.bytes[k]);
    MESSAGE(fmt::format("{} {}: planned/used {}/{} ({})", c.recipe, c.model, plan.peak, s.peak_bytes, table));
    CHECK(plan.peak == s.peak_bytes);
    CHECK(plan.bytes == s.bytes);
  }
}

TEST_CASE("activations that are computed again are not kept") {
  const TempDir dir;
  auto o = small_run(dir, "run", "bf16");
  o.model = "gpt:layers=8,heads=4,width=64";
  o.batch = 8;
  o.seq = 64;
  o.data = dir / "text.txt";
  const auto of = [&](int every) {
    o.checkpoint_every = every;
    return train::plan_bytes(o).bytes[static_cast<std::size_t>(Memory::activations)];
  };
  const auto all = of(0), each = of(1), second = of(2);
  MESSAGE(fmt::format("activations: {} kept, {} with --checkpoint-every 1, {} with 2", all, each, second));
  CHECK(each < all / 2);
  CHECK(second < all);
}

TEST_CASE("memory grows with the length of a sequence, not with its square") {
  const TempDir dir;
  auto o = small_run(dir, "run", "bf16");
  o.data = dir / "text.txt";
  o.model = "gpt:layers=2,heads=4,width=64";
  o.batch = 1;
  const auto of = [&](std::int64_t seq) {
    o.seq = seq;
    const auto plan = train::plan_bytes(o);
    return plan.bytes[static_cast<std::size_t>(Memory::activations)] + plan.bytes[static_cast<std::size_t>(Memory::workspace)];
  };
  const auto a = of(2048), b = of(4096), c = of(8192);
  MESSAGE(fmt::format("activations and workspace of 2048, 4096, 8192 tokens: {}, {}, {}", a, b, c));
  CHECK(c - b <= 2 * (b - a) * 1.01);
}

TEST_CASE("1.1 billion parameters train in 20 GiB in bf16 with stochastic rounding") {
  const TempDir dir;
  auto o = small_run(dir, "run", "bf16-sr");
  o.data = dir / "text.txt";
  o.model = "gpt:layers=20,heads=16,width=2048,vocab=32000";
  o.batch = 1;
  o.seq = 256;
  o.clip_norm = 0;
  const auto apart = train::plan_bytes(o);
  o.fuse_optimizer = true;
  const auto fused = train::plan_bytes(o);
  const auto parameters = models::parameter_count(train::shape_of(o));
  MESSAGE(fmt::format("{} parameters: {} bytes at the peak, {} fused", parameters, apart.peak, fused.peak));
  CHECK(parameters > 1'070'000'000);
  CHECK(apart.peak < std::int64_t{20} << 30);
  CHECK(fused.peak < apart.peak - 2 * parameters * 7 / 10);  // 16-bit gradients, of which the tied head's (in f32) and a few more are left
}

TEST_CASE("a run that cannot fit is refused before anything is allocated") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  o.model = "gpt:layers=200,heads=64,width=16384";
  const auto before = memory_report().reserved;
  const std::string error = error_of([&] { train::Trainer t(o); });
  CAPTURE(error);
  CHECK(contains(error, "this run needs "));
  CHECK(contains(error, "optimizer "));
  CHECK(memory_report().reserved == before);
  CHECK_FALSE(std::filesystem::exists(o.out));

  o.model = "gpt:layers=12,heads=12,width=768";
  o.batch = 8192;
  o.seq = 1024;
  CHECK(contains(error_of([&] { train::Trainer t(o); }), "--accumulate "));
  o.overcommit = true;
  o.memory = -1;
  CHECK(contains(error_of([&] { train::Trainer t(o); }), "--memory -1 given"));
}

TEST_CASE("--memory refuses, --overcommit begins all the same and warns") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  o.memory = 1e-4;  // GiB: 107 KiB
  const std::string error = error_of([&] { train::Trainer t(o); });
  CAPTURE(error);
  CHECK(contains(error, "--memory allows 0.1 MiB"));
  CHECK(contains(error, "--overcommit"));
  CHECK(!contains(error, "\n"));
  CHECK_FALSE(std::filesystem::exists(o.out));

  o.overcommit = true;
  train::Trainer t(o);
  const auto warnings = t.warnings();
  CHECK(std::any_of(warnings.begin(), warnings.end(), [](const std::string& w) { return contains(w, "--overcommit lets it begin"); }));
  CHECK(t.run().step == o.steps);
}

TEST_CASE("what is suggested for a run that does not fit is what it then takes") {
  const TempDir dir;
  write_small_text(dir, 40000);
  auto o = small_run(dir, "run", "bf16");
  o.model = "gpt:layers=6,heads=4,width=64,vocab=2000";
  o.batch = 16;
  o.seq = 128;
  o.steps = 3;
  const auto shape = train::shape_of(o);
  const auto plan = train::plan_bytes(o);
  for (const double share : {0.6, 0.25, 0.1}) {  // one change suffices; several are needed; nothing helps enough
    const auto memory = static_cast<std::int64_t>(share * static_cast<double>(plan.peak));
    const auto helps = train::lighter(o, shape, plan, memory);
    REQUIRE(helps.size() >= 4);
    std::string said;
    for (const auto& l : helps) said += fmt::format("\n  {}: {}{} ({})", l.options, l.peak, l.fits ? " fits" : "", l.effect);
    MESSAGE(fmt::format("{} bytes into {}:{}", plan.peak, memory, said));
    for (std::size_t i = 0; i < helps.size(); ++i) {
      const auto& l = helps[i];
      CHECK(l.peak < plan.peak);
      CHECK(l.fits == (l.peak <= memory));
      CHECK(!l.effect.empty());
      if (i > 0) CHECK(helps[i - 1].fits >= l.fits);
    }
    CHECK(helps.front().fits == (share > 0.2));
    for (const auto& l : helps) {  // carried out
      auto run = l.run;
      run.out = dir / fmt::format("run-{}-{}", share, &l - helps.data());
      const auto s = train::Trainer(run).run();
      CHECK_MESSAGE(s.peak_bytes == l.peak, l.options);
      if (!l.fits) break;  // of those one is enough
    }
  }
  CHECK(train::lighter(o, shape, plan, plan.peak / 2).front().same);

  o.resume = true;  // of which the batch cannot change
  for (const auto& l : train::lighter(o, shape, plan, plan.peak / 2)) CHECK(contains(l.options, "--checkpoint-every"));
}

TEST_CASE("from the fourth step on, a step asks the system for no memory") {
  const TempDir dir;
  write_small_text(dir);
  for (const char* recipe : {"fp32", "bf16", "fp16-master", "bf16-split", "bf16-kahan", "bf16-sr", "bf16-pure"}) {
    CAPTURE(recipe);
    auto o = small_run(dir, recipe, recipe);
    o.model += ",dropout=0.1";
    o.accumulate = 2;
    o.steps = 54;
    std::vector<std::int64_t> mappings, live;
    train::Trainer(o).run([&](const train::Progress& p) {
      if (p.val_loss) return;
      mappings.push_back(system_mappings());
      live.push_back(memory_report().total);
    });
    REQUIRE(mappings.size() == 53);
    for (std::size_t i = 4; i < mappings.size(); ++i) {
      CHECK(mappings[i] == mappings[3]);
      CHECK(live[i] == live[3]);
    }
  }
}

}  // namespace mezzo::test
