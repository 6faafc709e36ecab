// onednn_library.cpp - the parts of onednn_library.h that are not inline.
#include "kernels/gemm/onednn_library.h"

#include <mezzo/runtime.h>
#include "core/fail.h"
#include "core/parallel.h"
#include "core/parallel_backend.h"

namespace mezzo::kernels::onednn {
namespace {

// Before oneDNN's first other call, which would fix its choice.
void cap_isa() {
  static const bool done = [] {
    switch (active_isa()) {
      case Isa::scalar: dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41); break;
      case Isa::avx2: dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2); break;
      case Isa::avx512: dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core); break;
      case Isa::avx512_bf16: break;
    }
    return true;
  }();
  (void)done;
}

}  // namespace

bool may_run() {
  if (detail::in_foreign_team()) return false;
  cap_isa();
  share_num_threads();
  return true;
}

void check(const char* op, dnnl_status_t status, const char* what) {
  if (status != dnnl_success) fail(op, fmt::format("oneDNN's {} returned status {}", what, static_cast<int>(status)));
}

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::memory::data_type type_of(Dtype t) { return t == f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16; }

}  // namespace mezzo::kernels::onednn
