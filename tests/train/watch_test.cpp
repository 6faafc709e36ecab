// watch_test.cpp - inspections and events of a run: what is written, that watching changes no bit, and where an overflow is said to begin.
#include <cmath>

#include <doctest/doctest.h>

#include "train/events.h"
#include "train/numerics.h"
#include "train/support.h"
#include "train/watch.h"

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;

const inspect::Record* find(const train::Inspection& i, inspect::Kind kind, const std::string& module) {
  for (const auto& r : i.records)
    if (r.kind == kind && r.module == module) return &r;
  return nullptr;
}

}  // namespace

TEST_CASE("a run that is inspected computes the same bits, and writes down each N-th step") {
  const TempDir dir;
  write_small_text(dir);
  for (const char* precision : {"fp32", "fp16", "bf16-split"}) {
    CAPTURE(precision);
    auto plain = small_run(dir, std::string("plain-") + precision, precision),
         watched = small_run(dir, std::string("watched-") + precision, precision);
    plain.model = watched.model = "gpt:layers=2,heads=2,width=32,dropout=0.1";
    watched.inspect = 3;
    run(plain);
    run(watched);
    const auto a = metrics_of(plain.out), b = metrics_of(watched.out);
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      for (const char* key : {"loss", "grad_norm", "scale", "zero_fraction"}) CHECK(a[i][key] == b[i][key]);

    const auto inspections = train::read_inspections(watched.out);
    REQUIRE(inspections.size() == 2);
    CHECK(inspections[0].step == 3);
    CHECK(inspections[1].step == 6);
    CHECK(inspections[0].scale == b[2]["scale"]);
    const auto* weight = find(inspections[0], inspect::Kind::weight, "h.0.mlp.c_fc.weight");
    REQUIRE(weight);
    CHECK(weight->ranges.count == 4 * 32 * 32);
    CHECK(weight->conversions.size() == 6);
    const auto* update = find(inspections[0], inspect::Kind::update, "h.0.mlp.c_fc.weight");
    REQUIRE(update);
    CHECK(update->stalled.value() < 0.01);
    CHECK(find(inspections[0], inspect::Kind::gradient, "h.1.attn.c_proj.weight"));
    CHECK(find(inspections[0], inspect::Kind::activation, "h.1.mlp.c_fc"));
    CHECK(find(inspections[0], inspect::Kind::activation_gradient, "ln_f"));
    CHECK(train::read_inspections(plain.out).empty());
  }
}

TEST_CASE("a resumed run goes on with its inspections") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "whole", "bf16");
  o.inspect = 2;
  run(o);
  auto part = o;
  part.out = dir / "part";
  part.checkpoint_steps = 5;
  std::int64_t seen = 0;
  train::Trainer(part).run([&](const train::Progress& p) { seen = p.step; }, [&] { return seen == 7; });
  part.resume = true;
  part.resume_step = 5;  // what was inspected after it goes
  run(part);
  CHECK(slurp(part.out / "numerics.jsonl") == slurp(o.out / "numerics.jsonl"));
}

TEST_CASE("an inspection survives its JSON") {
  train::Inspection i{.step = 7, .scale = 1024, .records = {}};
  i.records.push_back({.kind = inspect::Kind::activation_gradient,
                       .module = "h.0",
                       .op = "linear",
                       .dtype = Dtype::f16,
                       .ranges = inspect::ranges(tensor({1.0f, 0.0f, -3.0f, 1e-6f}, {4})),
                       .conversions = {inspect::conversion(tensor({1.0f, 2.0f}, {2}), "fp8_e5m2")}});
  i.records.push_back({.kind = inspect::Kind::update, .module = "w", .stalled = 0.25});
  const auto back = train::inspection_from_json(train::to_json(i), "test");
  CHECK(train::to_json(back) == train::to_json(i));
  CHECK(std::isinf(back.records[0].conversions[0].snr_db));
  CHECK(error_of([&] { train::inspection_from_json({{"step", 1}}, "numerics.jsonl"); }).find("numerics.jsonl") != std::string::npos);
}

TEST_CASE("an overflow is run again: the event names the place, and whether f32 would cure it") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run", "fp16");
  o.steps = 3;
  o.loss_scale = "1e9";  // the first gradient in f16 is beyond it
  const auto s = run(o);
  CHECK(s.skipped == 3);
  const auto events = train::read_events(o.out);
  REQUIRE(events.size() == 3);
  CHECK(events[0].kind == "overflow");
  CHECK(events[0].step == 1);
  CHECK(events[0].text.find("it began in the backward of linear_cross_entropy in wte (f16)") != std::string::npos);
  REQUIRE(events[0].details);
  CHECK((*events[0].details)["op"] == "linear_cross_entropy");
  CHECK((*events[0].details)["backward"] == true);
  CHECK((*events[0].details)["inputs"][0]["largest"] == 1e9);
  CHECK((*events[0].details)["before"].size() > 3);
}

TEST_CASE("explaining a skipped step leaves weights, gradients, scaler and random numbers alone") {
  const TempDir dir;
  auto o = small_run(dir, "run", "fp16");
  o.model = "gpt:layers=1,heads=2,width=32,dropout=0.2,vocab=256,context=16";
  fs::create_directories(o.out);
  const auto plan = train::resolve({.precision = o.precision, .loss_scale = "1e9"});
  manual_seed(2);
  const auto machine = train::build(models::model_from_spec(o.model), o, plan);
  const Tensor ids = arange(32, {.dtype = i32}).reshape({2, 16});
  const train::RunWatch::Loss loss = [&](int) { return machine.model->loss(ids, ids); };
  train::RunWatch watch(o, plan, 0);
  const auto before = default_generator().counter();
  const auto report = watch.step(1, machine, loss);
  REQUIRE_FALSE(report.applied());
  const auto after = default_generator().counter();
  CHECK(after > before);
  const auto weights = machine.model->parameters().front().to_vector();
  const double scale = machine.step->scaler().get_scale();
  CHECK(watch.explain(1, machine, loss, before, report).text.find("it began in the backward of linear_cross_entropy") == 0);
  CHECK(default_generator().counter() == after);
  CHECK(machine.model->parameters().front().to_vector() == weights);
  CHECK_FALSE(machine.model->parameters().front().grad().defined());
  CHECK(machine.step->scaler().get_scale() == scale);
}

TEST_CASE("NaN in a recipe that cannot skip: the error says in which op it began") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run", "bf16");
  o.lr = 1e30;
  o.clip_norm = 0;
  const std::string error = error_of([&] { run(o); });
  CHECK(error.find("it began in ") != std::string::npos);
  CHECK(error.find(" (bf16)") != std::string::npos);
  CHECK(error.find("step 2") != std::string::npos);
  const auto events = train::read_events(o.out);
  REQUIRE(events.size() == 2);
  CHECK(events[0].text.find("not applied: NaN in the gradient of ") == 0);  // nothing can be skipped here
  CHECK(events[1].kind == "divergence");
}

}  // namespace mezzo::test
