// split, kahan, stochastic and pure with every rule; states in bf16 and in 8 bits: what each keeps, what it costs, what goes on after a stop.
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#include <fmt/format.h>

#include <mezzo/ops.h>
#include <mezzo/random.h>

#include "kernels/ref/quantize.h"
#include "optim/helpers.h"
#include "tensor/impl.h"

using namespace mezzo;
using namespace mezzo::test;
using optim::CopyRounding;
using optim::StateRounding;
using optim::Storage;

namespace {

/// What all options structs have.
struct Keep {
  Storage storage = Storage::f32;
  Dtype low = bf16;
  std::optional<Dtype> states = {};
  StateRounding rounding = StateRounding::stochastic;
};
template <class O> O with(O o, const Keep& k) {
  o.storage = k.storage, o.low = k.low;
  if constexpr (requires { o.state_dtype; }) o.state_dtype = k.states, o.state_rounding = k.rounding;
  return o;
}

struct Rule {
  std::string name;
  std::function<std::unique_ptr<optim::Optimizer>(std::vector<Tensor>, const Keep&)> make;
};
const std::vector<Rule> kRules = {
    {"sgd", [](auto p, const Keep& k) { return std::make_unique<optim::Sgd>(p, with(optim::SgdOptions{.lr = 0.01}, k)); }},
    {"sgd momentum", [](auto p, const Keep& k) { return std::make_unique<optim::Sgd>(p, with(optim::SgdOptions{.lr = 0.01, .momentum = 0.9}, k)); }},
    {"adam", [](auto p, const Keep& k) { return std::make_unique<optim::Adam>(p, with(optim::AdamOptions{.lr = 0.01, .weight_decay = 0.1}, k)); }},
    {"adamw", [](auto p, const Keep& k) { return std::make_unique<optim::AdamW>(p, with(optim::AdamWOptions{.lr = 0.01}, k)); }},
    {"adagrad", [](auto p, const Keep& k) { return std::make_unique<optim::Adagrad>(p, with(optim::AdagradOptions{.lr = 0.01}, k)); }},
    {"lion", [](auto p, const Keep& k) { return std::make_unique<optim::Lion>(p, with(optim::LionOptions{.lr = 0.01, .weight_decay = 0.1}, k)); }},
    {"adafactor", [](auto p, const Keep& k) { return std::make_unique<optim::Adafactor>(p, with(optim::AdafactorOptions{.lr = 0.01}, k)); }}};
const std::vector<Keep> kStorages = {{Storage::f32},        {Storage::master}, {Storage::split},       {Storage::kahan},
                                     {Storage::stochastic}, {Storage::pure},   {Storage::master, f16}, {Storage::pure, f16}};

std::string describe(const std::string& rule, const Keep& k) {
  return fmt::format("{} {} {} {}", rule, name(k.storage), name(k.low), k.states ? name(*k.states) : "");
}

/// 8 x 12 of both signs, of sizes from 2^-3 to 2^3.
std::vector<float> start() {
  std::vector<float> v;
  for (int i = 0; i < 96; ++i) v.push_back((i % 2 ? -1.0f : 1.0f) * std::ldexp(1.0f + 0.0137f * static_cast<float>(i % 37), i % 7 - 3));
  return v;
}
/// Gradients that bf16 and f16 both hold.
std::vector<float> gradient(int step) {
  std::vector<float> v;
  for (int i = 0; i < 96; ++i) v.push_back(static_cast<float>((i * 7 + step * 3) % 17 - 8) * 0x1p-5f);
  return v;
}

/// The truth of an optimizer's parameter 0, in double.
std::vector<double> truth(const optim::Optimizer& o, const Tensor& w) {
  const auto state = o.state();
  const auto find = [&](const char* name) {
    for (const auto& [n, t] : state.tensors)
      if (n == name) return t;
    return Tensor();
  };
  std::vector<double> v;
  for (const float x : w.to_vector()) v.push_back(static_cast<double>(x));
  if (const Tensor master = find("master.0"); master.defined())
    for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<double>(master.data<float>()[i]);
  if (const Tensor rest = find("compensation.0"); rest.defined())
    for (std::size_t i = 0; i < v.size(); ++i) v[i] += static_cast<double>(static_cast<float>(rest.data<bf16_t>()[i]));
  if (const Tensor rest = find("remainder.0"); rest.defined())
    for (std::size_t i = 0; i < v.size(); ++i) {
      std::int16_t low;
      std::memcpy(&low, rest.data<std::uint8_t>().data() + 2 * i, 2);
      v[i] = static_cast<double>(kernels::ref::join({w.data<bf16_t>()[i], low}));
    }
  return v;
}

}  // namespace

