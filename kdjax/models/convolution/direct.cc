// A convolution and the gradient of its input on a CPU's vector units, as XLA custom calls.

#include <vector>

#include "outputs.h"
#include "parallel.h"
#include "winograd.h"

namespace {

using namespace kdjax;

// Outputs at `out` + j `out_step` are sums over `taps` sources from `source` + j `source_step` on.
struct Axis {
  int64_t out, taps, source, count;
  int64_t first_tap;
};

// Rows and columns of outputs with the same taps, and where their packed weights are.
struct Part {
  Axis rows, columns;
  const float* weights;
};

// All outputs of `parts`, which lie `out_step` apart; windows move over the source by
// `source_step`.
void Gather(ffi::ThreadPool& pool, const float* source, const Shape& from, float* out,
            const Shape& to, const int64_t* source_step, const int64_t* out_step,
            const std::vector<Part>& parts) {
  // The window around j * source_step that holds the sources of all parts.
  int64_t low[2] = {0, 0}, high[2] = {0, 0}, counts[2] = {0, 0};
  for (const Part& part : parts) {
    const Axis* axes[2] = {&part.rows, &part.columns};
    for (int i = 0; i < 2; ++i) {
      counts[i] = std::max(counts[i], axes[i]->count);
      if (axes[i]->taps == 0) continue;
      low[i] = std::min(low[i], axes[i]->source);
      high[i] = std::max(high[i], axes[i]->source + axes[i]->taps - 1);
    }
  }
  const int64_t channels = from.channels,
                width = (counts[1] - 1) * source_step[1] + high[1] - low[1] + 1;
  int64_t band_rows = std::max<int64_t>(1, kBandFloats / (width * channels * source_step[0]));
  band_rows = std::min({band_rows, counts[0], DivideUp(counts[0] * from.images, 16)});
  const int64_t bands = DivideUp(counts[0], band_rows);
  // Images so small that weights would be read again for a few pixels are taken together.
  const int64_t most_rows = (band_rows - 1) * source_step[0] + high[0] - low[0] + 1;
  const int64_t together =
      bands > 1 ? 1
                : std::min(ImagesTogether(counts[0] * counts[1], most_rows * width * channels),
                           DivideUp(from.images, 16));
  kdjax::Parallel(pool, DivideUp(from.images, together) * bands, [&](int64_t task) {
    thread_local std::vector<float> band;
    thread_local std::vector<Place> places;
    const int64_t image = task / bands * together, first = task % bands * band_rows;
    const int64_t images = std::min(together, from.images - image);
    const int64_t after = std::min(first + band_rows, counts[0]);
    const int64_t source_rows = (after - 1 - first) * source_step[0] + high[0] - low[0] + 1;
    const int64_t band_size = source_rows * width * channels;
    band.resize(std::max<size_t>(band.size(), images * band_size));
    for (int64_t i = 0; i < images; ++i)
      CopyBand(source + (image + i) * from.height * from.width * channels, from,
               first * source_step[0] + low[0], source_rows, low[1], width,
               band.data() + i * band_size);
    const int64_t image_size = to.height * to.width * to.channels;
    for (const Part& part : parts) {
      const Axis &rows = part.rows, &columns = part.columns;
      const int64_t length = columns.taps * channels;
      places.clear();
      for (int64_t i = 0; i < images; ++i) {
        for (int64_t row = first; row < std::min(after, rows.count); ++row) {
          const int64_t source_row = (row - first) * source_step[0] + rows.source - low[0];
          const int64_t out_row = (rows.out + row * out_step[0]) * to.width + columns.out;
          for (int64_t column = 0; column < columns.count; ++column) {
            const int64_t source_column = column * source_step[1] + columns.source - low[1];
            places.push_back(
                {i * band_size + (source_row * width + source_column) * channels,
                 i * image_size + (out_row + column * out_step[1]) * to.channels});
          }
        }
      }
      for (int64_t block = 0; block < to.channels; block += kBlock) {
        const float* weights = part.weights + block * rows.taps * length;
        AllOutputs({band.data(), width * channels, rows.taps, length, weights},
                   {out + image * image_size + block,
                    std::min<int64_t>(kBlock, to.channels - block), false},
                   places);
      }
    }
  });
}

ffi::Error Convolution(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> w,
                       ffi::Result<ffi::Buffer<ffi::F32>> y, ffi::Span<const int64_t> window) {
  const Shape from(x.dimensions()), to(y->dimensions());
  const auto kernel = w.dimensions();
  const int64_t taps = kernel[0] * kernel[1] * kernel[2], outs = kernel[3];
  const int64_t* strides = window.begin();
  if (HasTiles(kernel, window, to)) {
    const std::vector<float> points = KernelPoints(pool, w.typed_data(), kernel[2], outs, false);
    TiledConvolution(x.typed_data(), from, points, to, strides + 2)(pool, y->typed_data());
    return ffi::Error::Success();
  }
  const std::vector<float> packed = Packed(w.typed_data(), taps, outs);
  const int64_t one[2] = {1, 1};
  const std::vector<Part> parts = {{{0, kernel[0], -strides[2], to.height, 0},
                                    {0, kernel[1], -strides[3], to.width, 0},
                                    packed.data()}};
  Gather(pool, x.typed_data(), from, y->typed_data(), to, strides, one, parts);
  return ffi::Error::Success();
}

// Inputs at `residue` + j stride: their taps, and the outputs under them.
Axis Residue(int64_t residue, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
  const int64_t first = (residue + padding) % stride;
  const int64_t taps = first < kernel ? (kernel - 1 - first) / stride + 1 : 0;
  const int64_t source = (residue + padding - first) / stride - taps + 1;
  return {residue, taps, source, DivideUp(size - residue, stride), first};
}

ffi::Error InputGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> y, ffi::Buffer<ffi::F32> w,
                         ffi::Result<ffi::Buffer<ffi::F32>> x, ffi::Span<const int64_t> window) {
  const Shape from(y.dimensions()), to(x->dimensions());
  const auto kernel = w.dimensions();
  const int64_t ins = kernel[2], outs = kernel[3];
  const int64_t* strides = window.begin();
  if (HasTiles(kernel, window, to)) {  // a convolution of the turned kernel
    const std::vector<float> points = KernelPoints(pool, w.typed_data(), outs, ins, true);
    const int64_t padding[2] = {2 - window[2], 2 - window[3]};
    TiledConvolution(y.typed_data(), from, points, to, padding)(pool, x->typed_data());
    return ffi::Error::Success();
  }
  std::vector<Part> parts;
  std::vector<float> packed;
  std::vector<int64_t> offsets;
  packed.reserve(kernel[0] * kernel[1] * outs * (ins + kBlock));
  for (int64_t row = 0; row < std::min(strides[0], to.height); ++row) {
    for (int64_t column = 0; column < std::min(strides[1], to.width); ++column) {
      const Part part = {Residue(row, strides[0], strides[2], kernel[0], to.height),
                         Residue(column, strides[1], strides[3], kernel[1], to.width), nullptr};
      offsets.push_back(packed.size());
      for (int64_t block = 0; block < ins; block += kBlock) {
        const int64_t left = std::min<int64_t>(kBlock, ins - block), lanes = Padded(left);
        for (int64_t a = part.rows.taps - 1; a >= 0; --a) {
          for (int64_t b = part.columns.taps - 1; b >= 0; --b) {
            const int64_t down = part.rows.first_tap + strides[0] * a;
            const int64_t right = part.columns.first_tap + strides[1] * b;
            const float* tap = w.typed_data() + ((down * kernel[1] + right) * ins + block) * outs;
            for (int64_t o = 0; o < outs; ++o)
              for (int64_t i = 0; i < lanes; ++i)
                packed.push_back(i < left ? tap[i * outs + o] : 0.0f);
          }
        }
      }
      parts.push_back(part);
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) parts[i].weights = packed.data() + offsets[i];
  const int64_t one[2] = {1, 1};
  Gather(pool, y.typed_data(), from, x->typed_data(), to, one, strides, parts);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution, Convolution, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(input_gradient, InputGradient, Binding());
