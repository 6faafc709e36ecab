// node.h - a recorded op: where its inputs' gradients go, what it saved, and how it turns output gradients into input gradients.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "autograd/context.h"
#include "autograd/op_table.h"
#include "tensor/impl.h"

namespace mezzo::autograd {

class Backward;

struct Remake;

/// A tensor kept for backward: its elements, or how they are made again; the version it had, and which input or output of the node it is.
struct SavedTensor {
  Tensor data;
  std::uint64_t version = 0;
  int input = -1, output = -1;
  std::shared_ptr<Remake> remake = {};
};

/// How an op's output is made again, bit for bit, from what its node keeps anyway: those that would save the output save this instead, and share
/// what the first of them made. `make` calls kernels alone and records nothing.
struct Remake {
  OpId op;
  std::vector<SavedTensor> from;
  std::function<Tensor(const std::vector<Tensor>&)> make;
  Tensor made = {};
};

/// What the gradient that arrives at one place must look like.
struct TensorMeta {
  Shape shape;
  Dtype dtype = Dtype::f32;
};

class Node : public detail::GraphNode {
 public:
  virtual ~Node() = default;
  virtual void run(Backward&) = 0;
  virtual void forget() {}                             ///< frees what the backward function itself captured
  virtual bool hides_inputs() const { return false; }  ///< gradients may go to tensors that are not among its inputs ...
  virtual std::span<const Ref<detail::TensorImpl>> hidden_leaves() const { return {}; }  ///< ... of which these are leaves

  OpId op = OpId::count;
  bool released = false;            ///< saved tensors are gone
  bool callers_context = false;     ///< runs in the context of the thread that called backward (user's functions), not with autocast off
  std::uint64_t sequence = 0;       ///< rises with creation: a node's inputs have smaller ones
  std::vector<detail::Edge> edges;  ///< one an input; empty: no gradient wanted
  std::vector<TensorMeta> inputs, outputs;
  std::vector<SavedTensor> saved;
  std::shared_ptr<Remake> remake;                        ///< of output 0; null: others keep it as it is
  std::vector<std::shared_ptr<detail::HookList>> hooks;  ///< by output; empty: none
};

/// Where a gradient for tensor t goes (an empty edge when it needs none).
mezzo::detail::Edge gradient_edge(const Tensor& t);
inline Node* node_of(const detail::Edge& e) { return static_cast<Node*>(e.node.get()); }

/// What backward of one node sees.
class Backward {
 public:
  /// Gradient of output i, in the output's dtype; undefined when none arrived.
  const Tensor& dy(int i = 0) const { return dy_[static_cast<std::size_t>(i)]; }
  /// Saved tensor i (Error if it was changed in place since). With create_graph it is connected to the graph.
  Tensor saved(int i) const;
  /// Saved tensor i, moved out when the graph will not be used again, so that its elements may be overwritten if exclusively_owned.
  Tensor take_saved(int i);
  bool wants(int input) const;
  const TensorMeta& input(int i) const { return node_.inputs[static_cast<std::size_t>(i)]; }
  const TensorMeta& output(int i = 0) const { return node_.outputs[static_cast<std::size_t>(i)]; }
  bool create_graph() const;
  /// Of autograd::grad: the tensors whose gradients are wanted, while no leaf's .grad may be touched. Empty in backward().
  const std::vector<Tensor>& captured() const;
  /// Adds to the gradient of a captured tensor that is not among the node's inputs.
  void give(const Tensor& captured, Tensor gradient);
  OpId op() const { return node_.op; }
  /// Gives (adds) a gradient to input i; any floating dtype, the input's shape.
  void set(int input, Tensor gradient);

