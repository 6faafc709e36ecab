// recipe_test.cpp - recipes by name, `auto`, what scales the loss, and what a plan says of itself.
#include <doctest/doctest.h>

#include <mezzo/nn.h>
#include <mezzo/runtime.h>
#include <mezzo/train.h>

#include "io/support.h"
#include "train/automatic.h"

namespace mezzo::test {

using optim::Storage;

TEST_CASE("the recipes") {
  CHECK(train::recipe_names() == std::vector<std::string>{"fp32", "bf16", "fp16", "bf16-master", "fp16-master", "bf16-split", "bf16-kahan", "bf16-sr",
                                                          "bf16-pure", "fp16-pure"});
  const auto bytes = [](const char* name) { return train::recipe(name).bytes_per_parameter; };
  CHECK(bytes("bf16-split") == 14);
  CHECK(bytes("bf16-kahan") == 10);
  CHECK(bytes("bf16-sr") == 8);
  CHECK(bytes("bf16-pure") == 12);
  CHECK(bytes("fp16-pure") == 12);
  CHECK(train::recipe("bf16-split").storage == Storage::split);
  CHECK(train::recipe("bf16-kahan").storage == Storage::kahan);
  CHECK(train::recipe("bf16-sr").storage == Storage::stochastic);
  CHECK(train::recipe("fp16-pure").storage == Storage::pure);
  CHECK(train::recipe("fp16-pure").low == f16);
  const auto fp16_master = train::recipe("fp16-master");
  CHECK(fp16_master.low == f16);
  CHECK(fp16_master.storage == Storage::master);
  CHECK(fp16_master.scaling);
  CHECK(fp16_master.bytes_per_parameter == 16);
  const auto bf16_autocast = train::recipe("bf16");
  CHECK(bf16_autocast.storage == Storage::f32);
  CHECK_FALSE(bf16_autocast.scaling);
  CHECK(bf16_autocast.bytes_per_parameter == 18);
  CHECK_FALSE(train::recipe("fp32").autocast);
}

TEST_CASE("unknown names are answered with near ones") {
  CHECK(contains(error_of([] { train::recipe("bf-16"); }), "`bf16`"));
  CHECK(contains(error_of([] { train::recipe("bf16-sl"); }), "bf16-sr"));
  CHECK(contains(error_of([] { train::recipe("float"); }),
                 "one of fp32, bf16, fp16, bf16-master, fp16-master, bf16-split, bf16-kahan, bf16-sr, bf16-pure, fp16-pure, auto wanted"));
}

TEST_CASE("auto is a function of the instruction set, and says why") {
  const auto plan = train::resolve({});
  CHECK(plan.requested == "auto");
  CHECK(plan.recipe.name == (active_isa() == Isa::avx512_bf16 ? "bf16" : "fp32"));
  CHECK(plan.isa == name(active_isa()));
  CHECK(contains(plan.reason, name(active_isa())));
  if (active_isa() != detected_isa()) CHECK(contains(plan.reason, "MEZZO_ISA"));
  CHECK(train::recipe("auto").name == plan.recipe.name);
  CHECK(plan.warnings.empty());
}

TEST_CASE("auto looks at the width of the matrices and at the rows: narrow ones and few stay in fp32, in train::Step as well") {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    const bool native = isa == Isa::avx512_bf16;
    for (const double width : {0.0, 64.0, 384.0, 4096.0}) CHECK(train::automatic(width, 0, isa, isa).recipe == std::string(native ? "bf16" : "fp32"));
    const auto narrow = train::automatic(32, 0, isa, isa);
    CHECK(narrow.recipe == std::string("fp32"));
    CHECK(contains(narrow.reason, native ? "width 32 are too small" : "no bf16 products"));
    CHECK(train::automatic(512, 16, isa, isa).recipe == std::string(native ? "bf16" : "fp32"));
    const auto few = train::automatic(512, 1, isa, isa);
    CHECK(few.recipe == std::string("fp32"));
    CHECK(contains(few.reason, native ? "with 1 rows" : "no bf16 products"));
  }
  CHECK(train::matrix_width({zeros({64, 64}), zeros({1000}), Tensor(), zeros({64, 64})}) == 64);
  CHECK(train::matrix_width({zeros({7})}) == 0);
  CHECK(train::matrix_width({zeros({1, 1}), zeros({256, 256})}) == doctest::Approx(256).epsilon(1e-4));
  for (const std::int64_t width : {16, 128}) {
    nn::Mlp model({.in = width, .width = width, .out = width});
    optim::AdamW opt(model.parameters());
    CHECK(train::Step(opt).plan().recipe.name == (width >= 64 && active_isa() == Isa::avx512_bf16 ? "bf16" : "fp32"));
    CHECK(train::Step(opt, {.rows = 4}).plan().recipe.name == "fp32");
  }
}

