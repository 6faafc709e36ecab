// storage_test.cpp - every rule with every store and format of its moments: bit for bit against ref/; what splitting, rounding by chance and the
// 8-bit map promise, on every edge.
#include <bit>
#include <set>
#include <vector>

#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/optimizer.h"
#include "kernels/ref/quantize.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }

Update rule_of(Rule rule) {
  Update u;
  u.rule = rule, u.lr = 3e-3, u.weight_decay = 0.1, u.beta1 = 0.9, u.beta2 = 0.95, u.eps = 1e-8;
  u.bias1 = 0.4, u.bias2 = 0.2, u.g_scale = 0.25, u.seed = 0x123456789abcdef0u, u.stream = (std::uint64_t{7} << 32) | 12;
  if (rule == Rule::sgd) u.momentum = 0.9;
  return u;
}

/// Everything one parameter has, whatever its store and moments are.
struct Arrays {
  Guarded<float> truth, m, v, m_scale, v_scale;  // truth: the weights of Store::f32, the masters of Store::master
  Guarded<std::uint16_t> w, rest, m16, v16;
  Guarded<std::uint8_t> m8, v8;
  Guarded<float> g;
  explicit Arrays(std::int64_t n, std::int64_t o)
      : truth(n, o, Normals(1)),
        m(n, o, Normals(2, 0.1)),
        v(n, o, [x = Normals(3)]() mutable { return std::abs(x()) * 1e-2; }),
        m_scale((n + kQuantBlock - 1) / kQuantBlock, 0, [] { return 0.3; }),
        v_scale((n + kQuantBlock - 1) / kQuantBlock, 0, [] { return 0.02; }),
        w(n, o),
        rest(n, o),
        m16(n, o),
        v16(n, o),
        m8(n, o),
        v8(n, o),
        g(n, o, Normals(4, 2)) {
    std::mt19937 random(5);
    for (std::int64_t i = 0; i < n; ++i) {
      if (i % 11 == 0) g[i] = 0, m[i] = 0, v[i] = 0;
      const auto s = ref::split(truth[i]);
      w[i] = s.high.bits, rest[i] = static_cast<std::uint16_t>(s.low);
      m16[i] = bf16_t(m[i]).bits, v16[i] = bf16_t(v[i]).bits;
      m8[i] = static_cast<std::uint8_t>(random()), v8[i] = static_cast<std::uint8_t>(random());
    }
  }
  bool intact() const {
    return truth.intact() && m.intact() && v.intact() && m_scale.intact() && v_scale.intact() && w.intact() && rest.intact() && m16.intact() &&
           v16.intact() && m8.intact() && v8.intact();
  }
};

float low_value(Dtype low, std::uint16_t bits) {
  return low == bf16 ? static_cast<float>(std::bit_cast<bf16_t>(bits)) : static_cast<float>(std::bit_cast<f16_t>(bits));
}
std::uint16_t low_bits(Dtype low, float x) { return low == bf16 ? bf16_t(x).bits : f16_t(x).bits; }