TEST_CASE("each rule with each storage follows the f32 optimizer, as closely as the storage promises") {
  constexpr int kSteps = 8;
  for (const Rule& r : kRules) {
    const Tensor exact = parameter(start(), {8, 12});
    const auto reference = r.make({exact}, {});
    for (int step = 0; step < kSteps; ++step) {
      set_gradient(exact, gradient(step));
      reference->step();
    }
    for (const Keep& k : kStorages) {
      CAPTURE(describe(r.name, k));
      manual_seed(5);
      const Tensor w = parameter(start(), {8, 12});
      const auto optimizer = r.make({w}, k);
      CHECK(w.dtype() == (k.storage == Storage::f32 ? f32 : k.low));
      for (int step = 0; step < kSteps; ++step) {
        set_gradient(w, gradient(step));
        optimizer->step();
      }
      const auto got = truth(*optimizer, w), weights = [&] {
        std::vector<double> v;
        for (const float x : w.to_vector()) v.push_back(static_cast<double>(x));
        return v;
      }();
      double worst = 0, worst_weight = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double want = static_cast<double>(exact.data<float>()[i]), spacing = k.low == f16 ? 0x1p-10 : 0x1p-7;
        // Of a rounding: half a spacing, by chance a whole one; kahan begins at a rounded weight, and its moments are bf16 (a few of 2^-8 of the
        // way).
        const double start_error = std::abs(want) * spacing / 2, way = kSteps * 0.01 * 1.2;
        const double allowed = k.storage == Storage::kahan        ? start_error * 1.1 + way * 0.05
                               : k.storage == Storage::stochastic ? std::abs(want) * spacing * kSteps / 2 + way * 0.05
                               : k.storage == Storage::pure       ? std::abs(want) * spacing * (kSteps + 1) / 2
                               : r.name == "adafactor"            ? 1e-5  // whose gradients are exact here, and whose norms are sums
                                                                  : 0;
        if (k.storage == Storage::f32 || k.storage == Storage::master || k.storage == Storage::split) {
          worst = std::max(worst, std::abs(got[i] - want) - allowed * std::abs(want));
          worst_weight = std::max(worst_weight, std::abs(weights[i] - got[i]) - std::abs(got[i]) * spacing / 2);
        } else {
          worst = std::max(worst, std::abs(got[i] - want) - allowed * (r.name == "adafactor" ? 8 : 1));
        }
      }
      CHECK(worst <= 0);
      CHECK(worst_weight <= 0);
    }
  }
}

