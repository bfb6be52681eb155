// Outputs of a convolution on a CPU's vector units.
//
// A few pixels times 16 channels stay in registers, and images are read from a band of rows that
// was copied with its padding, so that it stays in the cache and no tap needs a check. The taps of
// a row of the kernel and the channels under them are contiguous in the band: they are one loop.

#include "outputs.h"

namespace kdjax {
namespace {

constexpr int64_t kWeights = 288;  // times 16 channels: what stays in the first cache

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
void GroupsOfOutputs(const Reading& from, const Writing& to, const Places& all) {
  static constexpr decltype(&Outputs<1, V>) kGroups[] = {
      Outputs<1, V>, Outputs<2, V>, Outputs<3, V>, Outputs<4, V>,
      Outputs<5, V>, Outputs<6, V>, Outputs<7, V>, Outputs<8, V>};
  // As many sums as keep the units for them busy, and as there are registers.
  constexpr int64_t kMost = V == 1 ? 8 : kPixels;
  int64_t done = 0;
  for (int64_t groups = DivideUp(all.count, kMost); groups > 0; --groups) {
    const int64_t pixels = DivideUp(all.count - done, groups);
    for (const Ahead& ahead : all.ahead) ahead.Fetch(done, pixels);
    kGroups[pixels - 1](from, to, all.places + done);
    done += pixels;
  }
}

}  // namespace

// Weights that exceed the first cache are taken by parts of a row.
void AllOutputs(const Reading& from, const Writing& to, const Places& places) {
  const int64_t lanes = Padded(to.channels);
  const auto run = lanes > kLanes ? GroupsOfOutputs<2> : GroupsOfOutputs<1>;
  if (from.rows * from.length <= kWeights) return run(from, to, places);
  const int64_t each = DivideUp(from.length, DivideUp(from.length, kWeights));
  Reading part = from;
  Writing writing = to;
  Places left = places;
  part.rows = 1;
  for (int64_t row = 0; row < from.rows; ++row) {
    for (int64_t first = 0; first < from.length;
         first += each, part.weights += part.length * lanes) {
      part.length = std::min(each, from.length - first);
      part.band = from.band + row * from.row_step + first;
      run(part, writing, left);
      left = Places(places.places, places.count);
      writing.add = true;
    }
  }
}

std::vector<float> Packed(const float* kernel, int64_t taps, int64_t outs) {
  std::vector<float> packed(taps * (outs + kBlock), 0.0f);
  for (int64_t block = 0; block < outs; block += kBlock) {
    const int64_t left = std::min<int64_t>(kBlock, outs - block), lanes = Padded(left);
    for (int64_t tap = 0; tap < taps; ++tap)
      std::copy_n(kernel + tap * outs + block, left, packed.data() + block * taps + tap * lanes);
  }
  return packed;
}

}  // namespace kdjax
