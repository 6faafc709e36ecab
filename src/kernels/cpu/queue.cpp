// queue.cpp - the CPU's queue.
#include "core/parallel.h"
#include "kernels/cpu/isa.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {

Queue& cpu_queue() {
  static Queue queue;
  cap_highway();
  share_num_threads();
  return queue;
}

}  // namespace mezzo::kernels
