// memory.cpp - the bytes of a training step, counted from shapes: the step is walked through as the ops run it, taking and giving back what
// each of them takes and gives back, and the largest sum is what the run needs. Tensors are counted to the byte; the workspace of products
// and attention is an estimate from above.
#include <algorithm>

#include "kernels/kernels.h"
#include "text/corpus.h"
#include "train/options.h"
#include "train/trainer.h"

namespace mezzo::train {
namespace {

/// Accounts as memory_report() keeps them.
class Ledger {
 public:
  void take(Memory category, std::int64_t bytes) {
    at(plan_now_, category) += bytes;
    total_ += bytes;
    if (total_ <= plan_.peak) return;
    plan_.peak = total_;
    plan_.bytes = plan_now_;
  }
  void give(Memory category, std::int64_t bytes) {
    at(plan_now_, category) -= bytes;
    total_ -= bytes;
  }
  /// Taken and given back within one op.
  void pass(Memory category, std::int64_t bytes) {
    take(category, bytes);
    give(category, bytes);
  }
  const MemoryPlan& plan() const { return plan_; }

 private:
  using Bytes = std::array<std::int64_t, kMemoryCategories>;
  static std::int64_t& at(Bytes& b, Memory c) { return b[static_cast<std::size_t>(c)]; }
  Bytes plan_now_{};
  std::int64_t total_ = 0;
  MemoryPlan plan_;
};

/// A GPT's step. Letters: B T C V as everywhere, H heads, N = B T tokens, e bytes of an activation, g bytes of a matrix's gradient.
class GptStep {
 public:
  GptStep(const models::GptOptions& m, const TrainOptions& o, const PrecisionPlan& plan)
      : c_(m.width),
        v_(m.vocab),
        t_(o.seq),
        n_(o.batch * o.seq),
        rows_(o.batch * m.heads * o.seq),
        layers_(m.layers),
        context_(m.context),
        drops_(m.dropout > 0),
        accumulates_(o.accumulate > 1),
        low_(is_16bit(plan.recipe.low)),
        masters_(plan.recipe.storage == optim::Storage::master),
        e_(static_cast<std::int64_t>(size_of(plan.recipe.low))),
        g_(masters_ && o.accumulate == 1 ? 2 : 4),
        nce_(n_ * c_ * e_),
        head_(m.width / m.heads),
        threads_(o.threads > 0 ? o.threads : num_threads()),
        packed_(low_ && kernels::native_gemm(plan.recipe.low) ? 2 : 4) {}

  MemoryPlan walk() {
    state();
    for (int micro = 0; micro < (accumulates_ ? 2 : 1); ++micro) {  // the second of several meets the gradients of the first
      forward();
      backward(micro == 0);
    }
    return ledger_.plan();
  }

 private:
  std::int64_t matrices() const { return v_ * c_ + context_ * c_ + layers_ * 12 * c_ * c_; }
  std::int64_t vectors() const { return layers_ * 13 * c_ + 2 * c_; }  // biases and norms
  void act(std::int64_t bytes) { ledger_.take(Memory::activations, bytes); }
  void free(std::int64_t bytes) { ledger_.give(Memory::activations, bytes); }
  void gradient(bool first, std::int64_t bytes) {
    if (first) ledger_.take(Memory::gradients, bytes);
  }
  std::int64_t statistics() const { return 2 * n_ * 4; }  // of a norm: mean and rstd, f32

  // Workspace. A product packs panels of both operands: of the second up to a part of the last cache, of the first a part of each thread's L2.
  // Attention packs a head's keys, values, queries and their gradients, and holds a few blocks of scores, for each thread.
  void product(std::int64_t m, std::int64_t n, std::int64_t k) {
    constexpr std::int64_t kSlice = 2048, kShared = 8 << 20;
    const std::int64_t slice = std::min(k, kSlice) * packed_, second = std::min(n * slice, kShared),
                       first = threads_ * std::min(m * slice, cpu_info().l2 * 3 / 8);
    const std::int64_t sums = k > kSlice && e_ == 2 ? m * second / slice * 4 : 0;
    ledger_.pass(Memory::workspace, first + second + sums);
  }
  void linear(std::int64_t in, std::int64_t out) { product(n_, out, in); }
  void linear_backward(std::int64_t in, std::int64_t out) {
    product(n_, in, out);
    product(out, in, n_);
  }
  void attention(int rows, int blocks) { ledger_.pass(Memory::workspace, threads_ * 4 * (rows * t_ * head_ + blocks * 64 * 144)); }

