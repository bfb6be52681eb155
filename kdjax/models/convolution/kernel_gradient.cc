// The gradient of a convolution's kernel on a CPU's vector units, as an XLA custom call.
//
// A few values of the kernel times 16 channels stay in registers while the pixels of a band go by.
// Images are summed in a way that does not depend on the number of threads.

#include <vector>

#include "band.h"
#include "parallel.h"
#include "winograd.h"

namespace {

using namespace kdjax;

constexpr int64_t kSlots = 16;             // partial sums
constexpr int64_t kMostTiledInputs = 128;  // channels whose sums stay in the second cache

// Pixels of the source: `count` in a row, of `rows` rows, of `images` images, each by their step.
struct Pixels {
  int64_t images, image_step, rows, row_step, count, step;
};

// Adds to `sums` `[P, 16]` what all pixels give for `P` neighboring kernel values.
template <int P>
void Products(const float* source, const Pixels& pixels, const float* y, float* sums) {
  const int64_t count = pixels.count, step = pixels.step;
  Vector total[P][2] = {};
  for (int64_t image = 0; image < pixels.images; ++image) {
    const float* x = source + image * pixels.image_step;
    for (int64_t row = 0; row < pixels.rows; ++row, x += pixels.row_step) {
      for (int64_t pixel = 0; pixel < count; ++pixel, y += kBlock) {
        const Vector low = Load(y), high = Load(y + kLanes);
        for (int p = 0; p < P; ++p) {
          total[p][0] += x[pixel * step + p] * low;
          total[p][1] += x[pixel * step + p] * high;
        }
      }
    }
  }
  for (int p = 0; p < P; ++p)
    for (int v = 0; v < 2; ++v, sums += kLanes) Store(sums, Load(sums) + total[p][v]);
}

constexpr decltype(&Products<1>) kGroups[kPixels] = {
    Products<1>, Products<2>, Products<3>, Products<4>, Products<5>, Products<6>};

// Adds what all pixels give for `count` neighboring kernel values to `sums` `[count, 16]`.
void AllProducts(const float* source, const Pixels& pixels, const float* y, int64_t count,
                 float* sums) {
  int64_t done = 0;
  for (int64_t groups = DivideUp(count, kPixels); groups > 0; --groups) {
    const int64_t some = DivideUp(count - done, groups);
    kGroups[some - 1](source + done, pixels, y, sums + done * kBlock);
    done += some;
  }
}

// The gradients of a tile's outputs, at most 16 channels of them, as the operands of its products:
// `points` are `far` floats apart. `y` is the tile's first output.
void GradientPoints(const float* y, const Shape& to, const Tiles::Corner& corner, int64_t lanes,
                    float* points, int64_t far) {
  const bool below = corner.row + 1 < to.height, beside = corner.column + 1 < to.width;
  const int64_t step = to.width * to.channels;
  for (int64_t lane = 0; lane < kBlock; lane += kLanes, points += kLanes) {
    Vector rows[4][2] = {};
    if (lane < lanes) {
      for (int j = 0; j < 1 + beside; ++j) {
        const float* column = y + j * to.channels + lane;
        const Vector above = Load(column), under = below ? Load(column + step) : Vector{};
        rows[0][j] = above;
        rows[1][j] = above + under;
        rows[2][j] = above - under;
        rows[3][j] = -under;
      }
    }
    for (int i = 0; i < 4; ++i) {
      const Vector* r = rows[i];
      float* at = points + 4 * i * far;
      Store(at, r[0]);
      Store(at + far, r[0] + r[1]);
      Store(at + 2 * far, r[0] - r[1]);
      Store(at + 3 * far, -r[1]);
    }
  }
}

// Eight values of each of the nine taps, from the sums of products, which are `far` floats apart.
void TapsOfSums(const float* sums, int64_t far, Vector taps[3][3]) {
  Vector rows[3][4];
  for (int j = 0; j < 4; ++j) {
    const float* column = sums + j * far;
    const Vector s1 = Load(column + 4 * far) * 0.5f, s2 = Load(column + 8 * far) * 0.5f;
    rows[0][j] = Load(column) + (s1 + s2);
    rows[1][j] = s1 - s2;
    rows[2][j] = s1 + s2 + Load(column + 12 * far);
  }
  for (int a = 0; a < 3; ++a) {
    const Vector r1 = rows[a][1] * 0.5f, r2 = rows[a][2] * 0.5f;
    taps[a][0] = rows[a][0] + (r1 + r2);
    taps[a][1] = r1 - r2;
    taps[a][2] = r1 + r2 + rows[a][3];
  }
}

// The gradient by minimal filtering: sums over tiles, of each point's products.
void TiledKernelGradient(ffi::ThreadPool& pool, const float* x, const Shape& from, const float* y,
                         const Shape& to, const int64_t* padding, float* w) {
  constexpr int64_t kBlocks = 4;  // of 16 filters, for which the images' points are made once
  const Tiles tiles(to);
  const int64_t ins = from.channels, outs = to.channels, blocks = DivideUp(outs, kBlock);
  const int64_t groups = DivideUp(blocks, kBlocks);
  const int64_t slots = std::clamp<int64_t>(DivideUp(kSlots, groups), 1, tiles.count);
  const int64_t together = std::min(tiles.Together(ins), DivideUp(tiles.count, slots));
  const int64_t far = together * ins + kAlongside, far_y = together * kBlock + kAlongside;
  const int64_t values = kPoints * ins * kBlock;  // of a block of filters
  std::vector<float> partial(slots * blocks * values, 0.0f);
  kdjax::Parallel(pool, slots * groups, [&](int64_t task) {
    thread_local std::vector<float> points, gradient;
    points.resize(std::max<size_t>(points.size(), kPoints * far));
    gradient.resize(std::max<size_t>(gradient.size(), kPoints * far_y));
    const int64_t slot = task / groups, group = task % groups * kBlocks;
    const int64_t after = (slot + 1) * tiles.count / slots;
    for (int64_t first = slot * tiles.count / slots; first < after; first += together) {
      const int64_t count = std::min(together, after - first);
      InputPointsOfTiles(x, from, tiles, first, count, padding, points.data(), far);
      const Pixels all = {1, 0, 1, 0, count, ins};
      for (int64_t block = group; block < std::min(group + kBlocks, blocks); ++block) {
        const int64_t lanes = std::min<int64_t>(kBlock, outs - block * kBlock);
        for (int64_t tile = 0; tile < count; ++tile) {
          const Tiles::Corner corner = tiles[first + tile];
          const int64_t pixel =
              (corner.image * to.height + corner.row) * to.width + corner.column;
          GradientPoints(y + pixel * outs + block * kBlock, to, corner, lanes,
                         gradient.data() + tile * kBlock, far_y);
        }
        float* sums = partial.data() + (slot * blocks + block) * values;
        for (int64_t point = 0; point < kPoints; ++point)
          AllProducts(points.data() + point * far, all, gradient.data() + point * far_y, ins,
                      sums + point * ins * kBlock);
      }
    }
  });
  kdjax::Parallel(pool, ins, [&](int64_t in) {
    for (int64_t out = 0; out < outs; out += kLanes) {
      float sums[kPoints * kLanes] = {};
      for (int64_t slot = 0; slot < slots; ++slot) {
        const float* some = partial.data() + (slot * blocks + out / kBlock) * values +
                            in * kBlock + out % kBlock;
        for (int64_t point = 0; point < kPoints; ++point, some += ins * kBlock)
          Store(sums + point * kLanes, Load(sums + point * kLanes) + Load(some));
      }
      Vector taps[3][3];
      TapsOfSums(sums, kLanes, taps);
      for (int64_t a = 0; a < 3; ++a)
        for (int64_t b = 0; b < 3; ++b) Store(w + ((a * 3 + b) * ins + in) * outs + out, taps[a][b]);
    }
  });
}

ffi::Error KernelGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> y,
                          ffi::Result<ffi::Buffer<ffi::F32>> w, ffi::Span<const int64_t> window) {
  const Shape from(x.dimensions()), to(y.dimensions());
  const auto kernel = w->dimensions();
  const int64_t length = kernel[1] * kernel[2], outs = kernel[3], values = kernel[0] * length;
  const int64_t* strides = window.begin();
  if (HasTiles(kernel, window, to) && from.channels <= kMostTiledInputs) {
    TiledKernelGradient(pool, x.typed_data(), from, y.typed_data(), to, strides + 2,
                        w->typed_data());
    return ffi::Error::Success();
  }
  const int64_t width = (to.width - 1) * strides[1] + kernel[1], row_step = width * from.channels;
  // Small bands, since they are read once for every group of kernel values, but of enough pixels:
  // the sums are read and written once for each.
  const int64_t row_floats = row_step * strides[0];
  const int64_t rows_enough =
      std::min(DivideUp(kEnough, to.width), std::max<int64_t>(1, kMostFloats / row_floats));
  const int64_t band_rows =
      std::clamp<int64_t>(kBandFloats / 4 / row_floats, std::min(rows_enough, to.height), to.height);
  const int64_t most_rows = (band_rows - 1) * strides[0] + kernel[0];
  const int64_t together = band_rows < to.height
                               ? 1
                               : ImagesTogether(to.height * to.width, most_rows * row_step);
  const int64_t blocks = DivideUp(outs, kBlock);
  const int64_t slots = std::clamp<int64_t>(DivideUp(kSlots, blocks), 1, from.images);
  std::vector<float> partial(slots * blocks * values * kBlock, 0.0f);
  kdjax::Parallel(pool, slots * blocks, [&](int64_t task) {
    thread_local std::vector<float> band, gradient;
    const int64_t slot = task / blocks, block = task % blocks * kBlock;
    const int64_t left = std::min<int64_t>(kBlock, outs - block);
    float* sums = partial.data() + task * values * kBlock;
    const int64_t after = (slot + 1) * from.images / slots;
    for (int64_t image = slot * from.images / slots; image < after; image += together) {
      const int64_t images = std::min(together, after - image);
      for (int64_t first = 0; first < to.height; first += band_rows) {
        const int64_t rows = std::min(band_rows, to.height - first), pixels = rows * to.width;
        const int64_t source_rows = (rows - 1) * strides[0] + kernel[0];
        const int64_t band_size = source_rows * row_step;
        band.resize(std::max<size_t>(band.size(), images * band_size));
        gradient.resize(std::max<size_t>(gradient.size(), images * pixels * kBlock));
        float* copied = gradient.data();
        for (int64_t i = 0; i < images; ++i) {
          const float* image_x =
              x.typed_data() + (image + i) * from.height * from.width * from.channels;
          CopyBand(image_x, from, first * strides[0] - strides[2], source_rows, -strides[3], width,
                   band.data() + i * band_size);
          const float* image_y =
              y.typed_data() + ((image + i) * to.height + first) * to.width * outs + block;
          for (int64_t pixel = 0; pixel < pixels; ++pixel, copied += kBlock) {
            std::copy_n(image_y + pixel * outs, left, copied);
            std::fill_n(copied + left, kBlock - left, 0.0f);
          }
        }
        const Pixels all = {images,   band_size, rows, strides[0] * row_step,
                            to.width, strides[1] * from.channels};
        for (int64_t a = 0; a < kernel[0]; ++a)
          AllProducts(band.data() + a * row_step, all, gradient.data(), length,
                      sums + a * length * kBlock);
      }
    }
  });
  for (int64_t value = 0; value < values; ++value) {
    for (int64_t o = 0; o < outs; ++o) {
      float total = 0.0f;
      for (int64_t slot = 0; slot < slots; ++slot)
        total += partial[((slot * blocks + o / kBlock) * values + value) * kBlock + o % kBlock];
      w->typed_data()[value * outs + o] = total;
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(kernel_gradient, KernelGradient, Binding());
