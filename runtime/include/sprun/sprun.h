// Everything of the C++ API.
#pragma once

#include "sprun/dtype.h"
#include "sprun/export.h"
#include "sprun/generate.h"
#include "sprun/model.h"
#include "sprun/sampling.h"
#include "sprun/session.h"
#include "sprun/shape.h"
#include "sprun/sparse.h"
#include "sprun/status.h"
#include "sprun/task_arena.h"
#include "sprun/tensor.h"
#include "sprun/tokenizer.h"
