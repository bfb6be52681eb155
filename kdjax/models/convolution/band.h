// What the maps of a convolution share: vectors, shapes, and bands of images with their padding.

#pragma once

#include <algorithm>
#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace kdjax {

namespace ffi = xla::ffi;

constexpr int kLanes = 8, kBlock = 16, kPixels = 6;
constexpr int64_t kBandFloats = 24 * 1024;  // of a band of the source: a part of the second cache
constexpr int64_t kMostFloats = 64 * 1024;   // of bands of several small images: half of it
constexpr int64_t kEnough = 64;              // pixels for which weights, or sums, are read once

typedef float Vector __attribute__((vector_size(32), may_alias));
typedef float Unaligned __attribute__((vector_size(32), aligned(4), may_alias));

inline Vector Load(const float* values) { return *reinterpret_cast<const Unaligned*>(values); }
inline void Store(float* values, Vector vector) { *reinterpret_cast<Unaligned*>(values) = vector; }

inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Channels of a block that are computed together: 16, or 8 where no more are left.
inline int64_t Padded(int64_t left) { return left > kLanes ? kBlock : kLanes; }

// Images of so many pixels, with bands of `floats`, that are taken together.
inline int64_t ImagesTogether(int64_t pixels, int64_t floats) {
  return std::max<int64_t>(1, std::min(kEnough / pixels, kMostFloats / floats));
}

struct Shape {
  int64_t images, height, width, channels;
  explicit Shape(ffi::Span<const int64_t> d)
      : images(d[0]), height(d[1]), width(d[2]), channels(d[3]) {}
};

// Source rows [first, first + count) of an image with zeros around it, columns from `left` on.
inline void CopyBand(const float* image, const Shape& shape, int64_t first, int64_t count,
                     int64_t left, int64_t width, float* band) {
  const int64_t channels = shape.channels;
  const int64_t begin = std::clamp<int64_t>(-left, 0, width);
  const int64_t end = std::clamp<int64_t>(shape.width - left, begin, width);
  for (int64_t row = 0; row < count; ++row, band += width * channels) {
    const int64_t source = first + row;
    if (source < 0 || source >= shape.height || begin == end) {
      std::fill_n(band, width * channels, 0.0f);
      continue;
    }
    const float* values = image + (source * shape.width + left + begin) * channels;
    std::fill_n(band, begin * channels, 0.0f);
    std::copy_n(values, (end - begin) * channels, band + begin * channels);
    std::fill_n(band + end * channels, (width - end) * channels, 0.0f);
  }
}

inline auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Attr<ffi::Span<const int64_t>>("window");
}

}  // namespace kdjax
