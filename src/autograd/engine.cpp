// engine.cpp - the backward loop, gradient accumulation, and what a node sees of it.
#include "autograd/engine.h"

#include <algorithm>

#include "autograd/observer.h"
#include "core/fail.h"
#include "kernels/kernels.h"
#include "tensor/layout.h"

namespace mezzo::autograd {

using mezzo::detail::Edge;
using mezzo::detail::TensorImpl;

// ---- sums of gradients ---------------------------------------------------------------------------

/// a + b. A sum that is moved in is nobody else's, and may take the result.
// NOLINTNEXTLINE(performance-unnecessary-value-param): its count of owners says so
Tensor add_gradients(Tensor a, const Tensor& b) {
  const Dtype dtype = promote(a.dtype(), b.dtype());
  const bool reuse = !context().grad && a.dtype() == dtype && a.is_contiguous() && exclusively_owned(a);
  const Operand x = operand(a, dtype), y = operand(b, dtype);
  Tensor out = reuse ? x.value : make_tensor(x.value.shape(), dtype);
  kernels::binary(kernels::cpu_queue(), kernels::Binary::add, dtype, data(x.value), data(y.value), mutable_data(out),
                  strided({&out, &x.value, &y.value}));
  if (reuse) return out;
  return record(OpId::add, std::move(out), {x, y}, {}, [](Backward& g) {
    g.set(0, g.dy());
    g.set(1, g.dy());
  });
}

void accumulate_leaf(TensorImpl& leaf, Tensor g, bool create_graph) {
  auto& extra = leaf.more();
  const Dtype dtype = is_16bit(leaf.dtype) && (extra.grad_in_f32 || extra.grad.defined()) ? Dtype::f32 : leaf.dtype;
  if (g.dtype() != dtype) g = g.to(dtype);
  if (!extra.grad.defined()) {
    // A gradient that others hold (an upstream gradient passed through) must not become a buffer that is added to.
    const MemoryScope scope(Memory::gradients);
    if (!create_graph && !(g.is_contiguous() && exclusively_owned(g))) g = g.clone();
    if (g.impl()->storage->category == Memory::activations) g.impl()->storage->relabel(Memory::gradients);
    extra.grad = create_graph ? g : g.detach();
    return;
  }
  if (create_graph) {
    extra.grad = add_gradients(extra.grad, g);
    return;
  }
  const MemoryScope scope(Memory::gradients);
  if (extra.grad.dtype() != dtype) extra.grad = extra.grad.to(dtype);
  const Tensor& total = extra.grad;  // in place: a handle the user took from grad() sees the sum
  if (total.is_contiguous()) {
    kernels::binary(kernels::cpu_queue(), kernels::Binary::add, dtype, data(total), data(g), mutable_data(total), strided({&total, &total, &g}));
  } else {
    copy_elements(total, add_gradients(total, g));
  }
  bump_version(total);
}

// ---- hooks ---------------------------------------------------------------------------------------

namespace {

bool has_hooks(const TensorImpl& leaf) { return leaf.extra && leaf.extra->hooks && !leaf.extra->hooks->hooks.empty(); }

/// What the hooks of a tensor make of its gradient. They may take themselves away meanwhile.
Tensor hooked(const mezzo::detail::HookList& list, Tensor g) {
  const auto hooks = list.hooks;
  for (const auto& h : hooks) {
    Tensor replaced = h.call(g);
    if (!replaced.defined()) continue;
    if (replaced.shape() != g.shape())
      fail("register_hook", fmt::format("a hook gave shape {}, the gradient's {} wanted", to_string(replaced.shape()), to_string(g.shape())),
           "return an undefined Tensor to leave the gradient as it is");
    g = replaced.dtype() == g.dtype() ? std::move(replaced) : replaced.to(g.dtype());
  }
  return g;
}

}  // namespace

// ---- which nodes run -----------------------------------------------------------------------------

Engine::Engine(const EngineOptions& options) : options_(options) {
  for (const auto& t : options_.capture) captured_edges_.push_back(gradient_edge(t));
  captured_.resize(options_.capture.size());
}

// With captured tensors only nodes on a way to one of them run. Sequence numbers rise along the graph, so one pass over the
// reachable nodes in rising order decides, and nothing older than the oldest captured tensor is looked at.
void Engine::find_needed(std::span<const Tensor> roots) {
  std::uint64_t oldest = UINT64_MAX;
  std::unordered_set<const TensorImpl*> leaves;
  std::unordered_set<const Node*> captured_nodes;
  for (const auto& e : captured_edges_) {
    if (e.node) {
      oldest = std::min(oldest, node_of(e)->sequence);
      captured_nodes.insert(node_of(e));
    } else if (e.leaf) {
      oldest = 0;
      leaves.insert(e.leaf.get());
    }
  }
  std::vector<Node*> reachable, stack;
  std::unordered_set<const Node*> seen;
  const auto visit = [&](const Edge& e) {
    Node* n = node_of(e);
    if (n && n->sequence >= oldest && seen.insert(n).second) stack.push_back(n);
  };
  for (const auto& r : roots) visit(gradient_edge(r));
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    reachable.push_back(n);
    for (const auto& e : n->edges) visit(e);
  }
  std::sort(reachable.begin(), reachable.end(), [](const Node* a, const Node* b) { return a->sequence < b->sequence; });
  for (const Node* n : reachable) {
    if (n->hides_inputs()) needed_.insert(n);
    for (const auto& e : n->edges)
      if ((e.leaf && leaves.count(e.leaf.get())) || (e.node && (captured_nodes.count(node_of(e)) || needed_.count(node_of(e))))) {
        needed_.insert(n);
        break;
      }
  }
  needed_.insert(captured_nodes.begin(), captured_nodes.end());  // their gradient must arrive, though they may not run
}

