// helpers.h - parameters with given elements and gradients, and what memory a piece of code keeps.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <mezzo/autograd.h>
#include <mezzo/optim.h>
#include <mezzo/runtime.h>

namespace mezzo::test {

inline Tensor parameter(std::vector<float> values, Shape shape, Dtype dtype = f32) {
  return tensor(std::move(values), std::move(shape), {.dtype = dtype, .requires_grad = true});
}

inline void set_gradient(const Tensor& w, std::vector<float> values) { w.set_grad(tensor(std::move(values), w.shape(), {.dtype = w.dtype()})); }

/// Elements as 64 bits each: equal means the same bits.
inline std::vector<std::uint64_t> bits(const Tensor& t) {
  const Tensor c = t.detach().contiguous();
  std::vector<std::uint64_t> out;
  const auto take = [&](const auto& span) {
    for (const auto& x : span)
      out.push_back(
          std::bit_cast<
              std::conditional_t<sizeof x == 1, std::uint8_t,
                                 std::conditional_t<sizeof x == 2, std::uint16_t, std::conditional_t<sizeof x == 4, std::uint32_t, std::uint64_t>>>>(
              x));
  };
  switch (c.dtype()) {
    case f32: take(c.data<float>()); break;
    case f64: take(c.data<double>()); break;
    case f16: take(c.data<f16_t>()); break;
    case bf16: take(c.data<bf16_t>()); break;
    case i64: take(c.data<std::int64_t>()); break;
    case u8: take(c.data<std::uint8_t>()); break;
    default: FAIL("bits: unexpected dtype");
  }
  return out;
}

inline const Tensor& named(const StateDict& state, const std::string& name) {
  for (const auto& [n, t] : state)
    if (n == name) return t;
  FAIL("no tensor " << name);
  throw 0;
}

inline std::int64_t bytes_of(Memory m) { return memory_report().bytes[static_cast<std::size_t>(m)]; }

/// The message of the Error that f throws.
template <class F> std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "(no error)";
}
inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace mezzo::test

#define CHECK_ERROR(expression, ...)                                                                         \
  do {                                                                                                       \
    const std::string message_ = mezzo::test::error_of([&] { (void)(expression); });                         \
    for (const char* part_ : {__VA_ARGS__}) CHECK_MESSAGE(mezzo::test::contains(message_, part_), message_); \
  } while (false)