TEST_CASE("bf16-split is bf16-master with half-away copies, bit for bit, over 1,000 steps") {
  for (const Rule& r : kRules) {
    CAPTURE(r.name);
    const Tensor a = parameter(start(), {8, 12}), b = parameter(start(), {8, 12});
    const auto split = r.make({a}, {.storage = Storage::split});
    std::unique_ptr<optim::Optimizer> master;
    if (r.name == "adamw")
      master = std::make_unique<optim::AdamW>(std::vector{b},
                                              optim::AdamWOptions{.lr = 0.01, .storage = Storage::master, .copy_rounding = CopyRounding::half_away});
    else if (r.name == "sgd momentum")
      master = std::make_unique<optim::Sgd>(
          std::vector{b}, optim::SgdOptions{.lr = 0.01, .momentum = 0.9, .storage = Storage::master, .copy_rounding = CopyRounding::half_away});
    else if (r.name == "lion")
      master = std::make_unique<optim::Lion>(
          std::vector{b}, optim::LionOptions{.lr = 0.01, .weight_decay = 0.1, .storage = Storage::master, .copy_rounding = CopyRounding::half_away});
    else continue;
    Generator random(3);
    for (int step = 0; step < 1000; ++step) {
      const Tensor g = (randn({8, 12}, random) * std::exp2(4 * random.normal())).to(bf16);
      split->groups()[0].lr = master->groups()[0].lr = 0.01 / (1 + step / 100);
      a.set_grad(g.clone());
      b.set_grad(g.clone());
      split->step();
      master->step();
      if (bits(a) != bits(b)) FAIL("weights differ after step " << step);
      if (step % 100 == 99) {
        const auto x = truth(*split, a), y = truth(*master, b);
        CHECK(x == y);
      }
    }
    const Tensor moment = named(split->state().tensors, r.name == "sgd momentum" ? "momentum.0" : "exp_avg.0");
    CHECK(bits(moment) == bits(named(master->state().tensors, r.name == "sgd momentum" ? "momentum.0" : "exp_avg.0")));
  }
}

TEST_CASE("updates below half a spacing: pure loses them, split and kahan add them up, stochastic does on average") {
  const auto run = [](Storage storage) {
    manual_seed(11);
    const Tensor w = parameter(std::vector<float>(4096, 1), {64, 64});
    optim::Sgd sgd({w}, {.lr = 1, .storage = storage});
    for (int step = 0; step < 64; ++step) {
      set_gradient(w, std::vector<float>(4096, -0x1p-11f));  // bf16 moves by 2^-7 above 1
      sgd.step();
    }
    double mean = 0;
    for (const float x : w.to_vector()) mean += static_cast<double>(x) / 4096;
    return mean;
  };
  CHECK(run(Storage::pure) == 1);
  CHECK(run(Storage::split) == 1 + 0x1p-5);
  CHECK(run(Storage::kahan) == 1 + 0x1p-5);
  // Each step goes up by 2^-7 with probability 1/16: the sum of 64 has a deviation of 2^-7 sqrt(64 / 16 * 15 / 16), the mean of 4096 a 64th of it.
  CHECK(std::abs(run(Storage::stochastic) - (1 + 0x1p-5)) <= 4 * 0x1p-7 * std::sqrt(4 * 15 / 16.0) / 64);
}

TEST_CASE("stochastic: the same seed, the same bits; keyed by manual_seed as it was when the optimizer was built") {
  const auto run = [](std::uint64_t seed, bool reseed) {
    manual_seed(seed);
    const Tensor w = parameter(start(), {8, 12});
    optim::AdamW adamw({w}, {.lr = 0.01, .storage = Storage::stochastic});
    if (reseed) manual_seed(77);
    rand({5});  // drawing elsewhere changes nothing
    for (int step = 0; step < 3; ++step) {
      set_gradient(w, gradient(step));
      adamw.step();
    }
    return bits(w);
  };
  CHECK(run(1, false) == run(1, false));
  CHECK(run(1, false) == run(1, true));
  CHECK(run(1, false) != run(2, false));
}

TEST_CASE("an exempt parameter keeps f32 weights and f32 states, except under pure; a kept one always") {
  for (const Storage storage : {Storage::split, Storage::kahan, Storage::stochastic, Storage::pure}) {
    CAPTURE(name(storage));
    const Tensor bias = parameter({1.1f, 2}, {2}), matrix = parameter({1, 2}, {1, 2}), kept = parameter({1, 2}, {1, 2}),
                 wide = parameter({1, 2}, {1, 2}, f64);
    kept.impl()->more().kept = true;
    optim::AdamW adamw({bias, matrix, kept, wide}, {.storage = storage});
    CHECK(bias.dtype() == (storage == Storage::pure ? bf16 : f32));
    CHECK(matrix.dtype() == bf16);
    CHECK(kept.dtype() == f32);
    CHECK(wide.dtype() == f64);
    for (const auto& w : {bias, matrix, kept, wide}) set_gradient(w, {1, 1});
    adamw.step();
    const auto state = adamw.state();
    const bool low = storage == Storage::kahan || storage == Storage::stochastic;
    CHECK(named(state.tensors, "exp_avg.0").dtype() == f32);
    CHECK(named(state.tensors, "exp_avg_sq.1").dtype() == (low ? bf16 : f32));
    CHECK(named(state.tensors, "exp_avg.2").dtype() == f32);
    CHECK(named(state.tensors, "exp_avg.3").dtype() == f64);
  }
}