// ---- leaves that are finished --------------------------------------------------------------------

void Engine::count_uses(std::span<const Tensor> roots) {
  std::vector<const Node*> stack;
  std::unordered_set<const Node*> seen;
  const auto visit = [&](const Edge& e) {
    if (e.leaf) ++uses_[e.leaf.get()];
    if (const Node* n = node_of(e); n && seen.insert(n).second) stack.push_back(n);
  };
  for (const auto& r : roots) visit(gradient_edge(r));
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    for (const auto& e : n->edges) visit(e);
    for (const auto& leaf : n->hidden_leaves()) ++uses_[leaf.get()];
  }
}

void Engine::used(const Node& node) {
  for (const auto& e : node.edges)
    if (e.leaf) used(*e.leaf);
  for (const auto& leaf : node.hidden_leaves()) used(*leaf);
}

void Engine::used(TensorImpl& leaf) {
  const auto it = uses_.find(&leaf);
  if (--it->second > 0 || has_hooks(leaf)) return;
  uses_.erase(it);
  options_.on_leaf_grad_ready(leaf);
}

// ---- gradients on their way ----------------------------------------------------------------------

void Engine::add(const Edge& edge, Tensor g) {
  if (!edge) return;
  const Dtype dtype = edge.leaf ? edge.leaf->dtype : node_of(edge)->outputs[static_cast<std::size_t>(edge.index)].dtype;
  if (edge.leaf) {
    if (!captures() && !has_hooks(*edge.leaf)) return accumulate_leaf(*edge.leaf, std::move(g), options_.create_graph);
    if (captures() && std::none_of(captured_edges_.begin(), captured_edges_.end(), [&](const Edge& c) { return c.leaf == edge.leaf; })) return;
    if (g.dtype() != dtype) g = g.to(dtype);
    for (auto& total : leaf_totals_)
      if (total.leaf == edge.leaf) {
        total.gradient = add_gradients(std::move(total.gradient), g);
        return;
      }
    leaf_totals_.push_back({edge.leaf, std::move(g)});
    return;
  }
  Node* node = node_of(edge);
  if (captures() && !needed_.count(node)) return;
  if (g.dtype() != dtype) g = g.to(dtype);
  auto [it, fresh] = pending_.try_emplace(node);
  if (fresh) {
    it->second.gradients.resize(node->outputs.size());
    tasks_.push({node->sequence, edge.node});
  }
  auto& slot = it->second.gradients[static_cast<std::size_t>(edge.index)];
  slot = slot.defined() ? add_gradients(std::move(slot), g) : std::move(g);
}

Tensor Engine::take_existing(const Edge& edge) {
  if (!edge.node || options_.create_graph) return {};
  const auto it = pending_.find(node_of(edge));
  if (it == pending_.end()) return {};
  auto& slot = it->second.gradients[static_cast<std::size_t>(edge.index)];
  if (!slot.defined()) return {};
  // The sum must not hang on who else holds the gradient: what is added in place is rounded once.
  if (!slot.is_contiguous() || !exclusively_owned(slot)) slot = slot.clone();
  return std::move(slot);
}

