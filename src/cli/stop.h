// stop.h - Ctrl-C: the first asks for an orderly end, the second ends the process.
#pragma once

namespace mezzo::cli {

/// From now on SIGINT and SIGTERM ask first. `promise`, a string literal, is what the first one says will happen.
void catch_interrupts(const char* promise);
/// Whether one came.
bool interrupted();
/// 128 + the signal that came: 130 after Ctrl-C, 143 after SIGTERM.
int interrupted_code();

}  // namespace mezzo::cli