TEST_CASE("a bf16 parameter given as it is: its remainder and compensation begin at zero") {
  for (const Storage storage : {Storage::split, Storage::kahan, Storage::stochastic, Storage::pure}) {
    const Tensor w = parameter({1, -2}, {1, 2}, bf16);
    const auto version = w.version();
    optim::Sgd sgd({w}, {.lr = 1, .storage = storage});
    CHECK(w.version() == version);
    CHECK(truth(sgd, w) == std::vector<double>{1, -2});
    set_gradient(w, {0.5f, 0.5f});
    sgd.step();
    CHECK(truth(sgd, w) == std::vector<double>{0.5, -2.5});
  }
}

TEST_CASE("writing to a weight is seen: a cleared weight is zero, a compensation of another size goes") {
  for (const Storage storage : {Storage::split, Storage::kahan}) {
    CAPTURE(name(storage));
    const Tensor w = parameter({1.003f, -1.003f, 1.003f, 1.003f}, {2, 2});
    optim::Sgd sgd({w}, {.lr = 1, .storage = storage});
    set_gradient(w, {0x1p-10f, 0x1p-10f, 0x1p-10f, 0x1p-10f});
    sgd.step();
    const auto before = truth(sgd, w);
    {
      const autograd::NoGrad guard;
      fill_(w.select(0, 0), 0);
    }
    set_gradient(w, {0, 0, 0, 0});
    sgd.step();
    const auto after = truth(sgd, w);
    CHECK(std::abs(after[0]) < 1e-38);
    CHECK(std::abs(after[1]) < 1e-38);
    CHECK(after[2] == before[2]);
    CHECK(after[3] == before[3]);
  }
}

// ---- bytes ---------------------------------------------------------------------------------------------------

