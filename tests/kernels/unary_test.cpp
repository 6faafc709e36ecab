// unary_test.cpp - unary functions and derivatives, SwiGLU: f32 in ulps of f64's libm, all values of the 16-bit formats, edges, tails, in place.
#include <bit>
#include <cstdio>

#include <mezzo/runtime.h>

#include "kernels/enumerate.h"
#include "kernels/kernels.h"
#include "kernels/ref/elementwise.h"
#include "ulp.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr const char* kNames[] = {"neg",  "abs",  "exp",  "log",       "sqrt",     "rsqrt", "tanh", "sigmoid",
                                  "relu", "silu", "gelu", "gelu_tanh", "softplus", "sin",   "cos"};
static_assert(std::size(kNames) == static_cast<std::size_t>(Unary::count));

template <class F> void for_each_unary(F f) {
  for (int i = 0; i < static_cast<int>(Unary::count); ++i) with_constant(static_cast<Unary>(i), [&](auto which) { f(which, kNames[i]); });
}

// Errors that the f32 arithmetic may make, in ulps: half an ulp for each rounding on the way that is not exact, and the polynomials' part.
double f32_bound(Unary op, double x) {
  switch (op) {
    case Unary::neg:
    case Unary::abs:
    case Unary::relu: return 0;
    case Unary::sqrt: return 0.5;
    case Unary::exp: return 1.1;
    case Unary::log: return 1;
    case Unary::rsqrt: return 1.5;  // the root's half ulp is up to one of the result
    case Unary::tanh: return 2.6;
    case Unary::sigmoid: return 2.6;
    case Unary::silu: return 3.1;
    case Unary::gelu: return 8;
    case Unary::gelu_tanh:
      return 4 + 3 * std::min(110.0, std::abs(ref::kGeluLinear * x + ref::kGeluCubic * x * x * x));  // exp's argument is itself rounded
    case Unary::softplus: return 3;
    default: return 0.501;  // sin, cos: f64 inside
  }
}

// Among subnormal results, and factors of results, errors are absolute: one or two units of 2^-149, times x where x multiplies the factor.
double subnormal_error(Unary op, double x) {
  if (op == Unary::neg || op == Unary::abs || op == Unary::relu) return 0;
  return 0x1p-149 * (op == Unary::gelu || op == Unary::silu || op == Unary::gelu_tanh ? 2 * std::min(110.0, std::abs(x)) : 2);
}

std::vector<float> f32_sample() {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < (std::uint64_t{1} << 32); bits += 40009) x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  for (int i = 0; i < 200000; ++i) x.push_back(-110 + 220.0f * static_cast<float>(i) / 200000);  // where the exponentials live
  for (int i = 0; i < 50000; ++i) x.push_back(static_cast<float>(i) * 0x1.921fb6p0f);            // near zeros of sin and cos
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (std::uint32_t mantissa : {0u, 1u, 0x3504f3u, 0x3504f4u, 0x400000u, 0x7fffffu}) {
      for (std::uint32_t sign : {0u, 1u}) x.push_back(std::bit_cast<float>(sign << 31 | exponent << 23 | mantissa));
    }
  }
  return x;
}

// Every value of a 16-bit format, an f32 sample otherwise.
template <class T> Guarded<T> all_values() {
  if constexpr (sizeof(T) == 2) {
    Guarded<T> x(65536, 1);
    for (int i = 0; i < 65536; ++i) x[i].bits = static_cast<std::uint16_t>(i);
    return x;
  } else {
    const std::vector<float> sample = f32_sample();
    Guarded<T> x(static_cast<std::int64_t>(sample.size()), 1);
    std::copy(sample.begin(), sample.end(), x.data());
    return x;
  }
}

// The error in ulps of T that is allowed when f32 arithmetic errs by `f32_ulps`: that, and one rounding.
template <class T> double bound(double want, double f32_ulps) {
  return sizeof(T) == 4 ? std::max(f32_ulps, 1e-9) : 0.5 + 1e-9 + f32_ulps * ulp<float>(want) / ulp<T>(want);
}

template <class T> void check_forward() {
  const Guarded<T> x = all_values<T>();
  for_each_unary([&](auto which, const char* op) {
    Guarded<T> y(x.size(), 3);
    unary(cpu_queue(), which, dtype_of<T>, x.data(), y.data(), x.size());
    Worst ulps, allowed;
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const double in = value(x[i]), want = ref::unary<which()>(in), error = error_in_ulps(y[i], want);
      if (std::abs(want) >= 0x1p-126) ulps.look(error, in, value(y[i]), want);
      const double f32_ulps = f32_bound(which, in) + (std::abs(want) < 0x1p-120 ? subnormal_error(which, in) / ulp<float>(want) : 0);
      allowed.look(error == 0 ? 0 : error / bound<T>(want, f32_ulps), in, value(y[i]), want);
    }
    std::printf("%-4s %-4s %-9s worst %s\n", std::string(name(active_isa())).c_str(), std::string(name(dtype_of<T>)).c_str(), op,
                ulps.text().c_str());
    CHECK_MESSAGE(allowed.error() <= 1, std::string(op), " ", name(dtype_of<T>), ": share of the bound ", allowed.text());
    CHECK(y.intact());
  });
}

