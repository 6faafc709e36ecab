// determinism_test.cpp - the same run, again and again: one hash, whatever the directory and what the process did before.
#include <set>

#include <doctest/doctest.h>

#include "train/support.h"

namespace mezzo::test {

TEST_CASE("ten repeats of each recipe give one hash") {
  const TempDir dir;
  write_small_text(dir);
  for (const auto& recipe : train::recipe_names()) {
    CAPTURE(recipe);
    std::set<std::string> seen;
    std::vector<std::vector<float>> clutter;  // what lies elsewhere in memory each time
    for (int repeat = 0; repeat < 10; ++repeat) {
      clutter.emplace_back(static_cast<std::size_t>(1000 * repeat + 1), 1.0f);
      auto o = small_run(dir, std::string(static_cast<std::size_t>(repeat) + 1, 'x') + recipe, recipe);
      o.model = "gpt:layers=2,heads=2,width=32,dropout=0.1";
      o.accumulate = 2;
      o.threads = 2;
      const auto s = run(o);
      std::string all = slurp(s.checkpoint / "weights.safetensors") + slurp(s.checkpoint / "optimizer.safetensors");
      for (const auto& line : metrics_of(o.out)) all += io::to_text(line);
      seen.insert(std::move(all));
    }
    CHECK(seen.size() == 1);
  }
}

}  // namespace mezzo::test