// docs/precision-recipes.md's table, AdamW on matrix parameters, and what the other rules keep.
TEST_CASE("bytes() is what the design says and what the allocator counts, for each recipe and rule") {
  constexpr std::int64_t n = 96 * 64, blocks = n / 256;
  struct Case {
    const char* rule;
    Keep keep;
    optim::OptimizerBytes wanted;  // of n elements
    double each = 0;
  };
  const std::vector<Case> cases = {
      {"adamw", {Storage::f32}, {4 * n, 0, 4 * n, 8 * n}, 16},
      {"adamw", {Storage::master}, {2 * n, 4 * n, 2 * n, 8 * n}, 16},
      {"adamw", {Storage::split}, {2 * n, 2 * n, 2 * n, 8 * n}, 14},
      {"adamw", {Storage::kahan}, {2 * n, 2 * n, 2 * n, 4 * n}, 10},
      {"adamw", {Storage::stochastic}, {2 * n, 0, 2 * n, 4 * n}, 8},
      {"adamw", {Storage::pure}, {2 * n, 0, 2 * n, 8 * n}, 12},
      {"adamw", {Storage::pure, f16}, {2 * n, 0, 2 * n, 8 * n}, 12},
      {"adamw", {Storage::stochastic, bf16, f32}, {2 * n, 0, 2 * n, 8 * n}, 12},
      {"adamw", {Storage::f32, bf16, bf16}, {4 * n, 0, 4 * n, 4 * n}, 12},
      {"adamw", {Storage::f32, bf16, u8}, {4 * n, 0, 4 * n, 2 * n + 8 * blocks}},
      {"adamw", {Storage::master, bf16, u8}, {2 * n, 4 * n, 2 * n, 2 * n + 8 * blocks}},
      {"adamw", {Storage::stochastic, bf16, u8}, {2 * n, 0, 2 * n, 2 * n + 8 * blocks}},
      {"sgd", {Storage::split}, {2 * n, 2 * n, 2 * n, 0}, 6},
      {"sgd momentum", {Storage::split}, {2 * n, 2 * n, 2 * n, 4 * n}, 10},
      {"adagrad", {Storage::stochastic}, {2 * n, 0, 2 * n, 2 * n}, 6},
      {"lion", {Storage::kahan}, {2 * n, 2 * n, 2 * n, 2 * n}, 8},
      {"adafactor", {Storage::f32}, {4 * n, 0, 4 * n, 4 * (96 + 64)}},
      {"adafactor", {Storage::stochastic}, {2 * n, 0, 2 * n, 4 * (96 + 64)}},
  };
  for (const auto& c : cases) {
    CAPTURE(describe(c.rule, c.keep));
    const std::array before = {bytes_of(Memory::weights), bytes_of(Memory::masters), bytes_of(Memory::gradients), bytes_of(Memory::optimizer)};
    const auto kept = memory_report().total;
    const Tensor w = ones({96, 64}, {.requires_grad = true});
    const auto make = std::find_if(kRules.begin(), kRules.end(), [&](const Rule& r) { return r.name == c.rule; })->make;
    const auto optimizer = make({w}, c.keep);
    for (int step = 0; step < 2; ++step) {
      optimizer->zero_grad();
      sum(w * 2.0).backward();
      optimizer->step();
    }
    const auto declared = optimizer->bytes();
    CHECK(declared == c.wanted);
    CHECK(bytes_of(Memory::weights) - before[0] == declared.weights);
    CHECK(bytes_of(Memory::masters) - before[1] == declared.masters);
    CHECK(bytes_of(Memory::gradients) - before[2] == declared.gradients);
    CHECK(bytes_of(Memory::optimizer) - before[3] == declared.states);
    const auto total = declared.weights + declared.masters + declared.gradients + declared.states;
    CHECK(memory_report().total - kept == total);
    if (c.each > 0) CHECK(static_cast<double>(total) == c.each * n);
  }
}

// ---- states --------------------------------------------------------------------------------------------------

TEST_CASE("8-bit states: AdamW descends as with f32 ones; parameters of fewer than 4096 elements keep f32") {
  const auto loss_after = [](std::optional<Dtype> states) {
    manual_seed(2);
    const Tensor x = randn({64, 64}), y = matmul(x, randn({64, 64}));
    const Tensor w = zeros({64, 64}, {.requires_grad = true}), b = zeros({64}, {.requires_grad = true});
    optim::AdamW adamw({w, b}, {.lr = 0.05, .weight_decay = 0, .state_dtype = states});
    Tensor loss;
    for (int step = 0; step < 60; ++step) {
      adamw.zero_grad();
      loss = mse_loss(linear(x, w, b), y);
      loss.backward();
      adamw.step();
    }
    const auto state = adamw.state();
    CHECK(named(state.tensors, "exp_avg_sq.0").dtype() == states.value_or(f32));
    CHECK(named(state.tensors, "exp_avg_sq.1").dtype() == (states == bf16 ? bf16 : f32));
    if (states == u8) CHECK(named(state.tensors, "exp_avg.scale.0").shape() == Shape{16});
    return loss.item();
  };
  const double exact = loss_after({}), low = loss_after(bf16), codes = loss_after(u8);
  INFO("f32 " << exact << ", bf16 " << low << ", u8 " << codes);
  CHECK(low <= 1.05 * exact);
  CHECK(codes <= 1.1 * exact);
}

