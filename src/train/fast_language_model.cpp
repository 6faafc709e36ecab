// fast_language_model.cpp - the library's pieces under one handle.
#include <mezzo/fast_language_model.h>

#include "core/fail.h"
#include "models/export.h"
#include "models/projection.h"
#include "text/chat_template.h"
#include "train/generate.h"
#include "train/run_model.h"

namespace mezzo {

struct FastLanguageModel::Impl {
  train::RunModel run;
  train::Recipe recipe;
};

FastLanguageModel FastLanguageModel::from_pretrained(const std::filesystem::path& path, const PretrainedOptions& o) {
  FastLanguageModel m;
  const train::Recipe recipe = train::recipe_for_asking(o.precision, path);
  m.impl_ = std::make_shared<Impl>(
      Impl{train::load_run_model(path, {.keep_blocks = o.keep_blocks, .keep_table = o.keep_blocks, .quantize = o.quantize, .dropout = o.dropout}),
           recipe});
  if (!o.chat_template.empty()) {
    text::read_chat_template(o.chat_template);  // an Error for what is none comes now
    m.impl_->run.chat = o.chat_template;
  }
  m.for_inference();
  return m;
}

FastLanguageModel& FastLanguageModel::add_lora(const models::LoraOptions& o) {
  models::add_lora(model(), o);
  return *this;
}

FastLanguageModel& FastLanguageModel::for_training() {
  if (!models::lora_options(model()) && models::has_blocks(model()))
    fail("for_training", fmt::format("{}: its matrices lie in blocks, which cannot be trained", source().native()),
         "add_lora() first, or load it with .keep_blocks = false");
  model().train();
  return *this;
}
FastLanguageModel& FastLanguageModel::for_inference() {
  model().eval();
  return *this;
}

std::string FastLanguageModel::generate(std::string_view prompt, const GenerateOptions& o) {
  models::SampleOptions sample{.max_tokens = o.max_tokens,
                               .temperature = o.temperature,
                               .top_k = o.top_k,
                               .top_p = o.top_p,
                               .repetition_penalty = o.repetition_penalty,
                               .seed = o.seed};
  std::vector<std::int32_t> ids;
  if (o.chat) {
    train::ChatPrompt chat = train::chat_prompt(impl_->run.chat, tokenizer(), std::string(prompt), o.system);
    ids = std::move(chat.ids);
    sample.stop = std::move(chat.stop);
  } else {
    ids = train::prompt_ids(tokenizer(), prompt);
  }
  return train::generate(model(), tokenizer(), ids, sample, recipe(), o.on_text).text;
}

void FastLanguageModel::save_adapter(const std::filesystem::path& dir) const { train::write_adapter(impl_->run, dir); }

void FastLanguageModel::save_merged(const std::filesystem::path& dir, Dtype dtype) const { train::write_merged(impl_->run, dir, dtype); }

void FastLanguageModel::save_gguf(const std::filesystem::path& file, std::string_view type) const {
  const auto& run = impl_->run;
  models::save_gguf(model(), file,
                    {.type = io::encoding_from_name(type),
                     .source = source(),
                     .tokenizer = &tokenizer(),
                     .chat_template = run.chat == run.base ? std::string() : text::read_chat_template(run.chat)});
}

models::LanguageModel& FastLanguageModel::model() const { return *impl_->run.model; }
const std::shared_ptr<models::LanguageModel>& FastLanguageModel::shared_model() const { return impl_->run.model; }
const Tokenizer& FastLanguageModel::tokenizer() const { return *impl_->run.tokenizer; }
const std::filesystem::path& FastLanguageModel::source() const { return impl_->run.base; }
const train::Recipe& FastLanguageModel::recipe() const { return impl_->recipe; }

}  // namespace mezzo
