// Convolutions of 3x3 kernels and stride 1 by minimal filtering, F(2x2, 3x3): 16 products in place
// of 36 for every two by two outputs, between sums and differences of neighbors (Lavin and Gray,
// CVPR 2016, arXiv 1509.09308, section 4.1).

#pragma once

#include <vector>

#include "outputs.h"
#include "parallel.h"

namespace kdjax {

constexpr int64_t kPoints = 16;     // products of a tile
constexpr int64_t kAlongside = 16;  // floats between points, lest all fall in one set of the cache
// Of fewer channels the sums and differences take too long, of fewer tiles those of the kernel.
constexpr int64_t kFewest = 32, kFewestTiles = 512;

// Outputs of all images in tiles of two by two, numbered in a row; those at an edge may be half
// outside.
struct Tiles {
  int64_t rows, columns, count;
  explicit Tiles(const Shape& outputs)
      : rows(DivideUp(outputs.height, 2)),
        columns(DivideUp(outputs.width, 2)),
        count(outputs.images * rows * columns) {}

  // The image of a tile, and the first row and column of its outputs.
  struct Corner {
    int64_t image, row, column;
  };
  Corner operator[](int64_t tile) const {
    const int64_t row = tile / columns;
    return {row / rows, row % rows * 2, tile % columns * 2};
  }

  // How many are taken together, of `channels` inputs: what stays in the second cache.
  int64_t Together(int64_t channels) const {
    const int64_t fit = std::clamp<int64_t>(kMostFloats / kPoints / channels / 6 * 6, 24, 48);
    return std::min(fit, DivideUp(count, 16));
  }
};

// Whether the outputs of a convolution are faster so: `window` has strides, then padding.
inline bool HasTiles(ffi::Span<const int64_t> kernel, ffi::Span<const int64_t> window,
                     const Shape& outputs) {
  const int64_t ins = kernel[2], outs = kernel[3];
  return kernel[0] == 3 && kernel[1] == 3 && window[0] == 1 && window[1] == 1 &&
         ins % kLanes == 0 && outs % kLanes == 0 && ins >= kFewest && outs >= kFewest &&
         Tiles(outputs).count >= kFewestTiles;
}

// The inputs `[4, 4, channels]` of a tile, `step` floats from row to row: as the operands of its
// products, `[channels]` for each of the points, `far` floats apart.
inline void InputPoints(const float* inputs, int64_t step, int64_t channels, float* points,
                        int64_t far) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    Vector rows[4][4];
    for (int j = 0; j < 4; ++j) {
      const float* column = inputs + j * channels + c;
      const Vector d0 = Load(column), d1 = Load(column + step), d2 = Load(column + 2 * step),
                   d3 = Load(column + 3 * step);
      rows[0][j] = d0 - d2;
      rows[1][j] = d1 + d2;
      rows[2][j] = d2 - d1;
      rows[3][j] = d1 - d3;
    }
    float* to = points + c;
    for (int i = 0; i < 4; ++i, to += 4 * far) {
      const Vector* r = rows[i];
      Store(to, r[0] - r[2]);
      Store(to + far, r[1] + r[2]);
      Store(to + 2 * far, r[2] - r[1]);
      Store(to + 3 * far, r[1] - r[3]);
    }
  }
}

// The points of `count` tiles from `first` on, `[16, count, channels]`, points `far` floats apart.
// `inputs` are the images of the outputs in `tiles`, after so many rows and columns of zeros.
void InputPointsOfTiles(const float* inputs, const Shape& from, const Tiles& tiles, int64_t first,
                        int64_t count, const int64_t* padding, float* points, int64_t far);

// The operands of a kernel `[3, 3, ins, outs]`, by blocks of filters (of 16, or 8 where no more are
// left): `[16, ins, lanes]` each. `turned`: of `[3, 3, outs, ins]`, whose taps are taken backwards.
std::vector<float> KernelPoints(ffi::ThreadPool& pool, const float* kernel, int64_t ins,
                                int64_t outs, bool turned);

// A convolution by tiles.
class TiledConvolution {
 public:
  // `kernel`: of `KernelPoints`; `padding`: rows and columns of zeros before an image.
  TiledConvolution(const float* inputs, const Shape& from, const std::vector<float>& kernel,
                   const Shape& to, const int64_t* padding);

  // The outputs of `count` tiles from `first` on, at most `together`: those of pixel n, counted
  // through all images, are written to `out` + (n - start) * channels.
  void Some(int64_t first, int64_t count, float* out, int64_t start) const;

  // All outputs.
  void operator()(ffi::ThreadPool& pool, float* out) const;

  const Tiles tiles;
  const int64_t together;

 private:
  void Write(const float* products, int64_t lanes, int64_t first, int64_t count, float* out,
             int64_t start) const;

  const float* inputs_;
  const Shape from_, to_;
  const std::vector<float>& kernel_;
  const int64_t padding_[2];
  const int64_t far_, far_products_;
  std::vector<Place> places_;
};

}  // namespace kdjax
