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

// Adds to `sums` `[P, 16]` what `rows` times `count` pixels give for `P` neighboring kernel values.
template <int P>
void Products(const float* x, int64_t row_step, int64_t step, const float* y, int64_t rows,
              int64_t count, float* sums) {
  Vector total[P][2] = {};
  for (int64_t row = 0; row < rows; ++row, x += row_step) {
    for (int64_t pixel = 0; pixel < count; ++pixel, y += kBlock) {
      const Vector low = Load(y), high = Load(y + kLanes);
      for (int p = 0; p < P; ++p) {
        total[p][0] += x[pixel * step + p] * low;
        total[p][1] += x[pixel * step + p] * high;
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
  // Small bands: those of the outputs' gradient are read once for every group of kernel values.
  const int64_t band_rows =
      std::clamp<int64_t>(kBandFloats / 4 / (row_step * strides[0]), 1, to.height);
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
    for (int64_t image = slot * from.images / slots; image < (slot + 1) * from.images / slots;
         ++image) {
      const float* image_x = x.typed_data() + image * from.height * from.width * from.channels;
      const float* image_y = y.typed_data() + image * to.height * to.width * outs + block;
      for (int64_t first = 0; first < to.height; first += band_rows) {
        const int64_t rows = std::min(band_rows, to.height - first), pixels = rows * to.width;
        const int64_t source_rows = (rows - 1) * strides[0] + kernel[0];
        band.resize(std::max<size_t>(band.size(), source_rows * row_step));
        CopyBand(image_x, from, first * strides[0] - strides[2], source_rows, -strides[3], width,
                 band.data());
        gradient.resize(std::max<size_t>(gradient.size(), pixels * kBlock));
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
          float* values = gradient.data() + pixel * kBlock;
          std::copy_n(image_y + (first * to.width + pixel) * outs, left, values);
          std::fill_n(values + left, kBlock - left, 0.0f);
        }
        for (int64_t a = 0; a < kernel[0]; ++a) {
          int64_t groups = DivideUp(length, kPixels);
          for (int64_t done = 0; groups > 0; --groups) {
            const int64_t some = DivideUp(length - done, groups);
            kGroups[some - 1](band.data() + a * row_step + done, strides[0] * row_step,
                              strides[1] * from.channels, gradient.data(), rows, to.width,
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
