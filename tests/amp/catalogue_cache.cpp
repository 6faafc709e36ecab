// The cache of 16-bit weights: PyTorch's tests of its cast cache under their names, and what its cache gets wrong.
#include <array>
#include <atomic>
#include <functional>
#include <thread>

#include <mezzo/mezzo.h>

#include "autograd/context.h"
#include "optim/helpers.h"
#include "tensor/impl.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::Autocast;

namespace {

/// Where the copy that an op would read lies: the same address twice means one cast.
const void* copy_of(const Tensor& w) { return data(operand(w, amp::autocast_dtype()).value); }

struct Net {
  std::shared_ptr<nn::Linear> first = std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 8}),
                              second = std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 8});
  Tensor operator()(const Tensor& x) const { return (*second)((*first)(x)); }
};
constexpr std::int64_t kCopies = 2 * 8 * 8 * 2;  // bytes of both weights in 16 bits

}  // namespace

TEST_CASE("a weight is cast once over forward and a backward in a region [test_cast_cache_is_global]") {
  const Net net;
  const auto before = bytes_of(Memory::cast_cache);
  const Tensor x = ones({4, 8});
  const Tensor loss = amp::autocast(bf16, [&] { return sum(net(net(x))); });
  CHECK(bytes_of(Memory::cast_cache) - before == kCopies);
  const Autocast on(bf16);
  const void* copy = copy_of(net.first->weight);
  const auto version = net.first->weight.impl()->storage->casts->slots[1].copy->version.load();
  loss.backward();
  CHECK(copy_of(net.first->weight) == copy);
  CHECK(net.first->weight.impl()->storage->casts->slots[1].copy->version.load() == version);  // nor written again
  CHECK(bytes_of(Memory::cast_cache) - before == kCopies);
}

TEST_CASE("cache = false: a cast at each use, and nothing kept [test_cache_disabled]") {
  const Net net;
  const auto before = bytes_of(Memory::cast_cache);
  const Tensor x = ones({4, 8});
  const Tensor cached = amp::autocast(bf16, [&] { return net(x); });
  const Net other;
  const auto with_one = bytes_of(Memory::cast_cache);
  {
    const Autocast on(bf16, {.cache = false});
    const Tensor a = operand(other.first->weight, bf16).value, b = operand(other.first->weight, bf16).value;
    CHECK(data(a) != data(b));
    CHECK(bits(a) == bits(b));
    CHECK(bits(net(x)) == bits(cached));  // and the copies that are there are not read
    other(x);
  }
  CHECK(with_one - before == kCopies);
  CHECK(bytes_of(Memory::cast_cache) == with_one);
}

TEST_CASE("1,000 forwards under no_grad: memory stays as it is, in one region and in one each [test_autocast_cache_leak]") {
  const Net net;
  const Tensor x = ones({4, 8});
  const autograd::NoGrad off;
  const auto grows = [&](const std::function<void()>& forward) {
    for (int i = 0; i < 5; ++i) forward();
    const MemoryReport before = memory_report();
    for (int i = 0; i < 1000; ++i) forward();
    const MemoryReport after = memory_report();
    CHECK(after.total == before.total);
    CHECK(after.reserved == before.reserved);
    CHECK(after.bytes == before.bytes);
  };
  grows([&] { amp::autocast(bf16, [&] { return net(x); }); });
  grows([&] { amp::autocast(bf16, {.cache = false}, [&] { return net(x); }); });
  const Autocast on(f16);
  grows([&] { net(x); });
  grows([&] { linear(x, ones({8, 8})); });  // a new weight each time, as a key by address would keep
}

TEST_CASE("a forward under no_grad, then one with grad, in one region: gradients, of the same copy [test_autocast_nograd_caching_issue_158232]") {
  const Net net;
  const Tensor x = ones({4, 8});
  const Autocast on(bf16);
  Tensor without;
  {
    const autograd::NoGrad off;
    without = net(x);
    CHECK_FALSE(without.requires_grad());
  }
  const void* copy = copy_of(net.first->weight);
  const Tensor with = net(x);
  CHECK(copy_of(net.first->weight) == copy);
  CHECK(with.requires_grad());
  CHECK(bits(with) == bits(without));
  sum(with).backward();
  for (const auto& layer : {net.first, net.second}) {
    CHECK(layer->weight.grad().defined());
    CHECK(layer->weight.grad().dtype() == f32);
    CHECK(norm(layer->weight.grad()).item() > 0);
  }
}

TEST_CASE(
    "regions and no_grad in every nesting keep requires_grad right [test_autocast_inference_mode_interaction, test_autocast_mixed_grad_contexts]") {
  const Tensor x = ones({4, 8}), w = ones({8, 8}, {.requires_grad = true});
  {
    const autograd::NoGrad off;
    const Autocast on(bf16);
    CHECK_FALSE(linear(x, w).requires_grad());
  }
  {
    const Autocast on(bf16);
    const Tensor first = linear(x, w);
    CHECK(first.requires_grad());
    autograd::no_grad([&] { CHECK_FALSE(linear(x, w).requires_grad()); });
    const Tensor last = linear(x, w);
    CHECK(last.requires_grad());
    sum(first + last).backward();
  }
  CHECK(w.grad().to_vector() == std::vector<float>(64, 8));
  autograd::no_grad([&] {
    amp::autocast(bf16, [&] { CHECK_FALSE(linear(x, w).requires_grad()); });
    CHECK_FALSE(linear(x, w).requires_grad());
  });
  CHECK(linear(x, w).requires_grad());
}

