// function.cpp - functions with a user's backward, and checkpointing.
#include <mezzo/autograd.h>

#include "autograd/engine.h"
#include "core/fail.h"

namespace mezzo::autograd {

struct FunctionAccess {
  static std::vector<Tensor>& saved(Context& c) { return c.saved_; }
};

namespace {

class CustomNode final : public Node {
 public:
  explicit CustomNode(function_detail::FunctionCall call) : call_(std::move(call)) {}

  void run(Backward& b) override {
    Context c;
    for (std::size_t i = 0; i < saved.size(); ++i) FunctionAccess::saved(c).push_back(b.saved(static_cast<int>(i)));
    std::vector<Tensor> dy;
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const Tensor& g = b.dy(static_cast<int>(o));
      dy.push_back(g.defined() ? g : zeros(outputs[o].shape, {.dtype = outputs[o].dtype}));
    }
    const ContextScope scope;
    if (call_.options) {  // in forward's state
      context().autocast = autocast;
      context().cache = cache;
      context().dtype = dtype;
      context().policy = policy;
    }
    auto dx = call_.backward(c, dy);
    if (dx.size() != edges.size()) fail("Function", fmt::format("backward gave {} gradients, {} wanted: one an input", dx.size(), edges.size()));
    for (std::size_t i = 0; i < dx.size(); ++i) {
      if (!dx[i].defined()) continue;
      if (dx[i].shape() != inputs[i].shape)
        fail("Function",
             fmt::format("backward gave a gradient of shape {} for input {} of shape {}", to_string(dx[i].shape()), i, to_string(inputs[i].shape)));
      b.set(static_cast<int>(i), dx[i]);
    }
  }
  void forget() override { call_.backward = nullptr; }

  bool autocast = false, cache = true;
  Dtype dtype = Dtype::bf16;
  amp::Policy policy;

 private:
  function_detail::FunctionCall call_;
};

}  // namespace

function_detail::Tensors function_detail::apply(FunctionCall call, const Tensors& inputs) {
  std::vector<Operand> operands;
  const auto ambient = context();
  const bool casts = call.options && call.options->cast_inputs && ambient.autocast;
  for (const auto& t : inputs) operands.push_back(casts && t.defined() && eligible(t.dtype()) ? operand(t, *call.options->cast_inputs) : Operand(t));
  Context c;
  Tensors out;
  {
    const ContextScope scope;
    context().grad = false;
    if (casts) context().autocast = false;
    Tensors values;
    for (const auto& o : operands) values.push_back(o.value);
    out = call.forward(c, values);
  }
  if (!should_record(operands)) return out;
  for (auto& t : out) {  // an input handed through must not lose its own place in the graph
    require_defined("Function", t, "a result of forward");
    for (const auto& i : operands)
      if (t.impl() == i.value.impl()) t = alias_of(t);
  }
  auto* node = new CustomNode(std::move(call));
  node->callers_context = true;
  node->autocast = ambient.autocast && !casts;
  node->cache = ambient.cache;
  node->dtype = ambient.dtype;
  node->policy = ambient.policy;
  connect(*node, OpId::function, out, operands, c.saved());
  return out;
}

// ---- checkpoint ----------------------------------------------------------------------------------

namespace {

/// Draws as they were in forward, for a scope; then those of now again.
class RandomScope {
 public:
  explicit RandomScope(const Generator& then) : now_(default_generator()) { default_generator() = then; }
  ~RandomScope() { default_generator() = now_; }
  RandomScope(const RandomScope&) = delete;
  RandomScope& operator=(const RandomScope&) = delete;

 private:
  Generator now_;
};

class CheckpointNode final : public Node {
 public:
  using Fn = std::function<Tensor(const std::vector<Tensor>&)>;
  CheckpointNode(Fn fn, ExecutionContext ambient, Generator random, std::vector<Ref<mezzo::detail::TensorImpl>> leaves)
      : fn_(std::move(fn)), ambient_(std::move(ambient)), random_(random), leaves_(std::move(leaves)) {}

  void run(Backward& b) override {
    if (b.create_graph())
      fail("checkpoint", "a second derivative through a checkpointed function was asked for, which is not supported",
           "leave checkpoint out where create_graph is used");
    std::vector<Tensor> in;  // leaves that receive the gradients
    for (std::size_t i = 0; i < saved.size(); ++i) {
      Tensor t = b.saved(static_cast<int>(i));
      if (t.defined()) {
        t = t.detach();
        t.impl()->requires_grad = b.wants(static_cast<int>(i));
      }
      in.push_back(t);
    }
    Tensor y;
    {
      const ContextScope scope;
      const RandomScope random(random_);
      context() = ambient_;
      y = fn_(behind(in));
    }
    const Tensor dy = b.dy();
    if (b.captured().empty()) {
      run_backward({&y, 1}, {&dy, 1}, {});
      for (std::size_t i = 0; i < in.size(); ++i)
        if (in[i].defined()) b.set(static_cast<int>(i), in[i].grad());
      return;
    }
    std::vector<Tensor> wanted = in;  // and what the function used beside them
    wanted.insert(wanted.end(), b.captured().begin(), b.captured().end());
    const auto g = run_backward({&y, 1}, {&dy, 1}, {.capture = wanted});
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (!g[i].defined()) continue;
      if (i < in.size()) b.set(static_cast<int>(i), g[i]);
      else b.give(wanted[i], g[i]);
    }
  }
  void forget() override { fn_ = nullptr; }
  /// The same values as results of a node each, as they were in forward: gradients that meet there are added and rounded as they would have been,
  /// and not as a leaf's.
  static std::vector<Tensor> behind(const std::vector<Tensor>& leaves) {
    std::vector<Tensor> out;
    for (const auto& t : leaves)
      out.push_back(t.defined() && t.requires_grad() ? record(OpId::identity, alias_of(t), {t}, {}, [](Backward& g) { g.set(0, g.dy()); }) : t);
    return out;
  }
  bool hides_inputs() const override { return true; }
  std::span<const Ref<mezzo::detail::TensorImpl>> hidden_leaves() const override { return leaves_; }

 private:
  Fn fn_;
  ExecutionContext ambient_;
  Generator random_;
  std::vector<Ref<mezzo::detail::TensorImpl>> leaves_;  // that forward took beside its inputs
};

}  // namespace

Tensor checkpoint(std::function<Tensor(const std::vector<Tensor>&)> fn, std::vector<Tensor> inputs) {
  if (!fn) fail("checkpoint", "an empty function given", "it takes the inputs and returns one tensor");
  const auto ambient = context();
  const Generator random = default_generator();
  Tensor y;
  LeafLog log;
  {
    const GradMode off(false);
    y = fn(inputs);
  }
  require_defined("checkpoint", y, "the function's result");
  if (!ambient.grad) return y;
  for (const auto& t : inputs)
    if (t.impl() == y.impl()) y = alias_of(y);
  auto* node = new CheckpointNode(std::move(fn), ambient, random, log.take());
  std::vector<Operand> operands(inputs.begin(), inputs.end());
  connect(*node, OpId::checkpoint, {&y, 1}, operands, inputs);
  return y;
}

}  // namespace mezzo::autograd
