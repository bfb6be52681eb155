// Convolutions of 3x3 kernels and stride 1 by minimal filtering, see winograd.h.

#include "winograd.h"

namespace kdjax {
namespace {

// Inputs `[4, 4, channels]` from a row and column of an image on, with zeros outside of it.
void CopyInputs(const float* image, const Shape& shape, int64_t row, int64_t column, float* to) {
  const int64_t channels = shape.channels;
  for (int64_t r = row; r < row + 4; ++r) {
    for (int64_t c = column; c < column + 4; ++c, to += channels) {
      if (r < 0 || r >= shape.height || c < 0 || c >= shape.width) {
        std::fill_n(to, channels, 0.0f);
      } else {
        std::copy_n(image + (r * shape.width + c) * channels, channels, to);
      }
    }
  }
}

// Outputs of a tile from its products, eight channels of them: `[2, 2]`.
inline void OutputsOfTile(const float* products, int64_t far, Vector outputs[2][2]) {
  Vector rows[2][4];
  for (int j = 0; j < 4; ++j) {
    const float* column = products + j * far;
    const Vector m0 = Load(column), m1 = Load(column + 4 * far), m2 = Load(column + 8 * far),
                 m3 = Load(column + 12 * far);
    rows[0][j] = m0 + m1 + m2;
    rows[1][j] = m1 - m2 - m3;
  }
  for (int i = 0; i < 2; ++i) {
    const Vector* r = rows[i];
    outputs[i][0] = r[0] + r[1] + r[2];
    outputs[i][1] = r[1] - r[2] - r[3];
  }
}

// A block of `lanes` channels of the outputs of `count` tiles from `first` on.
void WriteOutputs(const float* products, int64_t far, int64_t lanes, const Tiles& tiles,
                  int64_t first, int64_t count, float* out, const Shape& to) {
  for (int64_t tile = 0; tile < count; ++tile, products += kBlock) {
    const Tiles::Corner corner = tiles[first + tile];
    const bool below = corner.row + 1 < to.height, beside = corner.column + 1 < to.width;
    const int64_t step = to.width * to.channels;
    float* at = out + (corner.image * to.height + corner.row) * step + corner.column * to.channels;
    for (int64_t lane = 0; lane < lanes; lane += kLanes) {
      Vector outputs[2][2];
      OutputsOfTile(products + lane, far, outputs);
      Store(at + lane, outputs[0][0]);
      if (beside) Store(at + to.channels + lane, outputs[0][1]);
      if (below) Store(at + step + lane, outputs[1][0]);
      if (below && beside) Store(at + step + to.channels + lane, outputs[1][1]);
    }
  }
}

}  // namespace

void InputPointsOfTiles(const float* inputs, const Shape& from, const Tiles& tiles, int64_t first,
                        int64_t count, const int64_t* padding, float* points, int64_t far) {
  thread_local std::vector<float> copied;
  const int64_t channels = from.channels, step = from.width * channels;
  copied.resize(std::max<size_t>(copied.size(), 16 * channels));
  for (int64_t tile = 0; tile < count; ++tile, points += channels) {
    const Tiles::Corner corner = tiles[first + tile];
    const float* image = inputs + corner.image * from.height * step;
    const int64_t row = corner.row - padding[0], column = corner.column - padding[1];
    if (row >= 0 && column >= 0 && row + 4 <= from.height && column + 4 <= from.width) {
      InputPoints(image + row * step + column * channels, step, channels, points, far);
    } else {
      CopyInputs(image, from, row, column, copied.data());
      InputPoints(copied.data(), 4 * channels, channels, points, far);
    }
  }
}

void TiledConvolution(ffi::ThreadPool& pool, const float* inputs, const Shape& from,
                      const std::vector<float>& kernel, float* out, const Shape& to,
                      const int64_t* padding) {
  const Tiles tiles(to);
  const int64_t ins = from.channels, together = tiles.Together(ins);
  const int64_t far = together * ins + kAlongside, far_products = together * kBlock + kAlongside;
  std::vector<Place> places;
  for (int64_t tile = 0; tile < together; ++tile) places.push_back({tile * ins, tile * kBlock});
  kdjax::Parallel(pool, DivideUp(tiles.count, together), [&](int64_t task) {
    thread_local std::vector<float> points, products;
    points.resize(std::max<size_t>(points.size(), kPoints * far));
    products.resize(std::max<size_t>(products.size(), kPoints * far_products));
    const int64_t first = task * together, count = std::min(together, tiles.count - first);
    InputPointsOfTiles(inputs, from, tiles, first, count, padding, points.data(), far);
    for (int64_t block = 0; block < to.channels; block += kBlock) {
      const int64_t lanes = std::min<int64_t>(kBlock, to.channels - block);
      const float* weights = kernel.data() + block * kPoints * ins;
      for (int64_t point = 0; point < kPoints; ++point)
        AllOutputs({points.data() + point * far, 0, 1, ins, weights + point * ins * lanes},
                   {products.data() + point * far_products, lanes, false},
                   Places(places.data(), count));
      WriteOutputs(products.data(), far_products, lanes, tiles, first, count, out + block, to);
    }
  });
}

}  // namespace kdjax
