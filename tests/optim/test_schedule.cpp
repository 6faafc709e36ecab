// Learning-rate schedules against values worked out by hand.
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using optim::schedule;
using optim::ScheduleKind;

namespace {
auto near(double x) { return doctest::Approx(x).epsilon(1e-12); }
}  // namespace

TEST_CASE("warm-up rises from lr / warmup to lr, in every schedule") {
  for (const auto kind : {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine, ScheduleKind::wsd}) {
    const optim::ScheduleOptions o{.kind = kind, .lr = 0.8, .steps = 100, .warmup = 4};
    CHECK(schedule(o, 0) == near(0.2));
    CHECK(schedule(o, 1) == near(0.4));
    CHECK(schedule(o, 2) == near(0.6));
    CHECK(schedule(o, 3) == near(0.8));
    CHECK(schedule(o, 4) == near(0.8));
  }
}

TEST_CASE("constant stays, with or without a length") {
  CHECK(schedule({.lr = 0.3}, 0) == 0.3);
  CHECK(schedule({.lr = 0.3}, 1'000'000'000) == 0.3);
  CHECK(schedule({.lr = 0.3, .warmup = 10}, 10) == 0.3);
}

TEST_CASE("linear falls to its share of lr") {
  const optim::ScheduleOptions o{.kind = ScheduleKind::linear, .lr = 1, .steps = 10, .warmup = 2, .final_fraction = 0.2};
  CHECK(schedule(o, 2) == near(1));
  CHECK(schedule(o, 4) == near(0.8));  // 2 of 8 steps: 1 - 0.25 * 0.8
  CHECK(schedule(o, 6) == near(0.6));
  CHECK(schedule(o, 9) == near(0.3));
  CHECK(schedule(o, 10) == near(0.2));
  CHECK(schedule(o, 50) == near(0.2));
}

TEST_CASE("cosine falls slowly, fast, slowly") {
  const optim::ScheduleOptions o{.kind = ScheduleKind::cosine, .lr = 2, .steps = 12, .final_fraction = 0.5};
  CHECK(schedule(o, 0) == near(2));
  CHECK(schedule(o, 4) == near(1.75));  // (1 + cos 60) / 2 = 0.75: 1 + 0.75
  CHECK(schedule(o, 6) == near(1.5));
  CHECK(schedule(o, 8) == near(1.25));
  CHECK(schedule(o, 12) == near(1));
}

TEST_CASE("wsd stays up and falls linearly over its last share of steps") {
  const optim::ScheduleOptions o{.kind = ScheduleKind::wsd, .lr = 1, .steps = 100, .warmup = 10, .decay_fraction = 0.2};
  CHECK(schedule(o, 10) == near(1));
  CHECK(schedule(o, 80) == near(1));
  CHECK(schedule(o, 85) == near(0.75));
  CHECK(schedule(o, 99) == near(0.05));
  CHECK(schedule(o, 100) == 0);
  CHECK(schedule({.kind = ScheduleKind::wsd, .lr = 1, .steps = 100, .decay_fraction = 0}, 100) == 1);
}

TEST_CASE("a run that is all warm-up ends at lr") {
  const optim::ScheduleOptions o{.kind = ScheduleKind::cosine, .lr = 1, .steps = 5, .warmup = 5};
  CHECK(schedule(o, 4) == near(1));
  CHECK(schedule(o, 5) == 0);
}

TEST_CASE("schedule: misuse") {
  CHECK_ERROR(schedule({.lr = -1}, 0), "[schedule]", "lr = -1");
  CHECK_ERROR(schedule({}, -1), "step -1");
  CHECK_ERROR(schedule({.kind = ScheduleKind::linear}, 0), "steps = 0");
  CHECK_ERROR(schedule({.kind = ScheduleKind::linear, .steps = 4, .warmup = 5}, 0), "warmup = 5");
  CHECK_ERROR(schedule({.kind = ScheduleKind::cosine, .steps = 4, .final_fraction = 1.5}, 0), "final_fraction = 1.5");
  CHECK_ERROR(schedule({.kind = ScheduleKind::wsd, .steps = 4, .decay_fraction = -0.5}, 0), "decay_fraction = -0.5");
  CHECK(optim::schedule_from_name("wsd") == ScheduleKind::wsd);
  CHECK_ERROR(optim::schedule_from_name("cosin"), "`cosin`", "did you mean `cosine`?");
}
