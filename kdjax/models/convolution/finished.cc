// A convolution on a CPU's vector units with what follows it in evaluation, as an XLA custom call.
//
// The sums of a chunk of rows stay in the first cache until they are finished. What is read and
// written next is fetched meanwhile, since memory would be waited for otherwise.

#include <vector>

#include "finish.h"
#include "outputs.h"
#include "parallel.h"
#include "winograd.h"

namespace {

using namespace kdjax;

constexpr int64_t kChunkFloats = 4 * 1024;

// A convolution by tiles of two rows, as many as are computed together: of one image, or whole
// images. Their outputs stay in the second cache until they are finished.
void FinishTiles(ffi::ThreadPool& pool, const TiledConvolution& convolution, const Shape& to,
                 const Finish& finish) {
  const Tiles& tiles = convolution.tiles;
  const int64_t fit = std::max<int64_t>(1, convolution.together / tiles.columns);
  const int64_t pairs = std::min(fit, tiles.rows), images = fit / pairs;
  const int64_t bands = DivideUp(tiles.rows, pairs), size = to.height * to.width;
  kdjax::Parallel(pool, DivideUp(to.images, images) * bands, [&](int64_t task) {
    thread_local std::vector<float> sums;
    const int64_t image = task / bands * images, pair = task % bands * pairs;
    const int64_t rows = std::min(2 * pairs, to.height - 2 * pair);
    const int64_t some = std::min(images, to.images - image);
    const int64_t floats = images * 2 * pairs * to.width * to.channels + kLanes;
    sums.resize(std::max<size_t>(sums.size(), floats));
    const int64_t first = (image * tiles.rows + pair) * tiles.columns;
    const int64_t after = first + some * DivideUp(rows, 2) * tiles.columns;
    for (int64_t tile = first; tile < after; tile += convolution.together)
      convolution.Some(tile, std::min(convolution.together, after - tile), sums.data(),
                       image * size + 2 * pair * to.width);
    for (int64_t i = 0; i < some; ++i)
      finish(sums.data() + i * size * to.channels, to.channels, image + i, 2 * pair, rows);
  });
}

struct Convolution {
  const float* source;
  Shape from, to;  // the outputs have the filters, in multiples of eight
  ffi::Span<const int64_t> reads, window;
  int64_t height, width;  // of the kernel

  // As `CopyBand`, of the channels that are read.
  void CopyChannels(const float* image, int64_t first, int64_t count, int64_t columns,
                    float* band) const {
    if (static_cast<int64_t>(reads.size()) == from.channels)
      return CopyBand(image, from, first, count, -window[3], columns, band);
    const int64_t channels = reads.size();
    for (int64_t row = first; row < first + count; ++row) {
      for (int64_t column = -window[3]; column < columns - window[3]; ++column, band += channels) {
        if (row < 0 || row >= from.height || column < 0 || column >= from.width) {
          std::fill_n(band, channels, 0.0f);
          continue;
        }
        const float* pixel = image + (row * from.width + column) * from.channels;
        for (int64_t c = 0; c < channels; ++c) band[c] = pixel[reads[c]];
      }
    }
  }

  void operator()(ffi::ThreadPool& pool, const std::vector<float>& weights,
                  const Finish& finish) const {
    const int64_t down = window[0], right = window[1], channels = reads.size();
    const int64_t columns = (to.width - 1) * right + width, row_floats = columns * channels;
    const int64_t image_floats = from.height * from.width * from.channels;
    int64_t band_rows = std::max<int64_t>(1, kBandFloats / (row_floats * down));
    band_rows = std::min({band_rows, to.height, DivideUp(to.height * from.images, 16)});
    const int64_t bands = DivideUp(to.height, band_rows);
    const int64_t band_floats = ((band_rows - 1) * down + height) * row_floats;
    // Images so small that weights would be read again for a few pixels are taken together.
    int64_t together = 1;
    if (bands == 1 && to.height * to.width < kEnough)
      together = std::min(ImagesTogether(to.height * to.width, band_floats),
                          DivideUp(from.images, 16));
    const int64_t tasks = DivideUp(from.images, together) * bands;
    int64_t chunk_rows = band_rows;
    if (together == 1)
      chunk_rows = std::clamp<int64_t>(kChunkFloats / (to.width * to.channels), 1, band_rows);
    const int64_t pixels = chunk_rows * to.width;
    std::vector<Place> places;
    for (int64_t i = 0; i < together; ++i) {
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const int64_t row = pixel / to.width, column = pixel % to.width;
        places.push_back({i * band_floats + row * down * row_floats + column * right * channels,
                          (i * pixels + pixel) * to.channels});
      }
    }
    // Of the source, for every output.
    const int64_t ahead_floats = DivideUp(down * from.width * from.channels, to.width);
    kdjax::Parallel(pool, tasks, [&](int64_t task) {
      thread_local std::vector<float> band, sums;
      const int64_t image = task / bands * together, first = task % bands * band_rows;
      const int64_t images = std::min(together, from.images - image);
      const int64_t after = std::min(first + band_rows, to.height);
      const int64_t source_rows = (after - 1 - first) * down + height;
      band.resize(std::max<size_t>(band.size(), together * band_floats));
      sums.resize(std::max<size_t>(sums.size(), together * pixels * to.channels + kLanes));
      for (int64_t i = 0; i < images; ++i)
        CopyChannels(source + (image + i) * image_floats, first * down - window[2], source_rows,
                     columns, band.data() + i * band_floats);
      // The source of the task that this thread is likely to get next.
      const int64_t next = task + pool.num_threads();
      const int64_t next_row = next % bands * band_rows * down;
      Ahead ahead = {source + next / bands * together * image_floats +
                         next_row * from.width * from.channels,
                     next < tasks ? ahead_floats : 0};
      for (int64_t row = first; row < after; row += chunk_rows) {
        const int64_t rows = std::min(chunk_rows, after - row);
        Places all(places.data(), images * rows * to.width);
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
        for (int64_t i = 0; i < images; ++i)
          finish(sums.data() + i * pixels * to.channels, to.channels, image + i, row, rows);
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
  if (HasTiles(kernel, window, sums) && convolution.from.channels == kernel[2]) {
    const std::vector<float> points =
        KernelPoints(pool, w.typed_data(), kernel[2], kernel[3], false);
    const TiledConvolution tiled(x.typed_data(), convolution.from, points, sums,
                                 window.begin() + 2);
    FinishTiles(pool, tiled, sums, finished);
    return ffi::Error::Success();
  }
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
