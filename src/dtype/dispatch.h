// dispatch.h - from a dtype to a C++ type, once, at an op's boundary.
#pragma once

#include <utility>

#include <mezzo/dtype.h>

#include "core/fail.h"

namespace mezzo {
namespace detail {

// Calls f.operator()<T>() for the T among Ts whose dtype is `dtype`; all must return the same type.
template <class T, class... Ts, class F> decltype(auto) dispatch(Dtype dtype, std::string_view op, std::string_view wanted, F&& f) {
  if (dtype == dtype_of<T>) return f.template operator()<T>();
  if constexpr (sizeof...(Ts) > 0) return dispatch<Ts...>(dtype, op, wanted, std::forward<F>(f));
  else fail(op, fmt::format("got dtype {}, wanted {}", name(dtype), wanted));
}

}  // namespace detail

/// f32, f16, bf16, f64: `dispatch_float(x.dtype(), "op", [&]<class T> { ... })`. Error that names the op and the dtype otherwise.
template <class F> decltype(auto) dispatch_float(Dtype dtype, std::string_view op, F&& f) {
  return detail::dispatch<float, f16_t, bf16_t, double>(dtype, op, "f32, f16, bf16 or f64", std::forward<F>(f));
}

/// f32, f16, bf16: what vector kernels compute in f32.
template <class F> decltype(auto) dispatch_low_or_f32(Dtype dtype, std::string_view op, F&& f) {
  return detail::dispatch<float, f16_t, bf16_t>(dtype, op, "f32, f16 or bf16", std::forward<F>(f));
}

/// f16, bf16.
template <class F> decltype(auto) dispatch_16bit(Dtype dtype, std::string_view op, F&& f) {
  return detail::dispatch<f16_t, bf16_t>(dtype, op, "f16 or bf16", std::forward<F>(f));
}

/// i32, i64.
template <class F> decltype(auto) dispatch_index(Dtype dtype, std::string_view op, F&& f) {
  return detail::dispatch<std::int32_t, std::int64_t>(dtype, op, "i32 or i64", std::forward<F>(f));
}

/// Every dtype but boolean: what arithmetic is defined for.
template <class F> decltype(auto) dispatch_number(Dtype dtype, std::string_view op, F&& f) {
  return detail::dispatch<float, f16_t, bf16_t, double, std::int32_t, std::int64_t, std::uint8_t>(dtype, op, "a number (not bool)",
                                                                                                  std::forward<F>(f));
}

/// Every dtype; boolean comes as bool.
template <class F> decltype(auto) dispatch_all(Dtype dtype, std::string_view op, F&& f) {
  return detail::dispatch<float, f16_t, bf16_t, double, std::int32_t, std::int64_t, std::uint8_t, bool>(dtype, op, "a known dtype",
                                                                                                        std::forward<F>(f));
}

}  // namespace mezzo
