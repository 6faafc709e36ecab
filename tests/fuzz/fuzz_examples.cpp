// fuzz_examples.cpp - whatever the lines are: an Error, or examples that fit and are each in an epoch's batches once.
#include <cstdint>
#include <cstdlib>

#include <mezzo/error.h>

#include "text/example_batches.h"

namespace {

using namespace mezzo::text;

void require(bool holds) {
  if (!holds) std::abort();
}

void check_epoch(const ExampleSet& set, const ExampleBatchesOptions& options) {
  ExampleBatches batches(set, options);
  std::int64_t examples = 0, counted = 0;
  for (const MicroBatch& b : batches.next(static_cast<int>(batches.batches_of(1)))) {
    std::int64_t sum = 0;
    for (const auto n : b.lengths) {
      require(n >= 1 && n <= options.window);
      sum += n;
    }
    require(options.pack ? sum == b.columns : b.lengths.empty());
    require(b.counted > 0);
    examples += b.examples;
    counted += b.counted;
  }
  require(examples == static_cast<std::int64_t>(set.examples.size()));
  require(counted == set.targets());
}

}  // namespace

/// The first byte is the options, the rest the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ChatTemplate kChat(
      "{% for m in messages %}<{{ m.role }}>{{ m.content if m.content is string else m.content|tojson }}</>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}",
      {.now = 1'000'000'000});
  static const mezzo::ByteTokenizer kBytes;
  if (size == 0) return 0;
  const ExampleOptions options{.window = 1 + data[0] % 16,
                               .overlong = static_cast<Overlong>(data[0] / 16 % 3),
                               .skip_bad_lines = (data[0] & 0x80) != 0,
                               .train_on = data[0] & 0x40 ? TrainOn::everything : TrainOn::assistant};
  ExampleSet set;
  try {
    set = parse_examples({reinterpret_cast<const char*>(data) + 1, size - 1}, "input", kBytes, &kChat, options);
  } catch (const mezzo::Error&) { return 0; }
  for (const Example& e : set.examples) require(e.ids.size() == e.counted.size() && e.length() <= options.window && e.targets() > 0);
  for (const bool pack : {true, false}) check_epoch(set, {.batch = 2, .window = options.window, .pack = pack, .seed = size});
  return 0;
}
