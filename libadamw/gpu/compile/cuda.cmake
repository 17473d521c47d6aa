# Owns the CUDA builds of the library, each with everything that the CPU library has: libadamw_cuda12 and libadamw_cuda13
# (ADAMW_CUDA), or one of the two under the name libadamw (ADAMW_BACKEND).
# The host side is plain C++ (driver.h); only the kernels take a CUDA compiler, which compile_kernels.py finds and runs.
set(gpu_sources ../platform_loader.cpp driver.cpp device_state.cpp apart.cpp backend.cpp pages/slabs.cpp pages/prefetch.cpp pages/pinned.cpp pages/managed.cpp)

# The compiler runs two processes by itself: one after the other is enough for a machine.
set_property(GLOBAL APPEND PROPERTY JOB_POOLS adamw_kernels=1)
get_filename_component(gpu_dir ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)
list(TRANSFORM gpu_sources PREPEND ${gpu_dir}/)

# adamw_cuda_objects(MAJOR ASKED): the target adamw_cudaMAJOR_objects; ASKED is the option that asks for it. Where it is
# empty, nothing and the reason if it cannot be built.
function(adamw_cuda_objects major asked)
  if(TARGET adamw_cuda${major}_objects)
    return()
  endif()
  set(name adamw_cuda${major})
  set(compile ${Python3_EXECUTABLE} ${gpu_dir}/compile/compile_kernels.py --major=${major} --processor=${CMAKE_SYSTEM_PROCESSOR})
  set(where)
  if(ADAMW_NVCC)
    list(APPEND where --nvcc=${ADAMW_NVCC})
  endif()
  if(ADAMW_CUDA_ARCHITECTURES)
    list(APPEND compile "--architectures=${ADAMW_CUDA_ARCHITECTURES}")
  endif()
  if(ADAMW_CUDA_WHEELS)
    list(APPEND where --wheels=${ADAMW_CUDA_WHEELS})
  endif()
  execute_process(COMMAND ${compile} ${where} --describe RESULT_VARIABLE failed OUTPUT_VARIABLE found ERROR_VARIABLE reason
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  string(REGEX REPLACE "^error: " "" reason "${reason}")
  if(NOT failed)
    # Said here: cmake would report a missing file only at the very end.
    foreach(file ${gpu_sources} ${gpu_dir}/kernels/kernels.cu)
      if(NOT EXISTS ${file})
        set(failed 1)
        set(reason "There is no ${file}")
      endif()
    endforeach()
  endif()
  if(failed AND asked)
    message(FATAL_ERROR "${asked} asks for CUDA ${major}. ${reason}")
  elseif(failed)
    message(STATUS "libadamw for CUDA ${major}: left out. ${reason}")
    return()
  endif()
  list(GET found 0 cuda_version)
  list(GET found 1 architectures)
  list(GET found 2 compiler)
  message(STATUS "libadamw for CUDA ${major}: CUDA ${cuda_version}, ${architectures}, ${compiler}")

  # The build gets what configuring has found: its environment may be another.
  set(work ${CMAKE_CURRENT_BINARY_DIR}/cuda${major})
  set(fatbin ${work}/kernels.fatbin)
  file(MAKE_DIRECTORY ${work})
  add_custom_command(
    OUTPUT ${fatbin}
    COMMAND ${compile} ${compiler} --cache=${ADAMW_CUDA_CACHE} --output=${fatbin} --depfile=${fatbin}.d ${gpu_dir}/kernels/kernels.cu
    MAIN_DEPENDENCY ${gpu_dir}/kernels/kernels.cu
    DEPFILE ${fatbin}.d
    JOB_POOL adamw_kernels
    COMMENT "Compiling the kernels for CUDA ${major}"
    VERBATIM)
  configure_file(${gpu_dir}/compile/fatbin.S.in ${work}/fatbin.S @ONLY)
  set_source_files_properties(${work}/fatbin.S PROPERTIES OBJECT_DEPENDS ${fatbin})

  adamw_object_library(${name}_objects ${backend_sources} ${gpu_sources} ${work}/fatbin.S)
  set_property(TARGET ${name}_objects PROPERTY ADAMW_CUDA_VERSION ${cuda_version})
  target_compile_definitions(${name}_objects PRIVATE ADAMW_CUDA_MAJOR=${major} ADAMW_CUDA_VERSION="${cuda_version}"
                                                     ADAMW_CUDA_ARCHITECTURES="${architectures}")
endfunction()

# A list of majors, each of which must then be built; auto: those that can be; OFF or nothing: none.
set(majors)
set(asked)
if(ADAMW_CUDA STREQUAL "auto")
  set(majors 12 13)
elseif(ADAMW_CUDA)
  set(majors ${ADAMW_CUDA})
  set(asked ADAMW_CUDA)
endif()
string(REGEX MATCH "[0-9]+" backend_major "${ADAMW_BACKEND}")
set(cuda_libraries)
if(majors OR backend_major)
  find_package(Python3 3.10 COMPONENTS Interpreter QUIET)
  if(Python3_Interpreter_FOUND)
    enable_language(ASM)
    if(backend_major)
      adamw_cuda_objects(${backend_major} ADAMW_BACKEND)
      set(backend_libraries ${CMAKE_DL_LIBS})
    endif()
    foreach(major IN LISTS majors)
      adamw_cuda_objects(${major} "${asked}")
      if(TARGET adamw_cuda${major}_objects)
        adamw_shared_library(adamw_cuda${major} adamw_objects adamw_cuda${major}_objects)
        target_link_libraries(adamw_cuda${major} PRIVATE ${CMAKE_DL_LIBS})
        list(APPEND cuda_libraries adamw_cuda${major})
      endif()
    endforeach()
  elseif(backend_major OR asked)
    message(FATAL_ERROR "libadamw for CUDA takes Python 3.10 or newer, which runs the compiler of the kernels")
  endif()
endif()
if(NOT cuda_libraries AND NOT backend_major)
  message(STATUS "libadamw: for the CPU only (ADAMW_CUDA is '${ADAMW_CUDA}')")
endif()