TEST_CASE("two uses with gradients share a copy and both count [test_autocast_caching_still_works_with_gradients]") {
  const Tensor x = ones({4, 8}), w = ones({8, 8}, {.requires_grad = true});
  const Autocast on(bf16);
  const void* copy = copy_of(w);
  const Tensor y = linear(x, w) + linear(x, w);
  CHECK(copy_of(w) == copy);
  sum(y).backward();
  CHECK(w.grad().to_vector() == std::vector<float>(64, 8));
}

TEST_CASE("a weight changed in place inside a region is read as it is now: 8, then 16 [extra: stale cache after in-place update]") {
  for (const Dtype region : {f16, bf16}) {
    const Tensor x = ones({1, 8}), w = ones({8, 1}, {.requires_grad = true});
    const Autocast on(region);
    const Tensor y = mm(x, w);
    CHECK(y.item() == 8);
    autograd::no_grad([&] { copy_(w, w * 2.0); });
    CHECK(mm(x, w).item() == 16);
    autograd::no_grad([&] { fill_(w.narrow(0, 0, 4), 0); });  // through a view
    CHECK(mm(x, w).item() == 8);
    Tensor handle = w;
    handle.mutable_data<float>()[7] = 100;
    CHECK(mm(x, w).item() == 106);
  }
}

TEST_CASE("a graph that saved the old copy keeps it: its gradient is that of the weight it was made with") {
  const Tensor x = full({1, 4}, 1, {.requires_grad = true}), w = full({4, 1}, 3, {.requires_grad = true});
  const Autocast on(bf16);
  const Tensor y = mm(x, w);
  autograd::no_grad([&] { fill_(w, 5); });
  const Tensor z = mm(x, w);
  sum(y).backward();
  CHECK(x.grad().to_vector() == std::vector<float>(4, 3));
  sum(z).backward();
  CHECK(x.grad().to_vector() == std::vector<float>(4, 8));
}

TEST_CASE("a module's frozen weights are cached too; what is no parameter is not [extra: frozen-weight caching]") {
  const Net net;
  for (const auto& layer : {net.first, net.second}) layer->weight.requires_grad_(false);
  const Autocast on(bf16);
  const auto before = bytes_of(Memory::cast_cache);
  const Tensor activation = ones({8, 8});
  for (const bool grad : {false, true}) {
    const GradMode mode(grad);
    net(ones({4, 8}));
    CHECK(bytes_of(Memory::cast_cache) - before == kCopies);
  }
  const Tensor a = operand(activation, bf16).value, b = operand(activation, bf16).value;
  CHECK(data(a) != data(b));
  CHECK(copy_of(net.first->weight.transpose(0, 1)) == copy_of(net.first->weight));  // a view of it is a view of its copy
  CHECK(bytes_of(Memory::cast_cache) - before == kCopies);
}

TEST_CASE("a copy lives as long as its weight: not shorter, when a region or another thread's region ends; not longer") {
  const auto before = bytes_of(Memory::cast_cache);
  {
    const Tensor w = ones({8, 8}, {.requires_grad = true});
    const void* first = amp::autocast(bf16, [&] { return copy_of(w); });
    std::thread([&] { amp::autocast(bf16, [&] { CHECK(copy_of(w) == first); }); }).join();
    const void* in_f16 = amp::autocast(f16, [&] { return copy_of(w); });
    CHECK(in_f16 != first);
    const Autocast on(bf16);
    CHECK(copy_of(w) == first);
    CHECK(bytes_of(Memory::cast_cache) - before == 2 * 8 * 8 * 2);  // one slot a format
  }
  CHECK(bytes_of(Memory::cast_cache) == before);
}

TEST_CASE("threads: each has its own region, dtype, policy and cache option; one weight is cast once") {
  const Tensor w = ones({64, 64}, {.requires_grad = true}), x = ones({4, 64});
  const auto before = bytes_of(Memory::cast_cache);
  std::array<Dtype, 4> dtypes{};
  std::array<float, 4> values{};
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      ++ready;
      while (ready < 4) std::this_thread::yield();
      const Autocast on(i % 2 ? f16 : bf16, {.enabled = i != 3, .policy = i == 0 ? amp::Policy::torch() : amp::Policy::mezzo()});
      const autograd::NoGrad off;
      for (int n = 0; n < 50; ++n) {
        const Tensor y = softmax(linear(x, w), -1);
        dtypes[i] = y.dtype();
        values[i] = y.to_vector()[0];
      }
    });
  for (auto& t : threads) t.join();
  CHECK(dtypes == std::array<Dtype, 4>{f32, f16, bf16, f32});
  CHECK(values == std::array<float, 4>{0x1p-6f, 0x1p-6f, 0x1p-6f, 0x1p-6f});
  CHECK(bytes_of(Memory::cast_cache) - before == 2 * 64 * 64 * 2);
  CHECK_FALSE(amp::autocast_enabled());
}

TEST_CASE("the optimizer's pass writes the copy along with the weight: the next forward casts nothing") {
  const Tensor w = ones({8, 8}, {.requires_grad = true}), x = ones({4, 8});
  optim::Sgd sgd({w}, {.lr = 0.5});
  const auto step = [&] {
    sgd.zero_grad();
    amp::autocast(bf16, [&] { return sum(linear(x, w)); }).backward();
    sgd.step();
  };
  step();
  const Autocast on(bf16);
  const auto& slot = w.impl()->storage->casts->slots[1];
  CHECK(slot.version == w.version());  // fresh already
  CHECK(linear(x, w).to_vector() == std::vector<float>(32, 8 * (1 - 0.5f * 4)));
}
