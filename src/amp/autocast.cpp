// autocast.cpp - regions of the thread's execution context.
#include <mezzo/amp.h>

#include "autograd/context.h"
#include "core/fail.h"

namespace mezzo::amp {

/// What a region changes, and nothing else: grad mode belongs to other scopes.
struct Autocast::Before {
  bool autocast, cache;
  Dtype dtype;
  Policy policy;
};

Autocast::Autocast(Dtype dtype, AutocastOptions options) {
  if (options.enabled && !is_16bit(dtype))
    fail("Autocast", fmt::format("dtype {} given, f16 or bf16 wanted", name(dtype)),
         "to run a part of a region in its inputs' precision, pass .enabled = false");
  auto& c = context();
  before_ = std::make_unique<Before>(Before{c.autocast, c.cache, c.dtype, c.policy});
  c.autocast = options.enabled;
  c.cache = options.cache;
  if (is_16bit(dtype)) c.dtype = dtype;
  if (options.policy) c.policy = *options.policy;
}

Autocast::~Autocast() {
  auto& c = context();
  c.autocast = before_->autocast;
  c.cache = before_->cache;
  c.dtype = before_->dtype;
  c.policy = before_->policy;
}

bool autocast_enabled() { return context().autocast; }
Dtype autocast_dtype() { return context().dtype; }

}  // namespace mezzo::amp
