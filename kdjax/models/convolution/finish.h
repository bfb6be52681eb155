// What follows a convolution in evaluation, while its sums are in the cache: a factor and a summand
// (BatchNorm), another feature map (a residual sum), ReLU.
//
// The channels of the output may be more than the filters of the convolution; the others are zero
// before the summands.

#pragma once

#include <vector>

#include "outputs.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace kdjax {

typedef int32_t Indices __attribute__((vector_size(32), may_alias));

// `values` at eight places of the eight that begin there.
inline Vector Picked(const float* values, const Indices& places) {
#ifdef __AVX2__
  return (Vector)_mm256_permutevar8x32_ps(_mm256_loadu_ps(values), (__m256i)places);
#else
  Vector picked;
  for (int lane = 0; lane < kLanes; ++lane) picked[lane] = values[places[lane]];
  return picked;
#endif
}

// The feature map that is added: every `step`-th of its pixels, its channels from `first` on.
struct Summand {
  const float* values;  // null: none
  int64_t height, width, channels, step, first;
};

class Finish {
 public:
  // `filters[c]` is the filter of channel c, ascending, or -1; `factors` are those of the filters;
  // `offsets` are of one pixel, `[1, 1, C]`, or of all, `[H', W', C]`.
  Finish(const int64_t* filters, const float* factors, const float* offsets, bool offsets_of_pixels,
         const Summand& summand, bool relu, float* out, const Shape& to)
      : offsets_(offsets_of_pixels ? offsets : nullptr),
        summand_(summand),
        relu_(relu),
        out_(out),
        to_(to),
        blocks_(DivideUp(to.channels, kLanes)) {
    for (size_t block = 0; block < blocks_.size(); ++block) {
      Block& one = blocks_[block];
      one = {-1, Indices{}, Indices{}, Vector{}, Vector{}};
      for (int64_t lane = 0; lane < Lanes(block); ++lane) {
        const int64_t channel = block * kLanes + lane, filter = filters[channel];
        one.offset[lane] = offsets[channel];
        moves_ = moves_ || filter != channel;
        if (filter < 0) continue;
        if (one.start < 0) one.start = filter;
        one.places[lane] = filter - one.start;
        one.kept[lane] = -1;
        one.factor[lane] = factors[filter];
      }
      one.start = std::max<int64_t>(one.start, 0);
    }
  }

  // What the rows from `row` on of an image will read and write.
  void Need(int64_t image, int64_t row, Ahead* ahead) const {
    ahead[0] = {out_ + (image * to_.height + row) * to_.width * to_.channels, to_.channels, true};
    if (summand_.values)
      ahead[1] = {Added(image, row), DivideUp(summand_.step * summand_.width, to_.width) *
                                         summand_.channels};
  }

  // The outputs of rows from `row` on of an image. `sums` `[pixels, stride]` has eight numbers more.
  void operator()(const float* sums, int64_t stride, int64_t image, int64_t row,
                  int64_t rows) const {
    const auto run = moves_ ? (relu_ ? &Finish::Rows<true, true> : &Finish::Rows<true, false>)
                            : (relu_ ? &Finish::Rows<false, true> : &Finish::Rows<false, false>);
    (this->*run)(sums, stride, image, row, rows);
  }

 private:
  struct Block {
    int64_t start;
    Indices places, kept;
    Vector factor, offset;
  };

  // One block of channels after the other, whose numbers stay in registers.
  //
  // Eight values are written where fewer channels are left: the others are of pixels and blocks
  // whose turn comes later, for the last block is the first. Only the last pixels need care.
  template <bool moves, bool relu>
  void Rows(const float* sums, int64_t stride, int64_t image, int64_t row, int64_t rows) const {
    const int64_t channels = to_.channels, width = to_.width;
    const int64_t start = (image * to_.height + row) * width * channels;
    for (int64_t block = blocks_.size() - 1; block >= 0; --block) {
      const Block one = blocks_[block];
      const int64_t first = block * kLanes, used = Lanes(block);
      const float* sum = sums + (moves ? one.start : first);
      const float* offset = offsets_ ? offsets_ + row * width * channels + first : nullptr;
      float* out = out_ + start + first;
      // Lanes that the summand has.
      const int64_t low = std::max<int64_t>(summand_.first - first, 0);
      const int64_t high = std::min(summand_.first + summand_.channels - first, used);
      const int64_t step = summand_.step * summand_.channels;
      int64_t left = rows * width;
      for (int64_t r = row; r < row + rows; ++r) {
        const float* added = summand_.values && low < high ? Added(image, r) : nullptr;
        if (added) added += first - summand_.first;
        for (int64_t column = 0; column < width; ++column, --left) {
          const int64_t lanes = left >= kLanes ? kLanes : used;
          Vector value = moves ? Kept(Picked(sum, one.places), one.kept) : Load(sum);
          value = value * one.factor + (offset ? Some(offset, 0, lanes) : one.offset);
          if (added)
            value += low == 0 && high == used ? Some(added, 0, lanes) : Some(added, low, high);
          if (relu) value = value < 0.0f ? Vector{} : value;  // NaN stays
          if (lanes == kLanes) {
            Store(out, value);
          } else {
            for (int64_t lane = 0; lane < lanes; ++lane) out[lane] = value[lane];
          }
          sum += stride;
          out += channels;
          if (offset) offset += channels;
          if (added) added += step;
        }
      }
    }
  }

  int64_t Lanes(int64_t block) const {
    return std::min<int64_t>(kLanes, to_.channels - block * kLanes);
  }

  static Vector Kept(Vector values, const Indices& kept) { return (Vector)((Indices)values & kept); }

  // Lanes from `low` on and below `high`; zeros as the others.
  static Vector Some(const float* values, int64_t low, int64_t high) {
    if (high - low == kLanes) return Load(values);
    Vector some = {};
    for (int64_t lane = low; lane < high; ++lane) some[lane] = values[lane];
    return some;
  }

  // The summand's row that is added to a row.
  const float* Added(int64_t image, int64_t row) const {
    const Summand& from = summand_;
    return from.values + (image * from.height + row * from.step) * from.width * from.channels;
  }

  const float* offsets_;
  Summand summand_;
  bool relu_, moves_ = false;
  float* out_;
  Shape to_;
  std::vector<Block> blocks_;
};

}  // namespace kdjax
