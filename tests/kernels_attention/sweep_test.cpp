// sweep_test.cpp - attention and its backward against the oracle in double: shapes, masks, grouped heads, dropout, layouts.
#include "attention_case.h"

namespace mezzo::test {
namespace {

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      // tiny and odd
      {1, 1, 1, 1, 1, 1},
      {1, 1, 1, 1, 2, 3},
      {1, 1, 1, 2, 1, 8, true},
      {2, 1, 1, 3, 5, 7},
      {1, 2, 2, 5, 3, 9, true},
      {1, 1, 1, 17, 19, 15, true},
      // head sizes, whole and broken vectors and panels
      {1, 1, 1, 33, 33, 8, true},
      {1, 1, 1, 20, 50, 16},
      {1, 1, 1, 50, 20, 24},
      {1, 1, 1, 31, 64, 40, true},
      {1, 2, 2, 64, 64, 64, true},
      {1, 1, 1, 40, 47, 80},
      {1, 1, 1, 33, 49, 96, true},
      {1, 1, 1, 18, 70, 128},
      {1, 1, 1, 9, 33, 256, true},
      // several blocks, and their edges
      {1, 1, 1, 128, 128, 32, true},
      {1, 1, 1, 129, 127, 16, true},
      {1, 1, 1, 63, 193, 16, true},
      {1, 1, 1, 65, 65, 16},
      {1, 1, 1, 200, 70, 24, true},  // rows that see no key
      {1, 1, 1, 1, 300, 64, true},   // generation
      {1, 1, 1, 7, 130, 64, true},
      {2, 6, 2, 1, 140, 24, true, MaskKind::additive, 0.2, Layout::gaps},
      {2, 4, 1, 1, 33, 16, true, MaskKind::boolean_rows, 0, Layout::packed},
      // batches, grouped heads, layouts
      {2, 3, 3, 40, 40, 16, true, MaskKind::none, 0, Layout::tokens_first},
      {2, 4, 2, 70, 70, 24, true, MaskKind::none, 0, Layout::packed},
      {1, 6, 1, 33, 65, 16, false, MaskKind::none, 0, Layout::gaps},
      {3, 2, 1, 20, 20, 10, true, MaskKind::none, 0, Layout::gaps},
      // masks
      {2, 2, 2, 70, 70, 16, false, MaskKind::boolean_full, 0, Layout::tokens_first},
      {2, 2, 1, 66, 130, 16, false, MaskKind::boolean_keys},
      {2, 2, 2, 30, 30, 16, true, MaskKind::boolean_rows},
      {2, 2, 2, 67, 40, 24, true, MaskKind::additive, 0, Layout::packed},
      {1, 1, 1, 65, 150, 13, false, MaskKind::additive},
      {1, 1, 1, 4, 3, 8, true, MaskKind::boolean_full},
      // dropout
      {1, 2, 2, 70, 70, 16, true, MaskKind::none, 0.1},
      {2, 2, 1, 33, 67, 24, false, MaskKind::none, 0.5, Layout::packed},
      {1, 2, 2, 50, 131, 16, true, MaskKind::additive, 0.25, Layout::gaps},
  };
  return list;
}

template <class T> void sweep() {
  double largest = 0;
  for (const Case& c : cases()) check_case<T>(c, &largest);
  MESSAGE(name(dtype_of<T>), " on ", name(active_isa()), ": the largest error is ", largest, " of its bound");
}

TEST_CASE("attention agrees with the oracle, f32") { sweep<float>(); }
TEST_CASE("attention agrees with the oracle, f16") { sweep<f16_t>(); }
TEST_CASE("attention agrees with the oracle, bf16") { sweep<bf16_t>(); }

TEST_CASE("packed q, k and v, and their packed gradients, give the bits of separate ones") {
  const std::int64_t b = 2, t = 70, h = 3, d = 24;
  Problem<bf16_t> apart({b, h, h, t, t, d, true});
  apart.forward();
  apart.backward();
  std::vector<bf16_t> qkv(static_cast<std::size_t>(b * t * 3 * h * d)), dqkv(qkv.size());
  const HeadStrides packed{t * 3 * h * d, d, 3 * h * d};
  Heads<bf16_t>* const parts[] = {&apart.q, &apart.k, &apart.v};
  const auto at = [&](std::int64_t part, auto ib, auto ih, auto it, auto c) {
    return static_cast<std::size_t>((((ib * t + it) * 3 + part) * h + ih) * d + c);
  };
  for (std::int64_t part = 0; part < 3; ++part)
    parts[part]->each([&](auto ib, auto ih, auto it, auto c, bf16_t& x) { qkv[at(part, ib, ih, it, c)] = x; });
  Attention a = apart.a;
  AttentionGrad g = apart.g;
  a.q = a.k = a.v = g.dq = g.dk = g.dv = packed;
  Heads<bf16_t> out = apart.out;
  std::vector<float> lse(apart.lse.size());
  auto& queue = kernels::cpu_queue();
  kernels::attention(queue, a, qkv.data(), qkv.data() + h * d, qkv.data() + 2 * h * d, out.data(), lse.data());
  kernels::attention_backward(queue, a, g, qkv.data(), qkv.data() + h * d, qkv.data() + 2 * h * d, out.data(), lse.data(), apart.dout.data(),
                              dqkv.data(), dqkv.data() + h * d, dqkv.data() + 2 * h * d);
  CHECK(out.same_bits(apart.out));
  CHECK(lse == apart.lse);
  Heads<bf16_t>* const gradients[] = {&apart.dq, &apart.dk, &apart.dv};
  for (std::int64_t part = 0; part < 3; ++part) {
    std::int64_t different = 0;
    gradients[part]->each([&](auto ib, auto ih, auto it, auto c, bf16_t& x) { different += !(dqkv[at(part, ib, ih, it, c)] == x); });
    CHECK(different == 0);
  }
}

}  // namespace
}  // namespace mezzo::test
