// quantize_test.cpp - a base rounded into blocks as it is loaded, and what it weighs when it is written again.
#include <algorithm>

#include <doctest/doctest.h>

#include <mezzo/mezzo.h>

#include "io/support.h"
#include "models/export.h"

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;

Tensor weight(const StateDict& weights, const std::string& path) {
  return std::find_if(weights.begin(), weights.end(), [&](const auto& w) { return w.first == path; })->second;
}

}  // namespace

TEST_CASE("matrices rounded into blocks as they are loaded: NF4's elements are its levels times the block's largest, what does not fit is named") {
  manual_seed(3);
  const auto model = models::make_model(models::model_from_spec("llama:layers=1,heads=2,width=64,ffn=128,vocab=32,context=16"));
  const TempDir dir;
  models::save_pretrained(*model, dir.path());
  const models::LoadOptions nf4{.keep_blocks = true, .quantize = "nf4"};
  const auto path = std::string("model.layers.0.mlp.down_proj.weight");
  const Tensor before = weight(model->state_dict(), path);
  const fs::path merged = dir / "merged";
  fs::create_directories(merged);
  models::save_merged(*models::load_pretrained(dir.path(), nf4), merged, {.source = dir.path()});
  const auto x = before.to_vector(), y = weight(load(merged / "model.safetensors"), path).to_vector();
  REQUIRE(x.size() == y.size());
  bool near = true;
  for (std::size_t block = 0; block < x.size(); block += 64) {
    float d = 0;
    for (std::size_t i = 0; i < 64; ++i) d = std::max(d, std::abs(x[block + i]));
    // Half the widest gap between levels, -1 and -0.696, and the rounding of the scale to f16.
    for (std::size_t i = block; i < block + 64; ++i) near = near && std::abs(x[i] - y[i]) <= d * (0.152f + 0x1p-11f);
  }
  CHECK(near);
  CHECK(contains(error_of([&] { models::load_pretrained(dir.path(), {.keep_blocks = true, .quantize = "nf5"}); }), "did you mean `nf4`"));
  CHECK(contains(error_of([&] { models::save_gguf(*model, dir / "x.gguf", {.type = kernels::Format::nf4}); }), "NF4"));
  CHECK(contains(error_of([] { io::encoding_from_name("nf4"); }), "GGUF has no NF4"));
  const autograd::NoGrad off;
  fill_(before.narrow(0, 3, 1), 70000);
  models::save_pretrained(*model, dir.path());
  CHECK(contains(error_of([&] { models::load_pretrained(dir.path(), nf4); }), path + "` has an element of 70000, at most 65504 wanted in NF4"));
}

}  // namespace mezzo::test
