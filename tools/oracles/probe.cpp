// probe.cpp - what mezzo makes of a real model, for the oracles to compare with: token ids, logits, greedy continuations.
//
//   oracle_probe MODEL LINES PROMPTS OUT.safetensors
//
// LINES and PROMPTS: a text a line, U+2424 for a line feed inside. OUT: `ids` (i32, of all lines), `ends` (i64, where each line's end among them),
// and of prompt i `prompt.i`, `continued.i` (i32) and, of the first six, `logits.i` (T, V; f32).
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include <mezzo/mezzo.h>

namespace {

constexpr std::size_t kWithLogits = 6;
constexpr std::int64_t kContinued = 64;

std::vector<std::string> lines_of(const char* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw mezzo::Error(std::string("cannot read ") + path);
  const std::string mark = "\u2424";
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    for (std::size_t at = 0; (at = line.find(mark, at)) != line.npos; ++at) line.replace(at, mark.size(), 1, '\n');
    lines.push_back(line);
  }
  return lines;
}

template <class T> mezzo::Tensor row(const std::vector<T>& v) {
  return mezzo::from_span(std::span<const T>(v), {static_cast<std::int64_t>(v.size())});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return std::fprintf(stderr, "usage: oracle_probe MODEL LINES PROMPTS OUT.safetensors\n"), 2;
  try {
    using namespace mezzo;
    const auto tokenizer = load_tokenizer(argv[1]);
    const auto model = models::load_pretrained(argv[1]);
    const autograd::NoGrad off;
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> ends;
    for (const auto& line : lines_of(argv[2])) {
      const auto of_line = tokenizer->encode(line);
      ids.insert(ids.end(), of_line.begin(), of_line.end());
      ends.push_back(static_cast<std::int64_t>(ids.size()));
    }
    StateDict out{{"ids", row(ids)}, {"ends", row(ends)}};
    const auto prompts = lines_of(argv[3]);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const auto prompt = tokenizer->encode(prompts[i]);
      const auto n = static_cast<std::int64_t>(prompt.size());
      auto all = models::sample(*model, prompt, {.max_tokens = kContinued, .temperature = 0});
      const std::string number = std::to_string(i);
      out.emplace_back("prompt." + number, row(prompt));
      out.emplace_back("continued." + number, row(std::vector<std::int32_t>(all.begin() + n, all.end())));
      if (i < kWithLogits) out.emplace_back("logits." + number, (*model)(row(prompt).reshape({1, n})).reshape({n, -1}));
    }
    save(out, argv[4]);
  } catch (const std::exception& e) { return std::fprintf(stderr, "oracle_probe: %s\n", e.what()), 1; }
  return 0;
}
