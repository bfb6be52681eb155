// Tasks on the threads of an XLA program.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace kdjax {

// Calls `function` with every number below `count`; returns when all calls have returned.
//
// The caller takes part, and waits for calls that have begun only: a pool whose threads are all
// busy cannot block it.
template <typename Function>
void Parallel(xla::ffi::ThreadPool& pool, int64_t count, const Function& function) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>();
  // A helper that starts late finds no number left and never touches `function`.
  auto work = [shared, count, &function] {
    int64_t number;
    while ((number = shared->next.fetch_add(1)) < count) {
      function(number);
      shared->done.fetch_add(1);
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads() - 1, count - 1);
  for (int64_t helper = 0; helper < helpers; ++helper) pool.Schedule(std::function<void()>(work));
  work();
  while (shared->done.load() < count) std::this_thread::yield();
}

}  // namespace kdjax
