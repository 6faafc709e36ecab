// masters.cpp - the first technique of "Mixed Precision Training" (arXiv 1710.03740): why 16-bit weights need something beside them.
//
//   example_paper_masters [STEPS] [SEEDS] [LR]      defaults: 20 1 5e-5, which only shows that it runs
//
// A GPT of two layers learns a chain of 64 tokens, each followed by one of eight; the least loss there is is the entropy of that choice. At a low
// learning rate most updates are smaller than half the spacing of a bf16 weight. For each recipe: the loss on tokens that were not trained on, and
// the share of elements, of those whose gradient is not zero, that a step leaves as they were, with everything that the optimizer keeps of them
// (master, remainder or compensation).
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

constexpr std::int64_t kBatch = 16, kLength = 64, kTokens = 64;
constexpr int kFollowers = 8;

struct Batch {
  Tensor x, y;  // (B, T) i32
};
/// Token t is followed by one of 8 that depend on t alone, the k-th twice as likely as the next.
Batch draw(Generator& random) {
  std::vector<std::int32_t> x, y;
  for (std::int64_t b = 0; b < kBatch; ++b) {
    auto token = static_cast<std::int32_t>(random.below(kTokens));
    for (std::int64_t t = 0; t < kLength; ++t) {
      int k = 0;
      while (k < kFollowers - 1 && random.below(2) == 0) ++k;
      x.push_back(token);
      token = static_cast<std::int32_t>((token * 29 + k * 11 + 7) % kTokens);
      y.push_back(token);
    }
  }
  return {from_span<std::int32_t>(x, {kBatch, kLength}), from_span<std::int32_t>(y, {kBatch, kLength})};
}

/// Everything that decides a weight, as bytes: an element of the weight itself, and of its master, remainder or compensation.
struct Truth {
  std::vector<std::vector<unsigned char>> parts;
  std::vector<std::size_t> width;  // of an element

  void add(const Tensor& t, std::int64_t n) {
    const auto put = [&](const auto& span) {
      const auto* p = reinterpret_cast<const unsigned char*>(span.data());
      parts.emplace_back(p, p + span.size_bytes());
    };
    if (t.dtype() == f32) put(t.data<float>());
    else if (t.dtype() == bf16) put(t.data<bf16_t>());
    else put(t.data<std::uint8_t>());
    width.push_back(parts.back().size() / static_cast<std::size_t>(n));
  }
  bool same(const Truth& o, std::size_t i) const {
    for (std::size_t k = 0; k < parts.size(); ++k)
      if (std::memcmp(parts[k].data() + i * width[k], o.parts[k].data() + i * width[k], width[k]) != 0) return false;
    return true;
  }
};
std::vector<Truth> truths(const optim::Optimizer& optimizer) {
  const auto state = optimizer.state_view();
  const auto parameters = optimizer.named_parameters();
  std::vector<Truth> all(parameters.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Tensor& w = parameters[i].second;
    if (w.dim() < 2) continue;
    all[i].add(w, w.numel());
    for (const char* kind : {"master.", "remainder.", "compensation."})
      for (const auto& [name, t] : state.tensors)
        if (name == kind + std::to_string(i)) all[i].add(t, w.numel());
  }
  return all;
}

/// Share of the matrices' elements with a gradient that the step from `before` left alone.
double unmoved(const std::vector<Truth>& before, const optim::Optimizer& optimizer, const std::vector<std::vector<float>>& gradients) {
  const auto after = truths(optimizer);
  std::int64_t with_gradient = 0, same = 0;
  for (std::size_t i = 0; i < after.size(); ++i)
    for (std::size_t k = 0; k < gradients[i].size() && !after[i].parts.empty(); ++k) {
      if (gradients[i][k] == 0) continue;
      ++with_gradient;
      same += after[i].same(before[i], k);
    }
  return static_cast<double>(same) / static_cast<double>(with_gradient);
}

struct Outcome {
  double loss = 0, unmoved = 0;
};
Outcome run(const std::string& name, int seed, int steps, double lr) {
  const train::Recipe recipe = train::recipe(name);
  manual_seed(static_cast<std::uint64_t>(seed));
  models::Gpt model({.vocab = kTokens, .context = kLength, .layers = 2, .heads = 4, .width = 64});
  optim::AdamWOptions options{.lr = lr, .betas = {0.9, 0.95}, .weight_decay = 0, .storage = recipe.storage};
  if (recipe.storage != optim::Storage::f32) options.low = recipe.low;
  optim::AdamW optimizer(model.named_parameters(), options);
  train::Step step(optimizer, {.recipe = name});
  Generator random(static_cast<std::uint64_t>(100 + seed));

  Outcome out;
  int looks = 0;
  for (int i = 0; i < steps; ++i) {
    const Batch batch = draw(random);
    const bool look = i % 10 == 5;
    std::vector<std::vector<float>> gradients;
    std::vector<Truth> before;
    if (look) {  // one more backward, whose gradients are those of the step
      Tensor loss;
      {
        const amp::Autocast region(recipe.low, {.enabled = recipe.autocast});
        loss = model.loss(batch.x, batch.y);
      }
      optimizer.zero_grad();
      loss.backward();
      for (const auto& [path, w] : optimizer.named_parameters()) gradients.push_back(w.grad().to_vector());
      before = truths(optimizer);
    }
    step([&](int) { return model.loss(batch.x, batch.y); });
    if (look) {
      out.unmoved += unmoved(before, optimizer, gradients);
      ++looks;
    }
  }
  out.unmoved /= std::max(looks, 1);

  const autograd::NoGrad guard;
  const amp::Autocast region(recipe.low, {.enabled = recipe.autocast});
  Generator held_out(7);
  constexpr int kBatches = 16;
  for (int i = 0; i < kBatches; ++i) {
    const Batch batch = draw(held_out);
    out.loss += model.loss(batch.x, batch.y).item() / kBatches;
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20, seeds = argc > 2 ? std::atoi(argv[2]) : 1;
  const double lr = argc > 3 ? std::atof(argv[3]) : 5e-5;
  double entropy = 0;
  for (int k = 0; k < kFollowers; ++k) {
    const double p = std::ldexp(1.0, -std::min(k + 1, kFollowers - 1));
    entropy -= p * std::log(p);
  }
  std::printf("%d steps, lr %g; log 64 = %.3f, entropy %.3f\n\nrecipe       loss of seed", steps, lr, std::log(64.0), entropy);
  for (int seed = 1; seed <= seeds; ++seed) std::printf("  %5d", seed);
  std::printf("   mean   unmoved\n");
  for (const char* name : {"fp32", "bf16-master", "bf16-split", "bf16-kahan", "bf16-sr", "bf16-pure"}) {
    std::printf("%-24s ", name);
    double mean = 0, share = 0;
    for (int seed = 1; seed <= seeds; ++seed) {
      const Outcome o = run(name, seed, steps, lr);
      std::printf(" %.4f", o.loss);
      std::fflush(stdout);
      mean += o.loss / seeds;
      share += o.unmoved / seeds;
    }
    std::printf("  %.4f  %5.1f %%\n", mean, 100 * share);
  }
}
