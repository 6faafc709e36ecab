// observer.h - someone who watches a thread's recorded ops and the gradients that flow back through them.
#pragma once

#include <span>

#include "autograd/node.h"

namespace mezzo::autograd {

/// Sees what happens; changes nothing. Tensors are only valid during the call (what saves memory may reuse them afterwards).
class Observer {
 public:
  /// An op has run and was recorded as `node`.
  virtual void forward(const Node& node, std::span<const Tensor> outputs, std::span<const Operand> inputs) = 0;
  /// The backward of `node` is about to run on the gradients of its outputs; undefined ones did not arrive.
  virtual void backward(const Node& node, std::span<const Tensor> gradients) = 0;
  /// It gave input `input` this gradient; of a leaf, and where it was added to what waited for the input, the sum so far.
  virtual void gave(const Node& node, int input, const Tensor& gradient) = 0;

 protected:
  ~Observer() = default;
};

/// This thread's, or null.
Observer*& observer() noexcept;

/// Sets this thread's observer for a scope; null: nobody watches.
class ObserverScope {
 public:
  [[nodiscard]] explicit ObserverScope(Observer* o) : before_(observer()) { observer() = o; }
  ~ObserverScope() { observer() = before_; }
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  Observer* before_;
};

}  // namespace mezzo::autograd