/// The pass by its definition, an element at a time.
void update_by_definition(const Update& u, Arrays& a) {
  const ref::Adam<float> adam(u);
  const ref::Sgd<float> sgd(u);
  const ref::Adagrad<float> adagrad(u);
  const ref::Lion<float> lion(u);
  std::vector<float> m(u.n), v(u.n);
  const auto random = [&](int use, std::int64_t i) {
    return ref::random_bits(u.seed, u.stream + static_cast<std::uint64_t>(use), static_cast<std::uint64_t>(i));
  };
  for (std::int64_t i = 0; i < u.n; ++i) {
    m[i] = u.moments == f32 ? a.m[i] : low_value(bf16, a.m16[i]), v[i] = u.moments == f32 ? a.v[i] : low_value(bf16, a.v16[i]);
    if (u.moments == u8) {
      m[i] = ref::dynamic_value<6>(a.m8[i] & 0x7fu) * a.m_scale[i / kQuantBlock] * (a.m8[i] & 0x80 ? -1.0f : 1.0f);
      v[i] = ref::dynamic_value<7>(a.v8[i]) * a.v_scale[i / kQuantBlock];
    }
    float w = 0;
    switch (u.store) {
      case Store::f32:
      case Store::master: w = a.truth[i]; break;
      case Store::split: w = ref::join({std::bit_cast<bf16_t>(a.w[i]), static_cast<std::int16_t>(a.rest[i])}); break;
      case Store::kahan: w = low_value(bf16, a.w[i]) + low_value(bf16, a.rest[i]); break;
      default: w = low_value(u.low, a.w[i]);
    }
    const float g = a.g[i] * 0.25f;
    switch (u.rule) {
      case Rule::adam: adam(g, w, m[i], v[i]); break;
      case Rule::sgd: u.m ? sgd(g, w, m[i]) : sgd(g, w); break;
      case Rule::adagrad: adagrad(g, w, m[i]); break;
      default: lion(g, w, m[i]);
    }
    switch (u.store) {
      case Store::master: a.w[i] = low_bits(u.low, w); [[fallthrough]];
      case Store::f32: a.truth[i] = w; break;
      case Store::split: {
        const auto s = ref::split(w);
        a.w[i] = s.high.bits, a.rest[i] = static_cast<std::uint16_t>(s.low);
        break;
      }
      case Store::kahan: {
        a.w[i] = low_bits(bf16, w);
        const float kept = low_value(bf16, a.w[i]);
        a.rest[i] = std::isfinite(kept) ? low_bits(bf16, w - kept) : 0;
        break;
      }
      case Store::stochastic: a.w[i] = ref::round_stochastic(w, random(0, i)).bits; break;
      default: a.w[i] = low_bits(u.low, w);
    }
    if (u.moments == f32) a.m[i] = m[i], a.v[i] = v[i];
    if (u.moments != bf16) continue;
    a.m16[i] = u.m_nearest ? low_bits(bf16, m[i]) : ref::round_stochastic(m[i], random(1, i)).bits;
    a.v16[i] = u.m_nearest ? low_bits(bf16, v[i]) : ref::round_stochastic(v[i], random(2, i)).bits;
  }
  for (std::int64_t begin = 0; u.moments == u8 && begin < u.n; begin += kQuantBlock) {
    const std::int64_t end = std::min(begin + kQuantBlock, u.n);
    float most_m = 0, most_v = 0;
    for (std::int64_t i = begin; i < end; ++i) most_m = std::max(most_m, std::abs(m[i])), most_v = std::max(most_v, v[i]);
    a.m_scale[begin / kQuantBlock] = most_m, a.v_scale[begin / kQuantBlock] = most_v;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto uniform = [&](int use) { return static_cast<float>(random(use, i)) * 0x1p-16f; };
      const unsigned sign = std::signbit(m[i]) ? 0x80 : 0;
      a.m8[i] = static_cast<std::uint8_t>(ref::dynamic_code<6>(std::abs(m[i]) / (most_m > 0 ? most_m : 1), uniform(1)) | sign);
      a.v8[i] = static_cast<std::uint8_t>(ref::dynamic_code<7>(v[i] / (most_v > 0 ? most_v : 1), uniform(2)));
    }
  }
}

