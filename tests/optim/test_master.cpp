// Storage::master: f32 handles become 16-bit leaves, the truth is the f32 master.
#include <cmath>

#include <mezzo/ops.h>

#include "optim/helpers.h"
#include "tensor/impl.h"

using namespace mezzo;
using namespace mezzo::test;
using optim::CopyRounding;
using optim::Storage;

namespace {

Tensor master_of(const optim::Optimizer& o, int i = 0) { return named(o.state().tensors, "master." + std::to_string(i)); }

/// 64 values of both signs from 2^-20 to 2^12 that no 16-bit format holds.
std::vector<float> awkward() {
  std::vector<float> v;
  for (int i = 0; i < 64; ++i) v.push_back((i % 2 ? -1.0f : 1.0f) * std::ldexp(1.0f + 0.0137f * static_cast<float>(i), i / 2 - 20));
  return v;
}
/// Gradients that bf16 and f16 both hold.
std::vector<float> representable(int step) {
  std::vector<float> v;
  for (int i = 0; i < 64; ++i) v.push_back(static_cast<float>((i * 7 + step * 3) % 17 - 8) * 0x1p-5f);
  return v;
}

}  // namespace

TEST_CASE("the same handles become 16-bit leaves, masters are the f32 values") {
  for (const Dtype low : {bf16, f16}) {
    const auto start = awkward();
    Tensor w = parameter(start, {8, 8});
    w.set_name("w");
    const Tensor other_handle = w;
    const auto version = w.version();
    const optim::AdamW adamw({w}, {.storage = Storage::master, .low = low});
    CHECK(other_handle.dtype() == low);
    CHECK(w.requires_grad());
    CHECK(w.is_leaf());
    CHECK(w.name() == "w");
    CHECK(w.version() > version);
    CHECK(bits(master_of(adamw)) == bits(tensor(start, {8, 8})));
    CHECK(bits(w) == bits(tensor(start, {8, 8}, {.dtype = low})));
  }
}

TEST_CASE("exempt: fewer than two dims, what modules mark, f64") {
  const Tensor bias = parameter({1.1f, 2}, {2}), norm = parameter({1.1f, 2}, {1, 2}), wide = parameter({1, 2}, {1, 2}, f64),
               matrix = parameter({1, 2}, {1, 2});
  norm.impl()->more().exempt = true;
  optim::AdamW adamw({bias, norm, wide, matrix}, {.storage = Storage::master});
  CHECK(bias.dtype() == f32);
  CHECK(norm.dtype() == f32);
  CHECK(wide.dtype() == f64);
  CHECK(matrix.dtype() == bf16);
  for (const auto& w : {bias, norm, wide, matrix}) set_gradient(w, {1, 1});
  adamw.step();
  CHECK(bias.to_vector()[0] == doctest::Approx(1.1 * (1 - 1e-5) - 1e-3).epsilon(1e-6));
}

TEST_CASE("masters move exactly as f32 weights would, and weights are the masters rounded") {
  for (const Dtype low : {bf16, f16})
    for (const bool adam : {false, true}) {
      CAPTURE(low);
      const Tensor plain = parameter(awkward(), {8, 8}), w = parameter(awkward(), {8, 8});
      const auto make = [&](const Tensor& t, Storage storage) -> std::unique_ptr<optim::Optimizer> {
        if (adam) return std::make_unique<optim::AdamW>(std::vector{t}, optim::AdamWOptions{.lr = 0.01, .storage = storage, .low = low});
        return std::make_unique<optim::Sgd>(std::vector{t},
                                            optim::SgdOptions{.lr = 0.01, .momentum = 0.9, .weight_decay = 0.1, .storage = storage, .low = low});
      };
      const auto one = make(plain, Storage::f32), two = make(w, Storage::master);
      for (int step = 0; step < 5; ++step) {
        set_gradient(plain, representable(step));
        set_gradient(w, representable(step));
        one->step();
        two->step();
        CHECK(bits(master_of(*two)) == bits(plain));
        CHECK(bits(w) == bits(plain.detach().to(low)));
      }
    }
}

TEST_CASE("updates that a bf16 weight cannot hold add up in its master") {
  const Tensor w = parameter({1, 1}, {1, 2});
  optim::Sgd sgd({w}, {.lr = 1, .storage = Storage::master});
  for (int step = 0; step < 16; ++step) {
    set_gradient(w, {0x1p-12f, -0x1p-12f});  // bf16 moves by 2^-8 below 1 and 2^-7 above
    sgd.step();
  }
  CHECK(master_of(sgd).to_vector() == std::vector<float>{1 - 0x1p-8f, 1 + 0x1p-8f});
  CHECK(w.to_vector() == std::vector<float>{1 - 0x1p-8f, 1});  // the tie goes to even
}

TEST_CASE("half_away: hi = (bits + 0x8000) >> 16, from the start and at every step") {
  auto start = awkward();
  start[0] = 1 + 0x1p-8f;  // a tie that goes to even downwards
  start[1] = -(1 + 0x1p-8f);
  const Tensor w = parameter(start, {8, 8});
  optim::AdamW adamw({w}, {.storage = Storage::master, .copy_rounding = CopyRounding::half_away});
  for (int step = 0; step < 4; ++step) {
    const Tensor master = master_of(adamw);
    for (std::size_t i = 0; i < 64; ++i) CHECK(w.data<bf16_t>()[i].bits == (std::bit_cast<std::uint32_t>(master.data<float>()[i]) + 0x8000u) >> 16);
    set_gradient(w, representable(step));
    adamw.step();
  }
}

