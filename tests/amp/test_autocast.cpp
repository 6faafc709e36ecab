// Autocast regions: what they set, how they nest, and that they restore it.
#include <stdexcept>
#include <thread>

#include <mezzo/amp.h>
#include <mezzo/autograd.h>
#include <mezzo/ops.h>

#include "autograd/context.h"
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::Autocast;
using amp::Cast;
using amp::Policy;

TEST_CASE("outside any region autocast is off, its dtype bf16, its policy mezzo's") {
  CHECK_FALSE(amp::autocast_enabled());
  CHECK(amp::autocast_dtype() == bf16);
  CHECK(context().policy == Policy::mezzo());
}

TEST_CASE("regions nest and restore") {
  {
    const Autocast outer(f16);
    CHECK(amp::autocast_enabled());
    CHECK(amp::autocast_dtype() == f16);
    {
      const Autocast inner(bf16, {.cache = false});
      CHECK(amp::autocast_dtype() == bf16);
      CHECK_FALSE(context().cache);
      {
        const Autocast off(f32, {.enabled = false});
        CHECK_FALSE(amp::autocast_enabled());
        const Autocast on_again(f16);
        CHECK(amp::autocast_enabled());
        CHECK(context().cache);
      }
      CHECK(amp::autocast_enabled());
      CHECK(amp::autocast_dtype() == bf16);
    }
    CHECK(amp::autocast_dtype() == f16);
    CHECK(context().cache);
  }
  CHECK_FALSE(amp::autocast_enabled());
  CHECK(amp::autocast_dtype() == bf16);
  { const Autocast without_cache(bf16, {.cache = false}); }
  CHECK(context().cache);
}

TEST_CASE("no policy given: the enclosing region's, through disabled regions too") {
  Policy mine = Policy::mezzo();
  mine.set("softmax", Cast::f32);
  {
    const Autocast outer(bf16, {.policy = mine});
    const Autocast off(bf16, {.enabled = false});
    const Autocast inner(f16);
    CHECK(context().policy == mine);
    const Autocast torchs(f16, {.policy = Policy::torch()});
    CHECK(context().policy == Policy::torch());
  }
  CHECK(context().policy == Policy::mezzo());
}

TEST_CASE("a region is restored when an exception leaves it") {
  CHECK_THROWS_AS(amp::autocast(f16, [] { throw std::runtime_error("out"); }), std::runtime_error);
  CHECK_FALSE(amp::autocast_enabled());
  CHECK(amp::autocast_dtype() == bf16);
}

TEST_CASE("the function form returns what the function returns, references too") {
  int x = 1;
  int& same = amp::autocast(bf16, [&]() -> int& { return x; });
  CHECK(&same == &x);
  CHECK(amp::autocast(bf16, [] { return amp::autocast_enabled(); }));
  CHECK_FALSE(amp::autocast(bf16, {.enabled = false}, [] { return amp::autocast_enabled(); }));
}

TEST_CASE("a region belongs to its thread") {
  const Autocast region(f16);
  bool enabled = true;
  std::thread([&] { enabled = amp::autocast_enabled(); }).join();
  CHECK_FALSE(enabled);
  CHECK(amp::autocast_enabled());
}

TEST_CASE("a region leaves grad mode to others, whatever the order they end in") {
  auto region = std::make_unique<Autocast>(bf16);
  const autograd::NoGrad guard;
  region.reset();
  CHECK_FALSE(autograd::grad_enabled());
}

TEST_CASE("autocast to a dtype of other than 16 bits is an Error that changes nothing") {
  for (const Dtype dtype : {f32, f64, i32}) {
    CHECK_ERROR(Autocast(dtype), "[Autocast]", "f16 or bf16 wanted", ".enabled = false");
    CHECK_NOTHROW(Autocast(dtype, {.enabled = false}));
  }
  CHECK_FALSE(amp::autocast_enabled());
}

TEST_CASE("ops see the region: a product is 16-bit inside, f32 outside and in a disabled region") {
  const Tensor a = ones({2, 2}), b = ones({2, 2});
  CHECK(matmul(a, b).dtype() == f32);
  const Autocast region(bf16);
  CHECK(matmul(a, b).dtype() == bf16);
  const Autocast off(bf16, {.enabled = false});
  CHECK(matmul(a, b).dtype() == f32);
}