// Whether a derivative that is taken from the output can meet this output.
bool possible(Unary op, double s) {
  switch (op) {
    case Unary::exp:
    case Unary::rsqrt:
    case Unary::relu: return !(s < 0);
    case Unary::sqrt: return !(s < 0) && !(s > 0x1p64 && std::isfinite(s));
    case Unary::tanh: return !(std::abs(s) > 1);
    case Unary::sigmoid: return !(s < 0) && !(s > 1);
    default: return true;
  }
}

// What the derivative's terms add up to where they cancel; the error is relative to it.
double slope_size(Unary op, double s) {
  const double x = ref::finite(s);
  switch (op) {
    case Unary::tanh: return std::abs(1 - s) * std::abs(1 + s);
    case Unary::silu: return ref::sigmoid(x) * (1 + std::abs(x) * ref::sigmoid(-x));
    case Unary::gelu: return ref::normal_cdf(x) + std::abs(x) * ref::kInvSqrtTwoPi * std::exp(-x * x / 2);
    case Unary::gelu_tanh: {
      const double z = x * (ref::kGeluLinear + ref::kGeluCubic * x * x);
      return ref::sigmoid(z) * (1 + std::abs(x) * ref::sigmoid(-z) * (ref::kGeluLinear + 3 * ref::kGeluCubic * x * x));
    }
    default: return 0;
  }
}

double slope_bound(Unary op, double s) {
  switch (op) {
    case Unary::gelu: return 12;
    case Unary::gelu_tanh: return 8 + 4 * std::min(110.0, std::abs(ref::kGeluLinear * s + ref::kGeluCubic * s * s * s));
    case Unary::silu:
    case Unary::softplus: return 8;
    default: return 4;
  }
}

template <class T> void check_backward() {
  const Guarded<T> s = all_values<T>();
  const Guarded<T> dy(s.size(), 2, Normals(5));
  for_each_unary([&](auto which, const char* op) {
    Guarded<T> dx(s.size(), 3);
    unary_backward(cpu_queue(), which, dtype_of<T>, s.data(), dy.data(), dx.data(), s.size());
    Worst allowed;
    for (std::int64_t i = 0; i < s.size(); ++i) {
      if (!possible(which, value(s[i]))) continue;
      const double in = value(s[i]), slope = value(dy[i]), want = ref::unary_backward<which()>(in, slope);
      const double size = std::max(std::abs(want), slope_size(which, in) * std::abs(slope)) * slope_bound(which, in) * kUnit32;
      const double far = std::min(std::abs(in), 110.0), near = std::min(far, 20.0),
                   factor = which == Unary::gelu_tanh ? near * (2 + near * near / 4) : far;
      const double subnormal = 0x1p-149 * (4 + std::abs(slope) * (4 + factor));  // of intermediate results
      const double tolerance = size + subnormal + (sizeof(T) == 2 ? ulp<T>(want) / 2 : 0);
      const double error = error_in_ulps(dx[i], want);
      allowed.look(error == 0 ? 0 : error * ulp<T>(want) / tolerance, in, value(dx[i]), want);
    }
    CHECK_MESSAGE(allowed.error() <= 1, std::string(op), "' ", name(dtype_of<T>), ": share of the bound ", allowed.text());
    CHECK(dx.intact());
  });
}

// Short and misaligned: the same bits as in the middle of a long array, nothing written outside; and in place.
template <class T> void check_tails() {
  Normals normal(3, 2);
  const Guarded<T> x(512, 0, normal), dy(512, 0, normal);
  for_each_unary([&](auto which, const char* op) {
    CAPTURE(op);
    Guarded<T> y(512), dx(512);
    unary(cpu_queue(), which, dtype_of<T>, x.data(), y.data(), 512);
    unary_backward(cpu_queue(), which, dtype_of<T>, x.data(), dy.data(), dx.data(), 512);
    for (const std::int64_t n : lengths({63, 64, 65})) {
      for (const std::int64_t offset : {0, 1, 3}) {
        Guarded<T> a(n, offset), b(n, offset + 1);
        std::copy_n(x.data() + offset, n, a.data());
        std::copy_n(dy.data() + offset, n, b.data());
        unary_backward(cpu_queue(), which, dtype_of<T>, a.data(), b.data(), b.data(), n);
        unary(cpu_queue(), which, dtype_of<T>, a.data(), a.data(), n);
        CHECK(std::memcmp(a.data(), y.data() + offset, n * sizeof(T)) == 0);
        CHECK(std::memcmp(b.data(), dx.data() + offset, n * sizeof(T)) == 0);
        CHECK((a.intact() && b.intact()));
      }
    }
  });
}

