// autograd.h - gradients of values, grad mode, functions of your own, checkpointing.
#pragma once

#include <concepts>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include <mezzo/policy.h>
#include <mezzo/tensor.h>

namespace mezzo::autograd {

struct GradOptions {
  std::vector<Tensor> grad_outputs = {};  ///< one an output; may be left out for outputs of one element (1)
  bool create_graph = false;              ///< the result is differentiable itself; implies retain_graph
  bool retain_graph = false;
  bool allow_unused = false;  ///< an input that does not reach an output gives an undefined tensor instead of an Error
};
/// d(sum of outputs . grad_outputs) / d(inputs), without touching any .grad.
MEZZO_API std::vector<Tensor> grad(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs, const GradOptions& = {});

/// Grad mode of this thread: on unless a NoGrad lives.
MEZZO_API bool grad_enabled();

/// Ops inside its scope record nothing; nests, restores on unwind.
class MEZZO_API NoGrad {
 public:
  [[nodiscard]] NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};
/// fn() under NoGrad.
template <class F> decltype(auto) no_grad(F&& fn) {
  const NoGrad guard;
  return std::forward<F>(fn)();
}

/// What a custom function keeps between forward and backward.
class MEZZO_API Context {
 public:
  /// Tensors that backward needs; a later in-place change of one is an Error there.
  void save(std::vector<Tensor> tensors) { saved_ = std::move(tensors); }
  const std::vector<Tensor>& saved() const { return saved_; }

 private:
  friend struct FunctionAccess;
  std::vector<Tensor> saved_;
};

namespace function_detail {
using Tensors = std::vector<Tensor>;
struct FunctionCall {
  std::function<Tensors(Context&, const Tensors&)> forward;
  std::function<Tensors(Context&, const Tensors&)> backward;
  const amp::FunctionOptions* options = nullptr;
};
MEZZO_API Tensors apply(FunctionCall, const Tensors& inputs);

inline Tensors as_vector(Tensor t) {
  Tensors v;
  v.push_back(std::move(t));
  return v;
}
inline Tensors as_vector(Tensors t) { return t; }
template <class F, std::size_t... I> decltype(auto) call_with(F&& f, Context& c, const Tensors& t, std::index_sequence<I...>) {
  return f(c, t[I]...);
}
}  // namespace function_detail

/// A function with a backward of its own: derive as `struct Square : Function<Square>` and give it static forward(Context&, const Tensor&...) ->
/// Tensor or vector<Tensor>, and backward(Context&, const Tensor& dy...) -> Tensor or vector<Tensor> in input order (undefined: no gradient). forward
/// runs without grad mode. An optional `static constexpr amp::FunctionOptions options` sets its precision: then backward runs in forward's autocast
/// state.
template <class Derived> struct Function {
  template <class... T>
  requires(std::same_as<std::remove_cvref_t<T>, Tensor>&&...) static auto apply(const T&... inputs) {
    using Result = std::remove_cvref_t<decltype(Derived::forward(std::declval<Context&>(), inputs...))>;
    function_detail::FunctionCall call;
    call.forward = [](Context& c, const function_detail::Tensors& in) {
      return function_detail::as_vector(
          function_detail::call_with([](auto&&... a) { return Derived::forward(a...); }, c, in, std::make_index_sequence<sizeof...(T)>{}));
    };
    call.backward = [](Context& c, const function_detail::Tensors& dy) { return function_detail::as_vector(call_backward(c, dy)); };
    if constexpr (requires { Derived::options; }) call.options = &Derived::options;
    auto out = function_detail::apply(std::move(call), {inputs...});
    if constexpr (std::same_as<Result, Tensor>) return std::move(out[0]);
    else return out;
  }

 private:
  template <std::size_t... I> static constexpr bool takes(std::index_sequence<I...>) {
    return requires(Context & c, const function_detail::Tensors& dy) { Derived::backward(c, dy[I]...); };
  }
  /// As many gradients as backward takes one by one, or all in a vector.
  template <std::size_t N = 1> static auto call_backward(Context& c, const function_detail::Tensors& dy) {
    constexpr std::size_t kMostApart = 16;
    constexpr auto kEach = std::make_index_sequence<N>();
    if constexpr (takes(kEach)) return function_detail::call_with([](auto&&... a) { return Derived::backward(a...); }, c, dy, kEach);
    else if constexpr (N < kMostApart) return call_backward<N + 1>(c, dy);
    else return Derived::backward(c, dy);
  }
};

/// fn(inputs) without keeping what its ops would save: backward runs it again, in the same autocast state and with the same random numbers.
/// Parameters that fn uses receive their gradients too. No second derivatives (Error).
MEZZO_API Tensor checkpoint(std::function<Tensor(const std::vector<Tensor>&)> fn, std::vector<Tensor> inputs);

}  // namespace mezzo::autograd
