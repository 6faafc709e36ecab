// Five steps of every optimizer against PyTorch (Lion: against its paper; tools/golden/optimizers.py), in f32 and f64.
#include <algorithm>
#include <cmath>
#include <memory>

#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/safetensors.h"
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

constexpr int kSteps = 5;

struct Golden {
  io::SafetensorsFile file{"tests/golden/optimizers.safetensors"};
  io::Json cases = io::parse_json(file.metadata().at("cases"), "optimizers.safetensors");

  bool has(const std::string& name) const { return file.find(name) != nullptr; }
  Tensor get(const std::string& name) const {
    const auto* e = file.find(name);
    REQUIRE_MESSAGE(e, name);
    const Shape shape(e->shape);
    return detail::from_bytes(e->data.data(), static_cast<std::size_t>(shape.numel()), e->dtype, shape);
  }
  Tensor row(const std::string& name, int step) const { return get(name).select(0, step); }
};

std::unique_ptr<optim::Optimizer> make(const io::Json& o, std::vector<Tensor> params) {
  const std::string op = o.at("op");
  const double lr = o.at("lr"), decay = o.value("weight_decay", 0.0);
  if (op == "sgd")
    return std::make_unique<optim::Sgd>(
        params, optim::SgdOptions{.lr = lr, .momentum = o.value("momentum", 0.0), .nesterov = o.value("nesterov", false), .weight_decay = decay});
  if (op == "adagrad")
    return std::make_unique<optim::Adagrad>(params, optim::AdagradOptions{.lr = lr,
                                                                          .lr_decay = o.value("lr_decay", 0.0),
                                                                          .eps = o.value("eps", 1e-10),
                                                                          .weight_decay = decay,
                                                                          .initial_accumulator_value = o.value("initial_accumulator_value", 0.0)});
  if (op == "adafactor") {
    optim::AdafactorOptions a{.lr = lr, .beta2_decay = o.value("beta2_decay", -0.8), .d = o.value("d", 1.0), .weight_decay = decay};
    if (o.contains("eps")) a.eps1 = o.at("eps")[0].get<double>(), a.eps2 = o.at("eps")[1].get<double>();
    return std::make_unique<optim::Adafactor>(params, a);
  }
  const std::array<double, 2> betas = o.at("betas");
  if (op == "lion") return std::make_unique<optim::Lion>(params, optim::LionOptions{.lr = lr, .betas = betas, .weight_decay = decay});
  if (op == "adam")
    return std::make_unique<optim::Adam>(params, optim::AdamOptions{.lr = lr, .betas = betas, .eps = o.at("eps"), .weight_decay = decay});
  return std::make_unique<optim::AdamW>(params, optim::AdamWOptions{.lr = lr, .betas = betas, .eps = o.at("eps"), .weight_decay = decay});
}

/// Largest |a - b|, of elements in double.
double distance(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().to(f64).contiguous(), y = b.to(f64).contiguous();
  REQUIRE(x.shape() == y.shape());
  double worst = 0;
  for (std::size_t i = 0; i < x.data<double>().size(); ++i) {
    const double d = std::abs(x.data<double>()[i] - y.data<double>()[i]);
    worst = std::isnan(d) ? d : std::max(worst, d);
  }
  return worst;
}
double largest(const Tensor& t) { return distance(t, zeros(t.shape(), {.dtype = f64})); }

/// torch's names of our moments.
const std::vector<std::pair<std::string, std::string>> kMoments = {
    {"momentum", "momentum_buffer"}, {"exp_avg", "exp_avg"}, {"exp_avg_sq", "exp_avg_sq"}, {"sum", "sum"},
    {"row_var", "row_var"},          {"col_var", "col_var"}, {"variance", "variance"}};

void follow(const Golden& golden, const std::string& name, Dtype dtype) {
  CAPTURE(name);
  const auto& o = golden.cases.at(name);
  const double eps = format_info(dtype).epsilon, lr = o.at("lr"), decay = o.value("weight_decay", 0.0);
  const bool sgd = o.at("op") == "sgd", adafactor = o.at("op") == "adafactor";
  std::vector<Tensor> params;
  const std::vector<std::string> names = {"weight", "bias"};
  for (const auto& p : names) params.push_back(golden.get("init." + p).to(dtype).requires_grad_());
  const auto optimizer = make(o, params);
  for (int step = 0; step < kSteps; ++step) {
    for (std::size_t i = 0; i < 2; ++i) params[i].set_grad(golden.row("grad." + names[i], step).to(dtype).contiguous());
    optimizer->step();
    const auto state = optimizer->state();
    for (std::size_t i = 0; i < 2; ++i) {
      CAPTURE(step);
      CAPTURE(names[i]);
      // What a step adds to the error of an element: half an epsilon of each value stored (w, m, v), and a few of the step itself. An Adam step is at
      // most lr times max|g| / rms(g), below sqrt(5) here; SGD's at most lr times d / (1 - momentum), nesterov's up to twice.
      const double g = largest(golden.get("grad." + names[i])), w = largest(golden.get(name + ".f64." + names[i])), d = g + decay * w;
      const double sum = d / (1 - o.value("momentum", 0.0));
      // Adagrad's step is at most lr, Lion's is lr, Adafactor's lr times the parameter's size and the root of its 30 elements.
      const double relative = adafactor ? std::max(w, 1e-2) * std::sqrt(30.0) * o.value("d", 1.0) : std::sqrt(5.0);
      const double move = sgd ? 2 * lr * sum : lr * (relative + decay * w);
      const double steps = step + 1;
      const double bound = steps * eps * (w + 8 * move);
      const double found = distance(params[i], golden.row(name + ".f64." + names[i], step));
      INFO("distance from float64 " << found << ", bound " << bound);
      CHECK(found <= bound);
      for (const auto& [ours, torchs] : kMoments) {
        const std::string key = name + ".f64." + names[i] + "." + torchs;
        if (!golden.has(key)) continue;
        const bool squares = ours != "exp_avg" && ours != "momentum";
        const double unit = squares              ? std::max(d * d * (ours == "sum" ? kSteps : 1), o.value("initial_accumulator_value", 0.0))
                            : ours == "momentum" ? sum
                                                 : d;
        CHECK(distance(named(state.tensors, ours + "." + std::to_string(i)), golden.row(key, step)) <= steps * eps * 4 * unit);
      }
    }
  }
}

}  // namespace

TEST_CASE("optimizer trajectories are PyTorch's: f32 within rounding of float64") {
  const Golden golden;
  for (const auto& [name, options] : golden.cases.items()) follow(golden, name, f32);
}

TEST_CASE("optimizer trajectories are PyTorch's: f64 parameters are f64 throughout") {
  const Golden golden;
  for (const auto& [name, options] : golden.cases.items()) follow(golden, name, f64);
}

TEST_CASE("an element that never has a gradient only decays") {
  const Golden golden;
  for (const auto& [name, options] : golden.cases.items()) {
    if (options.at("op") != "adamw") continue;
    Tensor w = golden.get("init.weight").requires_grad_();
    const float before = w.data<float>()[0];
    const auto optimizer = make(options, {w});
    w.set_grad(golden.row("grad.weight", 0).contiguous());
    optimizer->step();
    const double lr = options.at("lr"), decay = options.at("weight_decay");
    CHECK(w.data<float>()[0] == doctest::Approx(before * (1 - lr * decay)).epsilon(1e-7));
  }
}
