// optimizer_test.cpp - the optimizer's pass: bit for bit against ref/ in float, to rounding against double, and against PyTorch's trajectories.
#include <array>
#include <bit>
#include <map>
#include <span>

#include <nlohmann/json.hpp>

#include <mezzo/runtime.h>

#include "guarded.h"
#include "io/safetensors.h"
#include "kernels/kernels.h"
#include "kernels/ref/optimizer.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

Update adamw(std::int64_t step) {
  Update u;
  u.lr = 3e-3, u.weight_decay = 0.1, u.beta1 = 0.9, u.beta2 = 0.95, u.eps = 1e-8;
  u.bias1 = 1 - std::pow(u.beta1, step), u.bias2 = 1 - std::pow(u.beta2, step);
  return u;
}
Update sgd(double momentum, bool nesterov, bool first) {
  Update u;
  u.rule = Rule::sgd;
  u.lr = 0.05, u.weight_decay = 0.01, u.momentum = momentum, u.nesterov = nesterov, u.first = first;
  return u;
}

// The rules that one pass may apply.
std::vector<Update> rules() {
  Update coupled = adamw(3), plain = adamw(1), low_beta = adamw(2);
  coupled.decoupled = false;
  plain.weight_decay = 0;
  low_beta.beta1 = 0.25;
  Update no_decay = sgd(0, false, true);
  no_decay.weight_decay = 0;
  return {adamw(7), coupled, plain, low_beta, sgd(0, false, true), no_decay, sgd(0.9, false, true), sgd(0.9, false, false), sgd(0.9, true, false)};
}

template <class T> T half_away(float x) {  // by the definition, on the two neighbours in T
  if (!std::isfinite(x)) return T(x);
  const T nearest(x);
  const double got = value(nearest), exact = value(x);
  T other;
  other.bits = static_cast<std::uint16_t>(nearest.bits + (std::abs(got) < std::abs(exact) ? 1 : -1));
  if (got == exact || std::isinf(got)) return nearest;  // rounding to Inf has no tie to break: nearest even goes up there
  return std::abs(value(other) - exact) == std::abs(got - exact) && std::abs(value(other)) > std::abs(got) ? other : nearest;
}

// One parameter's arrays; w_low is the copy of an f32 weight or the weight of a master.
template <class G, class Low> struct Arrays {
  Guarded<float> truth, m, v;
  Guarded<Low> low;
  Guarded<G> g;
  Arrays(std::int64_t n, std::int64_t offset)
      : truth(n, offset, Normals(1)),
        m(n, offset, Normals(2, 0.1)),
        v(n, offset, [normal = Normals(3)]() mutable { return std::abs(normal()) * 1e-2; }),
        low(n, offset),
        g(n, offset, Normals(4, 8)) {
    for (std::int64_t i = 0; i < n; i += 11) g[i] = rounded<G>(0), m[i] = 0, v[i] = 0;
  }
};

template <class G, class Low> void check_update(Update u, Store store, std::int64_t n, std::int64_t offset, bool round_g, bool away) {
  CAPTURE(static_cast<int>(u.rule));
  CAPTURE(static_cast<int>(store));
  CAPTURE(n);
  CAPTURE(offset);
  CAPTURE(round_g);
  CAPTURE(away);
  CAPTURE(u.momentum);
  Arrays<G, Low> a(n, offset);
  const Arrays<G, Low> before = a;
  u.store = store, u.n = n, u.low = dtype_of<Low>, u.g = a.g.data(), u.g_dtype = dtype_of<G>, u.round_g = round_g, u.copy_half_away = away;
  u.g_scale = 0.0123;
  u.m = u.rule == Rule::adam || u.momentum != 0 ? a.m.data() : nullptr;
  u.v = u.rule == Rule::adam ? a.v.data() : nullptr;
  if (store == Store::master) u.master = a.truth.data(), u.w = a.low.data();
  else u.w = a.truth.data(), u.copy = away ? nullptr : a.low.data();  // f32 weights with and without a cached copy
  update(cpu_queue(), u);

  const ref::Adam<float> adam(u);
  const ref::Sgd<float> plain(u);
  const ref::Adam<double> adam64(u);
  const ref::Sgd<double> plain64(u);
  std::int64_t wrong_bits = 0;
  std::vector<double> want(n), step(n);
  for (std::int64_t i = 0; i < n; ++i) {
    const G raw = before.g[i];
    const float loaded = round_g ? static_cast<float>(value(rounded<Low>(value(raw)))) : static_cast<float>(value(raw));
    float w = before.truth[i], m = before.m[i], v = before.v[i];
    double w64 = value(w), m64 = value(m), v64 = value(v);
    const float g = loaded * 0.0123f;
    const double g64 = value(loaded) * 0.0123;
    if (u.rule == Rule::adam) adam(g, w, m, v), adam64(g64, w64, m64, v64);
    else if (u.m) plain(g, w, m), plain64(g64, w64, m64);
    else plain(g, w), plain64(g64, w64);
    const bool written = store == Store::master || u.copy;
    const Low low = store == Store::master && away ? half_away<Low>(w) : Low(w);
    wrong_bits += std::bit_cast<std::uint32_t>(w) != std::bit_cast<std::uint32_t>(a.truth[i]);
    wrong_bits += std::bit_cast<std::uint32_t>(m) != std::bit_cast<std::uint32_t>(a.m[i]);
    wrong_bits += std::bit_cast<std::uint32_t>(v) != std::bit_cast<std::uint32_t>(a.v[i]);
    wrong_bits += (written ? low : before.low[i]) != a.low[i];
    want[i] = w64, step[i] = std::abs(w64 - value(before.truth[i]));
  }
  CHECK(wrong_bits == 0);
  check_close("truth", a.truth, want, [&](std::int64_t i) { return 1e-6 * (std::abs(want[i]) + step[i]); });
  CHECK((a.m.intact() && a.v.intact() && a.low.intact() && a.g.same_bits(before.g)));
}

