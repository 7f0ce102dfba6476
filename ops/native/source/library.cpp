// What Python calls, and which kernels it gets.
#include <cstring>

#include "scheduling.h"
#include "stages.h"

// Which there are is up to the build; see setup.py.
namespace mra {
namespace portable {
extern const KernelSets kSets;
}
#ifdef MRA_HAS_AVX512
namespace avx2 {
extern const KernelSets kSets;
}
namespace avx512 {
extern const KernelSets kSets;
}
#endif
#ifdef MRA_HAS_AVX512_BF16
namespace avx512_bf16 {
extern const Kernels kBfloat16;
}
#endif

namespace {

struct Target {
  const char* name;
  const KernelSets* sets;
  const Kernels* bfloat16;  // for that type alone; null: those of the set serve it
  bool (*runs_here)();
};

#ifdef MRA_HAS_AVX512
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma");
}
#endif

// The best that a processor can run comes first.
const Target kTargets[] = {
#ifdef MRA_HAS_AVX512_BF16
    {"avx512_bf16", &avx512::kSets, &avx512_bf16::kBfloat16,
     [] { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }},
#endif
#ifdef MRA_HAS_AVX512
    {"avx512", &avx512::kSets, nullptr, has_avx512},
    {"avx2", &avx2::kSets, nullptr,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {"portable", &portable::kSets, nullptr, [] { return true; }},
};

const Target* find(const char* name) {
  for (const Target& one : kTargets) {
    if (one.runs_here() && (!*name || !std::strcmp(one.name, name))) return &one;
  }
  return nullptr;
}

}  // namespace
}  // namespace mra

#define MRA_EXPORT extern "C" __attribute__((visibility("default")))

MRA_EXPORT int64_t mra_interface() { return mra::kInterface; }

// The name of the kernels that a call gets that asks for `name`, or for "", which means the best;
// null if they can't run here.
MRA_EXPORT const char* mra_target(const char* name) {
  const mra::Target* found = mra::find(name);
  return found ? found->name : nullptr;
}

#ifdef MRA_STAGES
double mra::stage_seconds[mra::kStages] = {};

// Seconds of each stage since they were last set to 0.
MRA_EXPORT double* mra_stage_seconds() { return mra::stage_seconds; }

// Does some products of float32 as a call does them; returns how many multiply-adds.
MRA_EXPORT double mra_multiply_adds(int64_t products) {
  return mra::find("")->sets->narrow.multiply_adds(products);
}
#endif

// 0 if all went well, 1 if there is no memory, 2 if the kernels can't run here.
MRA_EXPORT int64_t mra_run(const mra::Call* call, int64_t backward, const char* target,
                           int64_t threads, mra::ParallelFor parallel_for) {
  const mra::Target* found = mra::find(target);
  if (!found) return 2;
  const mra::KernelSets& sets = *found->sets;
  const mra::Kernels* kernels = call->type == mra::kFloat64 ? &sets.wide : &sets.narrow;
  if (call->type == mra::kBfloat16 && found->bfloat16) kernels = found->bfloat16;
  return mra::run(*call, backward != 0, *kernels, threads, parallel_for) ? 0 : 1;
}
