// Who works on what: heads one after another, with a little look ahead, in one parallel region.
#pragma once

#include "call.h"

namespace mra {

using Body = void (*)(int64_t begin, int64_t end, void* context);
// PyTorch's own: torch_parallel_for of its stable interface for C.
using ParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, Body, void* context);

// Runs all stages of all heads. False if there is no memory for it.
bool run(const Call& call, bool backward, const Kernels& kernels, int64_t threads, ParallelFor);

}  // namespace mra
