// fast_language_model.cpp - an existing model: adapters trained on it, asked, and written for others. Takes a model's path; `./dev model` fetches
// one.
#include <cstdio>
#include <filesystem>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main(int argc, char** argv) {
  const std::filesystem::path path = argc > 1 ? argv[1] : "build/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) {
    std::printf("%s is not there: nothing to do\n", path.c_str());
    return 0;
  }
  const std::filesystem::path out = std::filesystem::temp_directory_path() / "mezzo-fast-language-model";

  auto model = FastLanguageModel::from_pretrained(path);
  model.add_lora({.rank = 16, .alpha = 16}).for_training();  // the base stays frozen, in its file's blocks

  optim::AdamW opt(models::trainable_parameters(model.model()), {.lr = 1e-3});
  train::Step step(opt, {.recipe = "bf16", .clip_norm = 1});
  const auto ids = model.tokenizer().encode("Half the bits, twice the speed, and the same accuracy: that is mixed precision.");
  const auto t = static_cast<std::int64_t>(ids.size()) - 1;
  const Tensor tokens = from_span(std::span<const std::int32_t>(ids), {1, t + 1});
  for (int i = 0; i < 5; ++i) {
    const auto report = step([&](int) { return model.model().loss(tokens.narrow(1, 0, t), tokens.narrow(1, 1, t)); });
    std::printf("step %d  loss %.3f\n", i, report.loss);
  }

  std::puts(model.for_inference().generate("Why is the sky blue?", {.max_tokens = 40, .temperature = 0, .chat = true}).c_str());

  model.save_adapter(out / "adapter");          // loads in PEFT
  model.save_merged(out / "merged", bf16);      // Hugging Face's layout
  model.save_gguf(out / "model.gguf", "q8_0");  // llama.cpp
  std::filesystem::remove_all(out);
}
