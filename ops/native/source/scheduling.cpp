#include "scheduling.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace mra {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

Memory allocate(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, std::max<size_t>(bytes, 64))) throw std::bad_alloc();
  return Memory(memory);
}

struct Progress {
  std::atomic<bool> prepared{false};
  std::atomic<int64_t> left{0};  // shares that are not done
};

// Threads take items in their order: step s is the preparation of head s, and then the shares of
// head s - ahead. An item waits for items before it alone, so some thread always goes on, however
// many there are; and a thread that is held up keeps back no more than its one item.
class Work {
 public:
  Work(const Call& call, bool backward, const Kernels& kernels, int64_t threads)
      : call_(call),
        backward_(backward),
        kernels_(kernels),
        heads_(call.batch * call.heads),
        shares_(kernels.shares(call, backward)),
        ahead_(std::min(threads, heads_)),
        progress_(static_cast<size_t>(heads_)) {
    for (Progress& one : progress_) one.left = shares_;
    // One more than are looked at, so that a head seldom waits for the last shares of another.
    const int64_t slots = std::min(heads_, ahead_ + 2);
    for (int64_t n = 0; n < slots; ++n) slots_.push_back(allocate(kernels.slot_bytes(call, backward)));
    for (int64_t n = 0; n < threads; ++n) {
      scratches_.push_back(allocate(kernels.scratch_bytes(call, backward)));
    }
  }

  // What each thread does, until nothing is left.
  void take_items() {
    void* scratch = scratches_[static_cast<size_t>(next_scratch_++)].get();
    const int64_t in_step = 1 + shares_, steps = heads_ + ahead_;
    for (;;) {
      const int64_t item = next_item_++;
      const int64_t step = item / in_step, share = item % in_step - 1;
      if (step >= steps) return;
      if (share < 0) {
        if (step < heads_) prepare(step);
      } else if (step >= ahead_) {
        work_on(step - ahead_, share, scratch);
      }
    }
  }

 private:
  void prepare(int64_t head) {
    const int64_t before = head - static_cast<int64_t>(slots_.size());
    if (before >= 0) wait([&] { return at(before).left.load(std::memory_order_acquire) == 0; });
    kernels_.prepare(call_, backward_, head, slot(head));
    at(head).prepared.store(true, std::memory_order_release);
  }

  void work_on(int64_t head, int64_t share, void* scratch) {
    wait([&] { return at(head).prepared.load(std::memory_order_acquire); });
    (backward_ ? kernels_.differentiate : kernels_.attend)(call_, share, slot(head), scratch);
    // Whoever is last finishes; a slot is free when nothing is left.
    std::atomic<int64_t>& left = at(head).left;
    int64_t now = left.load(std::memory_order_relaxed);
    for (;;) {
      if (now == 1) {
        std::atomic_thread_fence(std::memory_order_acquire);
        kernels_.finish(call_, backward_, slot(head));
        left.store(0, std::memory_order_release);
        return;
      }
      if (left.compare_exchange_weak(now, now - 1, std::memory_order_acq_rel)) return;
    }
  }

  template <class Done>
  void wait(Done done) {
    while (!done()) std::this_thread::yield();
  }

  Progress& at(int64_t head) { return progress_[static_cast<size_t>(head)]; }
  void* slot(int64_t head) { return slots_[static_cast<size_t>(head) % slots_.size()].get(); }

  const Call& call_;
  const bool backward_;
  const Kernels& kernels_;
  const int64_t heads_, shares_, ahead_;
  std::vector<Progress> progress_;
  std::vector<Memory> slots_, scratches_;
  std::atomic<int64_t> next_item_{0}, next_scratch_{0};
};

}  // namespace

bool run(const Call& call, bool backward, const Kernels& kernels, int64_t threads,
         ParallelFor parallel_for) try {
  if (!call.batch || !call.heads) return true;
  const int64_t items = call.batch * call.heads * (1 + kernels.shares(call, backward));
  threads = std::max<int64_t>(1, std::min(threads, items));
  Work work(call, backward, kernels, threads);
  const Body body = [](int64_t begin, int64_t end, void* context) {
    // A thread may be given several turns: the first does all that is left.
    for (int64_t turn = begin; turn < end; ++turn) static_cast<Work*>(context)->take_items();
  };
  if (threads == 1) {
    work.take_items();
    return true;
  }
  return parallel_for(0, threads, 1, body, &work) == 0;
} catch (const std::bad_alloc&) {
  return false;
}

}  // namespace mra