template <class T> void check_swiglu() {
  for (const std::int64_t n : lengths({63, 1000, 40001})) {
    Normals normal(static_cast<unsigned>(n) + 1, 3);
    const Guarded<T> gate(n, 1, normal), up(n, 2, normal), dy(n, 3, normal);
    Guarded<T> y(n), dgate(n, 1), dup(n, 2);
    swiglu(cpu_queue(), dtype_of<T>, gate.data(), up.data(), y.data(), n);
    swiglu_backward(cpu_queue(), dtype_of<T>, gate.data(), up.data(), dy.data(), dgate.data(), dup.data(), n);
    std::vector<double> want_y, want_gate, want_up;
    for (std::int64_t i = 0; i < n; ++i) {
      const double g = value(gate[i]), u = value(up[i]), d = value(dy[i]);
      want_y.push_back(ref::swiglu(g, u));
      want_gate.push_back(complex_step({g, u}, 0, [](const auto& v) { return ref::swiglu(v[0], v[1]); }) * d);
      want_up.push_back(complex_step({g, u}, 1, [](const auto& v) { return ref::swiglu(v[0], v[1]); }) * d);
    }
    const double f32_part = sizeof(T) == 8 ? 1e-15 : 8 * kUnit32, store = sizeof(T) == 2 ? unit<T>() : 0;
    const auto relative = [&](const std::vector<double>& want) {
      return [&, store](std::int64_t i) { return (f32_part + store) * std::abs(want[i]) + tiny<T>() + 1e-40; };
    };
    check_close("swiglu", y, want_y, relative(want_y));
    check_close("swiglu_backward up", dup, want_up, relative(want_up));
    check_close("swiglu_backward gate", dgate, want_gate, [&](std::int64_t i) {
      return f32_part * slope_size(Unary::silu, value(gate[i])) * std::abs(value(up[i]) * value(dy[i])) + store * std::abs(want_gate[i]) + tiny<T>() +
             1e-40;
    });
  }
}

}  // namespace

TEST_CASE("unary: f32 within a few ulp of f64") { check_forward<float>(); }
TEST_CASE("unary: every f16 and every bf16, rounded once") {
  check_forward<f16_t>();
  check_forward<bf16_t>();
}

TEST_CASE("unary: the derivatives of ref are those of its functions") {
  for_each_unary([](auto which, const char* op) {
    for (double x : {-9.25, -3.0, -1.5, -0.7, -1e-3, 1e-3, 0.3, 1.0, 2.5, 6.75}) {
      if (x < 0 && (which == Unary::log || which == Unary::sqrt || which == Unary::rsqrt)) continue;
      if (which == Unary::gelu && x < -4) continue;  // where the series of the complex Phi cancels
      const double want = complex_step({x}, 0, [&](const auto& v) { return ref::unary<decltype(which)::value>(v[0]); });
      const double saved = derivative_from_output(which) ? ref::unary<which()>(x) : x;
      const double got = ref::unary_backward<which()>(saved, 1.0);
      CHECK_MESSAGE(std::abs(got - want) <= 1e-12 * std::max(1.0, std::abs(want)), std::string(op), " at ", x, ": ", got, ", complex step ", want);
    }
  });
}

TEST_CASE("unary_backward: f32, every f16, every bf16") {
  check_backward<float>();
  check_backward<f16_t>();
  check_backward<bf16_t>();
}

TEST_CASE("unary: tails, misaligned pointers, in place") {
  check_tails<float>();
  check_tails<f16_t>();
  check_tails<bf16_t>();
  check_tails<double>();
}

TEST_CASE("unary: f64 is libm's") {
  const Guarded<double> x(5000, 1, Normals(2, 3));
  Guarded<double> y(5000);
  unary(cpu_queue(), Unary::exp, f64, x.data(), y.data(), 5000);
  for (std::int64_t i = 0; i < 5000; ++i) CHECK(y[i] == std::exp(x[i]));
  unary(cpu_queue(), Unary::gelu, f64, x.data(), y.data(), 5000);
  for (std::int64_t i = 0; i < 5000; ++i) CHECK(std::abs(y[i] - x[i] * 0.5 * (1 + std::erf(x[i] / std::sqrt(2.0)))) <= 1e-15 * (1 + std::abs(x[i])));
}

TEST_CASE("swiglu: forward and gradients") {
  check_swiglu<float>();
  check_swiglu<f16_t>();
  check_swiglu<bf16_t>();
  check_swiglu<double>();
}