void check_update(Update u, std::int64_t n, std::int64_t offset) {
  CAPTURE(static_cast<int>(u.rule));
  CAPTURE(static_cast<int>(u.store));
  CAPTURE(name(u.moments));
  CAPTURE(name(u.low));
  CAPTURE(u.m_nearest);
  CAPTURE(n);
  Arrays a(n, offset);
  if (u.rule == Rule::adagrad)
    for (std::int64_t i = 0; i < n; ++i) a.m[i] = std::abs(a.m[i]), a.m16[i] &= 0x7fff;
  u.n = n, u.g = a.g.data();
  const bool two = u.rule == Rule::adam, one = two || u.rule != Rule::sgd || u.momentum != 0;
  const auto pick = [&](auto& wide, auto& low, auto& codes) -> void* {
    return u.moments == f32 ? static_cast<void*>(wide.data()) : u.moments == bf16 ? static_cast<void*>(low.data()) : codes.data();
  };
  u.m = one ? pick(a.m, a.m16, a.m8) : nullptr;
  u.v = two ? pick(a.v, a.v16, a.v8) : nullptr;
  u.m_scale = a.m_scale.data(), u.v_scale = a.v_scale.data();
  u.w = u.store == Store::f32 ? static_cast<void*>(a.truth.data()) : a.w.data();
  u.master = a.truth.data(), u.rest = a.rest.data();
  if (u.store == Store::kahan)
    for (std::int64_t i = 0; i < n; ++i) a.rest[i] = bf16_t(a.truth[i] - low_value(bf16, a.w[i])).bits;
  if (u.store == Store::pure)
    for (std::int64_t i = 0; i < n; ++i) a.w[i] = low_bits(u.low, a.truth[i]);
  Arrays want = a;
  if (!one) want.m16 = a.m16;
  update_by_definition(u, want);
  update(cpu_queue(), u);
  CHECK((a.truth.same_bits(want.truth) && a.w.same_bits(want.w) && a.rest.same_bits(want.rest)));
  if (one) CHECK((u.moments == u8 ? a.m8.same_bits(want.m8) : u.moments == bf16 ? a.m16.same_bits(want.m16) : a.m.same_bits(want.m)));
  if (two) CHECK((u.moments == u8 ? a.v8.same_bits(want.v8) : u.moments == bf16 ? a.v16.same_bits(want.v16) : a.v.same_bits(want.v)));
  if (u.moments == u8) CHECK((a.m_scale.same_bits(want.m_scale) && a.v_scale.same_bits(want.v_scale)));
  CHECK(a.intact());
}

}  // namespace

TEST_CASE("update: each rule with each store and each format of its moments, bit for bit") {
  for (const Rule rule : {Rule::adam, Rule::sgd, Rule::adagrad, Rule::lion})
    for (const Store store : {Store::f32, Store::master, Store::split, Store::kahan, Store::stochastic, Store::pure})
      for (const Dtype low : {bf16, f16}) {
        if (low == f16 && store != Store::master && store != Store::pure) continue;
        for (const Dtype moments : {f32, bf16, u8}) {
          if (moments == u8 && rule != Rule::adam) continue;
          for (const std::int64_t n : {1, 15, 33, 256, 300, 1031}) {
            Update u = rule_of(rule);
            u.store = store, u.low = low, u.moments = moments;
            check_update(u, n, n % 3);
            u.m_nearest = true;
            if (moments == bf16) check_update(u, n, 1);
            u.m_nearest = false, u.momentum = 0;
            if (rule == Rule::sgd && moments == f32) check_update(u, n, 2);
          }
        }
      }
  Update u = rule_of(Rule::adam);
  u.store = Store::stochastic, u.moments = bf16;
  check_update(u, 40001, 1);
}

TEST_CASE("update: what is rounded by chance does not depend on the number of threads, and does on seed, step, parameter and element") {
  constexpr std::int64_t n = 70001;
  const auto run = [&](std::uint64_t seed, std::uint64_t stream, int threads) {
    const int before = num_threads();
    set_num_threads(threads);
    Arrays a(n, 0);
    Update u = rule_of(Rule::adam);
    u.store = Store::stochastic, u.moments = bf16, u.n = n, u.g = a.g.data(), u.w = a.w.data(), u.m = a.m16.data(), u.v = a.v16.data();
    u.seed = seed, u.stream = stream;
    update(cpu_queue(), u);
    set_num_threads(before);
    return std::vector<std::uint16_t>(a.w.data(), a.w.data() + n);
  };
  const auto one = run(1, 4, 1);
  CHECK(one == run(1, 4, 2));
  CHECK(one == run(1, 4, 3));
  CHECK(one != run(2, 4, 1));
  CHECK(one != run(1, 8, 1));
}