TEST_CASE("8-bit and bf16 second moments decay as they should, on average") {
  for (const Dtype dtype : {bf16, u8}) {
    CAPTURE(name(dtype));
    manual_seed(4);
    const Tensor w = parameter(std::vector<float>(65536, 1), {256, 256});
    optim::AdamW adamw({w}, {.lr = 0, .state_dtype = dtype});
    const auto step = [&](float g) {
      std::vector<float> v(65536, g);
      for (std::size_t i = 0; i < v.size(); i += 256) v[i] = 100 * std::max(g, 1.0f);  // the largest of its block
      set_gradient(w, v);
      adamw.step();
    };
    step(50);
    const auto mean = [&] {
      const auto state = adamw.state();
      const Tensor v = named(state.tensors, "exp_avg_sq.0");
      double sum = 0;
      if (dtype == bf16) {
        for (std::size_t i = 0; i < 65536; ++i) sum += i % 256 == 0 ? 0 : static_cast<double>(static_cast<float>(v.data<bf16_t>()[i]));
      } else {
        const Tensor scale = named(state.tensors, "exp_avg_sq.scale.0");
        for (std::size_t i = 0; i < 65536; ++i)
          sum += i % 256 == 0 ? 0 : static_cast<double>(kernels::ref::dynamic_value<7>(v.data<std::uint8_t>()[i]) * scale.data<float>()[i / 256]);
      }
      return sum / (255 * 256);
    };
    const double first = mean();
    CHECK(first == doctest::Approx(50 * 50 * 0.001).epsilon(0.01));
    for (int k = 0; k < 200; ++k) step(0);
    CHECK(mean() == doctest::Approx(first * std::pow(0.999, 200)).epsilon(0.01));
  }
}

TEST_CASE("state and load_state go on with the same bits, for each rule, storage and format of states") {
  for (const Rule& r : kRules)
    for (Keep k : kStorages)
      for (const std::optional<Dtype> states : {std::optional<Dtype>(), std::optional(bf16), std::optional(u8)}) {
        if (states && (r.name == "adafactor" || r.name == "sgd")) continue;
        if (states == u8 && r.name != "adam" && r.name != "adamw") continue;
        k.states = states;
        CAPTURE(describe(r.name, k));
        const Shape shape{64, 65};  // 4160 elements: states in 8 bits, the last block short
        const auto elements = [&](int step) {
          Generator random(static_cast<std::uint64_t>(step) + 100);
          return randn(shape, random);
        };
        const auto steps = [&](optim::Optimizer& o, const Tensor& w, int from, int to) {
          for (int i = from; i < to; ++i) {
            w.set_grad(elements(i).to(w.dtype()));
            o.step();
          }
        };
        const auto fresh = [&] { return elements(-1).requires_grad_(); };
        manual_seed(21);
        const Tensor straight = fresh(), before = fresh();
        const auto one = r.make({straight}, k), two = r.make({before}, k);
        steps(*one, straight, 0, 4);
        steps(*two, before, 0, 2);
        manual_seed(22);  // the seed comes with the state
        for (const bool weights_first : {true, false}) {
          const Tensor after = fresh();
          const auto three = r.make({after}, k);
          const autograd::NoGrad guard;
          if (weights_first) copy_(after, before);
          three->load_state(two->state());
          if (!weights_first) copy_(after, before);
          steps(*three, after, 2, 4);
          CHECK(bits(after) == bits(straight));
          CHECK(truth(*three, after) == truth(*one, straight));
        }
      }
}

// ---- what is refused -----------------------------------------------------------------------------------------