void Engine::capture(const Node& node, std::size_t output, const Tensor& g) {
  for (std::size_t i = 0; i < captured_edges_.size(); ++i)
    if (node_of(captured_edges_[i]) == &node && captured_edges_[i].index == static_cast<int>(output)) captured_[i] = g;
}

// ---- the loop ------------------------------------------------------------------------------------

void Engine::run_node(Node& node, Pending pending) {
  for (std::size_t o = 0; o < pending.gradients.size(); ++o) {
    auto& g = pending.gradients[o];
    if (!g.defined()) continue;
    if (o < node.hooks.size() && node.hooks[o]) g = hooked(*node.hooks[o], std::move(g));
    if (captures()) capture(node, o, g);
  }
  if (captures()) {
    bool runs = node.hides_inputs();
    for (const auto& e : node.edges) {
      runs = runs || (e.node && needed_.count(node_of(e)));
      for (const auto& c : captured_edges_) runs = runs || (e.leaf && c.leaf == e.leaf);
    }
    if (!runs) return;
  }
  if (node.released)
    fail(name(node.op), "backward runs through this part of the graph a second time, but what it saved was freed the first time",
         "pass .retain_graph = true to the first backward");
  Observer* const watching = observer();
  if (watching) watching->backward(node, pending.gradients);
  {
    const AutocastMode autocast(node.callers_context && callers_autocast_);
    Backward b(node, pending.gradients, *this);
    node.run(b);
  }
  if (watching && !captures()) {
    for (std::size_t i = 0; i < node.edges.size(); ++i)
      if (const auto& leaf = node.edges[i].leaf; leaf && leaf->extra && leaf->extra->grad.defined())
        watching->gave(node, static_cast<int>(i), leaf->extra->grad);
  }
  if (!options_.retain_graph && !options_.create_graph) {
    node.released = true;
    node.saved.clear();
    node.remake.reset();
    if (!uses_.empty()) used(node);
    node.forget();
  }
}

void Engine::finish_leaves() {
  for (auto& total : leaf_totals_) {
    if (const auto& hooks = total.leaf->extra ? total.leaf->extra->hooks : nullptr) total.gradient = hooked(*hooks, std::move(total.gradient));
    if (!captures()) accumulate_leaf(*total.leaf, total.gradient, options_.create_graph);
    for (std::size_t i = 0; i < captured_edges_.size(); ++i)
      if (captured_edges_[i].leaf == total.leaf) captured_[i] = total.gradient;
  }
}

std::vector<Tensor> Engine::run(std::span<const Tensor> roots, std::span<const Tensor> gradients) {
  const ContextScope scope;
  callers_autocast_ = context().autocast;
  context().autocast = false;
  context().grad = options_.create_graph;
  if (captures()) find_needed(roots);
  if (options_.on_leaf_grad_ready) count_uses(roots);
  for (std::size_t i = 0; i < roots.size(); ++i) add(gradient_edge(roots[i]), gradients[i]);
  while (!tasks_.empty()) {
    const Task task = tasks_.top();
    tasks_.pop();
    Node* node = static_cast<Node*>(task.node.get());
    auto it = pending_.find(node);
    Pending p = std::move(it->second);
    pending_.erase(it);
    run_node(*node, std::move(p));
  }
  finish_leaves();
  for (const auto& [leaf, uses] : uses_) options_.on_leaf_grad_ready(*leaf);  // with hooks, or of a part that no gradient reached
  return std::move(captured_);
}

std::vector<Tensor> run_backward(std::span<const Tensor> roots, std::span<const Tensor> gradients, const EngineOptions& options) {
  return Engine(options).run(roots, gradients);
}

// ---- what a node sees ----------------------------------------------------------------------------

bool Backward::wants(int i) const { return static_cast<bool>(node_.edges[static_cast<std::size_t>(i)]); }
bool Backward::create_graph() const { return engine_.options().create_graph; }
const std::vector<Tensor>& Backward::captured() const { return engine_.options().capture; }
void Backward::give(const Tensor& t, Tensor g) { engine_.add(gradient_edge(t), std::move(g)); }

