// Sums over all pixels of a batch, per channel, as XLA custom calls.
//
// XLA for CPU writes what it sums, such as squares, to memory first. Here a block of pixels stays
// in the cache. Sums are split in a way that does not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kTasks = 32, kBlockFloats = 8 * 1024, kWidth = 64;

// `[pixels, channels]` by tasks and by blocks of a task. `add` adds a block to a task's totals,
// which are `[2, channels]`.
template <typename Add>
std::vector<double> Totals(ffi::ThreadPool& pool, int64_t pixels, int64_t channels,
                           const Add& add) {
  const int64_t tasks = std::min(kTasks, pixels);
  const int64_t block = std::max<int64_t>(1, kBlockFloats / channels);
  std::vector<double> totals(tasks * 2 * channels, 0.0);
  kdjax::Parallel(pool, tasks, [&](int64_t task) {
    const int64_t end = (task + 1) * pixels / tasks, begin = task * pixels / tasks;
    for (int64_t first = begin; first < end; first += block)
      add(first, std::min(block, end - first), first - begin, totals.data() + task * 2 * channels);
  });
  return totals;
}

// Adds what `value(index)` gives for `count` pixels to `sums` `[channels]`, several pixels abreast.
template <typename Value>
void AddBlock(int64_t count, int64_t channels, const Value& value, double* sums) {
  const int64_t abreast = std::max<int64_t>(1, kWidth / channels), width = abreast * channels;
  thread_local std::vector<float> partial;
  partial.assign(width, 0.0f);
  float* row = partial.data();
  const int64_t whole = count / abreast * width;
  for (int64_t start = 0; start < whole; start += width)
    for (int64_t i = 0; i < width; ++i) row[i] += value(start + i, i);
  for (int64_t i = 0; i < count * channels - whole; ++i) row[i] += value(whole + i, i);
  for (int64_t i = 0; i < width; ++i) sums[i % channels] += row[i];
}

// Mean and biased variance, `[2, channels]`. A block's squares are of differences from its mean;
// blocks are combined by Chan, Golub and LeVeque 1983, equation 2.1.
ffi::Error Moments(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                   ffi::Result<ffi::Buffer<ffi::F32>> result) {
  const int64_t channels = result->dimensions()[1], pixels = x.element_count() / channels;
  const float* values = x.typed_data();
  const auto combine = [channels](double* to, double before, const double* from, double more) {
    for (int64_t c = 0; c < channels; ++c) {
      const double difference = from[c] - to[c];
      to[c] += difference * more / (before + more);
      to[channels + c] +=
          from[channels + c] + difference * difference * before * more / (before + more);
    }
  };
  const auto add = [&](int64_t first, int64_t count, int64_t before, double* totals) {
    thread_local std::vector<double> block;
    thread_local std::vector<float> means;
    block.assign(2 * channels, 0.0);
    const float* start = values + first * channels;
    AddBlock(count, channels, [start](int64_t i, int64_t) { return start[i]; }, block.data());
    means.resize(std::max(channels, kWidth) + channels);
    for (size_t i = 0; i < means.size(); ++i) means[i] = block[i % channels] / count;
    for (int64_t c = 0; c < channels; ++c) block[c] = means[c];
    const float* mean = means.data();
    const auto square = [start, mean](int64_t i, int64_t column) {
      const float difference = start[i] - mean[column];
      return difference * difference;
    };
    AddBlock(count, channels, square, block.data() + channels);
    combine(totals, before, block.data(), count);
  };
  std::vector<double> totals = Totals(pool, pixels, channels, add);
  const int64_t tasks = totals.size() / (2 * channels);
  for (int64_t task = 1; task < tasks; ++task) {
    const int64_t before = task * pixels / tasks, after = (task + 1) * pixels / tasks;
    combine(totals.data(), before, totals.data() + task * 2 * channels, after - before);
  }
  for (int64_t c = 0; c < channels; ++c) {
    result->typed_data()[c] = totals[c];
    result->typed_data()[channels + c] = totals[channels + c] / pixels;
  }
  return ffi::Error::Success();
}

// The sums of `y` and of `y x`, `[2, channels]`.
ffi::Error Products(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> y,
                    ffi::Result<ffi::Buffer<ffi::F32>> result) {
  const int64_t channels = result->dimensions()[1], pixels = x.element_count() / channels;
  const auto add = [&](int64_t first, int64_t count, int64_t, double* totals) {
    const float *a = x.typed_data() + first * channels, *b = y.typed_data() + first * channels;
    AddBlock(count, channels, [b](int64_t i, int64_t) { return b[i]; }, totals);
    AddBlock(
        count, channels, [a, b](int64_t i, int64_t) { return a[i] * b[i]; }, totals + channels);
  };
  const std::vector<double> totals = Totals(pool, pixels, channels, add);
  for (int64_t c = 0; c < 2 * channels; ++c) {
    double total = 0.0;
    for (size_t at = c; at < totals.size(); at += 2 * channels) total += totals[at];
    result->typed_data()[c] = total;
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(moments, Moments,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(products, Products,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
