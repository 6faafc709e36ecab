// test_demo.cpp - the demo from end to end, shortened.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "io/json.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

TEST_CASE("four runs, one page, and the directory is made anew") {
  const Scratch dir;
  write(dir / "text.txt", some_text(40000));
  const std::vector<std::string> arguments{"demo", "--json", "--data", dir / "text.txt", "--out", dir / "report", "--steps", "25"};
  const Result first = run(arguments);
  INFO(first.err);
  REQUIRE(first.code == 0);
  const auto document = io::parse_json(first.out, "stdout");
  REQUIRE(document["runs"].size() == 4);
  for (const auto& r : document["runs"]) CHECK(r["step"] == 25);
  const double fp32 = document["runs"][0]["val_loss"], bf16 = document["runs"][1]["val_loss"], scaled = document["runs"][2]["val_loss"];
  CHECK(fp32 < 5.5);
  CHECK(std::abs(bf16 - fp32) < 0.05);
  CHECK(std::abs(scaled - fp32) < 0.05);
  // The loss is a mean over 512 micro-batches: unscaled f16 gradients vanish.
  CHECK(document["runs"][3]["zero_fraction"].get<double>() > 5 * document["runs"][2]["zero_fraction"].get<double>());
  const std::string html = read(dir / "report/index.html");
  for (const char* part : {"524,288", "1,024", "fp16-master, no loss scaling", "</html>"}) CHECK_MESSAGE(html.find(part) != html.npos, part);
  CHECK(io::read_json(dir.path() / "report/demo.json")["status"] == "finished");

  const Result second = run(arguments);  // the same numbers again
  CHECK(second.code == 0);
  const auto again = io::parse_json(second.out, "stdout");
  for (std::size_t i = 0; i < 4; ++i) CHECK(again["runs"][i]["val_loss"] == document["runs"][i]["val_loss"]);
}

TEST_CASE("a directory of somebody else's is left alone") {
  const Scratch dir;
  write(dir / "text.txt", some_text(4000));
  fs::create_directory(dir.path() / "mine");
  write(dir / "mine/index.html", "mine");
  const Result r = run({"demo", "--data", dir / "text.txt", "--out", dir / "mine"});
  CHECK(r.code == 1);
  CHECK(r.out.empty());
  CHECK(r.lines().size() == 1);
  CHECK(read(dir / "mine/index.html") == "mine");
}
