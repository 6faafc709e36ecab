// onednn.cpp - the matmul primitive of oneDNN 2.6.3, with a cache of primitives by shape.
#include "kernels/gemm/onednn.h"

#include <array>
#include <cstdint>
#include <string_view>

#include <mezzo/runtime.h>
#include "core/dry_run.h"
#include "kernels/gemm/onednn_library.h"

namespace mezzo::kernels {
namespace {

void check(dnnl_status_t status, const char* what) { onednn::check("gemm", status, what); }

/// Everything that a primitive is made for.
struct Key {
  std::array<std::int64_t, 6> sizes;  // m, n, k, lda, ldb, ldc
  int threads;
  Dtype ab, c, bias_dtype;
  bool trans_a, trans_b, bias, residual, accumulate;

  explicit Key(const Gemm& g)
      : sizes{g.m, g.n, g.k, g.lda, g.ldb, g.ldc},
        threads(num_threads()),
        ab(g.a),
        c(g.c),
        bias_dtype(g.bias ? g.bias_dtype : f32),
        trans_a(g.trans_a),
        trans_b(g.trans_b),
        bias(g.bias != nullptr),
        residual(g.residual != nullptr),
        accumulate(g.beta != 0) {}
  friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    onednn::Mix mix;
    for (const std::int64_t size : key.sizes) mix(size);
    const auto flags = key.trans_a << 4 | key.trans_b << 3 | key.bias << 2 | key.residual << 1 | int{key.accumulate};
    return mix(key.threads)(static_cast<int>(key.ab))(static_cast<int>(key.c))(static_cast<int>(key.bias_dtype))(flags).value();
  }
};

/// A primitive with memory objects whose pointers are set for each call: one thread's own.
class Matmul {
 public:
  explicit Matmul(const Key& key) {
    using dnnl::memory;
    const auto [m, n, k, lda, ldb, ldc] = key.sizes;
    const auto type = onednn::type_of(key.ab);
    const memory::desc a({m, k}, type, key.trans_a ? memory::dims{1, lda} : memory::dims{lda, 1});
    const memory::desc b({k, n}, type, key.trans_b ? memory::dims{1, ldb} : memory::dims{ldb, 1});
    const memory::desc c({m, n}, onednn::type_of(key.c), memory::dims{ldc, 1});
    const memory::desc bias = key.bias ? memory::desc({1, n}, onednn::type_of(key.bias_dtype), memory::dims{n, 1}) : memory::desc();

    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::post_ops after;
    if (key.accumulate) after.append_sum(1.0f);
    if (key.residual) after.append_binary(dnnl::algorithm::binary_add, c);
    attributes.set_post_ops(after);

    const auto op = key.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
    const dnnl::matmul::primitive_desc pd(op, attributes, onednn::engine(), /*allow_empty=*/true);
    if (!pd || std::string_view(pd.impl_info_str()).substr(0, 4) != "brg:") return;  // another implementation is slower than our own
    primitive_ = dnnl::matmul(pd);
    scratch_bytes_ = pd.scratchpad_desc().get_size();

    const auto argument = [this](int index, const memory::desc& d) {
      memories_[count_] = memory(d, onednn::engine(), DNNL_MEMORY_NONE);
      arguments_[count_] = {index, memories_[count_].get()};
      ++count_;
    };
    argument(DNNL_ARG_SRC, a);
    argument(DNNL_ARG_WEIGHTS, b);
    argument(DNNL_ARG_DST, c);
    argument(DNNL_ARG_SCRATCHPAD, pd.scratchpad_desc());
    if (key.bias) argument(DNNL_ARG_BIAS, bias);
    if (key.residual) argument(DNNL_ARG_ATTR_MULTIPLE_POST_OP(key.accumulate ? 1 : 0) | DNNL_ARG_SRC_1, c);
  }

  bool usable() const { return count_ > 0; }

  void run(Queue& queue, const dnnl::stream& stream, const Gemm& g, const void* a, const void* b, void* c) {
    const Block scratch = queue.scratch(scratch_bytes_);
    if (DryRun::active()) return;
    const std::array<const void*, kMost> pointers = g.bias ? std::array<const void*, kMost>{a, b, c, scratch.as<void>(), g.bias, g.residual}
                                                           : std::array<const void*, kMost>{a, b, c, scratch.as<void>(), g.residual, nullptr};
    for (int i = 0; i < count_; ++i)
      check(dnnl_memory_set_data_handle_v2(arguments_[i].memory, const_cast<void*>(pointers[i]), nullptr), "set_data_handle");
    check(dnnl_primitive_execute(primitive_.get(), stream.get(), count_, arguments_.data()), "execute");
  }

 private:
  static constexpr int kMost = 6;
  dnnl::matmul primitive_;
  std::size_t scratch_bytes_ = 0;
  std::array<dnnl::memory, kMost> memories_;
  std::array<dnnl_exec_arg_t, kMost> arguments_{};
  int count_ = 0;
};

}  // namespace

bool onednn_matmul(Queue& queue, const Gemm& g, const void* a, const void* b, void* c) {
  if (g.alpha != 1 || (g.beta != 0 && g.beta != 1) || !native_gemm(g.a) || !onednn::may_run()) return false;
  thread_local onednn::PrimitiveCache<Key, KeyHash, Matmul> cache;
  Matmul& matmul = cache.get(Key(g));
  if (!matmul.usable()) return false;
  matmul.run(queue, cache.stream(), g, a, b, c);
  return true;
}

}  // namespace mezzo::kernels
