// memory.cpp - the bytes of a training step, counted from shapes: the step is walked through as the ops run it, taking and giving back what
// each of them takes and gives back, and the largest sum is what the run needs.
#include <algorithm>

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
      : c_(m.width), v_(m.vocab), t_(o.seq), n_(o.batch * o.seq), rows_(o.batch * m.heads * o.seq), layers_(m.layers), context_(m.context), drops_(m.dropout > 0),
        accumulates_(o.accumulate > 1), low_(is_16bit(plan.recipe.low)), masters_(plan.recipe.storage == optim::Storage::master),
        e_(static_cast<std::int64_t>(size_of(plan.recipe.low))), g_(masters_ && o.accumulate == 1 ? 2 : 4), nce_(n_ * c_ * e_) {}

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
    act(nce_ + t_ * c_ * e_);                 // tokens, positions
    act(nce_);                                // their sum
    free(nce_ + t_ * c_ * e_);
    if (drops_) act(nce_), free(nce_);
    for (int i = 0; i < layers_; ++i) {
      act(nce_ + statistics());               // ln_1
      act(3 * nce_);                          // c_attn
      act(nce_ + rows_ * 4);                  // attention, log-sum-exp of its rows
      projection();
      act(nce_ + statistics());               // ln_2
      act(4 * nce_);                          // c_fc
      act(4 * nce_);                          // gelu
      projection();
    }
    act(nce_ + statistics());                 // ln_f
    act(n_ * 4 + nce_);                       // losses, dx
    ledger_.take(Memory::gradients, v_ * c_ * 4);  // dw
    const std::int64_t chunk = std::min<std::int64_t>(n_, 256), ld = (v_ + 63) / 64 * 64;
    ledger_.pass(Memory::workspace, chunk * ld * (4 + e_) + chunk * 4);
    free(n_ * 4);
  }
  /// c_proj, with the residual in its epilogue or, under dropout, in a pass of its own.
  void projection() {
    if (drops_) {
      act(2 * nce_);
      act(nce_);
      free(2 * nce_);
    } else {
      act(nce_);
    }
  }

  void backward(bool first) {
    act(nce_);                                // dx times the upstream number
    if (!first) ledger_.give(Memory::gradients, v_ * c_ * 4);
    free(2 * nce_);                           // ln_f's output, the stored dx
    act(nce_);                                // ln_f's dx
    gradient(first, 2 * c_ * 4);
    free(2 * nce_ + statistics());
    for (int i = 0; i < layers_; ++i) {
      projection_backward(first, 4);
      free(4 * nce_);                         // gelu's output
      act(4 * nce_);                          // gelu's dx
      free(8 * nce_);
      act(nce_);                              // c_fc
      gradient(first, 4 * c_ * c_ * g_ + 4 * c_ * 4);
      free(5 * nce_);
      norm_backward(first);
      projection_backward(first, 1);
      act(3 * nce_);                          // attention
      free(5 * nce_ + rows_ * 4);
      act(nce_);                              // c_attn
      gradient(first, 3 * c_ * c_ * g_ + 3 * c_ * 4);
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
    if (drops_) free(nce_);
  }
  /// Adds to the residual's gradient in place; frees the gradient that arrived, the norm's input and statistics.
  void norm_backward(bool first) {
    gradient(first, 2 * c_ * 4);
    free(2 * nce_ + statistics());
  }

  std::int64_t c_, v_, t_, n_, rows_, layers_, context_;
  bool drops_, accumulates_, low_, masters_;
  std::int64_t e_, g_, nce_;
  Ledger ledger_;
};

}  // namespace

MemoryPlan plan_bytes(const models::GptOptions& model, const TrainOptions& options, const PrecisionPlan& plan) { return GptStep(model, options, plan).walk(); }

MemoryPlan plan_bytes(const TrainOptions& options) {
  check(options);
  return plan_bytes(resolve_model(options, ByteTokenizer().vocab_size()), options, resolve({.precision = options.precision, .loss_scale = options.loss_scale}));
}

}  // namespace mezzo::train