template <class G, class Low> void check_all(const Update& rule, std::int64_t n, std::int64_t offset) {
  for (const Store store : {Store::f32, Store::master}) {
    for (const bool away : {false, true}) {
      check_update<G, Low>(rule, store, n, offset, false, away);
      if constexpr (std::is_same_v<G, float>) check_update<G, Low>(rule, store, n, offset, true, away);
    }
  }
}

}  // namespace

TEST_CASE("update: every rule, store and gradient, bit for bit and to 1e-6 of double") {
  for (const Update& rule : rules()) {
    for (const std::int64_t n : {1, 15, 16, 17, 64, 100}) {
      check_all<float, bf16_t>(rule, n, n % 3);
      check_all<float, f16_t>(rule, n, n % 2);
      check_all<bf16_t, bf16_t>(rule, n, n % 3);
      check_all<f16_t, f16_t>(rule, n, n % 2);
      check_all<bf16_t, f16_t>(rule, n, 1);
    }
  }
  for (const std::int64_t n : lengths({40001})) check_all<float, bf16_t>(adamw(2), n, n % 4);
}

TEST_CASE("update: moments that fade end at zero, not at the subnormal numbers that rounding would hold in place") {
  constexpr std::int64_t n = 33;
  std::vector<float> w(n, 1), m(n, 1), v(n, 0x1p-100f), g(n, 0);
  Update u = adamw(1000);
  u.beta2 = 0.9, u.n = n, u.w = w.data(), u.m = m.data(), u.v = v.data(), u.g = g.data();
  for (int step = 0; step < 1000; ++step) update(cpu_queue(), u);  // 0.9^1000 is below f32's least subnormal
  for (std::int64_t i = 0; i < n; ++i) CHECK((m[i] == 0 && v[i] == 0 && std::isfinite(w[i])));
}

TEST_CASE("update: f64 weights take an f64 step") {
  for (Update u : rules()) {
    CAPTURE(static_cast<int>(u.rule));
    std::vector<double> w{0.5, -2, 3e-9}, m{0.1, 0, -0.2}, v{0.01, 1e-6, 0.3}, g{1, -0.25, 1e-7};
    std::vector<double> want = w, want_m = m, want_v = v;
    u.n = 3, u.w = w.data(), u.g = g.data(), u.g_dtype = f64, u.v = v.data(), u.g_scale = 1 / 3.0;
    u.m = u.rule == Rule::adam || u.momentum != 0 ? m.data() : nullptr;
    for (int i = 0; i < 3; ++i) {  // as the formulas are printed
      double d = g[i] / 3;
      if (u.rule == Rule::adam) {
        if (u.decoupled) want[i] *= 1 - u.lr * u.weight_decay;
        else d += u.weight_decay * w[i];
        want_m[i] = u.beta1 * m[i] + (1 - u.beta1) * d;
        want_v[i] = u.beta2 * v[i] + (1 - u.beta2) * d * d;
        want[i] -= u.lr * (want_m[i] / u.bias1) / (std::sqrt(want_v[i] / u.bias2) + u.eps);
      } else {
        d += u.weight_decay * w[i];
        want_m[i] = u.first ? d : u.momentum * m[i] + d;
        want[i] -= u.lr * (u.momentum == 0 ? d : u.nesterov ? d + u.momentum * want_m[i] : want_m[i]);
      }
    }
    update(cpu_queue(), u);
    for (int i = 0; i < 3; ++i) {
      CHECK(w[i] == doctest::Approx(want[i]).epsilon(1e-14));
      if (u.m) CHECK(m[i] == doctest::Approx(want_m[i]).epsilon(1e-14));
      if (u.rule == Rule::adam) CHECK(v[i] == doctest::Approx(want_v[i]).epsilon(1e-14));
    }
  }
}

