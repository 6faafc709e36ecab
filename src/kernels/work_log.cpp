// work_log.cpp - counts products and scores for the thread that asked.
#include "kernels/work_log.h"

#include "core/fail.h"

namespace mezzo::kernels {
namespace {
thread_local WorkLog* tl_log = nullptr;
}

WorkLog::WorkLog() {
  MEZZO_CHECK(!tl_log);
  tl_log = this;
}
WorkLog::~WorkLog() { tl_log = nullptr; }
WorkLog* WorkLog::current() noexcept { return tl_log; }

void WorkLog::add(const Gemm& g) {
  const std::int64_t k = g.k + g.tail.k;
  for (auto& p : products_) {
    if (p.a == g.a && p.c == g.c && p.m == g.m && p.n == g.n && p.k == k && p.trans_a == g.trans_a && p.trans_b == g.trans_b) {
      p.count += g.batch;
      return;
    }
  }
  products_.push_back({g.a, g.c, g.m, g.n, k, g.trans_a, g.trans_b, g.batch});
}

void WorkLog::add(const Attention& a, double flops_per_score) {
  const double scores = static_cast<double>(a.b * a.h) * static_cast<double>(a.tq) * static_cast<double>(a.tk) * (a.causal ? 0.5 : 1);
  attention_flops_ += scores * static_cast<double>(a.d) * flops_per_score;
}

}  // namespace mezzo::kernels