// ---- split -------------------------------------------------------------------------------------------------

TEST_CASE("split: exact for every exponent and edge of the mantissa; NaN stays NaN; a cleared weight is zero") {
  std::vector<float> values;
  for (std::uint32_t high = 0; high < 0x10000; ++high)
    for (const std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) values.push_back(std::bit_cast<float>(high << 16 | low));
  const auto n = static_cast<std::int64_t>(values.size());
  Guarded<bf16_t> w(n);
  Guarded<std::int16_t> rest(n);
  split(cpu_queue(), values.data(), w.data(), rest.data(), n);
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto s = ref::split(values[i]);
    wrong += w[i] != s.high || rest[i] != s.low;
    const float back = ref::join({w[i], rest[i]});
    if (std::isnan(values[i])) {
      wrong += !std::isnan(value(w[i])) || !std::isnan(back);
      continue;
    }
    wrong += bits_of(back) != bits_of(values[i]);
    wrong += w[i].bits != static_cast<std::uint16_t>((bits_of(values[i]) + 0x8000u) >> 16);  // half away from zero
  }
  CHECK(wrong == 0);
  CHECK(w.intact());
  CHECK(rest.intact());

  // A step of length zero loads and stores: the same bits again.
  const Guarded<bf16_t> w_before = w;
  const Guarded<std::int16_t> rest_before = rest;
  std::vector<float> g(values.size(), 0);
  Update u;
  u.rule = Rule::sgd, u.store = Store::split, u.n = n, u.w = w.data(), u.rest = rest.data(), u.g = g.data();
  update(cpu_queue(), u);
  std::int64_t changed = 0;
  for (std::int64_t i = 0; i < n; ++i) changed += std::isnan(values[i]) ? !std::isnan(value(w[i])) : w[i] != w_before[i] || rest[i] != rest_before[i];
  CHECK(changed == 0);

  Guarded<bf16_t> zeros(4);
  Guarded<std::int16_t> remainders(4);
  for (int i = 0; i < 4; ++i) zeros[i] = bf16_t(i % 2 ? -0.0f : 0.0f), remainders[i] = i < 2 ? -5 : 5;
  u.n = 4, u.w = zeros.data(), u.rest = remainders.data();
  update(cpu_queue(), u);
  for (int i = 0; i < 4; ++i) CHECK(value(zeros[i]) == 0);
}

// ---- rounding by chance --------------------------------------------------------------------------------------

namespace {

/// Sixteen numbers a binade over the bf16 of `exponent`, between and on its numbers.
std::vector<float> sixteen(int exponent) {
  std::vector<float> points;
  for (int k = 0; k < 16; ++k) points.push_back(static_cast<float>(std::ldexp(1 + (k + k * k * 0x1.234p-12) / 16.0, exponent)));
  return points;
}

/// All draws of one number at once: w = 0 - 1 * -x, rounded.
std::vector<bf16_t> draws(float x, std::int64_t n, std::uint64_t stream) {
  std::vector<bf16_t> w(static_cast<std::size_t>(n));
  const std::vector<float> g(w.size(), -x);
  Update u;
  u.rule = Rule::sgd, u.store = Store::stochastic, u.n = n, u.w = w.data(), u.g = g.data(), u.lr = 1, u.seed = 99, u.stream = stream;
  update(cpu_queue(), u);
  return w;
}

}  // namespace

TEST_CASE("stochastic rounding: over all 65,536 random numbers the mean is the number itself, exactly") {
  std::vector<float> points;
  for (const int exponent : {-149, -140, -133, -127, -126, -50, 0, 100, 126}) {
    for (const float x : sixteen(exponent)) points.push_back(x), points.push_back(-x);
  }
  for (const float x : points) {
    CAPTURE(x);
    double sum = 0;  // exact: few distinct numbers, all multiples of one spacing
    for (std::uint32_t r = 0; r < 0x10000; ++r) sum += value(ref::round_stochastic(x, static_cast<std::uint16_t>(r)));
    CHECK(sum == value(x) * 0x1p16);
  }
}

