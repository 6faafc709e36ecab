// engine.h - one run of backward: a loop over nodes, newest first.
#pragma once

#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "autograd/node.h"

namespace mezzo::autograd {

class Engine {
 public:
  explicit Engine(const EngineOptions&);
  std::vector<Tensor> run(std::span<const Tensor> roots, std::span<const Tensor> gradients);

  const EngineOptions& options() const { return options_; }
  /// Adds a gradient to where an edge leads.
  void add(const mezzo::detail::Edge&, Tensor gradient);
  bool captures() const { return !options_.capture.empty(); }
  Tensor take_existing(const mezzo::detail::Edge&);

 private:
  using Edge = mezzo::detail::Edge;
  struct Pending {
    std::vector<Tensor> gradients;
  };
  struct Task {
    std::uint64_t sequence;
    Ref<mezzo::detail::GraphNode> node;
    bool operator<(const Task& o) const { return sequence < o.sequence; }
  };
  struct LeafTotal {
    Ref<mezzo::detail::TensorImpl> leaf;
    Tensor gradient;
  };

  void find_needed(std::span<const Tensor> roots);
  void run_node(Node&, Pending);
  void capture(const Node&, std::size_t output, const Tensor& gradient);
  void finish_leaves();
  void count_uses(std::span<const Tensor> roots);
  void used(const Node&);
  void used(mezzo::detail::TensorImpl&);

  const EngineOptions& options_;
  std::priority_queue<Task> tasks_;
  std::unordered_map<Node*, Pending> pending_;
  std::vector<LeafTotal> leaf_totals_;                        // leaves with hooks, or captured: summed up first
  std::unordered_map<mezzo::detail::TensorImpl*, int> uses_;  // with on_leaf_grad_ready: of leaves, those still to come
  std::unordered_set<const Node*> needed_;                    // with capture: nodes on a way to a captured tensor
  std::vector<Edge> captured_edges_;
  std::vector<Tensor> captured_;
  bool callers_autocast_ = false;
};

/// a + b, recorded when grad mode is on; into a when no one else sees it and nothing is recorded.
Tensor add_gradients(Tensor a, const Tensor& b);

}  // namespace mezzo::autograd