TEST_CASE("16 bits without instructions for them: one warning") {
  const auto warned = [](const char* precision) { return train::resolve({.precision = precision}).warnings.size(); };
  CHECK(warned("fp32") == 0);
  CHECK(warned("fp16") == 1);  // no CPU of these instruction sets multiplies f16
  CHECK(warned("bf16") == (active_isa() == Isa::avx512_bf16 ? 0 : 1));
  CHECK(contains(train::resolve({.precision = "fp16-master"}).warnings[0], "widened to f32 panel by panel"));
}

TEST_CASE("loss scaling: the recipe's, dynamic, none, a number") {
  const auto scaler = [](const char* precision, const char* scale) { return train::resolve({.precision = precision, .loss_scale = scale}).scaler; };
  CHECK_FALSE(scaler("bf16", ""));
  REQUIRE(scaler("fp16", ""));
  CHECK(scaler("fp16", "")->dynamic);
  CHECK(scaler("fp16", "")->init_scale == 65536);
  REQUIRE(scaler("fp16-pure", ""));
  CHECK_FALSE(scaler("fp16-pure", "")->dynamic);
  CHECK(scaler("fp16-pure", "")->init_scale == 1024);
  CHECK(scaler("fp16-pure", "dynamic")->dynamic);
  for (const char* low : {"bf16-split", "bf16-kahan", "bf16-sr", "bf16-pure"}) CHECK_FALSE(scaler(low, ""));
  CHECK(scaler("bf16", "dynamic"));
  CHECK_FALSE(scaler("fp16-master", "none"));
  REQUIRE(scaler("fp16", "1024"));
  CHECK(scaler("fp16", "1024")->init_scale == 1024);
  CHECK_FALSE(scaler("fp16", "1024")->dynamic);
  CHECK(scaler("fp16", "0.5")->init_scale == 0.5);

  const auto warnings = [](const char* precision, const char* scale) {
    return train::resolve({.precision = precision, .loss_scale = scale}).warnings;
  };
  CHECK(contains(warnings("fp16", "none").back(), "2^-25"));
  CHECK(contains(warnings("fp32", "dynamic").back(), "gains nothing"));

  CHECK(contains(error_of([&] { scaler("fp16", "dynamc"); }), "did you mean `dynamic`?"));
  for (const char* bad : {"0", "-1", "nan", "inf", "1e39", "12x"}) CHECK(contains(error_of([&] { scaler("fp16", bad); }), "[loss scale]"));
}

TEST_CASE("a plan in words") {
  const auto text = [](const char* precision, const char* scale = "") {
    return train::to_string(train::resolve({.precision = precision, .loss_scale = scale}));
  };
  const std::string master = text("fp16-master");
  CHECK(contains(master, "precision  fp16-master\n"));
  CHECK(contains(master, "16-bit     matrix weights and their gradients"));
  CHECK(contains(master, "master weights, in the optimizer: "));
  CHECK(contains(master, "loss scale dynamic, from 65536"));
  CHECK(contains(master, "16 bytes a parameter"));
  CHECK(contains(text("bf16-split"), "14 bytes a parameter"));
  CHECK(contains(text("bf16-split"), "the 16 bits that complete them to f32"));
  CHECK(contains(text("bf16-sr"), "rounded by chance"));
  CHECK(contains(text("bf16-kahan"), "what their rounding leaves over"));
  CHECK(contains(text("fp16-pure"), "16-bit     all weights and their gradients"));
  CHECK(contains(text("fp16-pure"), "loss scale constant, 1024"));
  CHECK(contains(text("bf16-pure"), "updates below half their spacing vanish"));
  CHECK(contains(text("fp32"), "16-bit     nothing\n"));
  CHECK(contains(text("fp16", "1024"), "loss scale constant, 1024"));
  CHECK(contains(text("auto"), "(auto: "));
}

}  // namespace mezzo::test
