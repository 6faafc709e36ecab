// events.cpp - events as lines of JSON, and back.
#include "train/events.h"

#include <nlohmann/json.hpp>

namespace mezzo::train {
namespace {
constexpr const char* kFile = "events.jsonl";
}

io::Json to_json(const Event& e) {
  io::Json j{{"step", e.step}, {"kind", e.kind}, {"text", e.text}};
  if (e.details) j["details"] = *e.details;
  return j;
}

EventLog::EventLog(const std::filesystem::path& run, std::int64_t done) : lines_(run / kFile, done) {}
void EventLog::write(const Event& e) { lines_.append(io::to_text(to_json(e)) + "\n"); }

std::vector<Event> read_events(const std::filesystem::path& run) {
  std::vector<Event> all;
  for_each_step_line(run / kFile, [&](const io::Json& j) {
    const auto text = [&](const char* key) {
      const auto it = j.find(key);
      return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    Event e{.step = j["step"].get<std::int64_t>(), .kind = text("kind"), .text = text("text")};
    if (j.contains("details")) e.details = std::make_shared<io::Json>(j["details"]);
    all.push_back(std::move(e));
  });
  return all;
}

}  // namespace mezzo::train
