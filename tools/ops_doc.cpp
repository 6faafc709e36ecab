// ops_doc.cpp - docs/ops.md out of the op table: `ops_doc > docs/ops.md` writes it, `ops_doc --check docs/ops.md` fails when it is stale.
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "autograd/op_facts.h"

namespace mezzo {
namespace {

constexpr const char* kHead = R"(# Ops: what each computes in

Made from `src/autograd/op_table.h` and `op_facts.h` by `tools/ops_doc.cpp`; a test fails when the two differ.

T is the 16- or 32-bit dtype that an op runs in. Outside autocast it is the inputs' own: element-wise ops take the widest, products want equal
ones. Inside a region the op's *class* chooses it, under the region's policy: `Policy::mezzo()` or `Policy::torch()`, whose column is torch's list
for CUDA. f64 is computed in f64 throughout, and like integers and booleans it is never touched by autocast.

| class | T inside a region | result |
|---|---|---|
| `low` | the region's 16-bit dtype | T |
| `f32` | f32; inputs are read as they are stored where the kernel can | f32 |
| `f32_internal` | the input's dtype | T |
| `widest` | the widest input's; f16 with bf16 gives f32 | T |
| `as_is` | the input's dtype | T |
| `banned` | an Error that names what to use instead: of 16-bit inputs under `mezzo()`, of any under `torch()` | |

An explicit dtype (`sum(x, {.dtype = f32})`) and an in-place destination win over the class. A loss of class `low` (`linear_cross_entropy`)
has its products in T and gives f32. Comparisons give booleans. Rounding is to nearest, ties to even.
)";

void write(std::ostream& out) {
  out << kHead;
  std::size_t family = 0;
  for (const OpInfo& op : op_table::kOps) {
    if (family < kOpFamilies.size() && op.id == kOpFamilies[family].first)
      out << "\n## " << kOpFamilies[family++].title
          << "\n\n| op | `mezzo()` | `torch()` | storage | compute | accumulate | rounding |\n|---|---|---|---|---|---|---|\n";
    const NumericsFacts f = facts(op.numerics);
    out << "| `" << op.name << "` | " << amp::name(op.mezzo) << " | " << amp::name(op.torch) << " | " << f.storage << " | " << f.compute << " | "
        << f.accumulate << " | " << f.rounding << " |\n";
  }
}

int check(const char* path) {
  std::ifstream file(path);
  std::stringstream have, want;
  have << file.rdbuf();
  write(want);
  if (have.str() == want.str()) return 0;
  std::string a, b;
  int line = 1;
  for (; std::getline(want, a) && std::getline(have, b) && a == b; ++line) {}
  std::cerr << path << ':' << line << ": stale. The op table says:\n  " << a << "\nWrite it anew: ops_doc > " << path << '\n';
  return 1;
}

}  // namespace
}  // namespace mezzo

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--check") return mezzo::check(argv[2]);
  if (argc != 1) {
    std::cerr << "ops_doc > docs/ops.md, or ops_doc --check docs/ops.md\n";
    return 2;
  }
  mezzo::write(std::cout);
  return std::cout.flush() ? 0 : 1;
}