  /// A gradient buffer of a leaf that a kernel may write or add to itself: saves the pass that would add it.
  struct Sink {
    Tensor buffer;
    bool accumulate = false;
  };
  /// For input i, when it is a leaf whose gradient may be accumulated in place (no hooks, no create_graph, no capture); else buffer is
  /// undefined and the caller uses set(). The kernel must then write all of it (accumulate false), or add to it.
  Sink sink(int input);
  /// The gradient that already waits for input i: taken out (copied where others hold it), to be added to by a kernel and set().
  Tensor take_existing(int input);
  /// What runs with create_graph: differentiates `definition` (the op in plain ops, of the node's inputs; undefined ones stay undefined) and sets
  /// the gradients of those inputs that want one. `values[i]` stands for input i.
  using Definition = std::function<Tensor(const std::vector<Tensor>&)>;
  void through(const std::vector<Tensor>& values, const Definition& definition);
  /// The same for a node of several outputs: the definition gives them in order.
  using Definitions = std::function<std::vector<Tensor>(const std::vector<Tensor>&)>;
  void through_all(const std::vector<Tensor>& values, const Definitions& definition);

  Backward(Node& node, std::span<const Tensor> dy, class Engine& engine) : node_(node), dy_(dy), engine_(engine) {}

 private:
  Node& node_;
  std::span<const Tensor> dy_;
  class Engine& engine_;
};

namespace detail_node {
template <class F> class FunctionNode final : public Node {
 public:
  explicit FunctionNode(F f) : f_(std::move(f)) {}
  void run(Backward& b) override { f_(b); }

 private:
  F f_;
};
void connect(Node& node, OpId op, Tensor& out, std::initializer_list<Operand> inputs, std::initializer_list<Tensor> saved);
}  // namespace detail_node

/// Whether recording would happen for these inputs.
bool should_record(std::span<const Operand> inputs);
inline bool should_record(std::initializer_list<Operand> inputs) { return should_record(std::span(inputs.begin(), inputs.size())); }

/// While it lives, notes the leaves that this thread's ops take where grad mode is off: what a function that backward computes again will reach.
class LeafLog {
 public:
  LeafLog();
  ~LeafLog();
  LeafLog(const LeafLog&) = delete;
  LeafLog& operator=(const LeafLog&) = delete;
  void note(std::span<const Operand> inputs);
  std::vector<Ref<detail::TensorImpl>> take() { return std::move(leaves_); }  ///< each once

 private:
  LeafLog* outer_;
  std::vector<Ref<detail::TensorImpl>> leaves_;
};

/// Records `out = op(inputs)`: when grad mode is on and an input requires grad, out gets a node that keeps `saved` and calls backward(Backward&).
/// `out` is a fresh tensor without a place in the graph. Saved values are matched with inputs and the output by handle.
template <class F> Tensor record(OpId op, Tensor out, std::initializer_list<Operand> inputs, std::initializer_list<Tensor> saved, F&& backward) {
  if (should_record(inputs)) {
    auto* node = new detail_node::FunctionNode<std::decay_t<F>>(std::forward<F>(backward));
    detail_node::connect(*node, op, out, inputs, saved);
  }
  return out;
}
/// The same for inputs in a vector and several outputs.
void connect(Node& node, OpId op, std::span<Tensor> outputs, std::span<const Operand> inputs, std::span<const Tensor> saved);
/// Says of an output that record() has just given a node: backward of others need not keep it, make(from) is the same again. For ops that cost little
/// beside the products which read their outputs: their outputs take no memory between forward and backward.
void let_remake(const Tensor& out, std::initializer_list<Tensor> from, std::function<Tensor(const std::vector<Tensor>&)> make);

struct EngineOptions {
  bool create_graph = false, retain_graph = false;
  std::vector<Tensor> capture = {};  ///< return gradients of these and touch no leaf; empty: accumulate into leaves
  /// Called with each leaf as soon as nothing more will be added to its gradient: early optimizer steps. It may use the gradient up and write to the
  /// leaf. Not with capture, retain_graph or create_graph; a leaf with a user's hook comes at the end.
  std::function<void(detail::TensorImpl&)> on_leaf_grad_ready = {};
};
/// Runs backward from roots with the given gradients (defined, of the roots' shapes). Returns captured gradients.
std::vector<Tensor> run_backward(std::span<const Tensor> roots, std::span<const Tensor> gradients, const EngineOptions&);

/// Adds a gradient to a leaf's .grad as backward does.
void accumulate_leaf(detail::TensorImpl& leaf, Tensor gradient, bool create_graph);

}  // namespace mezzo::autograd
