// work_log.h - what kernels were asked to compute, gathered for estimates of time. Only gemm() and attention() write to it: all other kernels are
// bound by memory.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace mezzo::kernels {

/// Gathers the work of this thread while it lives.
class WorkLog {
 public:
  struct Product {
    Dtype a, c;
    std::int64_t m, n, k;
    bool trans_a, trans_b;
    std::int64_t count = 0;
  };
  WorkLog();
  ~WorkLog();
  WorkLog(const WorkLog&) = delete;
  WorkLog& operator=(const WorkLog&) = delete;
  static WorkLog* current() noexcept;  ///< this thread's, or null

  void add(const Gemm&);
  void add(const Attention&, double flops_per_score);
  const std::vector<Product>& products() const { return products_; }  ///< each shape once
  double attention_flops() const { return attention_flops_; }

 private:
  std::vector<Product> products_;
  double attention_flops_ = 0;
};

}  // namespace mezzo::kernels
