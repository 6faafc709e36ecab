// overflow.cpp - the op in which an Inf or NaN began.
#include <deque>

#include <mezzo/inspect.h>

#include "autograd/observer.h"
#include "inspect/places.h"

namespace mezzo::inspect {
namespace {

bool whole(const Ranges& r) { return r.inf == 0 && r.nan == 0; }
bool whole(const Tensor& t) { return !t.defined() || !is_floating(t.dtype()) || whole(ranges(t)); }

class Detective final : public autograd::Observer {
 public:
  void forward(const autograd::Node& node, std::span<const Tensor> outputs, std::span<const Operand> inputs) override {
    const autograd::ObserverScope unseen(nullptr);
    const std::string& place = places_.enter(node, inputs);
    if (found_) return;
    for (const auto& y : outputs)
      if (!whole(y)) {
        std::vector<Tensor> values;
        for (const auto& in : inputs) values.push_back(in.value);
        return report(node, place, false, y, values);
      }
    remember(place, node);
  }
  void backward(const autograd::Node& node, std::span<const Tensor> gradients) override {
    const autograd::ObserverScope unseen(nullptr);
    if (found_) return;
    for (const auto& g : gradients)
      if (!whole(g)) {
        report(node, places_.of(node), true, g, gradients);
        found_->arrived = true;
        return;
      }
    remember(places_.of(node), node, " backward");
    arrived_.assign(gradients.begin(), gradients.end());
  }
  void gave(const autograd::Node& node, int, const Tensor& gradient) override {
    const autograd::ObserverScope unseen(nullptr);
    if (found_ || whole(gradient)) return;
    before_.pop_back();  // itself
    report(node, places_.of(node), true, gradient, arrived_);
  }
  std::optional<Overflow> found() { return std::move(found_); }

 private:
  static constexpr std::size_t kBefore = 8;

  void remember(const std::string& place, const autograd::Node& node, const char* what = "") {
    if (before_.size() == kBefore) before_.pop_front();
    before_.push_back(place + (place.empty() ? "" : " ") + std::string(name(node.op)) + what);
  }
  void report(const autograd::Node& node, const std::string& place, bool backward, const Tensor& bad, std::span<const Tensor> inputs) {
    found_ = Overflow{.module = place, .op = std::string(name(node.op)), .backward = backward, .nan = ranges(bad).nan > 0, .dtype = bad.dtype()};
    for (const auto& t : inputs)
      if (t.defined() && is_floating(t.dtype())) found_->inputs.push_back(ranges(t));
    found_->before.assign(before_.begin(), before_.end());
  }

  Places places_;
  std::deque<std::string> before_;
  std::vector<Tensor> arrived_;
  std::optional<Overflow> found_;
};

}  // namespace

std::optional<Overflow> find_overflow(const std::function<void()>& step) {
  Detective detective;
  const autograd::ObserverScope watching(&detective);
  step();
  return detective.found();
}

}  // namespace mezzo::inspect
