// tensor_graph.cpp - the part of Tensor that knows the graph, and the public functions of autograd.h.
#include <mezzo/autograd.h>

#include <algorithm>

#include "autograd/engine.h"
#include "core/fail.h"
#include "core/parts.h"
#include "tensor/buffers.h"
#include "tensor/layout.h"

namespace mezzo {

using autograd::record;

bool Tensor::requires_grad() const { return impl_ && impl_->requires_grad; }
bool Tensor::is_leaf() const { return !impl_ || !impl_->edge; }

Tensor& Tensor::requires_grad_(bool on) {
  require_defined("requires_grad_", *this, "this");
  if (on && requires_grad()) return *this;
  if (!is_leaf()) fail("requires_grad_", "a result of recorded ops given, a leaf wanted", "take detach() first");
  if (on && !is_floating(dtype())) fail("requires_grad_", fmt::format("a tensor of {} given, a floating one wanted", mezzo::name(dtype())));
  impl_->requires_grad = on;
  return *this;
}

Tensor Tensor::grad() const { return impl_ && impl_->extra ? impl_->extra->grad : Tensor(); }

void Tensor::set_grad(Tensor g) const {
  require_defined("set_grad", *this, "this");
  const auto fits = [&](Dtype d) { return d == dtype() || (is_16bit(dtype()) && d == Dtype::f32); };
  if (g.defined() && (g.shape() != shape() || !fits(g.dtype())))
    fail("set_grad",
         fmt::format("a gradient {} {} given for a tensor {} {}", to_string(g.shape()), mezzo::name(g.dtype()), to_string(shape()),
                     mezzo::name(dtype())),
         "shape and dtype must be the tensor's; for a 16-bit tensor f32 is right too");
  impl_->more().grad = std::move(g);
}

void Tensor::backward() const { backward(BackwardOptions{}); }

void Tensor::backward(const BackwardOptions& o) const {
  require_defined("backward", *this, "this");
  if (!requires_grad())
    fail("backward", "this tensor does not require grad and nothing was recorded for it",
         "did it come out of no_grad, or from inputs without requires_grad?");
  Tensor g = o.gradient;
  if (!g.defined()) {
    if (numel() != 1)
      fail("backward", fmt::format("a tensor of shape {} given, one element wanted", to_string(shape())),
           "pass .gradient, or take sum() or mean() first");
    g = ones(shape(), {.dtype = dtype()});
  } else if (g.shape() != shape()) {
    fail("backward", fmt::format("a gradient of shape {} given for a tensor of shape {}", to_string(g.shape()), to_string(shape())));
  }
  const Tensor root = *this;
  autograd::run_backward({&root, 1}, {&g, 1}, {.create_graph = o.create_graph, .retain_graph = o.retain_graph || o.create_graph});
}

HookHandle Tensor::register_hook(std::function<Tensor(const Tensor&)> f) {
  if (!requires_grad()) fail("register_hook", "a tensor that does not require grad given: its gradient never comes");
  if (!f) fail("register_hook", "an empty function given", "a hook takes the gradient and returns another, or an undefined Tensor");
  std::shared_ptr<detail::HookList>* list = nullptr;
  if (impl_->edge.node) {
    auto& hooks = autograd::node_of(impl_->edge)->hooks;
    const auto i = static_cast<std::size_t>(impl_->edge.index);
    if (hooks.size() <= i) hooks.resize(i + 1);
    list = &hooks[i];
  } else {
    list = &impl_->more().hooks;
  }
  if (!*list) *list = std::make_shared<detail::HookList>();
  HookHandle h;
  h.list_ = *list;
  h.id_ = (*list)->next_id++;
  (*list)->hooks.push_back({h.id_, std::move(f)});
  return h;
}

void HookHandle::remove() {
  if (!list_) return;
  auto& hooks = list_->hooks;
  hooks.erase(std::remove_if(hooks.begin(), hooks.end(), [&](const auto& h) { return h.id == id_; }), hooks.end());
  list_.reset();
}

// ---- conversions and copies ----------------------------------------------------------------------

// to: storage of either dtype, one rounding to nearest even. The engine converts the gradient back.
Tensor Tensor::to(Dtype dtype) const {
  require_defined("to", *this, "this");
  if (dtype == this->dtype()) return *this;
  const PartScope timed(Part::cast);
  Tensor y = make_tensor(impl_->shape, dtype);
  copy_elements(y, *this);
  if (!is_floating(dtype) || !is_floating(this->dtype())) return y;
  return record(OpId::to, y, {*this}, {}, [](autograd::Backward& g) { g.set(0, g.dy()); });
}

Tensor Tensor::clone() const {
  require_defined("clone", *this, "this");
  const Tensor y = make_tensor(impl_->shape, impl_->dtype);
  copy_elements(y, *this);
  return record(OpId::clone, y, {*this}, {}, [](autograd::Backward& g) { g.set(0, g.dy()); });
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

void* Tensor::checked_mutable_data(Dtype wanted) {
  const void* p = checked_data(wanted);
  before_write(*this);
  bump_version(*this);
  return const_cast<void*>(p);
}

namespace {
void check_writable(const char* op, const Tensor& dst) {
  require_defined(op, dst, "the destination");
  if (context().grad && dst.requires_grad())
    fail(op, "the destination requires grad, and grad mode is on: the graph would not see the write", "write under autograd::NoGrad, or to detach()");
}
}  // namespace

Tensor copy_(Tensor dst, const Tensor& src) {
  check_writable("copy_", dst);
  require_defined("copy_", src, "the source");
  if (context().grad && src.requires_grad())
    fail("copy_", "the source requires grad, and the graph would not see the write", "copy from detach(), or under autograd::NoGrad");
  if (broadcast_shapes("copy_", dst.shape(), src.shape()) != dst.shape())
    fail("copy_", fmt::format("source {} given, a shape that broadcasts to {} wanted", to_string(src.shape()), to_string(dst.shape())));
  for (int i = 0; i < dst.dim(); ++i)
    if (dst.impl()->strides[static_cast<std::size_t>(i)] == 0 && dst.size(i) > 1)
      fail("copy_", "the destination is an expanded view: several of its elements are one in memory", "copy into what it was expanded from");
  before_write(dst);
  copy_elements(dst, src.impl()->storage == dst.impl()->storage ? src.clone() : src);
  bump_version(dst);
  return dst;
}

Tensor fill_(Tensor dst, double value) {
  check_writable("fill_", dst);
  before_write(dst);
  kernels::fill(kernels::cpu_queue(), dst.dtype(), value, mutable_data(dst), strided({&dst}));
  bump_version(dst);
  return dst;
}

// ---- autograd.h ----------------------------------------------------------------------------------

namespace autograd {

bool grad_enabled() { return context().grad; }
NoGrad::NoGrad() : before_(context().grad) { context().grad = false; }
NoGrad::~NoGrad() { context().grad = before_; }

std::vector<Tensor> grad(const std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs, const GradOptions& o) {
  if (inputs.empty()) fail("grad", "no inputs given, at least one wanted");
  if (!o.grad_outputs.empty() && o.grad_outputs.size() != outputs.size())
    fail("grad", fmt::format("{} grad_outputs given for {} outputs", o.grad_outputs.size(), outputs.size()));
  std::vector<Tensor> gradients;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    require_defined("grad", outputs[i], "an output");
    Tensor g = o.grad_outputs.empty() ? Tensor() : o.grad_outputs[i];
    if (!outputs[i].requires_grad()) fail("grad", fmt::format("output {} does not require grad", i));
    if (!g.defined()) {
      if (outputs[i].numel() != 1)
        fail("grad", fmt::format("output {} has shape {}, one element wanted", i, to_string(outputs[i].shape())), "pass .grad_outputs");
      g = ones(outputs[i].shape(), {.dtype = outputs[i].dtype()});
    } else if (g.shape() != outputs[i].shape()) {
      fail("grad", fmt::format("grad_output {} has shape {}, {} wanted", i, to_string(g.shape()), to_string(outputs[i].shape())));
    }
    gradients.push_back(std::move(g));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!inputs[i].requires_grad()) fail("grad", fmt::format("input {} does not require grad", i));
  auto result =
      run_backward(outputs, gradients, {.create_graph = o.create_graph, .retain_graph = o.retain_graph || o.create_graph, .capture = inputs});
  for (std::size_t i = 0; i < result.size(); ++i)
    if (!result[i].defined() && !o.allow_unused)
      fail("grad", fmt::format("input {} does not reach any output", i), "pass .allow_unused = true to get an undefined gradient for it");
  return result;
}

}  // namespace autograd
}  // namespace mezzo