TEST_CASE("stochastic rounding is unbiased: a million draws at 16 points a binade, within 4 sigma of the mean") {
  constexpr std::int64_t kDraws = 1 << 20;
  std::uint64_t stream = 4;
  double worst = 0;
  const auto look = [&](float x) {
    CAPTURE(x);
    double sum = 0, squares = 0;  // of the error in spacings
    std::set<float> seen;
    const bf16_t down = ref::round_stochastic(x, 0), up = ref::round_stochastic(x, 0xffff);
    const double spacing = down == up ? 1 : std::abs(value(up) - value(down));
    std::int64_t ups = 0, others = 0;
    for (const bf16_t w : draws(x, kDraws, stream)) ups += w == up, others += w != up && w != down;
    stream += 4;
    CHECK(others == 0);
    const double share = static_cast<double>(ups) / kDraws, low_error = (value(down) - value(x)) / spacing,
                 high_error = (value(up) - value(x)) / spacing;
    sum = share * high_error + (1 - share) * low_error;
    squares = share * high_error * high_error + (1 - share) * low_error * low_error;
    const double sigma = std::sqrt(std::max(squares - sum * sum, 0.0));
    CHECK(std::abs(sum) <= 4 * sigma / std::sqrt(static_cast<double>(kDraws)));
    if (sigma > 0) worst = std::max(worst, std::abs(sum) / sigma * std::sqrt(static_cast<double>(kDraws)));
  };
  for (const int exponent : {-140, -126, -3, 0, 126})  // subnormal, smallest normal, ordinary, largest
    for (const float x : sixteen(exponent)) look(x), look(-x);
  const float largest = std::bit_cast<float>(0x7f7f0000u), before = std::bit_cast<float>(0x7f7e8123u);
  for (const float x : {largest, -largest, before, -before, 0.0f, 0x1p-149f, -0x1.8p-134f}) look(x);
  MESSAGE("largest mean error: " << worst << " sigma / sqrt(n)");
}

TEST_CASE("stochastic rounding: what bf16 holds stays; Inf and NaN stay; beyond the largest, to nearest") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto x = std::bit_cast<bf16_t>(static_cast<std::uint16_t>(bits));
    for (const std::uint16_t r : {std::uint16_t{0}, std::uint16_t{0x8000}, std::uint16_t{0xffff}}) {
      const bf16_t y = ref::round_stochastic(static_cast<float>(x), r);
      if (std::isnan(value(x)) ? !std::isnan(value(y)) : y != x) FAIL("0x" << std::hex << bits);
    }
  }
  CHECK(ref::round_stochastic(0x1.fe7fffp127f, 0xffff).bits == 0x7f7f);
  CHECK(ref::round_stochastic(0x1.ff8p127f, 0).bits == 0x7f80);
  std::vector<float> odd{std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 0x1.fe7fffp127f, 0x1.ff8p127f};
  for (const float x : odd)
    for (const bf16_t w : draws(x, 40, 4)) CHECK((std::isnan(x) ? std::isnan(value(w)) : w == bf16_t(x)));
}

// ---- the 8-bit map -------------------------------------------------------------------------------------------

