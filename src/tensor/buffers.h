// buffers.h - module buffers as part of a transaction: what a step writes to them is undone when the step is not applied.
#pragma once

#include <vector>

#include "tensor/impl.h"

namespace mezzo {

/// While one is open on a thread, the first write to each buffer (Storage::buffer) through copy_, fill_, mutable_data or an op keeps what was
/// there; at the scope's end all of it is put back, unless keep() was called. Scopes nest.
class BufferScope {
 public:
  [[nodiscard]] BufferScope() noexcept;
  ~BufferScope();
  BufferScope(const BufferScope&) = delete;
  BufferScope& operator=(const BufferScope&) = delete;
  void keep() noexcept { keep_ = true; }

 private:
  friend void before_write(const Tensor&);
  struct Old {
    Ref<detail::Storage> storage;
    Block bytes;
  };
  BufferScope* outer_;
  std::vector<Old> old_;
  bool keep_ = false;
};

/// Whoever writes to a tensor's elements in place calls this first.
void before_write(const Tensor&);

}  // namespace mezzo
