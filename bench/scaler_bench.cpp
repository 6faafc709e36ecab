// scaler_bench.cpp - what loss scaling costs in a GPT's fp16 step: steps without it, with step() alone, and with unscale() before step(), in turns.
//
//     bench_scaler [--layers 6] [--width 384] [--batch 12] [--seq 256] [--rounds 9]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/mezzo.h>

namespace {

using namespace mezzo;
using Clock = std::chrono::steady_clock;

struct Arguments {
  int layers = 6, width = 384, batch = 12, seq = 256, rounds = 9;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const int value = std::stoi(argv[i + 1]);
    if (name == "--layers") a.layers = value;
    else if (name == "--width") a.width = value;
    else if (name == "--batch") a.batch = value;
    else if (name == "--seq") a.seq = value;
    else if (name == "--rounds") a.rounds = value;
    else throw Error("unknown option " + std::string(name));
  }
  return a;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Tensor random_tokens(const Arguments& a, std::int64_t vocab, Generator& random) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(a.batch) * static_cast<std::size_t>(a.seq));
  for (auto& id : ids) id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab)));
  return from_span<std::int32_t>(ids, {a.batch, a.seq});
}

enum class How { plain, step_alone, unscale_first };
constexpr const char* kHow[] = {"no scaling", "scale, step, update", "scale, unscale, step, update"};

}  // namespace

int main(int argc, char** argv) try {
  const Arguments a = parse(argc, argv);
  constexpr std::int64_t kVocab = 65;
  manual_seed(1);
  models::Gpt model({.vocab = kVocab, .context = a.seq, .layers = a.layers, .heads = a.width / 64, .width = a.width});
  optim::AdamW opt(model.named_parameters(), {.lr = 3e-4});
  amp::GradScaler scaler({.init_scale = 1024});
  Generator random(1);
  const Tensor x = random_tokens(a, kVocab, random), y = random_tokens(a, kVocab, random);

  // Seconds of the whole step, and of what follows backward() in it with what scale() takes before.
  std::vector<double> whole[3], outside[3];
  for (int round = -2; round < a.rounds; ++round)  // two rounds touch the memory first
    for (const How how : {How::plain, How::step_alone, How::unscale_first}) {
      const auto begin = Clock::now();
      opt.zero_grad();
      const Tensor loss = amp::autocast(f16, [&] { return model.loss(x, y); });
      const auto scaling = Clock::now();
      const Tensor root = how == How::plain ? loss : scaler.scale(loss);
      const auto scaled = Clock::now();
      root.backward();
      const auto after = Clock::now();
      if (how == How::plain) {
        opt.step();
      } else {
        if (how == How::unscale_first) scaler.unscale(opt);
        if (!scaler.step(opt).applied) throw Error("a step was skipped: its time is not that of a step");
        scaler.update();
      }
      const auto end = Clock::now();
      if (round < 0) continue;
      const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
      whole[static_cast<int>(how)].push_back(seconds(begin, end));
      outside[static_cast<int>(how)].push_back(seconds(scaling, scaled) + seconds(after, end));
    }

  const double step = median(whole[0]), optimizer = median(outside[0]);
  std::printf("%-30s %10s %12s %12s\n", "", "step ms", "optimizer ms", "of the step");
  for (int i = 0; i < 3; ++i)
    std::printf("%-30s %10.1f %12.2f %11.2f%%\n", kHow[i], 1e3 * median(whole[i]), 1e3 * median(outside[i]),
                100 * (median(outside[i]) - optimizer) / step);
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_scaler: %s\n", e.what());
  return 1;
}