TEST_CASE("an f32 gradient buffer of a 16-bit weight is rounded once, as it is read") {
  for (const Dtype low : {bf16, f16}) {
    const Tensor a = parameter(awkward(), {8, 8}), b = parameter(awkward(), {8, 8});
    optim::AdamW one({a}, {.lr = 0.01, .storage = Storage::master, .low = low}), two({b}, {.lr = 0.01, .storage = Storage::master, .low = low});
    const Tensor buffer = tensor(awkward(), {8, 8});
    a.impl()->more().grad = buffer;  // what backward leaves when several contributions reach a 16-bit leaf
    b.set_grad(buffer.to(low));
    one.step();
    two.step();
    CHECK(bits(master_of(one)) == bits(master_of(two)));
    CHECK(bits(a) == bits(b));
  }
}

TEST_CASE("a 16-bit parameter keeps its dtype and gets a master") {
  const Tensor half = parameter({1, 2}, {1, 2}, f16), vector = parameter({1, 2}, {2}, bf16);
  optim::Sgd sgd({half, vector}, {.lr = 0x1p-12, .storage = Storage::master, .low = bf16});
  CHECK(half.dtype() == f16);
  CHECK(vector.dtype() == bf16);
  for (const auto& w : {half, vector}) set_gradient(w, {1, 1});
  sgd.step();
  CHECK(master_of(sgd, 0).to_vector()[0] == 1 - 0x1p-12f);
  CHECK(master_of(sgd, 1).to_vector()[0] == 1 - 0x1p-12f);
}

TEST_CASE("writing to a 16-bit weight is seen: its master follows where the two no longer agree") {
  const Tensor w = parameter({1.001f, 2.002f, 3.003f, 4.004f}, {2, 2});
  optim::Sgd sgd({w}, {.lr = 1, .storage = Storage::master});
  {
    const autograd::NoGrad guard;
    copy_(w.select(0, 1), tensor({5, 4}, {2}));  // 4.004 rounds to 4: that element still agrees
  }
  set_gradient(w, {0, 0, 0, 0});
  sgd.step();
  CHECK(master_of(sgd).to_vector() == std::vector<float>{1.001f, 2.002f, 5, 4.004f});
}

TEST_CASE("load_state brings the 16-bit weights along") {
  const Tensor a = parameter(awkward(), {8, 8}), b = parameter(std::vector<float>(64, 1), {8, 8});
  for (const auto rounding : {CopyRounding::nearest_even, CopyRounding::half_away}) {
    const optim::Sgd from({a.detach().to(f32).clone().requires_grad_()}, {.storage = Storage::master, .copy_rounding = rounding});
    const Tensor w = b.detach().clone().requires_grad_();
    optim::Sgd to({w}, {.storage = Storage::master, .copy_rounding = rounding});
    to.load_state(from.state());
    CHECK(bits(w) == bits(from.groups()[0].params[0]));
  }
}

TEST_CASE("a graph recorded before its weight was lowered is caught; a view is refused") {
  const Tensor w = parameter({1, 2, 3, 4}, {2, 2});
  const Tensor y = sum(w * w);
  const optim::Sgd sgd({w}, {.storage = Storage::master});
  CHECK_ERROR(y.backward(), "changed in place");
  const Tensor whole = zeros({4, 2});
  CHECK_ERROR(optim::Sgd({whole.narrow(0, 0, 2).requires_grad_()}, {.storage = Storage::master}), "view of another tensor");
}

TEST_CASE("other handles on the old elements keep them") {
  const Tensor w = parameter({1.001f, 2}, {1, 2});
  const Tensor before = w.detach();
  optim::Sgd sgd({w}, {.lr = 1, .storage = Storage::master});
  set_gradient(w, {1, 1});
  sgd.step();
  CHECK(before.to_vector() == std::vector<float>{1.001f, 2});
}

// docs/precision-recipes.md's table, AdamW on matrix parameters: f32 4 + 4 + 8; masters 2 + 4 + 2 + 8, or 4 for a gradient that is added up.
TEST_CASE("bytes() is what the design says and what the allocator counts") {
  constexpr std::int64_t n = 96 * 64;
  struct Case {
    Storage storage;
    Dtype low;
    bool added_up;
    optim::OptimizerBytes wanted;
  };
  for (const auto& c : {Case{Storage::f32, bf16, false, {4 * n, 0, 4 * n, 8 * n}}, Case{Storage::master, bf16, false, {2 * n, 4 * n, 2 * n, 8 * n}},
                        Case{Storage::master, f16, true, {2 * n, 4 * n, 4 * n, 8 * n}}}) {
    const std::array before = {bytes_of(Memory::weights), bytes_of(Memory::masters), bytes_of(Memory::gradients), bytes_of(Memory::optimizer)};
    const auto kept = memory_report().total;
    const Tensor w = ones({96, 64}, {.requires_grad = true});
    w.impl()->more().grad_in_f32 = c.added_up;
    optim::AdamW adamw({w}, {.storage = c.storage, .low = c.low});
    for (int step = 0; step < 2; ++step) {
      adamw.zero_grad();
      sum(w * 2.0).backward();
      if (c.added_up) sum(w * 2.0).backward();
      adamw.step();
    }
    CHECK(adamw.bytes() == c.wanted);
    CHECK(bytes_of(Memory::weights) - before[0] == c.wanted.weights);
    CHECK(bytes_of(Memory::masters) - before[1] == c.wanted.masters);
    CHECK(bytes_of(Memory::gradients) - before[2] == c.wanted.gradients);
    CHECK(bytes_of(Memory::optimizer) - before[3] == c.wanted.states);
    CHECK(memory_report().total - kept == c.wanted.weights + c.wanted.masters + c.wanted.gradients + c.wanted.states);
  }
}