  /// What lives from step to step.
  void state() {
    ledger_.take(Memory::weights, matrices() * (masters_ ? 2 : 4) + vectors() * 4);
    if (masters_) ledger_.take(Memory::masters, matrices() * 4);
    ledger_.take(Memory::optimizer, (matrices() + vectors()) * 8);
    if (low_ && !masters_) ledger_.take(Memory::cast_cache, (matrices() - context_ * c_) * 2);  // positions are gathered, never multiplied
    ledger_.take(Memory::data, 2 * n_ * 4);
    act(context_ * 8);  // positions, i64
  }

  void forward() {
    act(nce_ + t_ * c_ * e_);  // tokens, positions
    act(nce_);                 // their sum
    free(nce_ + t_ * c_ * e_);
    if (drops_) act(nce_), free(nce_);
    for (int i = 0; i < layers_; ++i) {
      act(nce_ + statistics());  // ln_1
      act(3 * nce_);             // c_attn
      linear(c_, 3 * c_);
      act(nce_ + rows_ * 4);  // attention, log-sum-exp of its rows
      attention(4, 3);
      projection(1);
      act(nce_ + statistics());  // ln_2
      act(4 * nce_);             // c_fc
      linear(c_, 4 * c_);
      act(4 * nce_);  // gelu
      projection(4);
    }
    act(nce_ + statistics());                      // ln_f
    act(n_ * 4 + nce_);                            // losses, dx
    ledger_.take(Memory::gradients, v_ * c_ * 4);  // dw
    const std::int64_t chunk = std::min<std::int64_t>(n_, 256), ld = (v_ + 63) / 64 * 64, logits = chunk * ld * (4 + e_) + chunk * 4;
    ledger_.take(Memory::workspace, logits);
    product(chunk, v_, c_);
    product(chunk, c_, v_);
    product(v_, c_, chunk);
    ledger_.give(Memory::workspace, logits);
    free(n_ * 4);
  }
  /// c_proj, with the residual in its epilogue or, under dropout, in a pass of its own.
  void projection(std::int64_t k) {
    if (drops_) {
      act(nce_);
      linear(k * c_, c_);
      act(2 * nce_);
      free(2 * nce_);
    } else {
      act(nce_);
      linear(k * c_, c_);
    }
  }

  void backward(bool first) {
    act(nce_);  // dx times the upstream number
    if (!first) ledger_.give(Memory::gradients, v_ * c_ * 4);
    free(2 * nce_);  // ln_f's output, the stored dx
    act(nce_);       // ln_f's dx
    gradient(first, 2 * c_ * 4);
    free(2 * nce_ + statistics());
    for (int i = 0; i < layers_; ++i) {
      projection_backward(first, 4);
      free(4 * nce_);  // gelu's output
      act(4 * nce_);   // gelu's dx
      free(8 * nce_);
      act(nce_);  // c_fc
      gradient(first, 4 * c_ * c_ * g_ + 4 * c_ * 4);
      linear_backward(c_, 4 * c_);
      free(5 * nce_);
      norm_backward(first);
      projection_backward(first, 1);
      act(3 * nce_);  // attention
      attention(14, 7);
      free(5 * nce_ + rows_ * 4);
      act(nce_);  // c_attn
      gradient(first, 3 * c_ * c_ * g_ + 3 * c_ * 4);
      linear_backward(c_, 3 * c_);
      free(4 * nce_);
      norm_backward(first);
    }
    if (drops_) act(nce_), free(nce_);
    ledger_.pass(Memory::activations, t_ * c_ * (4 + e_));
    gradient(first, context_ * c_ * g_);
    free(nce_);
  }
  /// dx of width k C, and the gradients of a (C, k C) weight and its bias; the gradient that arrives goes on to the residual.
  void projection_backward(bool first, std::int64_t k) {
    if (drops_) act(nce_);
    act(k * nce_);
    gradient(first, k * c_ * c_ * g_ + c_ * 4);
    linear_backward(k * c_, c_);
    if (drops_) free(nce_);
  }
  /// Adds to the residual's gradient in place; frees the gradient that arrived, the norm's input and statistics.
  void norm_backward(bool first) {
    gradient(first, 2 * c_ * 4);
    free(2 * nce_ + statistics());
  }

  std::int64_t c_, v_, t_, n_, rows_, layers_, context_;
  bool drops_, accumulates_, low_, masters_;
  std::int64_t e_, g_, nce_, head_, threads_, packed_;
  Ledger ledger_;
};

}  // namespace

MemoryPlan plan_bytes(const models::GptOptions& model, const TrainOptions& options, const PrecisionPlan& plan) {
  return GptStep(model, options, plan).walk();
}

MemoryPlan plan_bytes(const TrainOptions& options) {
  check(options);
  const auto model = resolve_model(options, ByteTokenizer().vocab_size());
  return plan_bytes(model, options,
                    resolve({.precision = options.precision, .loss_scale = options.loss_scale, .width = static_cast<double>(model.width)}));
}

}  // namespace mezzo::train
