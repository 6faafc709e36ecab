// run_directory.h - the directory of a run, taken for this process.
#pragma once

#include "io/file.h"
#include "train/trainer.h"

namespace mezzo::train {

/// Makes `out` where it is not there, locks it, and removes what a process that died has left half-written. A chat template that was given is copied
/// into it, and the options name the copy from then on: it goes with the run, wherever its file goes.
/// Error: it holds another run; there is none to resume; another process trains in it; it cannot be written to.
io::DirectoryLock open_run_directory(TrainOptions&);

}  // namespace mezzo::train
