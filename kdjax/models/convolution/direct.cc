// A convolution and the gradient of its input on a CPU's vector units, as XLA custom calls.
//
// A few pixels times 16 channels stay in registers, and images are read from a band of rows that
// was copied with its padding, so that it stays in the cache and no tap needs a check. The taps of
// a row of the kernel and the channels under them are contiguous in the band: they are one loop.

#include <vector>

#include "band.h"
#include "parallel.h"

namespace {

using namespace kdjax;

constexpr int64_t kWeights = 288;  // times 16 channels: what stays in the first cache

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

// Where an output's values are in the band, and where it goes to.
struct Place {
  int64_t source, out;
};

// The values of an output: `rows` rows of `length` numbers, and what multiplies them.
struct Reading {
  const float* band;
  int64_t row_step, rows, length;
  const float* weights;  // `[rows, length, 8 V]`
};

// Outputs have `channels` of the `8 V` channels; `add`: to what is there.
struct Writing {
  float* out;
  int64_t channels;
  bool add;
};

template <int P, int V>
void Outputs(const Reading& from, const Writing& to, const Place* places) {
  Vector sums[P][V] = {};
  const float *band = from.band, *weights = from.weights;
  int64_t at[P];
  for (int p = 0; p < P; ++p) at[p] = places[p].source;
  for (int64_t row = 0; row < from.rows; ++row, band += from.row_step) {
    for (int64_t k = 0; k < from.length; ++k, weights += kLanes * V) {
      Vector loaded[V];
      for (int v = 0; v < V; ++v) loaded[v] = Load(weights + kLanes * v);
      for (int p = 0; p < P; ++p)
        for (int v = 0; v < V; ++v) sums[p][v] += band[at[p] + k] * loaded[v];
    }
  }
  for (int p = 0; p < P; ++p) {
    float* out = to.out + places[p].out;
    if (to.channels == kLanes * V) {
      for (int v = 0; v < V; ++v, out += kLanes)
        Store(out, to.add ? Load(out) + sums[p][v] : sums[p][v]);
    } else {
      const float* values = reinterpret_cast<const float*>(sums[p]);
      for (int64_t c = 0; c < to.channels; ++c) out[c] = to.add ? out[c] + values[c] : values[c];
    }
  }
}

template <int V>
void GroupsOfOutputs(const Reading& from, const Writing& to, const std::vector<Place>& places) {
  static constexpr decltype(&Outputs<1, V>) kGroups[kPixels] = {
      Outputs<1, V>, Outputs<2, V>, Outputs<3, V>, Outputs<4, V>, Outputs<5, V>, Outputs<6, V>};
  int64_t done = 0, count = places.size();
  for (int64_t groups = DivideUp(count, kPixels); groups > 0; --groups) {
    const int64_t pixels = DivideUp(count - done, groups);
    kGroups[pixels - 1](from, to, places.data() + done);
    done += pixels;
  }
}

// Weights that exceed the first cache are taken by parts of a row.
void AllOutputs(const Reading& from, const Writing& to, const std::vector<Place>& places) {
  const int64_t lanes = Padded(to.channels);
  const auto run = lanes > kLanes ? GroupsOfOutputs<2> : GroupsOfOutputs<1>;
  if (from.rows * from.length <= kWeights) return run(from, to, places);
  const int64_t each = DivideUp(from.length, DivideUp(from.length, kWeights));
  Reading part = from;
  Writing writing = to;
  part.rows = 1;
  for (int64_t row = 0; row < from.rows; ++row) {
    for (int64_t first = 0; first < from.length;
         first += each, part.weights += part.length * lanes) {
      part.length = std::min(each, from.length - first);
      part.band = from.band + row * from.row_step + first;
      run(part, writing, places);
      writing.add = true;
    }
  }
}

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
  std::vector<float> packed(taps * (outs + kBlock), 0.0f);
  for (int64_t block = 0; block < outs; block += kBlock) {
    const int64_t left = std::min<int64_t>(kBlock, outs - block), lanes = Padded(left);
    for (int64_t tap = 0; tap < taps; ++tap)
      std::copy_n(w.typed_data() + tap * outs + block, left,
                  packed.data() + block * taps + tap * lanes);
  }
  const int64_t* strides = window.begin();
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
