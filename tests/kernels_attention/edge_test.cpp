// edge_test.cpp - rows that see nothing, NaN and Inf, bits across runs and threads, and memory.
#include "attention_case.h"

#include <mezzo/runtime.h>

namespace mezzo::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

template <class T> bool row_is(Heads<T>& x, std::int64_t b, std::int64_t h, std::int64_t t, bool (*holds)(double)) {
  bool all = true;
  x.each([&](auto ib, auto ih, auto it, auto, T& e) { all = all && ((ib != b || ih != h || it != t) || holds(to_double(e))); });
  return all;
}
bool is_zero(double x) { return x == 0; }
bool is_nan(double x) { return std::isnan(x); }
bool is_finite(double x) { return std::isfinite(x); }
bool is_not_finite(double x) { return !std::isfinite(x); }

TEST_CASE_TEMPLATE("a row whose keys are all hidden gives zeros and zero gradients", T, float, f16_t, bf16_t) {
  for (const bool additive : {false, true}) {
    CAPTURE(additive);
    const std::int64_t t = 70;
    Problem<T> p({1, 1, 1, t, t, 24, false, additive ? MaskKind::additive : MaskKind::boolean_full});
    for (std::int64_t i = 0; i < t; ++i)
      for (std::int64_t j = 0; j < t; ++j) {
        const bool keep = i != 5 && i != 69 && j != 3;
        if (additive) p.additive_mask[static_cast<std::size_t>(i * t + j)] = keep ? 0.5f : -kInf;
        else p.boolean_mask[static_cast<std::size_t>(i * t + j)] = keep;
      }
    p.forward();
    p.backward();
    for (const std::int64_t i : {5, 69}) {
      CHECK(row_is(p.out, 0, 0, i, is_zero));
      CHECK(row_is(p.dq, 0, 0, i, is_zero));
      CHECK(p.lse[static_cast<std::size_t>(i)] == -kInf);
    }
    CHECK(row_is(p.dk, 0, 0, 3, is_zero));
    CHECK(row_is(p.dv, 0, 0, 3, is_zero));
    CHECK(row_is(p.out, 0, 0, 6, is_finite));
    CHECK(row_is(p.dk, 0, 0, 4, is_finite));
  }
}

TEST_CASE_TEMPLATE("no keys at all: zeros", T, float, bf16_t) {
  Problem<T> p({1, 2, 1, 3, 0, 8});
  p.forward();
  p.backward();
  CHECK(row_is(p.out, 0, 1, 2, is_zero));
  CHECK(row_is(p.dq, 0, 1, 2, is_zero));
  CHECK(p.lse[5] == -kInf);
}

TEST_CASE_TEMPLATE("hidden keys do not leak, whatever they hold", T, float, f16_t, bf16_t) {
  // Key 69 is NaN; only row 69 sees it.
  Problem<T> p({1, 1, 1, 70, 70, 16, true});
  for (std::int64_t c = 0; c < 16; ++c) p.k.at(0, 0, 69, c) = from_double<T>(static_cast<double>(kNan));
  p.forward();
  p.backward();
  for (std::int64_t i = 0; i < 69; ++i) {
    CHECK(row_is(p.out, 0, 0, i, is_finite));
    CHECK(row_is(p.dv, 0, 0, i, is_nan));  // row 69 attends to them all
  }
  CHECK(row_is(p.out, 0, 0, 69, is_nan));
  CHECK(row_is(p.dq, 0, 0, 69, is_nan));
  CHECK(row_is(p.dq, 0, 0, 60, is_finite));

  // The same through a mask that hides it from all: nothing is left of it in out, lse and dv.
  Problem<T> masked({1, 1, 1, 70, 70, 16, false, MaskKind::boolean_keys});
  std::fill(masked.boolean_mask.begin(), masked.boolean_mask.end(), 1);
  masked.boolean_mask[69] = 0;
  for (std::int64_t c = 0; c < 16; ++c) masked.k.at(0, 0, 69, c) = from_double<T>(static_cast<double>(kNan));
  masked.forward();
  masked.backward();
  for (std::int64_t i = 0; i < 70; ++i) {
    CHECK(row_is(masked.out, 0, 0, i, is_finite));
    CHECK(row_is(masked.dv, 0, 0, i, is_finite));
    CHECK(row_is(masked.dk, 0, 0, i, is_finite));
  }
}

