// Where the time of a call goes, for the benchmarks: in builds with MRA_STAGES, and one thread, alone.
// In all others nothing is left of it.
#pragma once

#ifdef MRA_STAGES
#include <time.h>
#endif

namespace mra {

enum Stage { kPacking, kPooling, kSalient, kChoosing, kCoarse, kFine, kWriting, kStages };

#ifdef MRA_STAGES
extern double stage_seconds[kStages];

// Counts for its stage until its scope ends.
class Timed {
 public:
  explicit Timed(Stage stage) : stage_(stage), start_(now()) {}
  ~Timed() { stage_seconds[stage_] += now() - start_; }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  static double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }

  Stage stage_;
  double start_;
};
#else
struct Timed {
  explicit Timed(Stage) {}
};
#endif

}  // namespace mra