namespace {

// Every value of Low, the middle to its neighbour, and the f32 on either side of the middle, through a step that changes nothing.
template <class Low> void check_half_away() {
  std::vector<float> values{std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0x7f800001u),
                            std::bit_cast<float>(0x7fffffffu)};
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    Low low, next;
    low.bits = static_cast<std::uint16_t>(bits), next.bits = static_cast<std::uint16_t>(bits + 1);
    const double a = value(low), b = value(next);
    values.push_back(static_cast<float>(a));
    if (!std::isfinite(a) || !std::isfinite(b) || (bits & 0x7fff) == 0x7fff) continue;
    const float middle = static_cast<float>((a + b) / 2);
    values.insert(values.end(), {middle, std::nextafter(middle, -1e38f), std::nextafter(middle, 1e38f)});
  }
  const auto n = static_cast<std::int64_t>(values.size());
  Guarded<Low> w(n), w_even(n);
  std::vector<float> g(values.size(), 0), master = values;
  Update u;
  u.rule = Rule::sgd, u.store = Store::master, u.n = n, u.low = dtype_of<Low>, u.master = master.data(), u.g = g.data();
  u.w = w.data(), u.copy_half_away = true;
  update(cpu_queue(), u);
  u.w = w_even.data(), u.copy_half_away = false;
  update(cpu_queue(), u);
  std::int64_t wrong = 0, wrong_even = 0, ties = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::isnan(values[i])) {
      wrong += !std::isnan(value(w[i]));
      continue;
    }
    const Low want = half_away<Low>(values[i]);
    wrong += w[i] != want;
    wrong_even += w_even[i] != Low(values[i]);
    ties += want != Low(values[i]);
    if constexpr (std::is_same_v<Low, bf16_t>) {  // and in integers
      wrong += w[i].bits != static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(values[i]) + 0x8000u) >> 16);
    }
  }
  CHECK(wrong == 0);
  CHECK(wrong_even == 0);
  CHECK(ties > 30000);  // every second middle
  CHECK(std::equal(values.begin() + 4, values.end(), master.begin() + 4, [](float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b));
  }));
}

}  // namespace

TEST_CASE("update: the copy of a master rounds half away from zero, or to nearest even, on every edge") {
  check_half_away<bf16_t>();
  check_half_away<f16_t>();
}

TEST_CASE("update: steps of PyTorch's optimizers") {
  const io::SafetensorsFile file("tests/golden/optimizers.safetensors");
  const auto tensor = [&](const std::string& name) {
    const io::TensorEntry* entry = file.find(name);
    REQUIRE_MESSAGE(entry, name);
    std::vector<float> values(entry->data.size() / sizeof(float));
    std::memcpy(values.data(), entry->data.data(), entry->data.size());
    return values;
  };
  const auto cases = nlohmann::json::parse(file.metadata().at("cases"));
  for (const auto& [key, options] : cases.items()) {
    const std::string name = key;
    if (options["op"] != "sgd" && options["op"] != "adam" && options["op"] != "adamw") continue;  // the others: tests/optim
    for (const std::string param : {"weight", "bias"}) {
      CAPTURE(name);
      CAPTURE(param);
      std::vector<float> w = tensor("init." + param);
      const std::vector<float> gradients = tensor("grad." + param), wanted = tensor(name + "." + param);
      const std::size_t n = w.size(), steps = gradients.size() / n;
      std::vector<float> m(n, 0), v(n, 0);
      Update u;
      u.rule = options["op"] == "sgd" ? Rule::sgd : Rule::adam;
      u.decoupled = options["op"] == "adamw";
      u.lr = options["lr"], u.weight_decay = options.value("weight_decay", 0.0), u.momentum = options.value("momentum", 0.0);
      u.nesterov = options.value("nesterov", false), u.eps = options.value("eps", 0.0);
      if (options.contains("betas")) u.beta1 = options["betas"][0], u.beta2 = options["betas"][1];
      u.n = static_cast<std::int64_t>(n), u.w = w.data(), u.v = v.data();
      u.m = u.rule == Rule::adam || u.momentum != 0 ? m.data() : nullptr;
      for (std::size_t t = 0; t < steps; ++t) {
        u.first = t == 0, u.g = gradients.data() + t * n;
        u.bias1 = 1 - std::pow(u.beta1, t + 1), u.bias2 = 1 - std::pow(u.beta2, t + 1);
        const std::vector<float> before = w;
        update(cpu_queue(), u);
        for (std::size_t i = 0; i < n; ++i) {  // each step adds a rounding or two: torch may fuse a product and a sum
          const double want = value(wanted[t * n + i]), step = std::abs(want - value(before[i]));
          CHECK(std::abs(value(w[i]) - want) <= 2 * kUnit32 * static_cast<double>(t + 1) * (std::abs(want) + 2 * step));
        }
      }
    }
  }
}