namespace {

template <int kB> void check_map() {
  CAPTURE(kB);
  float last = 0;
  constexpr unsigned kCodes = 2u << kB;
  for (unsigned c = 1; c < kCodes; ++c) {
    const float x = ref::dynamic_value<kB>(c);
    CHECK(x > last);
    last = x;
    CHECK(ref::dynamic_code<kB>(x, 0.5f) == c);
  }
  CHECK(ref::dynamic_value<kB>(0) == 0);
  CHECK(ref::dynamic_value<kB>(1) == doctest::Approx(std::pow(10.0, -kB)).epsilon(1e-6));
  CHECK(last == 1);
  CHECK(ref::dynamic_code<kB>(0, 0.99f) == 0);

  Normals normal(8);
  for (int k = 0; k < 2000; ++k) {
    const float x = static_cast<float>(std::pow(10.0, -std::abs(normal()) * 2));
    if (x > 1 || x < std::pow(10.0, -kB)) continue;
    const unsigned c = ref::dynamic_code<kB>(x, 0.0f), next = std::min(c + 1, kCodes - 1);
    const double down = value(ref::dynamic_value<kB>(c)), up = value(ref::dynamic_value<kB>(next));
    CHECK(down <= value(x) * (1 + 1e-6));
    CHECK(up >= value(x) * (1 - 1e-6));
    const double share = up > down ? (value(x) - down) / (up - down) : 0;  // of random numbers that go up
    int ups = 0;
    for (int r = 0; r < 64; ++r) ups += ref::dynamic_code<kB>(x, (static_cast<float>(r) + 0.5f) / 64) == next && next != c;
    CHECK(std::abs(ups / 64.0 - share) <= 1 / 64.0 + 2e-4);
  }
}

}  // namespace

TEST_CASE("8-bit map: codes rise with what they mean, from 10^-B to 1; each is its own nearest code; unbiased between two") {
  check_map<6>();
  check_map<7>();
  CHECK(ref::dynamic_code<7>(1e-30f, 0) == 1);  // a second moment never becomes 0
  CHECK(ref::dynamic_code<6>(1e-30f, 0) == 0);
}

TEST_CASE("8-bit states: what is not finite stays so; zeros stay zeros") {
  constexpr std::int64_t n = 600;
  std::vector<float> w(n, 1), g(n, 0.5f), m_scale(3, 0), v_scale(3, 0);
  std::vector<std::uint8_t> m(n, 0), v(n, 0);
  Update u = rule_of(Rule::adam);
  u.moments = u8, u.n = n, u.w = w.data(), u.g = g.data(), u.m = m.data(), u.v = v.data(), u.m_scale = m_scale.data(), u.v_scale = v_scale.data();
  std::fill(g.begin() + 512, g.end(), 0.0f);
  g[3] = std::numeric_limits<float>::infinity();
  update(cpu_queue(), u);
  CHECK(std::isnan(m_scale[0]));
  CHECK(std::isnan(v_scale[0]));
  CHECK(std::isfinite(m_scale[1]));
  CHECK(m_scale[2] == 0);
  CHECK(m[599] == 0);
  CHECK(v[599] == 0);
  g[3] = 0;
  update(cpu_queue(), u);
  CHECK(std::isnan(w[10]));
  CHECK(std::isfinite(w[300]));
}

// ---- Adafactor -----------------------------------------------------------------------------------------------

