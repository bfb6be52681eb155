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

std::vector<float> KernelPoints(ffi::ThreadPool& pool, const float* kernel, int64_t ins,
                                int64_t outs, bool turned) {
  std::vector<float> points(kPoints * ins * outs);
  kdjax::Parallel(pool, ins, [&](int64_t i) {
    for (int64_t o = 0; o < outs; ++o) {
      float rows[4][3];
      for (int64_t b = 0; b < 3; ++b) {
        float g[3];
        for (int64_t a = 0; a < 3; ++a) {
          const int64_t tap = a * 3 + b;
          g[a] = turned ? kernel[((8 - tap) * outs + o) * ins + i]
                        : kernel[(tap * ins + i) * outs + o];
        }
        rows[0][b] = g[0];
        rows[1][b] = (g[0] + g[1] + g[2]) * 0.5f;
        rows[2][b] = (g[0] - g[1] + g[2]) * 0.5f;
        rows[3][b] = g[2];
      }
      const int64_t block = o / kBlock * kBlock, lanes = Padded(outs - block), far = ins * lanes;
      float* to = points.data() + block * kPoints * ins + i * lanes + o - block;
      for (int a = 0; a < 4; ++a, to += 4 * far) {
        const float* r = rows[a];
        to[0] = r[0];
        to[far] = (r[0] + r[1] + r[2]) * 0.5f;
        to[2 * far] = (r[0] - r[1] + r[2]) * 0.5f;
        to[3 * far] = r[2];
      }
    }
  });
  return points;
}

TiledConvolution::TiledConvolution(const float* inputs, const Shape& from,
                                   const std::vector<float>& kernel, const Shape& to,
                                   const int64_t* padding)
    : tiles(to),
      together(tiles.Together(from.channels)),
      inputs_(inputs),
      from_(from),
      to_(to),
      kernel_(kernel),
      padding_{padding[0], padding[1]},
      far_(together * from.channels + kAlongside),
      far_products_(together * kBlock + kAlongside) {
  for (int64_t tile = 0; tile < together; ++tile)
    places_.push_back({tile * from.channels, tile * kBlock});
}

void TiledConvolution::Some(int64_t first, int64_t count, float* out, int64_t start) const {
  thread_local std::vector<float> points, products;
  points.resize(std::max<size_t>(points.size(), kPoints * far_));
  products.resize(std::max<size_t>(products.size(), kPoints * far_products_));
  const int64_t ins = from_.channels;
  InputPointsOfTiles(inputs_, from_, tiles, first, count, padding_, points.data(), far_);
  for (int64_t block = 0; block < to_.channels; block += kBlock) {
    const int64_t lanes = std::min<int64_t>(kBlock, to_.channels - block);
    const float* weights = kernel_.data() + block * kPoints * ins;
    for (int64_t point = 0; point < kPoints; ++point)
      AllOutputs({points.data() + point * far_, 0, 1, ins, weights + point * ins * lanes},
                 {products.data() + point * far_products_, lanes, false},
                 Places(places_.data(), count));
    Write(products.data(), lanes, first, count, out + block, start);
  }
}

// A block of `lanes` channels.
void TiledConvolution::Write(const float* products, int64_t lanes, int64_t first, int64_t count,
                             float* out, int64_t start) const {
  const int64_t channels = to_.channels, step = to_.width * channels;
  for (int64_t tile = 0; tile < count; ++tile, products += kBlock) {
    const Tiles::Corner corner = tiles[first + tile];
    const bool below = corner.row + 1 < to_.height, beside = corner.column + 1 < to_.width;
    const int64_t pixel = (corner.image * to_.height + corner.row) * to_.width + corner.column;
    float* at = out + (pixel - start) * channels;
    for (int64_t lane = 0; lane < lanes; lane += kLanes) {
      Vector outputs[2][2];
      OutputsOfTile(products + lane, far_products_, outputs);
      Store(at + lane, outputs[0][0]);
      if (beside) Store(at + channels + lane, outputs[0][1]);
      if (below) Store(at + step + lane, outputs[1][0]);
      if (below && beside) Store(at + step + channels + lane, outputs[1][1]);
    }
  }
}

void TiledConvolution::operator()(ffi::ThreadPool& pool, float* out) const {
  kdjax::Parallel(pool, DivideUp(tiles.count, together), [&](int64_t task) {
    const int64_t first = task * together;
    Some(first, std::min(together, tiles.count - first), out, 0);
  });
}

}  // namespace kdjax