TEST_CASE("combinations that make no sense are refused with the reason, and leave everything as it was") {
  const Tensor w = parameter({1.001f, 2}, {1, 2}), half = parameter({1, 2}, {1, 2}, f16);
  const auto version = w.version();
  using optim::AdamW;
  CHECK_ERROR(AdamW({w}, {.storage = Storage::split, .low = f16}), "bf16 wanted", "not the upper half of an f32", "Storage::master");
  CHECK_ERROR(AdamW({w}, {.storage = Storage::kahan, .low = f16}), "bf16 wanted", "seven bits");
  CHECK_ERROR(AdamW({w}, {.storage = Storage::stochastic, .low = f16}), "bf16 wanted", "2^-14");
  CHECK_ERROR(AdamW({w}, {.storage = Storage::pure, .low = f64}), "low = f64 given");
  for (const Storage s : {Storage::split, Storage::kahan, Storage::stochastic})
    CHECK_ERROR(AdamW({w, half}, {.storage = s}), "parameter `param[1]` is f16", "Storage::master");
  CHECK_ERROR(AdamW({half}, {}), "parameter `param[0]` is f16", "Storage::f32");
  CHECK_ERROR(AdamW({w}, {.storage = Storage::split, .copy_rounding = CopyRounding::half_away}), "half_away");
  const Tensor whole = zeros({4, 2});
  CHECK_ERROR(AdamW({w, whole.narrow(0, 0, 2).requires_grad_()}, {.storage = Storage::kahan}), "view of another tensor");

  CHECK_ERROR(AdamW({w}, {.state_dtype = f16}), "state_dtype = f16", "leave f16's range");
  CHECK_ERROR(AdamW({w}, {.state_dtype = i32}), "state_dtype = i32");
  CHECK_ERROR(AdamW({w}, {.state_dtype = bf16, .state_rounding = StateRounding::nearest_even}), "0.999", "0.99 wanted", "never decays");
  CHECK_ERROR(AdamW({w}, {.storage = Storage::stochastic, .state_rounding = StateRounding::nearest_even}), "never decays");
  CHECK_ERROR(AdamW({w}, {.betas = {0.9, 0.95}, .state_dtype = u8, .state_rounding = StateRounding::nearest_even}), "half a step of the map");
  CHECK_ERROR(optim::Adagrad({w}, {.state_dtype = bf16, .state_rounding = StateRounding::nearest_even}), "stops growing");
  CHECK_ERROR(optim::Sgd({w}, {.momentum = 0.9, .state_dtype = u8}), "Adam's two moments");
  CHECK_ERROR(optim::Lion({w}, {.state_dtype = u8}), "Adam's two moments");
  CHECK_ERROR(optim::Sgd({w}, {.state_dtype = bf16}), "keeps no moments", ".momentum > 0");

  CHECK_ERROR(optim::Adagrad({w}, {.lr_decay = -1}), "lr_decay = -1");
  CHECK_ERROR(optim::Lion({w}, {.betas = {0.9, 1}}), "beta");
  CHECK_ERROR(optim::Adafactor({w}, {.beta2_decay = 0.1}), "beta2_decay");
  CHECK_ERROR(optim::Adafactor({w}, {.d = 0.5}), "d = 0.5");
  CHECK_ERROR(optim::Adafactor({w}, {.eps1 = -1.0}), "eps1");

  CHECK(w.dtype() == f32);
  CHECK(w.version() == version);
  CHECK(w.to_vector() == std::vector<float>{1.001f, 2});
  CHECK(half.dtype() == f16);

  // To nearest is allowed where a moment still moves.
  const optim::AdamW fine({w}, {.betas = {0.9, 0.99}, .state_dtype = bf16, .state_rounding = StateRounding::nearest_even});
}

TEST_CASE("a state of another storage, rule or format is refused") {
  const auto kind = [](const Keep& k) {
    const Tensor w = parameter({1, 2}, {1, 2});
    return kRules[3].make({w}, k)->state();
  };
  const Tensor w = parameter({1, 2}, {1, 2});
  const auto adamw = kRules[3].make({w}, {.storage = Storage::split});
  for (const Keep& other : {Keep{Storage::f32}, Keep{Storage::master}, Keep{Storage::kahan}, Keep{Storage::split, bf16, bf16}})
    CHECK_ERROR(adamw->load_state(kind(other)), "adamw", "`adamw split bf16` wanted");
  auto state = kind({Storage::split});
  state.tensors.pop_back();
  CHECK_ERROR(adamw->load_state(state), "lacks tensor `remainder.0`");
}
