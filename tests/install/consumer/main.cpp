// main.cpp - a user's program: a module and a function of its own, every recipe, files, errors across the library's border. Exits 1 where a fact
// fails.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>

#include <mezzo/mezzo.h>

#include "operations.h"

using namespace mezzo;

namespace {

bool all_well = true;
void expect(bool fact, const char* what) {
  if (!fact) std::printf("not so: %s\n", what);
  all_well = all_well && fact;
}

template <class F> bool throws_error(F&& f) {
  try {
    f();
  } catch (const Error&) { return true; }
  return false;
}

struct Cube : autograd::Function<Cube> {
  static Tensor forward(autograd::Context& c, const Tensor& x) {
    c.save({x});
    return x * x * x;
  }
  static Tensor backward(autograd::Context& c, const Tensor& dy) { return dy * 3.0 * c.saved()[0] * c.saved()[0]; }
};

class Block : public nn::Module {
 public:
  Block()
      : inner_(register_module(
            "inner",
            std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>{
                std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 8}), std::make_shared<nn::LayerNorm>(nn::LayerNormOptions{.dim = 8}),
                std::make_shared<nn::RmsNorm>(nn::RmsNormOptions{.dim = 8}), std::make_shared<nn::Dropout>(nn::DropoutOptions{.p = 0.1}),
                std::make_shared<nn::Mlp>(nn::MlpOptions{.in = 8, .width = 16, .out = 8})}))),
        gain_(register_parameter("gain", ones({8}))),
        steps_(register_buffer("steps", zeros({1}))) {}
  Tensor forward(const Tensor& x) override { return (*inner_)(x)*gain_; }

 private:
  std::shared_ptr<nn::Module> inner_;
  Tensor gain_, steps_;
};

void tensors_and_gradients() {
  expect(call_every_op().size() > 90, "every op gives a result");
  const Tensor x = tensor({1, 2}, {2}, {.requires_grad = true});
  expect(autograd::grad({sum(Cube::apply(x))}, {x})[0].to_vector() == std::vector<float>{3, 12}, "a function's gradient");
  const Tensor y = autograd::checkpoint([](const std::vector<Tensor>& in) { return sum(in[0] * in[0]); }, {x});
  y.backward();
  expect(x.grad().to_vector() == std::vector<float>{2, 4}, "a checkpoint's gradient");
  Tensor hooked = x * 1.0;
  hooked.register_hook([](const Tensor& g) { return g * 2.0; }).remove();
  std::ostringstream text;
  text << x << x.shape() << f16;
  expect(!text.str().empty() && name(Memory::weights) == "weights" && format_info(bf16).max > 3e38 && promote(f16, bf16) == f32,
         "facts and printing");
  expect(throws_error([&] { matmul(x, zeros({3})); }), "an Error is caught as one");
  expect(!autograd::no_grad([] { return autograd::grad_enabled(); }), "no_grad");
  expect(f16_t(1.5f) == f16_t(1.5) && from_span<bf16_t>(std::vector{bf16_t(2.0f)}, {1}).item() == 2, "16-bit scalars");
}

void precision() {
  expect(amp::autocast(f16, [] { return amp::autocast_enabled() && amp::autocast_dtype() == f16; }), "autocast");
  amp::Policy policy = amp::Policy::torch();
  expect(policy.set("softmax", amp::Cast::low).of("softmax") == amp::Cast::low && policy != amp::Policy::mezzo(), "policies");
  nn::Linear linear({.in = 4, .out = 2});
  optim::Sgd sgd(linear.parameters(), {.lr = 0.1, .momentum = 0.9});
  amp::GradScaler scaler({.init_scale = 1024});  // under torch() the loss is f16, and so is its gradient: 65536 would not fit
  {
    const amp::Autocast region(f16, {.policy = policy});
    scaler.scale(mean(linear(ones({3, 4})))).backward();
  }
  scaler.unscale(sgd);
  expect(optim::clip_grad_norm(linear.parameters(), 1) > 0 && scaler.step(sgd).applied, "a scaled step");
  scaler.update();
  scaler.load_state(scaler.state());
  sgd.load_state(sgd.state());
  expect(optim::schedule({.kind = optim::schedule_from_name("cosine"), .lr = 1, .steps = 10}, 0) == 1, "schedules");
}

void training(const std::filesystem::path& directory) {
  for (const std::string& name : train::recipe_names()) {
    const train::Recipe recipe = train::recipe(name);
    Block block;
    block.keep("gain", f32).train().eval();
    optim::AdamW opt(block.named_parameters(), {.lr = 1e-2, .storage = recipe.storage, .low = recipe.low});
    train::Step step(opt, {.recipe = name, .clip_norm = 1, .accumulate = 2});
    expect(step([&](int) { return mse_loss(block(ones({4, 8})), zeros({4, 8})); }).applied() && !train::to_string(step.plan()).empty(), name.c_str());
    save(block.state_dict(), directory / "block.safetensors");
    block.load_state_dict(load(directory / "block.safetensors"));
  }
  optim::Adam adam(Block().parameters(), {.lr = 1e-3});
  adam.zero_grad();
  adam.step();
  models::Gpt gpt(std::get<models::GptOptions>(models::model_from_spec("gpt:layers=1,heads=2,width=16,vocab=32,context=8")));
  const Tensor ids = zeros({1, 8}, {.dtype = i64});
  gpt.loss(ids, ids).backward();
  expect(gpt(ids).shape() == Shape{1, 8, 32} && models::sample(gpt, {1}, {.max_tokens = 2}).size() >= 2, "a GPT");
  models::save_pretrained(gpt, directory / "gpt");
  expect(models::to_spec(dynamic_cast<models::Gpt&>(*models::load_pretrained(directory / "gpt")).options()) == models::to_spec(gpt.options()),
         "a model's directory");
}

void runtime() {
  set_num_threads(1);
  const LogSink before = set_log_sink({});
  reset_peak_memory();
  release_cached_memory();
  Generator order(7);
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  expect(version() == "0.1.0" && num_threads() == 1 && active_isa() <= detected_isa() && !cpu_info().model.empty() && memory_report().peak >= 0 &&
             order.below(3) < 3 && tokenizer.decode(tokenizer.encode("mezzo")) == "mezzo" && decoder.push('m') == "m" &&
             default_generator().seed() == 1,
         "the runtime");
}

}  // namespace

int main(int argc, char** argv) {
  manual_seed(1);
  tensors_and_gradients();
  precision();
  training(argc > 1 ? argv[1] : ".");
  runtime();
  return all_well ? 0 : 1;
}
