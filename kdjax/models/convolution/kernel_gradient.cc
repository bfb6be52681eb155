// The gradient of a convolution's kernel on a CPU's vector units, as an XLA custom call.
//
// A few values of the kernel times 16 channels stay in registers while the pixels of a band go by.
// Images are summed in a way that does not depend on the number of threads.

#include <vector>

#include "band.h"
#include "parallel.h"

namespace {

using namespace kdjax;

constexpr int64_t kSlots = 16;  // partial sums

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

ffi::Error KernelGradient(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> y,
                          ffi::Result<ffi::Buffer<ffi::F32>> w, ffi::Span<const int64_t> window) {
  const Shape from(x.dimensions()), to(y.dimensions());
  const auto kernel = w->dimensions();
  const int64_t length = kernel[1] * kernel[2], outs = kernel[3], values = kernel[0] * length;
  const int64_t* strides = window.begin();
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
  static constexpr decltype(&Products<1>) kGroups[kPixels] = {
      Products<1>, Products<2>, Products<3>, Products<4>, Products<5>, Products<6>};
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
        for (int64_t a = 0; a < kernel[0]; ++a) {
          int64_t groups = DivideUp(length, kPixels);
          for (int64_t done = 0; groups > 0; --groups) {
            const int64_t some = DivideUp(length - done, groups);
            kGroups[some - 1](band.data() + a * row_step + done, all, gradient.data(),
                              sums + (a * length + done) * kBlock);
            done += some;
          }
        }
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
