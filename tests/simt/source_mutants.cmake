# Owns the mutants in the kernels' source: a copy of the headers in which each mistake is made where SIMT_MUTANT is its
# number (device.h). Sets mistaken_kernels, the copy of kernels.cpp. A line that is not there any more is an error.
set(mistaken ${CMAKE_CURRENT_BINARY_DIR}/mistaken)
file(GLOB_RECURSE headers RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/libadamw/*.h ${PROJECT_SOURCE_DIR}/libadamw/*.cu
     ${PROJECT_SOURCE_DIR}/include/*.h ${PROJECT_SOURCE_DIR}/tests/simt/*.h ${PROJECT_SOURCE_DIR}/tests/simt/kernels.cpp)
foreach(header ${headers})
  get_filename_component(folder ${header} DIRECTORY)
  file(MAKE_DIRECTORY ${mistaken}/${folder})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${header} ${mistaken}/${header} SYMBOLIC)
endforeach()
set(mistaken_kernels ${mistaken}/tests/simt/kernels.cpp)

# In `header`, `right` becomes `wrong` for the mutant of this name.
function(mistake mutant header right wrong)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${header})
  file(READ ${mistaken}/${header} text)
  string(FIND "${text}" "${right}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "the mutant ${mutant}: '${right}' is not in ${header}")
  endif()
  string(REPLACE "${right}" "(simt::mutated(simt::${mutant}) ? (${wrong}) : (${right}))" text "${text}")
  file(REMOVE ${mistaken}/${header}) # it may be the link
  file(WRITE ${mistaken}/${header} "${text}")
endfunction()

set(kernels libadamw/gpu/kernels)
mistake(padding_counts ${kernels}/block.h "Singles::index(lane, j) < n" "true")
mistake(floor_of_other libadamw/gpu/table.h "row.max_exp_avg_sq_floor" "row.exp_avg_sq_floor")
mistake(floor_of_other_stream ${kernels}/stream.h "s.max_exp_avg_sq.floor" "s.exp_avg_sq.floor")
mistake(clamp_forgotten libadamw/numerics/root_codes.h "max(position, V(scale.zeros() ? 257.5f : 256.5f))" "position")
mistake(zero_forgotten ${kernels}/scalar_ops.h "x != 0.0f ? a : 0u" "a")
mistake(nan_forgotten ${kernels}/stream.h "has_nan(weights)" "false")
mistake(nan_of_numbers ${kernels}/step.h "has_nan(p)" "false")
mistake(infinities_forgotten ${kernels}/row_iteration.h "factors.decay != 0.0f" "true")
set(weights libadamw/numerics/master_weights.h)
mistake(other_byte ${weights} "shift_right(word, 8)" "shift_right(word, 16)")
mistake(other_byte_quickly ${kernels}/params.h "0x4441u" "0x4442u")
mistake(rounded_down ${kernels}/params.h "split[j] + 0x8000u" "split[j] + 0x7FFFu")
mistake(rounded_down_rarely ${weights} "split + I(0x8000u)" "split + I(0x7FFFu)")
mistake(sums_unchecked ${weights} "not_equal(sum, sum)" "false")
mistake(any_nan ${weights} "I(0x7FC00000u)" "bits(weight)")
mistake(other_half ${kernels}/elements.h "low_word >> 16" "low_word & 0xFFFFu")
mistake(remainder_carry ${kernels}/stream.h "reach(count, stride, at.param_remainder, run.begin * rest_size, block_size * rest_size)"
        "count")
mistake(carry_forgotten ${kernels}/stream.h "reach(block, run, stride)" "run.count")
mistake(zeros_forgotten ${kernels}/step.h "RootCodes::encode<Zeros>(Amsgrad, map_moments(Amsgrad, one, fresh), scales, noise_of(words[j]))"
        "RootCodes::encode<false>(Amsgrad, map_moments(Amsgrad, one, fresh), scales, noise_of(words[j]))")
