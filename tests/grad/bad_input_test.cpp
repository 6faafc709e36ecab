// bad_input_test.cpp - losses, einsum: what cannot be meant is an Error that says what was wanted.
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include <mezzo/mezzo.h>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

TEST_CASE("losses of one element") {
  const Tensor x = rand({2, 3}), row = rand({3}), ids = arange(3, {.dtype = i64});
  CHECK_ERROR(l1_loss(x, row), "[l1_loss]", "(2, 3) and (3,) given", "Hint: expand()");
  CHECK_ERROR(mse_loss(ids, ids), "[mse_loss]", "i64", "floating");
  CHECK_ERROR(huber_loss(x, x, {.delta = 0}), "[huber_loss]", "delta = 0 given, above 0 wanted");
  CHECK_ERROR(huber_loss(x, x, {.delta = std::nan("")}), "[huber_loss]", "delta = nan given");
  CHECK_ERROR(smooth_l1_loss(x, x, {.beta = -1}), "[smooth_l1_loss]", "beta = -1 given, 0 or more wanted");
  CHECK_ERROR(mse_loss(x, x, {.reduction = Reduction::batchmean}), "[mse_loss]", "kl_div's");
  CHECK_ERROR(binary_cross_entropy(x, x, {.weight = rand({4})}), "[binary_cross_entropy]", "(4,)", "(2, 3)");
  CHECK_ERROR(binary_cross_entropy(x, x, {.weight = rand({5, 2, 3})}), "[binary_cross_entropy]", "one that broadcasts to (2, 3) wanted");
}

TEST_CASE("losses over classes") {
  const Tensor x = rand({3, 5}), ids = arange(3, {.dtype = i64});
  CHECK_ERROR(cross_entropy(x, ids, {.weight = rand({4})}), "[cross_entropy]", "weight has shape (4,), (5,) wanted");
  CHECK_ERROR(nll_loss(x, ids, {.weight = ids}), "[nll_loss]", "the weight is i64");
  CHECK_ERROR(cross_entropy(x, ids, {.label_smoothing = 1.5}), "[cross_entropy]", "label_smoothing = 1.5 given, 0 to 1 wanted");
  CHECK_ERROR(linear_cross_entropy(x, rand({4, 5}), ids, {.label_smoothing = -1}), "[linear_cross_entropy]", "label_smoothing = -1 given");
  CHECK_ERROR(cross_entropy(x, ids, {.reduction = Reduction::batchmean}), "[cross_entropy]", "kl_div's");
}

TEST_CASE("losses: nothing to reduce, empty means, 16-bit inputs outside autocast, f32 inside") {
  CHECK(std::isnan(mse_loss(empty({0}), empty({0})).item()));
  CHECK(l1_loss(empty({0, 3}), empty({0, 3}), {.reduction = Reduction::sum}).item() == 0);
  const Tensor a = rand({7}).to(bf16), b = rand({7});
  CHECK(huber_loss(a, a).dtype() == bf16);
  CHECK(huber_loss(a, b).dtype() == f32);
  const amp::Autocast region(bf16);
  CHECK(huber_loss(a, a, {.reduction = Reduction::none}).dtype() == f32);
  CHECK(cross_entropy(rand({2, 3}).to(f16), arange(2, {.dtype = i64}), {.weight = ones({3})}).dtype() == f32);
}

TEST_CASE("einsum") {
  const Tensor m = rand({3, 4}), s = rand({4, 4}), v = rand({5});
  CHECK_ERROR(einsum("ij->ij", {}), "[einsum]", "no tensors");
  CHECK_ERROR(einsum("ij,jk->ik", {m}), "[einsum]", "\"ij,jk->ik\" given", "2 lists for 1 tensors", "Hint: a list for each tensor");
  CHECK_ERROR(einsum("ijk->i", {m}), "[einsum]", "\"ijk\" names 3 dimensions", "(3, 4)", "stands for dimensions without a name");
  CHECK_ERROR(einsum("...ijk->i", {m}), "[einsum]", "names 3 dimensions");
  CHECK_ERROR(einsum("ij,jk->ik", {m, v.reshape({5, 1})}), "[einsum]", "`j` is 4 in one tensor and 5 in another");
  CHECK_ERROR(einsum("ij->ik", {m}), "[einsum]", "`k` is in the output and in no input");
  CHECK_ERROR(einsum("ij->ii", {m}), "[einsum]", "`i` is twice in the output");
  CHECK_ERROR(einsum("ii->i", {m}), "[einsum]", "`i` is 3 and 4 in one tensor");
  CHECK_ERROR(einsum("i1->i", {m}), "[einsum]", "`1` is neither a letter");
  CHECK_ERROR(einsum("i.->i", {m}), "[einsum]", "`.` is neither a letter");
  CHECK_ERROR(einsum("...i...->i", {m}), "[einsum]", "two ellipses");
  CHECK_ERROR(einsum("ij,jk->ik", {s, s.to(f16)}), "[einsum]", "f32 and f16 given", "amp::autocast");
  CHECK_ERROR(einsum("i->i", {arange(3, {.dtype = i64})}), "[einsum]", "floating");
  CHECK_ERROR(einsum("ij,jk->ik", {s, Tensor()}), "[einsum]");
}

TEST_CASE("einsum: spaces are allowed, permutations alone are views") {
  const Tensor a = rand({3, 4}), b = rand({4, 5});
  CHECK(einsum(" i j , j k -> i k ", {a, b}).shape() == Shape{3, 5});
  Tensor c = rand({3, 4});
  const Tensor seen = einsum("ij->ji", {c});
  fill_(c, 2);
  CHECK(sum(seen).item() == 24);
}

TEST_CASE("an eps that the arithmetic takes for zero is warned of, once") {
  std::vector<std::string> warnings;
  const LogSink before = set_log_sink([&](LogLevel, std::string_view text) { warnings.emplace_back(text); });
  const Tensor x = zeros({2}, {.dtype = f16}), w = zeros({2});
  add(x, 1e-7);  // f16's least number is 6e-8
  add(x.to(f32), 1e-8);
  amp::autocast(bf16, [&] { return add(x.to(bf16), 1e-8); });
  optim::AdamW({w}, {.eps = 1e-40});
  CHECK(warnings.empty());
  for (int i = 0; i < 2; ++i) {
    add(x, 1e-8);
    optim::AdamW({w}, {.eps = 1e-50});
  }
  set_log_sink(before);
  REQUIRE(warnings.size() == 2);
  CHECK(warnings[0].starts_with("add: 1e-08 is zero in f16"));
  CHECK(warnings[1] == "AdamW: eps = 1e-50 is zero in f32, in which weights are updated");
}