namespace {

void require_unchanged(OpId op, const SavedTensor& s) {
  if (s.data.version() != s.version)
    fail(name(op),
         fmt::format("a tensor of shape {} that backward needs was changed in place after it was saved (version {}, now {})",
                     to_string(s.data.shape()), s.version, s.data.version()),
         "write to a clone(), or change it after backward");
}

const Tensor& remade(Remake& r) {
  if (r.made.defined()) return r.made;
  std::vector<Tensor> from;
  for (const auto& s : r.from) {
    if (s.data.defined()) require_unchanged(r.op, s);
    from.push_back(s.data);
  }
  return r.made = r.make(from);
}

}  // namespace

Tensor Backward::saved(int i) const {
  auto s = node_.saved[static_cast<std::size_t>(i)];
  if (s.remake) s.data = remade(*s.remake);
  else if (!s.data.defined()) return {};
  else require_unchanged(node_.op, s);
  if (!create_graph()) return s.data;
  if (s.output >= 0) {
    Tensor t = alias_of(s.data);
    t.impl()->requires_grad = true;
    t.impl()->edge = {Ref<mezzo::detail::GraphNode>(&node_), {}, s.output};
    return t;
  }
  if (s.input < 0 || !node_.edges[static_cast<std::size_t>(s.input)]) return s.data;
  if (s.data.impl()->requires_grad) return s.data;
  Tensor t = alias_of(s.data);  // a cast copy: connected to what it was cast from
  t.impl()->requires_grad = true;
  t.impl()->edge = node_.edges[static_cast<std::size_t>(s.input)];
  return t;
}

Tensor Backward::take_saved(int i) {
  if (create_graph() || engine_.options().retain_graph || node_.saved[static_cast<std::size_t>(i)].remake) return saved(i);
  saved(i);  // the version is checked
  return std::move(node_.saved[static_cast<std::size_t>(i)].data);
}

void Backward::set(int i, Tensor g) {
  if (!g.defined() || !wants(i)) return;
  MEZZO_CHECK(g.shape() == node_.inputs[static_cast<std::size_t>(i)].shape);
  if (auto* o = observer(); o && !node_.edges[static_cast<std::size_t>(i)].leaf) o->gave(node_, i, g);
  engine_.add(node_.edges[static_cast<std::size_t>(i)], std::move(g));
}

Backward::Sink Backward::sink(int i) {
  const auto& edge = node_.edges[static_cast<std::size_t>(i)];
  if (!edge.leaf || create_graph() || engine_.captures()) return {};
  TensorImpl& leaf = *edge.leaf;
  if (has_hooks(leaf)) return {};
  auto& extra = leaf.more();
  const MemoryScope scope(Memory::gradients);
  if (!extra.grad.defined()) {
    extra.grad = make_tensor(leaf.shape, is_16bit(leaf.dtype) && extra.grad_in_f32 ? Dtype::f32 : leaf.dtype);
    return {extra.grad, false};
  }
  if (!extra.grad.is_contiguous()) return {};
  if (is_16bit(extra.grad.dtype())) {
    const GradMode off(false);
    extra.grad = extra.grad.to(Dtype::f32);
  }
  bump_version(extra.grad);
  return {extra.grad, true};
}

Tensor Backward::take_existing(int i) { return engine_.take_existing(node_.edges[static_cast<std::size_t>(i)]); }

void Backward::through(const std::vector<Tensor>& values, const Definition& definition) {
  through_all(values, [&](const std::vector<Tensor>& in) { return std::vector<Tensor>{definition(in)}; });
}

void Backward::through_all(const std::vector<Tensor>& values, const Definitions& definition) {
  std::vector<Tensor> in(values.size()), wanted;
  std::vector<int> index;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!values[i].defined()) continue;
    in[i] = record(OpId::identity, alias_of(values[i]), {values[i]}, {}, [](Backward& g) { g.set(0, g.dy()); });
    if (wants(static_cast<int>(i)) && in[i].requires_grad()) {
      wanted.push_back(in[i]);
      index.push_back(static_cast<int>(i));
    }
  }
  std::vector<Tensor> outputs, gradients;  // those that a gradient arrived for
  const auto all = definition(in);
  for (std::size_t o = 0; o < all.size(); ++o)
    if (const Tensor& g = dy(static_cast<int>(o)); g.defined()) {
      outputs.push_back(all[o]);
      gradients.push_back(g.to(all[o].dtype()));
    }
  const auto grads = run_backward(outputs, gradients, {.create_graph = true, .retain_graph = true, .capture = wanted});
  for (std::size_t k = 0; k < index.size(); ++k) set(index[k], grads[k]);
}

}  // namespace mezzo::autograd