TEST_CASE_TEMPLATE("NaN and Inf in the operands show", T, float, f16_t, bf16_t) {
  for (const float bad : {kNan, kInf, -kInf}) {
    CAPTURE(bad);
    const Case c{1, 2, 2, 66, 66, 16, true};
    Problem<T> in_q(c), in_v(c), in_dout(c);
    in_q.q.at(0, 1, 65, 3) = from_double<T>(static_cast<double>(bad));
    in_q.forward();
    in_q.backward();
    CHECK(row_is(in_q.out, 0, 1, 65, is_nan));  // some scores are NaN or +Inf: Inf - Inf
    CHECK(row_is(in_q.out, 0, 1, 64, is_finite));
    CHECK(row_is(in_q.out, 0, 0, 65, is_finite));
    CHECK(row_is(in_q.dq, 0, 1, 65, is_not_finite));
    CHECK(row_is(in_q.dv, 0, 1, 0, is_not_finite));
    in_v.v.at(0, 0, 2, 5) = from_double<T>(static_cast<double>(bad));
    in_v.forward();
    for (std::int64_t i = 2; i < 66; ++i) CHECK_FALSE(std::isfinite(to_double(in_v.out.at(0, 0, i, 5))));
    CHECK(row_is(in_v.out, 0, 1, 65, is_finite));
    in_dout.dout.at(0, 0, 4, 5) = from_double<T>(static_cast<double>(bad));
    in_dout.forward();
    in_dout.backward();
    CHECK(row_is(in_dout.dq, 0, 0, 4, is_not_finite));
    CHECK(row_is(in_dout.dq, 0, 0, 40, is_finite));
  }
}

TEST_CASE_TEMPLATE("scores that are all -Inf without a mask are NaN, as in IEEE arithmetic", T, float, f16_t, bf16_t) {
  Problem<T> p({1, 1, 1, 2, 3, 8});
  p.q.each([](auto, auto, auto t, auto, T& x) { x = from_double<T>(t == 0 ? static_cast<double>(kInf) : 1.0); });
  p.k.each([](auto, auto, auto, auto, T& x) { x = from_double<T>(-1); });
  p.forward();
  p.backward();
  CHECK(row_is(p.out, 0, 0, 0, is_nan));
  CHECK(row_is(p.out, 0, 0, 1, is_finite));
  CHECK(row_is(p.dq, 0, 0, 0, is_nan));
}

TEST_CASE_TEMPLATE("large scores stay exact where it matters", T, float, f16_t, bf16_t) {
  // Scores near 1e9 in f32: the largest wins, and probabilities do not exceed 1.
  Problem<T> p({1, 1, 1, 1, 3, 8});
  p.a.scale = 1e6;
  p.q.each([](auto, auto, auto, auto, T& x) { x = from_double<T>(8); });
  p.k.each([](auto, auto, auto t, auto, T& x) { x = from_double<T>(t == 1 ? 16 : 15); });
  p.forward();
  p.backward();
  for (std::int64_t c = 0; c < 8; ++c) CHECK(to_double(p.out.at(0, 0, 0, c)) == to_double(p.v.at(0, 0, 1, c)));
  CHECK(row_is(p.dq, 0, 0, 0, is_finite));
}

/// Sets the number of threads for a scope.
class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before_); }

 private:
  int before_;
};

TEST_CASE_TEMPLATE("the same bits every time; forward bits whatever the number of threads", T, float, bf16_t) {
  const Case c{1, 2, 1, 600, 600, 64, true, MaskKind::none, 0.1};
  Problem<T> first(c);
  {
    const Threads one(1);
    first.forward();
  }
  for (const int threads : {2, 3, 5}) {
    CAPTURE(threads);
    const Threads scope(threads);
    Problem<T> once(c), again(c);
    once.forward();
    once.backward();
    again.forward();
    again.backward();
    CHECK(once.out.same_bits(first.out));
    CHECK(once.lse == first.lse);
    CHECK(again.dq.same_bits(once.dq));
    CHECK(again.dk.same_bits(once.dk));
    CHECK(again.dv.same_bits(once.dv));
  }
}

TEST_CASE_TEMPLATE("what the workspace held before does not matter", T, float, f16_t, bf16_t) {
  const Case c{1, 3, 1, 75, 75, 21, true, MaskKind::additive, 0.1};
  Problem<T> clean(c), spoiled(c), again(c);
  clean.forward();
  clean.backward();
  for (Heads<T>* x : {&spoiled.q, &spoiled.k, &spoiled.v, &spoiled.dout})
    x->each([](auto, auto, auto, auto, T& e) { e = from_double<T>(static_cast<double>(kNan)); });
  spoiled.forward();
  spoiled.backward();
  again.forward();
  again.backward();
  CHECK(again.out.same_bits(clean.out));
  CHECK(again.dq.same_bits(clean.dq));
  CHECK(again.dk.same_bits(clean.dk));
  CHECK(again.dv.same_bits(clean.dv));
}

TEST_CASE_TEMPLATE("units that threads share", T, float, bf16_t) {
  for (const int threads : {2, 3, 7}) {
    CAPTURE(threads);
    const Threads scope(threads);
    check_case<T>({1, 2, 1, 300, 300, 64, true});
    check_case<T>({1, 3, 3, 190, 330, 40, false, MaskKind::none, 0, Layout::packed});
  }
}

TEST_CASE("memory grows with T, not with T x T") {
  const auto peak = [](std::int64_t t) {
    Problem<float> p({1, 1, 1, t, t, 16, true});
    reset_peak_memory();
    const std::int64_t before = memory_report().total;
    p.forward();
    p.backward();
    return static_cast<double>(memory_report().peak - before);
  };
  const double small = peak(1024), large = peak(2048);
  CHECK(large < 2.1 * small);
  CHECK(large < 2048.0 * 2048.0);  // a quarter of one head's scores in f32
}

}  // namespace
}  // namespace mezzo::test
