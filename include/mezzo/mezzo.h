// mezzo.h - everything.
#pragma once

#include <mezzo/amp.h>
#include <mezzo/autograd.h>
#include <mezzo/dtype.h>
#include <mezzo/error.h>
#include <mezzo/fast_language_model.h>
#include <mezzo/inspect.h>
#include <mezzo/io.h>
#include <mezzo/models.h>
#include <mezzo/nn.h>
#include <mezzo/ops.h>
#include <mezzo/optim.h>
#include <mezzo/policy.h>
#include <mezzo/random.h>
#include <mezzo/runtime.h>
#include <mezzo/tensor.h>
#include <mezzo/text.h>
#include <mezzo/train.h>
