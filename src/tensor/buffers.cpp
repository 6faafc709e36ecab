// buffers.cpp - what a scope keeps of buffers that are written to, and puts back.
#include "tensor/buffers.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace mezzo {
namespace {
thread_local BufferScope* innermost = nullptr;
}

BufferScope::BufferScope() noexcept : outer_(std::exchange(innermost, this)) {}

BufferScope::~BufferScope() {
  innermost = outer_;
  if (keep_) return;
  for (const Old& o : old_) {
    std::memcpy(o.storage->data, o.bytes.as<void>(), o.storage->bytes);
    o.storage->version.fetch_add(1, std::memory_order_relaxed);
  }
}

void before_write(const Tensor& t) {
  const auto& storage = t.impl()->storage;
  if (!storage->buffer) return;
  for (BufferScope* s = innermost; s; s = s->outer_) {
    if (std::any_of(s->old_.begin(), s->old_.end(), [&](const auto& o) { return o.storage.get() == storage.get(); })) continue;
    Block copy(storage->bytes, Memory::workspace);
    std::memcpy(copy.as<void>(), storage->data, storage->bytes);
    s->old_.push_back({storage, std::move(copy)});
  }
}

}  // namespace mezzo