TEST_CASE("adafactor: moments, norms and step of matrices, stacks of them and vectors, against double") {
  struct Case {
    std::int64_t rows, columns, matrices;
  };
  for (const Case c : {Case{5, 7, 1}, Case{300, 33, 1}, Case{3, 3, 11}, Case{1, 17, 1}, Case{520, 1, 2}, Case{0, 70001, 1}, Case{0, 5, 1}})
    for (const Store store : {Store::f32, Store::master, Store::split, Store::kahan, Store::stochastic, Store::pure})
      for (const bool low_gradient : {false, true}) {
        CAPTURE(c.rows);
        CAPTURE(c.columns);
        CAPTURE(static_cast<int>(store));
        const std::int64_t n = std::max<std::int64_t>(c.rows, 1) * c.columns * c.matrices;
        Arrays a(n, 1);
        Guarded<bf16_t> g16(n, 1, Normals(4, 2));
        Update u = rule_of(Rule::adafactor);
        u.store = store, u.n = n, u.beta2 = 0.3, u.eps = 1e-7, u.weight_decay = 0.01, u.rows = c.rows, u.columns = c.rows > 0 ? c.columns : 0;
        u.g = low_gradient ? static_cast<void*>(g16.data()) : a.g.data(), u.g_dtype = low_gradient ? bf16 : f32;
        const std::int64_t rows = c.rows > 0 ? n / c.columns : n, columns = c.rows > 0 ? c.columns * c.matrices : 1;
        const auto size = [x = Normals(6)]() mutable { return std::abs(x()); };
        Guarded<float> m(rows, 1, size), v(columns, 2, size), factor(rows, 3);
        u.m = m.data(), u.v = v.data(), u.factor = factor.data(), u.master = a.truth.data(), u.rest = a.rest.data();
        u.w = store == Store::f32 ? static_cast<void*>(a.truth.data()) : a.w.data();
        if (store == Store::kahan)
          for (std::int64_t i = 0; i < n; ++i) a.rest[i] = 0;

        std::vector<double> w64(n), g64(n), m64 = m.values(), v64 = v.values(), factor64(rows);
        for (std::int64_t i = 0; i < n; ++i) {
          const bool exact = store == Store::f32 || store == Store::master || store == Store::split;
          w64[i] = exact ? value(a.truth[i]) : value(low_value(bf16, a.w[i]));
          g64[i] = (low_gradient ? value(g16[i]) : value(a.g[i])) * 0.25;
        }
        double sums[2], want[2];
        adafactor_moments(cpu_queue(), u, sums);
        ref::adafactor_moments(u, w64.data(), g64.data(), m64.data(), v64.data(), factor64.data(), want);
        for (int k = 0; k < 2; ++k) CHECK(std::abs(sums[k] - want[k]) <= 2e-5 * want[k]);
        check_close("m", m, m64, [&](std::int64_t i) { return 2e-6 * m64[i]; });
        if (c.rows > 0) check_close("v", v, v64, [&](std::int64_t i) { return 2e-5 * v64[i]; });  // f32 columns of at most 256 rows
        u.lr = 0.05;
        update(cpu_queue(), u);
        const ref::Adafactor<double> rule(u);
        double worst = 0;
        for (std::int64_t i = 0; i < n; ++i) {
          rule(g64[i], w64[i], ref::second_moment(u, m64.data(), v64.data(), factor64.data(), i));
          double got = 0, spacing = 0;
          switch (store) {
            case Store::f32:
            case Store::master: got = value(a.truth[i]); break;
            case Store::split: got = value(ref::join({std::bit_cast<bf16_t>(a.w[i]), static_cast<std::int16_t>(a.rest[i])})); break;
            case Store::kahan: got = value(low_value(bf16, a.w[i])) + value(low_value(bf16, a.rest[i])), spacing = 0x1p-17; break;
            case Store::pure: got = value(low_value(bf16, a.w[i])), spacing = 0x1p-8; break;
            default: got = value(low_value(bf16, a.w[i])), spacing = 0x1p-7;
          }
          worst = std::max(worst, std::abs(got - w64[i]) / (spacing * std::abs(w64[i]) + 2e-5 * (std::abs(w64[i]) + 0.05 * std::abs(g64[i]) + 0.1)));
        }
        CHECK(worst <= 1);
        CHECK((a.intact() && m.intact() && v.intact() && factor.intact()));
      }
}

TEST_CASE("adafactor's sums do not depend on the number of threads") {
  const std::int64_t rows = 1500, columns = 40, n = rows * columns;
  const int before = num_threads();
  const auto run = [&](int threads) {
    set_num_threads(threads);
    Arrays a(n, 0);
    Guarded<float> m(rows, 0, [] { return 0.0; }), v(columns, 0, [] { return 0.0; }), factor(rows);
    Update u = rule_of(Rule::adafactor);
    u.n = n, u.g = a.g.data(), u.w = a.truth.data(), u.m = m.data(), u.v = v.data(), u.factor = factor.data(), u.rows = rows, u.columns = columns;
    double sums[2];
    adafactor_moments(cpu_queue(), u, sums);
    set_num_threads(before);
    std::vector<double> all = v.values();
    all.insert(all.end(), sums, sums + 2);
    return all;
  };
  CHECK(run(1) == run(3));
}
