// A convolution on a CPU's vector units with what follows it in evaluation, as an XLA custom call.
//
// The sums of a chunk of rows stay in the first cache until they are finished. What is read and
// written next is fetched meanwhile, since memory would be waited for otherwise.

#include <vector>

#include "finish.h"
#include "outputs.h"
#include "parallel.h"

namespace {

using namespace kdjax;

constexpr int64_t kChunkFloats = 4 * 1024;

// An image's rows, by `CopyBand`, of some of its channels.
void CopyChannels(const float* image, const Shape& shape, ffi::Span<const int64_t> reads,
                  int64_t first, int64_t count, int64_t left, int64_t width, float* band) {
  const int64_t channels = reads.size();
  for (int64_t row = first; row < first + count; ++row) {
    for (int64_t column = left; column < left + width; ++column, band += channels) {
      if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) {
        std::fill_n(band, channels, 0.0f);
        continue;
      }
      const float* pixel = image + (row * shape.width + column) * shape.channels;
      for (int64_t c = 0; c < channels; ++c) band[c] = pixel[reads[c]];
    }
  }
}

struct Convolution {
  const float* source;
  Shape from, to;  // the outputs have the filters, in multiples of eight
  ffi::Span<const int64_t> reads, window;
  int64_t height, width;  // of the kernel

  void operator()(ffi::ThreadPool& pool, const std::vector<float>& weights,
                  const Finish& finish) const {
    const int64_t down = window[0], right = window[1], channels = reads.size();
    const int64_t columns = (to.width - 1) * right + width, row_floats = columns * channels;
    const int64_t image_floats = from.height * from.width * from.channels;
    int64_t band_rows = std::max<int64_t>(1, kBandFloats / (row_floats * down));
    band_rows = std::min({band_rows, to.height, DivideUp(to.height * from.images, 16)});
    const int64_t bands = DivideUp(to.height, band_rows), tasks = from.images * bands;
    const int64_t chunk_rows =
        std::clamp<int64_t>(kChunkFloats / (to.width * to.channels), 1, band_rows);
    std::vector<Place> places;
    for (int64_t pixel = 0; pixel < chunk_rows * to.width; ++pixel) {
      const int64_t row = pixel / to.width, column = pixel % to.width;
      places.push_back({row * down * row_floats + column * right * channels, pixel * to.channels});
    }
    // Of the source, for every output.
    const int64_t ahead_floats = DivideUp(down * from.width * from.channels, to.width);
    kdjax::Parallel(pool, tasks, [&](int64_t task) {
      thread_local std::vector<float> band, sums;
      const int64_t image = task / bands, first = task % bands * band_rows;
      const int64_t after = std::min(first + band_rows, to.height);
      const int64_t source_rows = (after - 1 - first) * down + height;
      band.resize(std::max<size_t>(band.size(), source_rows * row_floats));
      sums.resize(std::max<size_t>(sums.size(), chunk_rows * to.width * to.channels + kLanes));
      if (channels == from.channels) {
        CopyBand(source + image * image_floats, from, first * down - window[2], source_rows,
                 -window[3], columns, band.data());
      } else {
        CopyChannels(source + image * image_floats, from, reads, first * down - window[2],
                     source_rows, -window[3], columns, band.data());
      }
      // The source of the task that this thread is likely to get next.
      const int64_t next = task + pool.num_threads();
      const int64_t next_row = next % bands * band_rows * down;
      Ahead ahead = {source + next / bands * image_floats + next_row * from.width * from.channels,
                     next < tasks ? ahead_floats : 0};
      for (int64_t row = first; row < after; row += chunk_rows) {
        const int64_t rows = std::min(chunk_rows, after - row);
        Places all(places.data(), rows * to.width);
        all.ahead[0] = ahead;
        ahead.values += all.count * ahead.floats;
        finish.Need(image, row, all.ahead + 1);
        for (int64_t block = 0; block < to.channels; block += kBlock) {
          AllOutputs({band.data() + (row - first) * down * row_floats, row_floats, height,
                      width * channels, weights.data() + block * height * width * channels},
                     {sums.data() + block, std::min<int64_t>(kBlock, to.channels - block), false},
                     all);
          all = Places(places.data(), all.count);
        }
        finish(sums.data(), to.channels, image, row, rows);
      }
    });
  }
};

// `reads`: the channels of `x`; `places`: as `filters` of `Finish`; `finish`: whether there is a
// ReLU, then step and first channel of the summand, which may be empty.
ffi::Error FinishedConvolution(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                               ffi::Buffer<ffi::F32> w, ffi::Buffer<ffi::F32> factors,
                               ffi::Buffer<ffi::F32> offsets, ffi::Buffer<ffi::F32> summand,
                               ffi::Result<ffi::Buffer<ffi::F32>> y,
                               ffi::Span<const int64_t> window, ffi::Span<const int64_t> reads,
                               ffi::Span<const int64_t> places, ffi::Span<const int64_t> finish) {
  const Shape to(y->dimensions());
  Summand added = {nullptr, 0, 0, 0, finish[1], finish[2]};
  if (summand.element_count() > 0) {
    const Shape shape(summand.dimensions());
    added = {summand.typed_data(), shape.height, shape.width, shape.channels, finish[1], finish[2]};
  }
  const bool of_pixels = offsets.element_count() > static_cast<size_t>(to.channels);
  const Finish finished(places.begin(), factors.typed_data(), offsets.typed_data(), of_pixels,
                        added, finish[0] != 0, y->typed_data(), to);
  const auto kernel = w.dimensions();
  Shape sums = to;
  sums.channels = DivideUp(kernel[3], kLanes) * kLanes;
  const Convolution convolution = {x.typed_data(), Shape(x.dimensions()), sums,     reads,
                                   window,         kernel[0],             kernel[1]};
  const int64_t taps = kernel[0] * kernel[1] * kernel[2];
  convolution(pool, Packed(w.typed_data(), taps, kernel[3]), finished);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(finished_convolution, FinishedConvolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<ffi::Span<const int64_t>>("window")
                                  .Attr<ffi::Span<const int64_t>>("reads")
                                  .Attr<ffi::Span<const int64_t>>("places")
                                  .Attr<ffi::Span<const int64_t>>("finish"));
