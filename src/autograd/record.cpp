// record.cpp - connecting a node to the graph, and freeing a graph of any depth.
#include <algorithm>
#include <atomic>
#include <utility>

#include "autograd/node.h"
#include "autograd/observer.h"
#include "core/fail.h"

namespace mezzo {

// Freeing a node can free the one before it, and so on down the graph: a list instead of the stack.
void detail::destroy(GraphNode* node) noexcept {
  thread_local std::vector<GraphNode*> waiting;
  thread_local bool running = false;
  waiting.push_back(node);
  if (running) return;
  running = true;
  while (!waiting.empty()) {
    auto* next = static_cast<autograd::Node*>(waiting.back());
    waiting.pop_back();
    delete next;
  }
  running = false;
}

namespace autograd {
namespace {
std::uint64_t next_sequence() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed) + 1;
}
bool wants_gradient(const Tensor& t) { return t.defined() && t.impl()->requires_grad; }
thread_local LeafLog* leaf_log = nullptr;  // the innermost
}  // namespace

mezzo::detail::Edge gradient_edge(const Tensor& t) {
  if (!wants_gradient(t)) return {};
  if (t.impl()->edge) return t.impl()->edge;
  return {{}, Ref<mezzo::detail::TensorImpl>(t.impl()), 0};
}

void let_remake(const Tensor& out, std::initializer_list<Tensor> from, std::function<Tensor(const std::vector<Tensor>&)> make) {
  Node* const node = node_of(out.impl()->edge);
  if (!node) return;
  node->remake = std::make_shared<Remake>(Remake{node->op, {}, std::move(make)});
  for (const auto& t : from) node->remake->from.push_back({t, t.defined() ? t.version() : 0});
}

bool should_record(std::span<const Operand> inputs) {
  if (!context().grad) {
    if (leaf_log) leaf_log->note(inputs);
    return false;
  }
  for (const auto& i : inputs)
    if (wants_gradient(i.original)) return true;
  return false;
}

LeafLog::LeafLog() : outer_(std::exchange(leaf_log, this)) {}
LeafLog::~LeafLog() { leaf_log = outer_; }
void LeafLog::note(std::span<const Operand> inputs) {
  for (const auto& i : inputs) {
    auto* const t = i.original.impl();
    if (!t || !t->requires_grad || t->edge) continue;
    if (std::none_of(leaves_.begin(), leaves_.end(), [&](const auto& leaf) { return leaf.get() == t; })) leaves_.emplace_back(t);
  }
  if (outer_) outer_->note(inputs);
}

void detail_node::connect(Node& node, OpId op, Tensor& out, std::initializer_list<Operand> inputs, std::initializer_list<Tensor> saved) {
  autograd::connect(node, op, {&out, 1}, {inputs.begin(), inputs.size()}, {saved.begin(), saved.size()});
}

void connect(Node& node, OpId op, std::span<Tensor> outputs, std::span<const Operand> inputs, std::span<const Tensor> saved) {
  const Ref<mezzo::detail::GraphNode> holder(&node);
  node.op = op;
  node.sequence = next_sequence();
  node.edges.reserve(inputs.size());
  node.inputs.reserve(inputs.size());
  for (const auto& i : inputs) {
    node.edges.push_back(gradient_edge(i.original));
    node.inputs.push_back(i.original.defined() ? TensorMeta{i.original.impl()->shape, i.original.impl()->dtype} : TensorMeta{});
  }
  node.saved.reserve(saved.size());
  for (const auto& t : saved) {
    SavedTensor s;
    if (t.defined()) {
      s.version = t.version();
      for (std::size_t i = 0; i < inputs.size() && s.input < 0; ++i)
        if (inputs[i].value.impl() == t.impl() || inputs[i].original.impl() == t.impl()) s.input = static_cast<int>(i);
      for (std::size_t o = 0; o < outputs.size() && s.input < 0; ++o)
        if (outputs[o].impl() == t.impl()) s.output = static_cast<int>(o);
      const Node* const maker = s.input >= 0 ? node_of(t.impl()->edge) : nullptr;
      if (maker && maker->remake && t.impl()->edge.index == 0 && t.shape() == maker->outputs[0].shape) s.remake = maker->remake;
      else s.data = s.output >= 0 ? alias_of(t) : t;  // an output that held itself through its node would never be freed
    }
    node.saved.push_back(std::move(s));
  }
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    auto* impl = outputs[o].impl();
    node.outputs.push_back({impl->shape, impl->dtype});
    if (!is_floating(impl->dtype)) continue;
    impl->requires_grad = true;
    impl->edge = {holder, {}, static_cast<int>(o)};
  }
  if (auto* o = observer()) o->forward(node, outputs, inputs);
}

Observer*& observer() noexcept {
  thread_local Observer* current = nullptr;
  return current;
}

}  // namespace autograd
}  // namespace mezzo
