// test_fail.cpp - the form of errors, and near names.
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "core/fail.h"
#include "core/ref.h"

using namespace mezzo;

TEST_CASE("an Error reads [op] text. Hint: hint") {
  CHECK_THROWS_WITH_AS(fail("matmul", "got (2, 3) and (4, 5), wanted equal inner dims"), "[matmul] got (2, 3) and (4, 5), wanted equal inner dims.",
                       Error);
  CHECK_THROWS_WITH_AS(fail("matmul", "got f16 and f32", "use autocast"), "[matmul] got f16 and f32. Hint: use autocast", Error);
}

TEST_CASE("a broken invariant is a logic_error with its place") {
  try {
    MEZZO_CHECK(1 + 1 == 3);
    FAIL("no error");
  } catch (const std::logic_error& e) {
    const std::string what = e.what();
    CHECK(what.find("1 + 1 == 3") != what.npos);
    CHECK(what.find("test_fail.cpp:") != what.npos);
  }
  MEZZO_CHECK(true);
}

TEST_CASE("edit distance") {
  CHECK(detail::edit_distance("", "") == 0);
  CHECK(detail::edit_distance("", "abc") == 3);
  CHECK(detail::edit_distance("kitten", "sitting") == 3);
  CHECK(detail::edit_distance("sitting", "kitten") == 3);
  CHECK(detail::edit_distance("matmul", "matmul") == 0);
  CHECK(detail::edit_distance("flaw", "lawn") == 2);
}

TEST_CASE("near names: a slip of the pen, or a part of the name") {
  const std::vector<std::string> ops = {"matmul", "softmax", "log_softmax", "add", "mul", "layer_norm"};
  CHECK(near_names("matmull", ops) == "did you mean `matmul`?");
  CHECK(near_names("softmx", ops) == "did you mean `softmax`?");
  CHECK(near_names("max", ops) == "did you mean `softmax`, `log_softmax`?");
  CHECK(near_names("ad", ops) == "did you mean `add`?");
  CHECK(near_names("layernorm", ops) == "did you mean `layer_norm`?");
  CHECK(near_names("convolution", ops).empty());
  CHECK(near_names("x", std::array<const char*, 2>{"abc", "def"}).empty());
}

namespace {
struct Counted : RefCounted {
  explicit Counted(int* n) : alive(n) { ++*alive; }
  ~Counted() { --*alive; }
  int* alive;
};
struct Derived : Counted {
  using Counted::Counted;
};
}  // namespace

TEST_CASE("Ref counts its handles") {
  int alive = 0;
  {
    Ref<Counted> a = make_ref<Counted>(&alive);
    CHECK(a->unique());
    Ref<Counted> b = a;
    CHECK(!a->unique());
    CHECK(a == b);
    b = nullptr;
    CHECK(a->unique());
    Ref<Counted> c = std::move(a);
    CHECK(!a);
    CHECK(alive == 1);
    c = make_ref<Counted>(&alive);
    CHECK(alive == 1);
    auto& self = c;
    c = self;
    CHECK(c->unique());
  }
  CHECK(alive == 0);
}
