// enumerate.h - from a run-time enumerator to a template argument, once a kernel call.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace mezzo::kernels {
namespace detail {

template <class E, std::size_t first, std::size_t last, class F> decltype(auto) with_constant(E value, F&& f) {
  if constexpr (first + 1 < last) {
    if (static_cast<std::size_t>(value) != first) return with_constant<E, first + 1, last>(value, std::forward<F>(f));
  }
  return f(std::integral_constant<E, static_cast<E>(first)>());
}

}  // namespace detail

/// f(std::integral_constant<E, value>): E's enumerators are 0 .. E::count - 1.
template <class E, class F> decltype(auto) with_constant(E value, F&& f) {
  return detail::with_constant<E, 0, static_cast<std::size_t>(E::count)>(value, std::forward<F>(f));
}

}  // namespace mezzo::kernels
